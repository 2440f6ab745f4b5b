from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.checkpoints.tokenizer import has_chat_template, require_tokenizer
from wdct_dist.errors import CheckpointError


def write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (directory / name).write_text(content)


@pytest.mark.parametrize(
    "names", [["tokenizer.json"], ["tokenizer.model"], ["spiece.model"], ["vocab.json", "merges.txt"], ["tekken.json"]]
)
def test_each_usual_form_of_tokenizer_is_enough(tmp_path: Path, names: list[str]) -> None:
    write(tmp_path, dict.fromkeys(names, '{"a": 1}'))
    require_tokenizer(tmp_path, custom_code=False)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no tokenizer; allowed are tokenizer.json, tokenizer.model"),
        ({}, "Copy the tokenizer of the base model there"),
        ({"tokenizer_config.json": "{}"}, "no tokenizer"),
        ({"vocab.json": "{}"}, "no tokenizer; allowed are tokenizer.json, tokenizer.model, tokenizer.model.v3, spiece.model"),
        ({"vocab.json": "{}"}, "vocab.json with merges.txt"),
        ({"tokenizer.json": ""}, "tokenizer.json: cut short or no JSON object: 0 bytes"),
        ({"tokenizer.json": '{"model": {"vocab": {"a": 1, "b"'}, "tokenizer.json: cut short or no JSON object: 32 bytes"),
        ({"tokenizer.json": "<html>not found</html>"}, "begin with b'<html>not fo'"),
        ({"tokenizer.model": ""}, "tokenizer.model: cut short"),
        ({"tokenizer.json": "version https://git-lfs.github.com/spec/v1"}, "tokenizer.json: a Git LFS pointer, not the tokenizer"),
    ],
)
def test_a_tokenizer_that_is_missing_or_not_whole_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    write(tmp_path, files)
    with pytest.raises(CheckpointError) as raised:
        require_tokenizer(tmp_path, custom_code=False)
    assert message in str(raised.value)


def test_allowed_code_may_bring_a_tokenizer_in_a_form_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, {"own.vocab": "x"})
    require_tokenizer(tmp_path, custom_code=True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, False),
        ({"tokenizer_config.json": "{}"}, False),
        ({"tokenizer_config.json": '{"chat_template": null}'}, False),
        ({"tokenizer_config.json": '{"chat_template": "{{ x }}"}'}, True),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "default", "template": "x"}]}'}, True),
        ({"chat_template.json": '{"chat_template": "x"}', "tokenizer_config.json": "{}"}, True),
        ({"chat_template.jinja": "{{ x }}"}, True),
        ({"tokenizer_config.json": "[]"}, False),
    ],
)
def test_a_chat_template_is_found_wherever_it_is_kept(tmp_path: Path, files: dict[str, str], expected: bool) -> None:
    write(tmp_path, files)
    assert has_chat_template(tmp_path) is expected


def test_a_broken_tokenizer_configuration_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"tokenizer_config.json": "{"})
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: not valid JSON"):
        has_chat_template(tmp_path)
