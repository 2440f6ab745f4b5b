"""What an API is asked about a prompt, turn by turn, and what its replies come to."""

from __future__ import annotations

import math
from typing import Any

import pytest

from wdct_dist.config.schema import EndpointApi, SamplingConfig
from wdct_dist.engine.endpoint_replies import Place, Reply
from wdct_dist.engine.endpoint_steps import Asker, Form, Turn
from wdct_dist.errors import ConfigError, EngineError
from wdct_dist.prompts.types import ANSWER_SLOT, Message

SLOT = (Message("user", "First?\nA. Yes\nB. No"), Message("assistant", ANSWER_SLOT), Message("user", "Second?\nA. Yes\nB. No"))


def asker(api: EndpointApi = EndpointApi.chat, continues: bool = False, temperature: float = 0.0) -> Asker:
    return Asker(Form(api, continues), SamplingConfig(temperature=temperature, max_new_tokens=50), 5)


def reply(text: str, *, finish_reason: str = "stop", **probs: float) -> Reply:
    top = tuple((token, math.log(prob)) for token, prob in probs.items())
    places = (Place(text[:1], top),) if probs else ()
    return Reply(text, finish_reason, places, None, None, None, None)


def walk(steps: Any, *replies: Reply) -> tuple[list[Turn], Any]:
    """The turns asked for, and the response."""
    turns = [next(steps)]
    for number, one in enumerate(replies, 1):
        try:
            turns.append(steps.send(one))
        except StopIteration as end:
            assert number == len(replies)
            return turns, end.value
    raise AssertionError("more was asked than there are replies")


def test_a_prompt_is_asked_as_it_is_and_its_permutation_undone(make_prompt):
    prompt = make_prompt(permutation=(1, 0), messages=(Message("system", "Be brief."), Message("user", "Which?")), reply_tokens=9)
    turns, response = walk(asker().begin(prompt, 3), reply("A", A=0.7, B=0.2))
    assert turns[0].asked == {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]}
    assert (turns[0].max_tokens, turns[0].stop, turns[0].seed) == (9, (), None)
    assert response.option_logprobs == pytest.approx((math.log(0.2), math.log(0.7)))
    assert (response.trial, response.text, response.finish_reason) == (3, "A", "stop")
    assert response.label_mass == pytest.approx(0.9)
    assert (response.option_lower, response.rendered_digest) == (None, None)


def test_an_option_that_is_not_shown_is_bounded_by_option(make_prompt):
    _, response = walk(asker().begin(make_prompt(permutation=(1, 0)), 0), reply("A", A=0.9, I=0.01))
    assert response.option_logprobs is None
    assert response.option_lower == (None, pytest.approx(math.log(0.9)))
    assert response.option_upper == pytest.approx((math.log(0.04), math.log(0.94)))


def test_without_logprobs_there_is_the_text_alone(make_prompt):
    _, response = walk(asker().begin(make_prompt(), 0), reply("B, of course"))
    assert (response.option_logprobs, response.option_lower, response.label_mass) == (None, None, None)
    assert (response.text, response.error) == ("B, of course", None)


def test_completions_are_asked_in_plain_text(make_prompt):
    turns, _ = walk(asker(EndpointApi.completions).begin(make_prompt("Which?"), 0), reply(" A", A=0.7, B=0.2))
    assert turns[0].asked == {"prompt": "Which?\nAnswer:"}


def test_a_begun_reply_is_gone_on_with_where_the_server_can_and_refused_where_not(make_prompt):
    prompt = make_prompt(messages=(Message("user", "Which?"), Message("assistant", "Answer: ")))
    turns, _ = walk(asker(continues=True).begin(prompt, 0), reply(" A", A=0.7, B=0.2))
    assert turns[0].asked["messages"][-1] == {"role": "assistant", "content": "Answer:"}
    assert turns[0].asked["continue_final_message"] is True
    assert turns[0].asked["add_generation_prompt"] is False
    with pytest.raises(ConfigError, match=r"the variant direct begins the model's reply \('Answer:'\).*continue_reply: true"):
        next(asker().begin(prompt, 0))


REASON = {"mode": "reason", "answer_cue": "\nAnswer:", "stop": ("**Answer", "Answer:")}


def test_reasoning_is_cut_where_the_answer_begins_and_the_cue_is_a_further_turn(make_prompt):
    prompt = make_prompt("Why?", **REASON)
    thought = reply("Belief: <think>Answer: no</think> I hold it.\nAnswer: B", finish_reason="length")
    turns, response = walk(asker().begin(prompt, 0), thought, reply("A", A=0.7, B=0.2))
    assert (turns[0].max_tokens, turns[0].stop) == (50, ())
    assert turns[1].asked["messages"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Belief: <think>Answer: no</think> I hold it."},
        {"role": "user", "content": "Answer:"},
    ]
    assert response.reasoning == "Belief: <think>Answer: no</think> I hold it.\n"
    assert (response.text, response.finish_reason) == ("A", "stop")
    assert response.option_logprobs == pytest.approx((math.log(0.7), math.log(0.2)))


def test_where_the_server_can_the_cue_goes_on_with_the_reasoning(make_prompt):
    turns, response = walk(asker(continues=True).begin(make_prompt(**REASON), 0), reply("So.", finish_reason="length"), reply(" A"))
    assert turns[1].asked["messages"][-1] == {"role": "assistant", "content": "So.\nAnswer:"}
    assert response.finish_reason == "length"


def test_in_plain_text_reasoning_stops_at_the_server_and_the_cue_follows(make_prompt):
    prompt = make_prompt("Why?", plain_cue="Belief:", **REASON)
    turns, _ = walk(asker(EndpointApi.completions).begin(prompt, 0), reply(" I hold it.\n"), reply(" A"))
    assert turns[0].stop == ("**Answer", "Answer:")
    assert turns[1].asked == {"prompt": "Why?\nBelief: I hold it.\nAnswer:"}


def test_a_slot_is_filled_with_the_most_probable_label_and_both_turns_are_one_conversation(make_prompt):
    turns, response = walk(asker().begin(make_prompt(messages=SLOT), 0), reply("A", B=0.6, A=0.3), reply("A", A=0.7, B=0.2))
    assert [message["content"] for message in turns[0].asked["messages"]] == [SLOT[0].content]
    assert [message["content"] for message in turns[1].asked["messages"]] == [SLOT[0].content, "B", SLOT[2].content]
    assert response.said == "B"


@pytest.mark.parametrize(
    ("first", "said"),
    [(reply("A", A=0.9, I=0.01), "A"), (reply("Answer: B", I=0.5, The=0.3), "B"), (reply("No"), "B"), (reply("B."), "B")],
    ids=["surely", "bounded, by its text", "by the option's text", "without logprobs"],
)
def test_a_slot_is_filled_with_what_is_known_of_the_answer(make_prompt, first, said):
    _, response = walk(asker().begin(make_prompt(messages=SLOT), 0), first, reply("A"))
    assert response.said == said


def test_a_first_answer_that_cannot_be_read_leads_no_further(make_prompt):
    steps = asker().begin(make_prompt(messages=SLOT), 0)
    next(steps)
    with pytest.raises(EngineError, match="first question of the conversation cannot be read: 'Well now'"):
        steps.send(reply("Well now"))


def test_drawn_replies_have_a_seed_of_the_prompt_the_trial_and_the_turn(make_prompt):
    def seeds(prompt_id, trial):
        turns, _ = walk(asker(temperature=0.7).begin(make_prompt(prompt_id=prompt_id, **REASON), trial), reply("So."), reply("A"))
        return [turn.seed for turn in turns]

    assert seeds("p", 0) == seeds("p", 0)
    drawn = {seed for prompt_id in "pq" for trial in (0, 1) for seed in seeds(prompt_id, trial)}
    assert len(drawn) == 8
    assert max(drawn) < 2**31
