from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wdct_dist.checkpoints.sources import parse_sources, scripted_checkpoint, scripted_checkpoints
from wdct_dist.checkpoints.types import Source
from wdct_dist.errors import BadInput, CheckpointError, ConfigError

BuildCheckpoint = Callable[..., Path]


def make(base: Path, *names: str) -> None:
    for name in names:
        (base / name).mkdir(parents=True)


def ids(sources: list[Source]) -> list[str]:
    return [source.checkpoint_id for source in sources]


def test_a_directory_is_named_by_its_last_component_and_located_absolutely(tmp_path: Path) -> None:
    make(tmp_path, "outputs/sft")
    assert parse_sources(["outputs/sft"], tmp_path) == [Source("sft", str(tmp_path / "outputs/sft"), None)]


def test_a_gguf_file_is_named_without_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "Model.Q4_1.gguf").write_bytes(b"GGUF")
    assert parse_sources(["Model.Q4_1.gguf"], tmp_path) == [Source("Model.Q4_1", str(tmp_path / "Model.Q4_1.gguf"), None)]


def test_a_file_with_gguf_content_needs_no_suffix(tmp_path: Path) -> None:
    (tmp_path / "sha256-0123").write_bytes(b"GGUF\3\0\0\0")
    assert ids(parse_sources(["sha256-0123"], tmp_path)) == ["sha256-0123"]


def test_a_hub_id_is_its_own_name_with_and_without_a_revision(tmp_path: Path) -> None:
    assert parse_sources(["org/model", "org/model@v1.0", {"path": "org/model", "revision": "dev"}], tmp_path) == [
        Source("org/model", "org/model", None),
        Source("org/model@v1.0", "org/model", "v1.0"),
        Source("org/model@dev", "org/model", "dev"),
    ]


def test_an_existing_path_wins_over_a_hub_id_of_the_same_spelling(tmp_path: Path) -> None:
    make(tmp_path, "org/model", "org/model@v1")
    assert [source.location for source in parse_sources(["org/model", "org/model@v1"], tmp_path)] == [
        str(tmp_path / "org/model"),
        str(tmp_path / "org/model@v1"),
    ]


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "home/model", "home/runs/a", "home/runs/b")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    sources = parse_sources(["~/model", "~/runs/*"], Path("/"))
    assert [source.location for source in sources] == [str(tmp_path / "home" / name) for name in ("model", "runs/a", "runs/b")]


def test_a_mapping_gives_a_checkpoint_an_id_of_its_own(tmp_path: Path) -> None:
    make(tmp_path, "model")
    assert ids(parse_sources([{"path": "model", "id": "baseline"}], tmp_path)) == ["baseline"]


def test_a_file_of_an_installed_package_is_found_and_stays_named_by_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_models").mkdir()
    (tmp_path / "some_models" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "some_models" / "tiny.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert parse_sources(["package://some_models/tiny.gguf"], Path("/")) == [Source("tiny", "package://some_models/tiny.gguf", None)]


def test_a_glob_is_sorted_naturally_and_skips_files(tmp_path: Path) -> None:
    make(tmp_path, *(f"sft/checkpoint-{step}" for step in (10, 2, 100, 1)))
    (tmp_path / "sft/checkpoint-3.log").write_text("")
    expected = ["checkpoint-1", "checkpoint-2", "checkpoint-10", "checkpoint-100"]
    assert ids(parse_sources(["sft/checkpoint-*"], tmp_path)) == expected


def test_a_glob_sorts_outer_directories_naturally_too(tmp_path: Path) -> None:
    make(tmp_path, "run-10/checkpoint-1", "run-9/checkpoint-20", "run-9/checkpoint-3")
    expected = ["checkpoint-3", "checkpoint-20", "checkpoint-1"]
    assert ids(parse_sources(["run-*/checkpoint-*"], tmp_path)) == expected


def test_a_glob_finds_gguf_files_and_nested_directories(tmp_path: Path) -> None:
    make(tmp_path, "a/b/checkpoint-1")
    (tmp_path / "a" / "m.gguf").write_bytes(b"GGUF")
    assert ids(parse_sources(["**/checkpoint-*", "a/*.gguf"], tmp_path)) == ["checkpoint-1", "m"]


def test_a_directory_whose_name_has_glob_characters_is_itself(tmp_path: Path) -> None:
    make(tmp_path, "model[1]", "model1")
    assert [source.location for source in parse_sources(["model[1]"], tmp_path)] == [str(tmp_path / "model[1]")]


def test_the_same_name_in_two_directories_is_told_apart_by_the_shortest_suffix_for_all_of_a_glob(tmp_path: Path) -> None:
    make(tmp_path, "x/dpo/run/last", "x/sft/run/last", "x/sft/run/first")
    assert ids(parse_sources(["x/*/run/*"], tmp_path)) == ["dpo/run/last", "sft/run/first", "sft/run/last"]


def test_a_glob_goes_deeper_only_as_far_as_another_entry_makes_it(tmp_path: Path) -> None:
    make(tmp_path, "a/one", "a/two", "b/one")
    assert ids(parse_sources(["a/*", "b/one"], tmp_path)) == ["a/one", "a/two", "b/one"]
    assert ids(parse_sources(["a/*", {"path": "b/one", "id": "one"}], tmp_path)) == ["a/one", "a/two", "one"]


def test_an_adapters_base_is_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    make(tmp_path, "sft/adapter-1", "sft/adapter-2", "model")
    local, hub = Source("model", str(tmp_path / "model")), Source("org/m@v1", "org/m", "v1")
    assert parse_sources([{"path": "sft/*", "base": "model"}, {"path": "model", "base": "org/m@v1"}], tmp_path) == [
        Source("adapter-1", str(tmp_path / "sft/adapter-1"), None, local),
        Source("adapter-2", str(tmp_path / "sft/adapter-2"), None, local),
        Source("model", str(tmp_path / "model"), None, hub),
    ]


def test_the_same_weights_may_stand_under_two_given_ids(tmp_path: Path) -> None:
    make(tmp_path, "model")
    entries = [{"path": "model", "id": "first"}, {"path": "model", "id": "again"}]
    assert ids(parse_sources(entries, tmp_path)) == ["first", "again"]


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ([], ConfigError, "checkpoints: none are named; allowed are an existing directory"),
        ([""], ConfigError, "checkpoints: '' is not allowed"),
        (["two\nlines"], ConfigError, "allowed is a text on one line"),
        ([None], ConfigError, "None is neither a text nor a mapping"),
        ([7], ConfigError, "7 is neither a text nor a mapping"),
        ([["model"]], ConfigError, "['model'] is neither a text nor a mapping"),
        ([{"path": "model", "name": "x"}], ConfigError, "has the unknown key 'name'; allowed are path, id, revision, base, revisions"),
        ([{"id": "x"}], ConfigError, "{'id': 'x'} has no `path`"),
        ([{"path": 7}], ConfigError, "checkpoints: `path`: 7 is not allowed"),
        ([{"path": "model", "id": 7}], ConfigError, "`id`: 7 is not allowed; allowed is a text on one line (quote numbers in YAML)"),
        ([{"path": "model", "revision": "v1"}], ConfigError, "only hub ids have revisions"),
        ([{"path": "runs/*", "revision": "v1"}], ConfigError, "only hub ids have revisions"),
        ([{"path": "org/m@v1", "revision": "v2"}], ConfigError, "also has `revision: v2`; give one revision"),
        (["org/m@"], ConfigError, "has no revision that a hub knows after `@`"),
        (["https://host/model"], ConfigError, "`https://host/model` is not on this machine"),
        ([{"path": "s3://bucket/model", "revision": "v1"}], ConfigError, "only hub ids have revisions"),
        (["model", "model"], ConfigError, "comes twice (as `model` and as `model`); name each checkpoint once"),
        (["runs/*", "runs/a"], ConfigError, "comes twice (as `runs/*` and as `runs/a`)"),
        (["org/m", "org/m"], ConfigError, "org/m comes twice"),
        ([{"path": "model", "id": "x"}, {"path": "runs/a", "id": "x"}], ConfigError, "the id 'x' comes 2 times"),
        ([{"path": "model", "id": "org/m"}, "org/m"], ConfigError, "give each checkpoint an `id` of its own"),
        ([{"path": "runs/*", "id": "x"}], ConfigError, "`runs/*` matches 2 checkpoints, so they cannot all have the id 'x'"),
        ([{"path": "model", "base": "runs/*"}], ConfigError, "the base `runs/*` matches 2 checkpoints; name one"),
        ([{"path": "model", "base": "no-such"}], CheckpointError, "`no-such` does not exist"),
        (["runs/x*"], CheckpointError, "`runs/x*` matches no directory and no GGUF file under"),
        (["runs/*.log"], CheckpointError, "(1 other files match)"),
        (["../elsewhere"], CheckpointError, "`../elsewhere` does not exist (looked for "),
        (["./org/m"], CheckpointError, "`./org/m` does not exist"),
        (["/no/such/model"], CheckpointError, "`/no/such/model` does not exist (looked for /no/such/model); allowed are"),
        (["org/m.gguf"], CheckpointError, "`org/m.gguf` does not exist"),
        (["org/m/"], CheckpointError, "`org/m/` does not exist"),
        (["gpt2"], CheckpointError, "`gpt2` does not exist"),
        (["a/b/c"], CheckpointError, "`a/b/c` does not exist"),
        (["model/model.safetensors"], CheckpointError, "is a file, but no GGUF file; give the directory "),
        (["runs/x.log"], CheckpointError, "is a file, but no GGUF file; allowed are"),
        (["package://no_such_module_here/x.gguf"], CheckpointError, "no package `no_such_module_here` is installed"),
        ([{"path": "package://wdct_dist/errors.py", "revision": "v1"}], ConfigError, "only hub ids have revisions"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused_with_what_is_allowed(
    build_checkpoint: BuildCheckpoint, tmp_path: Path, entries: list[object], error: type[BadInput], message: str
) -> None:
    build_checkpoint()
    make(tmp_path, "runs/a", "runs/b")
    (tmp_path / "runs/x.log").write_text("")
    with pytest.raises(error) as raised:
        parse_sources(entries, tmp_path)
    assert message in str(raised.value)


def test_with_the_scripted_engine_any_name_is_a_checkpoint() -> None:
    checkpoints = scripted_checkpoints(["demo", "no/such/path", {"path": "x", "id": "named"}, "org/m", {"path": "org/m", "revision": "v2"}])
    assert [checkpoint.checkpoint_id for checkpoint in checkpoints] == ["demo", "no/such/path", "named", "org/m", "org/m@v2"]
    assert len({checkpoint.digest for checkpoint in checkpoints}) == 5
    assert {checkpoint.kind for checkpoint in checkpoints} == {"scripted"}


def test_a_scripted_checkpoint_is_the_same_everywhere_because_its_digest_is_of_its_name() -> None:
    # Written down once: a change would make every scripted run on disk unresumable.
    assert scripted_checkpoint("demo").digest == "643906b88929aabca214444fc1a077293ef76d4420845099192e9db072677a93"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "none are named"),
        (["a", "a"], "the id 'a' comes twice"),
        (["a", {"path": "b", "id": "a"}], "comes twice"),
        ([3], "3 is neither"),
    ],
)
def test_scripted_names_are_checked_like_others(entries: list[object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scripted_checkpoints(entries)
