from __future__ import annotations

import math
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from wdct_dist.config.schema import SamplingConfig, ScriptedBias, ScriptedConfig
from wdct_dist.engine.scripted import REASONING, ScriptedEngine
from wdct_dist.engine.slot import filled
from wdct_dist.errors import EngineError
from wdct_dist.prompts.types import ANSWER_SLOT, Message


@pytest.fixture
def start(make_checkpoint):
    """A scripted engine with some settings."""

    def started(checkpoint_id="small", digest="d" * 64, temperature=0.0, max_new_tokens=256, **settings):
        checkpoint = make_checkpoint(checkpoint_id, digest)
        sampling = SamplingConfig(temperature=temperature, max_new_tokens=max_new_tokens)
        return ScriptedEngine(checkpoint, ScriptedConfig(**settings), sampling)

    return started


@pytest.fixture
def prompts(make_prompt):
    """400 prompts of two, three and four options, each with its own text and order."""
    generator = random.Random(7)
    made = []
    for number in range(400):
        labels = ("A", "B", "C", "D")[: 2 + number % 3]
        permutation = tuple(generator.sample(range(len(labels)), len(labels)))
        made.append(make_prompt(f"Question {number}?", labels=labels, permutation=permutation, prompt_id=f"p{number}"))
    return made


def test_answers_do_not_depend_on_batches_or_order(start, prompts):
    together = start().answer(prompts, 0)
    assert [response.prompt_id for response in together] == [prompt.prompt_id for prompt in prompts]
    assert [start().answer([prompt], 0)[0] for prompt in prompts] == together
    shuffled = random.Random(1).sample(range(len(prompts)), len(prompts))
    engine = start()
    parts = [shuffled[begin : begin + 37] for begin in range(0, len(shuffled), 37)]
    by_place = {place: r for part in parts for place, r in zip(part, engine.answer([prompts[p] for p in part], 0), strict=True)}
    assert [by_place[place] for place in range(len(prompts))] == together


def test_answers_are_the_same_in_every_version_of_everything(start, make_prompt):
    response = start().answer([make_prompt("Which is it?", permutation=(1, 0))], 0)[0]
    assert response.option_logprobs == pytest.approx((-2.678557658394219, -0.30703476719417727), abs=1e-12)
    assert response.rendered_digest == "f5b729bc1af379c3dc30"


def test_option_logprobs_add_up_to_a_label_mass_between_a_half_and_one(start, prompts):
    for response in start().answer(prompts, 0):
        assert 0.5 < response.label_mass < 1
        assert math.fsum(map(math.exp, response.option_logprobs)) == pytest.approx(response.label_mass)


def test_the_text_is_the_label_of_the_most_probable_option(start, prompts):
    for prompt, response in zip(prompts, start().answer(prompts, 0), strict=True):
        option = max(range(len(prompt.labels)), key=response.option_logprobs.__getitem__)
        assert response.text == prompt.labels[prompt.permutation.index(option)]


def test_checkpoints_differ_and_names_do_not_matter(start, prompts):
    first = start("first", "1" * 64).answer(prompts, 0)
    assert start("renamed", "1" * 64).answer(prompts, 0) == first
    other = start("first", "2" * 64).answer(prompts, 0)
    assert not any(a.option_logprobs == b.option_logprobs for a, b in zip(first, other, strict=True))


def test_trials_differ_only_where_text_is_sampled(start, prompts):
    def logprobs(engine, trial):
        return [response.option_logprobs for response in engine.answer(prompts, trial)]

    assert logprobs(start(), 0) == logprobs(start(), 1)
    assert logprobs(start(temperature=0.7), 0) != logprobs(start(temperature=0.7), 1)
    assert start().answer(prompts, 3)[0].trial == 3


def test_without_a_bias_words_and_deeds_agree_by_chance(start, make_prompt):
    engine = start()
    num_items = 20_000

    def options(side):
        prompts = [make_prompt(f"{side} {number}", permutation=(number % 2, 1 - number % 2)) for number in range(num_items)]
        return [response.option_logprobs.index(max(response.option_logprobs)) for response in engine.answer(prompts, 0)]

    matches = sum(word == deed for word, deed in zip(options("word"), options("deed"), strict=True))
    assert abs(matches / num_items - 0.5) < 0.0142  # four standard errors


def test_logits_have_the_configured_spread(start, make_prompt):
    prompts = [make_prompt(f"{number}") for number in range(20_000)]
    odds = [a - b for a, b in (r.option_logprobs for r in start(spread=3.0).answer(prompts, 0))]
    mean = sum(odds) / len(odds)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in odds) / len(odds))
    assert mean == pytest.approx(0, abs=0.12)
    assert deviation == pytest.approx(3.0 * math.sqrt(2), rel=0.03)


@pytest.mark.parametrize(("bias", "place"), [(ScriptedBias.first, 0), (ScriptedBias.last, -1)])
def test_a_bias_follows_the_label_whatever_it_stands_for(start, prompts, bias, place):
    responses = start(bias=bias, strength=8.0).answer(prompts, 0)
    followed = [r.text == p.labels[place] for p, r in zip(prompts, responses, strict=True)]
    assert sum(followed) / len(followed) > 0.95
    assert len({r.option_logprobs.index(max(r.option_logprobs)) for r in responses}) > 1


def test_a_tie_gives_all_options_exactly_the_same(start, prompts):
    assert all(len(set(response.option_logprobs)) == 1 for response in start(bias=ScriptedBias.tie).answer(prompts, 0))


def test_reasoning_is_the_same_for_all_and_cut_at_the_limit(start, make_prompt):
    prompt = make_prompt(mode="reason", answer_cue="\nAnswer:")
    [whole] = start().answer([prompt], 0)
    assert (whole.reasoning, whole.finish_reason) == (REASONING, "stop")
    assert whole.num_output_tokens == len(REASONING.split()) + 1
    [cut] = start(max_new_tokens=3).answer([prompt], 0)
    assert (cut.reasoning, cut.finish_reason, cut.num_output_tokens) == ("Belief: what I", "length", 4)
    assert whole.num_prompt_tokens == cut.num_prompt_tokens == len(prompt.messages[0].content)


def test_an_answer_depends_on_the_reasoning_and_the_cue_before_it(start, make_prompt):
    answers = [
        start().answer([make_prompt()], 0),
        start().answer([make_prompt(mode="reason", answer_cue="\nAnswer:")], 0),
        start().answer([make_prompt(mode="reason", answer_cue="\nI say:")], 0),
        start(max_new_tokens=3).answer([make_prompt(mode="reason", answer_cue="\nAnswer:")], 0),
    ]
    assert len({response.option_logprobs for [response] in answers}) == 4
    assert len({response.rendered_digest for [response] in answers}) == 4
    assert answers[0][0].reasoning is None


def test_a_slot_gets_the_answer_to_the_messages_before_it(start, make_prompt):
    first = Message("user", "One?")
    engine = start()
    said = set()
    for number in range(20):
        second = Message("user", f"Two, number {number}?")
        system = Message("system", f"Be {number}.")
        prompt = make_prompt(messages=(system, first, Message("assistant", ANSWER_SLOT), second), permutation=(1, 0))
        [alone] = engine.answer([make_prompt(messages=(system, first))], 0)
        [response] = engine.answer([prompt], 0)
        assert response.said == alone.text
        [whole] = engine.answer([filled(prompt, 2, response.said)], 0)
        assert response.option_logprobs == whole.option_logprobs
        assert response.rendered_digest == whole.rendered_digest
        assert whole.said is None
        said.add(response.said)
    assert said == {"A", "B"}


def test_every_kind_of_prompt_is_answered_in_one_call_as_alone(start, make_prompt):
    conversation = (Message("user", "One?"), Message("assistant", ANSWER_SLOT), Message("user", "Two?"))
    prompts = [
        make_prompt(),
        make_prompt(mode="reason", answer_cue="\nAnswer:"),
        make_prompt(messages=conversation, labels=("A", "B", "C")),
        make_prompt(reply_tokens=10),
    ]
    for temperature in (0.0, 1.0):
        engine = start(temperature=temperature)
        assert engine.answer(prompts, 3) == [engine.answer([prompt], 3)[0] for prompt in prompts]


def test_replies_of_several_words_name_the_label_in_several_ways_and_are_cut(start, make_prompt):
    engine = start()
    texts = set()
    for number in range(40):
        asked = f"Number {number}?\nA. Say it.\nB. Keep it."
        [response] = engine.answer([make_prompt(asked, reply_tokens=10)], 0)
        label = "AB"[response.option_logprobs.index(max(response.option_logprobs))]
        texts.add(response.text.replace(label, "_"))
        assert response.finish_reason == "stop"
        assert response.num_output_tokens == len(response.text.split())
        [cut] = engine.answer([make_prompt(asked, reply_tokens=1)], 0)
        assert cut.text == response.text.split()[0]
        assert cut.finish_reason == ("length" if " " in response.text else "stop")
        assert cut.option_logprobs == response.option_logprobs
    assert texts == {"_", "_.", "The answer is _.", "_. Say it.", "_. Keep it."}


def test_prompts_can_be_answered_with_an_error(start, make_prompt):
    good, bad = start(error_on="poison").answer([make_prompt("a question"), make_prompt("a poisonous one", prompt_id="bad")], 2)
    assert good.error is None
    assert (bad.prompt_id, bad.trial, bad.option_logprobs) == ("bad", 2, None)
    assert "engine.scripted.error_on ('poison')" in bad.error


def test_a_checkpoint_can_fail_to_start(start):
    with pytest.raises(EngineError, match=r"does not start for broken-7b: .*engine\.scripted\.fail_start \('broken'\)"):
        start("broken-7b", fail_start="broken")
    assert start("whole-7b", fail_start="broken").answer([], 0) == []


def test_another_checkpoint_is_taken_as_a_fresh_engine_would(start, prompts, make_checkpoint):
    engine = start("one", "1" * 64)
    before = engine.answer(prompts, 0)
    swap = engine.swap(make_checkpoint("other", "2" * 64))
    assert swap.facts == engine.facts
    assert swap.facts.num_swaps == 1
    assert engine.answer(prompts, 0) == start("other", "2" * 64).answer(prompts, 0)
    engine.swap(make_checkpoint("one", "1" * 64))
    assert engine.answer(prompts, 0) == before


@pytest.mark.parametrize("action", ["start", "swap"])
def test_a_swap_can_break_the_engine(action, start, prompts, make_checkpoint):
    engine = start("one", **{f"fail_{action}": "broken"})
    with pytest.raises(EngineError, match=rf"does not {action} for broken-7b: .*engine\.scripted\.fail_{action}"):
        engine.swap(make_checkpoint("broken-7b"))
    with pytest.raises(EngineError, match="closed"):
        engine.answer(prompts, 0)
    with pytest.raises(EngineError, match="closed"):
        engine.swap(make_checkpoint("one"))


KILLED = """
from pathlib import Path
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import SamplingConfig, ScriptedConfig
from wdct_dist.engine.scripted import ScriptedEngine
from wdct_dist.prompts.types import Message, Prompt
checkpoint = Checkpoint("c", "d" * 64, Path(), "", "scripted", "", 0, "", None, False, "scripted")
prompts = [
    Prompt("p", "i", "Opinion", "word", "direct", "en", (0, 1), ("A", "B"), (Message("user", text),), "score")
    for text in ("harmless", "deadly")
]
engine = ScriptedEngine(checkpoint, ScriptedConfig(fail_on="deadly"), SamplingConfig())
engine.answer(prompts[:1], 0)
print("answered", flush=True)
engine.answer(prompts, 0)
print("survived", flush=True)
"""


def test_a_prompt_can_kill_the_process_of_the_engine():
    ended = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("answered\n", -signal.SIGKILL)


def test_calls_take_their_time_one_after_the_other(start, make_prompt):
    engine = start(delay_s=0.02)
    prompts = [make_prompt(str(number)) for number in range(10)]
    calls = [threading.Thread(target=engine.answer, args=(prompts, 0)) for _ in range(2)]
    begin = time.monotonic()
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert time.monotonic() - begin >= 0.4


def test_closing_ends_a_call_that_is_waiting(start, make_prompt):
    engine = start(delay_s=600.0)

    def close_once_it_waits():
        while not engine._busy.locked():
            time.sleep(0.01)
        engine.close()

    threading.Thread(target=close_once_it_waits, daemon=True).start()
    with pytest.raises(EngineError, match="closed"):
        engine.answer([make_prompt()], 0)


def test_the_facts_say_that_no_model_was_run(start):
    facts = start(bias=ScriptedBias.first).facts
    assert facts.kind == "scripted"
    assert facts.settings["bias"] == "first"
    assert facts.notes == ("pseudo-answers: no model was run",)
