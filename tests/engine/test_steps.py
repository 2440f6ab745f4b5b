"""What is asked of an engine, on tokenizers of every family; the test says what the model says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wdct_dist.config.schema import PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.render import Renderer, rendered_digest
from wdct_dist.engine.steps import Asker, Generated
from wdct_dist.errors import EngineError
from wdct_dist.prompts.types import ANSWER_SLOT, Message

FAMILIES = ("byte_level", "byte_fallback", "unigram")
"""Not wordpiece, which reads `Answer:` back as `Answer :` and has no stop strings."""


class Talk:
    """One tokenizer's prompts, asked of a model that says what it is told to."""

    def __init__(self, tokenizer, sampling=None, max_model_len=512):
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, PromptFormat.auto, PromptConfig())
        speller = LabelSpeller(tokenizer, self.renderer.encode)
        self.asker = Asker(tokenizer, self.renderer, speller, sampling or SamplingConfig(max_new_tokens=64), max_model_len)
        self.asked = []

    def ids(self, text):
        return self.renderer.encode([text])[0]

    def behind(self, prompt, text):
        """The tokens of `text` behind a prompt, as its tokenizer spells them."""
        before = self.renderer.text(prompt)
        ids = self.ids(before + text)
        assert ids[: len(self.ids(before))] == self.ids(before)
        return ids[len(self.ids(before)) :]

    def hold(self, prompt, *said, logprobs=None, trial=0):
        """The response where the model says `said`, one (token ids, finish reason, stop string) a generation that reads nothing."""
        said, outputs = list(said), None
        [steps] = self.asker.begin([prompt], trial)
        if isinstance(steps, Response):
            return steps
        while True:
            try:
                wanted = next(steps) if outputs is None else steps.send(outputs)
            except StopIteration as end:
                assert not said
                return end.value
            self.asked.extend(wanted)
            outputs = []
            for one in wanted:
                if one.read:
                    read = {token: (logprobs or {}).get(token, -1.5) for token in one.read}
                    outputs.append(Generated(one.read[:1], read, "length", None, 7))
                else:
                    ids, finish_reason, stop = said.pop(0)
                    outputs.append(Generated(tuple(ids), {}, finish_reason, stop, 5))


@pytest.fixture
def talk(make_tokenizer):
    def made(family, template=None, **settings):
        return Talk(make_tokenizer(family, template), **settings)

    return made


@pytest.fixture
def reasons(make_prompt):
    """A prompt that wants reasoning."""
    return make_prompt(mode="reason", answer_cue="\nAnswer:", plain_cue="Belief:", stop=("Answer:",))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("said", [" I hold it. Answer:", " I hold it.\nAnswer:", " I hold it   \n Answer:", " so-Answer:"])
def test_what_was_said_up_to_the_stop_string_is_sent_again_with_the_cue(talk, reasons, family, said):
    held = talk(family)
    generated = held.behind(reasons, said)
    response = held.hold(reasons, (generated, "stop", "Answer:"))
    text = held.renderer.text(reasons) + held.asker._decoded(held.ids("Belief:")[-1], generated).split("Answer")[0].rstrip()
    assert list(held.asked[1].token_ids) == held.ids(text + "\nAnswer:")
    assert response.rendered_digest == rendered_digest(held.asked[1].token_ids)
    assert response.finish_reason == "stop"
    assert (response.num_cached_tokens, response.num_prompt_tokens) == (5, len(held.ids(held.renderer.text(reasons))))
    assert response.num_output_tokens == len(generated) + 1


def test_tokens_that_the_tokenizer_would_not_have_chosen_are_sent_as_they_were_said(talk, reasons):
    held = talk("byte_level")
    canonical = held.behind(reasons, " A man")
    letters = held.tokenizer.convert_tokens_to_ids(["Ġ", "A", "Ġ", "m", "a", "n"])
    assert canonical != letters
    held.hold(reasons, ([*letters, *held.behind(reasons, "\nAnswer:")], "stop", "Answer:"))
    sent = list(held.asked[1].token_ids)
    assert sent == [*held.ids(held.renderer.text(reasons)), *letters, *held.ids("\nAnswer:")]


def test_blanks_at_the_seam_are_not_sent_though_the_model_spelled_it_otherwise(talk, reasons):
    held = talk("byte_fallback")
    letters = held.tokenizer.convert_tokens_to_ids(["▁", "A", "▁", "s", "o", "▁", "▁", "<0x0A>"])
    held.hold(reasons, (letters, "length", None))
    prompt, sent = held.ids(held.renderer.text(reasons)), list(held.asked[1].token_ids)
    assert sent[: len(prompt)] == prompt
    assert held.tokenizer.convert_ids_to_tokens(sent[len(prompt) :])[:4] == ["▁", "A", "▁", "s"]
    assert held.tokenizer.decode(sent, skip_special_tokens=True).endswith("Belief: A so\nAnswer:")


def test_half_a_character_at_the_limit_is_no_text(talk, reasons):
    held = talk("byte_level")
    generated = held.behind(reasons, "信念")
    response = held.hold(reasons, (generated[:-1], "length", None))
    assert (response.reasoning, response.finish_reason) == ("信", "length")
    assert list(held.asked[1].token_ids) == held.ids(held.renderer.text(reasons) + "信\nAnswer:")


def test_an_end_token_is_dropped(talk, reasons):
    held = talk("byte_fallback")
    end = held.tokenizer.convert_tokens_to_ids("</s>")
    response = held.hold(reasons, ([*held.behind(reasons, " so it is"), end], "stop", None))
    assert (response.reasoning, response.finish_reason) == (" so it is", "stop")
    assert list(held.asked[1].token_ids) == held.ids(held.renderer.text(reasons) + " so it is\nAnswer:")


def test_thinking_goes_on_over_a_stop_string_to_its_end_and_then_to_the_stop_string(talk, reasons):
    held = talk("byte_level")
    parts = [("<think> A? Answer:", "Answer:"), (" B!</think>", "</think>"), (" so Answer:", "Answer:")]
    said = [(held.behind(reasons, text), "stop", stop) for text, stop in parts]
    response = held.hold(reasons, *said)
    assert response.reasoning == "<think> A? Answer: B!</think> so "
    assert [one.stop for one in held.asked] == [("Answer:",), ("</think>",), ("Answer:",), ()]
    used = [len(ids) for ids, _, _ in said]
    assert [one.max_tokens for one in held.asked] == [64, 64 - used[0], 64 - used[0] - used[1], 1]
    assert list(held.asked[2].token_ids) == [*held.asked[0].token_ids, *said[0][0], *said[1][0]]


def test_thinking_that_ends_with_the_last_token_is_cut_and_not_closed_again(talk, reasons):
    held = talk("byte_level", sampling=SamplingConfig(max_new_tokens=12))
    response = held.hold(reasons, (held.behind(reasons, "<think>"), "stop", "Answer:"), (held.behind(reasons, "</thi"), "length", None))
    assert (response.reasoning, response.finish_reason) == ("<think></thi", "length")
    assert held.tokenizer.decode(held.asked[-1].token_ids).endswith("Belief:<think></thi\n</think>\n\nAnswer:")


def test_every_part_of_what_is_drawn_has_a_seed_of_its_own(talk, reasons):
    held = talk("byte_level", sampling=SamplingConfig(temperature=1.0, max_new_tokens=64))
    said = [(held.behind(reasons, "<think>Answer:"), "stop", "Answer:"), (held.behind(reasons, "</think>so"), "length", None)]
    for trial in (0, 1, 0):
        held.hold(reasons, *said, trial=trial)
    seeds = [one.seed for one in held.asked]
    assert len(set(seeds)) == 6
    assert seeds[:3] == seeds[6:]


def test_at_temperature_zero_nothing_is_drawn(talk, reasons):
    held = talk("byte_level")
    held.hold(reasons, (held.behind(reasons, " so"), "length", None))
    assert [one.seed for one in held.asked] == [None, None]


def test_a_prompt_without_room_for_its_reasoning_is_an_error(talk, reasons):
    assert "too long to reason" in talk("byte_level", max_model_len=40).hold(reasons).error


def test_reasoning_has_the_room_that_is_left(talk, reasons):
    for max_model_len in range(20, 120):
        held = talk("byte_level", max_model_len=max_model_len)
        response = held.hold(reasons, ([held.tokenizer.convert_tokens_to_ids("x")], "length", None))
        if response.error is None:
            break
    assert held.asked[0].max_tokens == 1
    assert len(held.asked[1].token_ids) < max_model_len


def test_a_conversation_is_filled_with_the_more_probable_label(talk, make_prompt):
    for template in (None, "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"):
        held = talk("byte_level", template)
        messages = (Message("user", "One?"), Message("assistant", ANSWER_SLOT), Message("user", "Two?"), Message("assistant", "I say"))
        prompt = make_prompt(messages=messages, permutation=(1, 0))
        preferred = held.tokenizer.convert_tokens_to_ids("ĠB")
        response = held.hold(prompt, logprobs={preferred: -0.1})
        assert response.said == "B"
        first, second = held.asked
        assert list(first.token_ids) == list(held.renderer.render([replace(prompt, messages=(messages[0], messages[3]))])[0].token_ids)
        whole = replace(prompt, messages=(messages[0], Message("assistant", "I say B"), *messages[2:]))
        assert list(second.token_ids) == list(held.renderer.render([whole])[0].token_ids)
        assert response.option_logprobs[0] > response.option_logprobs[1]  # B is option 0
        assert response.num_output_tokens == 2


def test_an_engine_that_ends_without_a_token_is_an_error_of_ours(talk, make_prompt):
    held = talk("byte_level")
    [steps] = held.asker.begin([make_prompt()], 0)
    next(steps)
    with pytest.raises(EngineError, match="ended a request without a token"):
        steps.send([Generated((), {}, "length", None, 0)])
