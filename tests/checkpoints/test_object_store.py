"""Prefixes of a real S3 server on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.digest import file_hashes
from wdct_dist.checkpoints.fetch import fetch_model
from wdct_dist.checkpoints.node_copy import on_this_node
from wdct_dist.checkpoints.sources import parse_sources
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.errors import CheckpointError, ConfigError

BuildCheckpoint = Callable[..., Path]


@pytest.fixture
def upload(s3_server: Any, s3_bucket: str) -> Callable[[Path, str], str]:
    """Puts the files of a directory under a prefix of the bucket, over what is there; returns the prefix's URI."""

    def put(directory: Path, prefix: str) -> str:
        uri: str = s3_server.uri(f"{s3_bucket}/{prefix}")
        store, root = fs.FileSystem.from_uri(uri)
        for file in directory.iterdir():
            with store.open_output_stream(f"{root}/{file.name}") as stream:
                stream.write(file.read_bytes())
        return uri

    return put


def described(uri: str, name: str = "stored") -> Checkpoint:
    return describe(Source(name, uri), allow_pickle=False, trust_remote_code=False)


def lease_of(checkpoint: Checkpoint, max_gib: float | None = None) -> Any:
    return on_this_node(checkpoint, max_gib=max_gib, allow_pickle=False)


def test_a_prefix_is_named_by_its_last_parts(tmp_path: Path) -> None:
    entries = ["s3://bucket/run/step-1?region=x", "s3://bucket/run/step-2/", "s3://other/run/step-2"]
    assert [(source.checkpoint_id, source.location) for source in parse_sources(entries, tmp_path)] == [
        ("step-1", "s3://bucket/run/step-1?region=x"),
        ("bucket/run/step-2", "s3://bucket/run/step-2/"),
        ("other/run/step-2", "s3://other/run/step-2"),
    ]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://KEY:hunter2@bucket/run", "carries a password, which would be written to the run directory"),
        ("s3://bucket/step-*", "is a glob or a GGUF file"),
        ("s3://bucket/model.gguf", "is a glob or a GGUF file"),
    ],
)
def test_a_uri_that_cannot_be_meant_is_refused_and_a_secret_in_it_is_not_repeated(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_sources([uri], tmp_path)
    assert message in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_it_is_described_as_the_same_files_in_a_directory_are_without_bringing_the_weights(
    build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str], cache: Path
) -> None:
    directory = build_checkpoint()
    stored, local = (
        described(upload(directory, "run/model")),
        describe(Source("local", str(directory)), allow_pickle=False, trust_remote_code=False),
    )
    for field in ("architecture", "signature", "size_bytes", "dtype", "max_position", "has_chat_template"):
        assert getattr(stored, field) == getattr(local, field)
    assert stored.kind == "object store"
    assert stored.digest != local.digest, "of ETags, not of content: it must not pass for the other"
    assert not list(cache.rglob("*.safetensors"))


def test_a_node_brings_it_once_and_whole(build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str]) -> None:
    directory = build_checkpoint()
    (directory / "optimizer.pt").write_bytes(b"not needed")
    checkpoint = described(upload(directory, "model"))
    with lease_of(checkpoint) as lease:
        assert lease.directory == checkpoint.directory
        brought = sorted(lease.directory.iterdir())
        assert [file.name for file in brought] == sorted({file.name for file in directory.iterdir()} - {"optimizer.pt"})
        assert list(file_hashes(brought).values()) == list(file_hashes([directory / file.name for file in brought]).values())
        assert sum(file.stat().st_size for file in brought) == checkpoint.files_bytes
    before = {file: file.stat().st_ino for file in brought}
    with lease_of(checkpoint) as lease:
        assert {file: file.stat().st_ino for file in lease.directory.iterdir()} == before


def test_fetch_brings_it(build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str]) -> None:
    directory, digest = fetch_model(upload(build_checkpoint(), "model"))
    assert (directory / "model.safetensors").is_file()
    assert digest == directory.name


def test_new_weights_under_the_old_name_are_another_checkpoint_and_never_pass_for_the_old(
    build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str]
) -> None:
    uri = upload(build_checkpoint("first"), "model")
    first = described(uri)
    assert described(uri).digest == first.digest
    other = build_checkpoint("second")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    upload(other, "model")
    assert described(uri).digest != first.digest
    with pytest.raises(CheckpointError, match=r"checkpoint 'stored': .*has changed since it was described"):
        lease_of(first)


def test_a_prefix_with_a_file_cut_short_is_refused_by_its_name(
    build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str]
) -> None:
    directory = build_checkpoint()
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    uri = upload(directory, "model")
    with pytest.raises(CheckpointError) as raised:
        described(uri)
    assert f"checkpoint 'stored': {uri.partition('?')[0]}/model.safetensors: cut short" in str(raised.value)


@pytest.mark.parametrize("bucket", ["no-such-bucket", None])
def test_a_bucket_or_prefix_that_is_not_there_is_said(s3_server: Any, s3_bucket: str, bucket: str | None) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint 'stored': s3://.*(cannot be read|nothing of a checkpoint is there)"):
        described(s3_server.uri(f"{bucket or s3_bucket}/model"))


def test_the_nodes_disk_has_a_limit_and_what_was_used_longest_ago_makes_room(
    build_checkpoint: BuildCheckpoint, upload: Callable[[Path, str], str]
) -> None:
    first, second = (described(upload(build_checkpoint(name, rope_theta=number), name), name) for number, name in enumerate("ab"))
    limit = 1.5 * first.files_bytes / 2**30
    with lease_of(first, limit), pytest.raises(CheckpointError, match=r"checkpoint 'b': .*do not fit"):
        lease_of(second, limit)
    with lease_of(second, limit) as lease:
        assert lease.directory.is_dir()
        assert not first.directory.exists()
