"""Values of YAML by the declared type of their field: text as written, numbers as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wdct_dist.config.align_rules import load_align_config
from wdct_dist.config.load import from_yaml, load_config, to_yaml
from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError

GUESSED = ("Yes", "no", "on", "OFF", "y", "True", "2024_11_05", "1e5", "12:30:45", "007", "0x1F", "0o17", "1_000", ".5", "+1", "2024-01-02")
"""Text for which YAML has another type in mind."""


def load(folder: Path, text: str, *overrides: str) -> Config:
    file = folder / "c.yaml"
    file.write_text(f"checkpoints: [demo]\n{text}", encoding="utf-8")
    return load_config(file, overrides)


@pytest.mark.parametrize("text", GUESSED)
def test_a_text_field_receives_the_text_as_written(tmp_path: Path, text: str) -> None:
    in_file = load(tmp_path, f"run_dir: {text}\nprompt: {{system: {text}, labels: [{text}, other]}}\ndata: {{extra_domains: [{text}]}}")
    on_command_line = load(tmp_path, "", f"run_dir={text}", f"prompt.system={text}", f"prompt.labels=[{text}, other]")
    for config in (in_file, on_command_line):
        assert (config.run_dir, config.prompt.system, config.prompt.labels) == (text, text, [text, "other"])
        assert from_yaml(to_yaml(config)) == config
    assert in_file.data.extra_domains == [text]


@pytest.mark.parametrize("text", GUESSED)
def test_checkpoints_are_named_as_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(f"checkpoints: [{text}, {{id: {text}, path: {text}, base: null}}, {{path: a/b, revisions: [{text}]}}]")
    config = load_config(tmp_path / "c.yaml")
    expected: list[Any] = [text, {"id": text, "path": text, "base": None}, {"path": "a/b", "revisions": [text]}]
    assert config.checkpoints == expected
    assert from_yaml(to_yaml(config)) == config


def test_a_range_of_revisions_has_numbers(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("checkpoints: [{path: a/b, revisions: {pattern: 'step{}', from: 1000, to: 3000, step: 1000}}]")
    (entry,) = load_config(tmp_path / "c.yaml").checkpoints
    assert entry["revisions"] == {"pattern": "step{}", "from": 1000, "to": 3000, "step": 1000}


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("a: b", "a: b"),
        ("Answer with A or B: now", "Answer with A or B: now"),
        ("a # b", "a # b"),
        ("@home", "@home"),
        ("100%", "100%"),
        ("- one", "- one"),
        ('"quoted: text"', "quoted: text"),
        ("'null'", "null"),
        ("null", None),
        ("~", None),
        ("", None),
        ("a=b", "a=b"),
    ],
)
def test_text_on_the_command_line_may_hold_any_sign(tmp_path: Path, raw: str, value: str | None) -> None:
    assert load(tmp_path, "", f"prompt.system={raw}").prompt.system == value


def test_languages_may_be_norwegian(tmp_path: Path) -> None:
    assert load(tmp_path, "data: {languages: [en, no]}").data.languages == ["en", "no"]
    assert load(tmp_path, "", "data.languages=[en,no]").data.languages == ["en", "no"]


def test_other_fields_have_the_types_of_yaml(tmp_path: Path) -> None:
    text = "data: {limit: 0x10}\ntrials: 3\nmetrics: {bootstrap_resamples: 1_000}\nreport: {html: off, min_label_mass: 1e-1}\n"
    config = load(tmp_path, f"{text}engine: {{kind: endpoint, endpoint: {{base_url: 'http://h/v1', extra: {{seed: 7, think: no}}}}}}")
    assert (config.data.limit, config.trials, config.metrics.bootstrap_resamples) == (16, 3, 1000)
    assert (config.report.html, config.report.min_label_mass) == (False, 0.1)
    assert config.engine.endpoint.extra == {"seed": 7, "think": False}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trials=[1,2]", "trials must be a whole number, got the list [1, 2]. (in the override `trials=[1,2]`)"),
        ("run_dir=[x]", "run_dir must be text, got the list [x]."),
        ("data.limit=[1]", "data.limit must be a whole number, got the list [1]."),
        ("prompt.system={a: b}", "prompt.system must be text, got the mapping {a: b}."),
        ("report.html={a: b}", "report.html must be true or false, got the mapping {a: b}."),
        ("prompt.labels=[A,[B]]", "prompt.labels[1] must be text, got the list [B]."),
        ("data.limit=1e3", "data.limit: '1e3' is not allowed; allowed is a whole number."),
        ("data.limit=1.0", "data.limit: '1.0' is not allowed; allowed is a whole number."),
        ("report.html=maybe", "report.html: 'maybe' is not allowed; allowed is true or false."),
        ("prompt.labels=A", "prompt.labels: one value came; a list is needed"),
    ],
)
def test_a_value_of_another_shape_is_shown_as_written(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, "", override)
    assert message in str(refused.value)


def test_an_experiment_reads_text_and_numbers_alike(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "run_dir: 2024_11_05\nmodels: [{id: 007, path: 1e5, settings: {sft: {learning_rate: 1e-6, epochs: 2}}}]\n"
        "evaluation: {prompt: {labels: [Yes, No]}}\n"
    )
    config = load_align_config(file)
    assert (config.run_dir, config.evaluation.prompt.labels) == ("2024_11_05", ["Yes", "No"])
    assert config.models == [{"id": "007", "path": "1e5", "settings": {"sft": {"learning_rate": 1e-6, "epochs": 2}}}]
    assert config.evaluation.checkpoints == [{"id": "007", "path": "1e5"}]
