from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from wdct_dist.checkpoints.digest import digest, file_hashes, tokenizer_digest, weights_digest
from wdct_dist.ids import file_sha256

BuildCheckpoint = Callable[..., Path]


def age(*files: Path) -> None:
    """As if last changed an hour ago, so that their hashes are remembered."""
    for file in files:
        state = file.stat()
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns - 3_600_000_000_000))


def test_a_copy_under_another_name_has_the_same_digest(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    directory = build_checkpoint()
    shutil.copytree(directory, tmp_path / "copy")
    assert digest(directory) == digest(tmp_path / "copy")
    assert len(digest(directory)) == 64


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json",
     "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tekken.json", "tokenizer.model", "modeling_own.py",
     "quantize_config.json"],
)  # fmt: skip
def test_every_file_that_decides_answers_changes_the_digest(build_checkpoint: BuildCheckpoint, name: str) -> None:
    directory = build_checkpoint()
    before = digest(directory)
    with (directory / name).open("a") as stream:
        stream.write(" ")
    assert digest(directory) != before


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "trainer_state.json", "training_args.bin", "README.md", "log.txt", "rng_state.pth", "pytorch_model.bin"]
)
def test_files_that_decide_nothing_leave_the_digest_as_it_is(build_checkpoint: BuildCheckpoint, name: str) -> None:
    directory = build_checkpoint()
    before = digest(directory)
    (directory / name).write_text("x")
    assert digest(directory) == before


def test_one_changed_weight_changes_the_digest(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    before = digest(directory)
    content = bytearray((directory / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (directory / "model.safetensors").write_bytes(content)
    assert digest(directory) != before


def test_swapping_the_contents_of_two_files_changes_the_digest(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    (directory / "vocab.json").write_text("a")
    (directory / "merges.txt").write_text("b")
    before = digest(directory)
    (directory / "vocab.json").write_text("b")
    (directory / "merges.txt").write_text("a")
    assert digest(directory) != before


def test_weights_and_tokenizer_have_digests_of_their_own(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    whole, weights, tokenizer = digest(directory), weights_digest(directory), tokenizer_digest(directory)
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    assert weights_digest(directory) == weights
    assert tokenizer_digest(directory) != tokenizer
    tokenizer = tokenizer_digest(directory)
    save_file({"x": np.ones(3, np.float32)}, directory / "model.safetensors")
    assert weights_digest(directory) != weights
    assert tokenizer_digest(directory) == tokenizer
    assert digest(directory) != whole


def test_a_hash_is_remembered_and_not_computed_again(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "big"
    file.write_text("content")
    age(file)
    sha256 = file_hashes([file])[file]
    store = cache / "digests.json"
    store.write_text(store.read_text().replace(sha256, "0" * 64))
    assert file_hashes([file])[file] == "0" * 64
    assert file_hashes([file], fresh=True)[file] == sha256


@pytest.mark.parametrize("change", ["size", "time", "inode"])
def test_a_changed_file_is_hashed_again(tmp_path: Path, change: str) -> None:
    file = tmp_path / "big"
    file.write_text("content")
    age(file)
    before = file.stat()
    file_hashes([file])
    if change == "inode":
        (tmp_path / "other").write_text("CONTENT")
        os.replace(tmp_path / "other", file)
    else:
        file.write_text("CONTENT" if change == "time" else "CONTENT and more")
    if change != "time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_hashes([file])[file] == file_sha256(file)


def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "fresh"
    file.write_text("content")
    soon = time.time() + 60  # by the clock it stays a moment ago, however long it takes from here
    os.utime(file, (soon, soon))
    file_hashes([file])
    assert not (cache / "digests.json").exists()


def test_links_to_the_same_content_are_hashed_once(tmp_path: Path, cache: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_text("content")
    age(blob)
    links = [tmp_path / "a", tmp_path / "b"]
    for link in links:
        link.symlink_to(blob)
    hashes = file_hashes(links)
    assert set(hashes) == set(links)
    assert list(json.loads((cache / "digests.json").read_text())["files"]) == [str(blob)]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"files": 3}', '{"files": {"x": 3}}', '{"files": {"x": [[1,2,3], 7]}}', "\0\0\0"])
def test_a_damaged_cache_is_ignored_and_replaced(tmp_path: Path, cache: Path, damage: str) -> None:
    file = tmp_path / "big"
    file.write_text("content")
    age(file)
    cache.mkdir()
    (cache / "digests.json").write_text(damage)
    assert file_hashes([file])[file] == file_sha256(file)
    assert str(file) in json.loads((cache / "digests.json").read_text())["files"]


def test_a_cache_that_cannot_be_written_costs_no_answer(tmp_path: Path) -> None:
    file = tmp_path / "big"
    file.write_text("content")
    age(file)
    (tmp_path / "occupied").write_text("a file where the cache directory would be")
    assert file_hashes([file], tmp_path / "occupied")[file] == file_sha256(file)


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path, cache: Path) -> None:
    groups = [[tmp_path / f"{group}-{number}" for number in range(8)] for group in range(4)]
    for group in groups:
        for file in group:
            file.write_text(file.name)
            age(file)
    code = (
        "import sys\nfrom pathlib import Path\nfrom wdct_dist.checkpoints.digest import file_hashes\n"
        "for name in sys.argv[1:]:\n    file_hashes([Path(name)])\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, *map(str, group)], cwd=Path(__file__).parents[2]) for group in groups]
    assert [writer.wait(240) for writer in writers] == [0] * 4
    files = json.loads((cache / "digests.json").read_text())["files"]
    assert {name: sha256 for name, (_, sha256) in files.items()} == {str(file): file_sha256(file) for group in groups for file in group}
    assert sorted(path.name for path in cache.iterdir()) == ["digests.json", "digests.lock"]
