from __future__ import annotations

import math
from collections import Counter

import pytest

from wdct_dist.config.schema import SamplingConfig
from wdct_dist.engine.slot import filled, first_turn, label_said, slot_place
from wdct_dist.prompts.types import ANSWER_SLOT, Message

SYSTEM, FIRST, SLOT, SECOND = Message("system", "s"), Message("user", "one?"), Message("assistant", ANSWER_SLOT), Message("user", "two?")
PREFIX = Message("assistant", "Answer: ")
GREEDY = SamplingConfig()


@pytest.fixture
def talk(make_prompt):
    def made(*messages, prompt_id="p", labels=("A", "B")):
        return make_prompt(messages=messages, prompt_id=prompt_id, labels=labels)

    return made


def test_a_prompt_without_a_slot_has_none(talk):
    assert slot_place(talk(FIRST)) is None
    assert slot_place(talk(SYSTEM, FIRST, SLOT, SECOND)) == 2


def test_the_first_turn_is_what_stands_before_the_slot(talk):
    assert first_turn(talk(SYSTEM, FIRST, SLOT, SECOND), 2).messages == (SYSTEM, FIRST)


def test_both_replies_are_begun_alike(talk):
    prompt = talk(FIRST, SLOT, SECOND, PREFIX)
    assert first_turn(prompt, 1).messages == (FIRST, PREFIX)
    assert filled(prompt, 1, "B").messages == (FIRST, Message("assistant", "Answer: B"), SECOND, PREFIX)


def test_without_a_beginning_the_label_stands_alone(talk):
    assert filled(talk(FIRST, SLOT, SECOND), 1, "(a)").messages == (FIRST, Message("assistant", "(a)"), SECOND)


def test_at_temperature_zero_the_most_probable_label_is_said(talk):
    prompt = talk(FIRST, SLOT, SECOND)
    assert label_said(prompt, 0, (-2.0, -1.0), GREEDY) == "B"
    assert {label_said(prompt, trial, (-1.0, -1.0 - 1e-12), GREEDY) for trial in range(20)} == {"A"}


def test_a_tie_prefers_no_place_and_is_decided_alike_each_time(talk):
    prompts = [talk(FIRST, SLOT, SECOND, prompt_id=str(number), labels=("A", "B", "C")) for number in range(600)]
    said = [label_said(prompt, 0, (-1.0, -3.0, -1.0), GREEDY) for prompt in prompts]
    assert said == [label_said(prompt, 0, (-1.0, -3.0, -1.0), GREEDY) for prompt in prompts]
    counts = Counter(said)
    assert counts.keys() == {"A", "C"}
    assert abs(counts["A"] - 300) < 50  # four standard errors
    assert [label_said(prompt, 1, (-1.0, -3.0, -1.0), GREEDY) for prompt in prompts] != said


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_above_zero_labels_are_drawn_at_that_temperature(talk, temperature):
    prompt, sampling = talk(FIRST, SLOT, SECOND), SamplingConfig(temperature=temperature)
    logprobs = (-5.0, -6.0)
    said = [label_said(prompt, trial, logprobs, sampling) for trial in range(4000)]
    share = 1 / (1 + math.exp(-1 / temperature))
    assert abs(said.count("A") / 4000 - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert said[:50] == [label_said(prompt, trial, logprobs, sampling) for trial in range(50)]
    other_seed = SamplingConfig(temperature=temperature, sampling_seed=1)
    assert said[:50] != [label_said(prompt, trial, logprobs, other_seed) for trial in range(50)]


def test_labels_that_cannot_be_are_never_said_and_do_not_fail(talk):
    prompt, sampling = talk(FIRST, SLOT, SECOND), SamplingConfig(temperature=0.01)
    assert {label_said(prompt, trial, (-1.0, -900.0), sampling) for trial in range(50)} == {"A"}
