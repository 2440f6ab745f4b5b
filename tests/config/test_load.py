"""Reading a configuration (what it refuses is in tests/cli/test_bad_input.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.config.load import FREE_ON_RESUME, as_plain, differences, from_yaml, load_config, to_yaml
from wdct_dist.config.rules import value_of
from wdct_dist.config.schema import Config, Dtype, EngineKind

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "night.yaml"
    path.write_text("checkpoints: [a, {id: x, path: b}]\nengine: {kind: scripted, extra: {swap_space: {nested: 1}}}\n")
    return path


def test_overrides_win_over_the_file_and_the_file_over_the_defaults(file: Path) -> None:
    config = load_config(file, ["data.limit=10", "engine.dtype=float32", "data.domains=[Opinion]"])
    assert (config.engine.kind, config.engine.dtype) == (EngineKind.scripted, Dtype.float32)
    assert (config.data.limit, config.data.domains, config.dispatch.shard_size) == (10, ["Opinion"], 256)


def test_the_run_directory_is_named_after_the_file(file: Path) -> None:
    assert load_config(file).run_dir == "runs/night"


def test_engine_extra_takes_any_key(file: Path) -> None:
    assert load_config(file).engine.extra == {"swap_space": {"nested": 1}}


def test_a_configuration_survives_being_written(file: Path) -> None:
    config = load_config(file, ["prompt.system=be brief"])
    assert from_yaml(to_yaml(config)) == config


def test_what_decides_answers_may_not_change_and_the_rest_may(file: Path) -> None:
    before = load_config(file)
    same = load_config(file, ["dispatch.num_engines=4", "checkpoints=[c]", "metrics.level=0.9", "engine.block_size=64"])
    other = load_config(file, ["trials=2", "engine.dtype=float32"])
    assert differences(before, same) == []
    assert [line.split(":")[0] for line in differences(before, other)] == ["engine.dtype", "trials"]


@pytest.mark.parametrize("key", FREE_ON_RESUME)
def test_every_key_that_is_free_on_resume_exists(key: str) -> None:
    value_of(Config(), key)


def test_a_plain_form_has_only_json_values() -> None:
    assert as_plain(Config())["engine"]["dtype"] == "auto"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_that_is_shipped_can_be_read(path: Path) -> None:
    assert load_config(path).checkpoints
