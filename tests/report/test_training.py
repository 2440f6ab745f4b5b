"""Steps of a training, told by names."""

from __future__ import annotations

from wdct_dist.report.training import Step, steps


def test_names_that_differ_in_their_last_number_are_steps_of_one_training() -> None:
    found = steps(["run1/checkpoint-500", "run1/checkpoint-1000", "org/model@step143000", "org/model@step1"])
    assert found == {
        "run1/checkpoint-500": Step("run1/checkpoint", 500),
        "run1/checkpoint-1000": Step("run1/checkpoint", 1000),
        "org/model@step143000": Step("org/model@step", 143000),
        "org/model@step1": Step("org/model@step", 1),
    }


def test_a_step_may_stand_before_what_else_a_revision_says() -> None:
    names = ["org/model@stage1-step1000-tokens5B", "org/model@stage1-step20000-tokens84B", "org/model@main"]
    series = "org/model@stage1-step-tokensB"
    assert steps(names) == {names[0]: Step(series, 1000), names[1]: Step(series, 20000)}


def test_a_number_that_stands_alone_is_not_a_step() -> None:
    assert steps(["model-7", "gpt-2024-07-18", "other", "run/step-1", "elsewhere/step-2"]) == {}


def test_the_same_step_of_two_trainings_belongs_to_each() -> None:
    found = steps(["a-1", "a-2", "b-1", "b-2"])
    assert {one.series for one in found.values()} == {"a", "b"}


def test_a_name_that_is_a_number_has_itself_alone_for_a_series() -> None:
    assert steps(["100", "200"]) == {"100": Step("", 100), "200": Step("", 200)}
