from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wdct_dist.checkpoints.describe import describe, describe_all
from wdct_dist.checkpoints.digest import digest
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.errors import CheckpointError

BuildCheckpoint = Callable[..., Path]


def described(directory: Path, *, allow_pickle: bool = False, trust_remote_code: bool = False) -> Checkpoint:
    return describe(Source("demo", str(directory), None), allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)


def test_a_whole_directory_becomes_a_checkpoint(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    checkpoint = described(directory)
    assert checkpoint == Checkpoint(
        checkpoint_id="demo",
        digest=digest(directory),
        directory=directory,
        source=str(directory),
        architecture="LlamaForCausalLM",
        signature=checkpoint.signature,
        size_bytes=(directory / "model.safetensors").stat().st_size,
        dtype="float32",
        max_position=128,
        has_chat_template=False,
        kind="directory",
        origin=Source("demo", str(directory)),
    )


def test_many_are_described_in_their_order_and_a_broken_one_says_why(build_checkpoint: BuildCheckpoint, tmp_path: Path) -> None:
    names = [f"step-{number}" for number in range(6)]
    sources = [Source(name, str(build_checkpoint(name)), None) for name in names]
    (tmp_path / "empty").mkdir()
    sources.insert(2, Source("broken", str(tmp_path / "empty"), None))
    found = describe_all([*sources, Source("gone", str(tmp_path / "gone"), None)], allow_pickle=False, trust_remote_code=False)
    broken, gone = found.pop(2), found.pop()
    assert [one.checkpoint_id for one in found if isinstance(one, Checkpoint)] == names
    assert str(broken).startswith(f"{tmp_path / 'empty'}"), "the id is added by who prints it"
    assert "there is no such directory" in str(gone)


def test_a_sharded_checkpoint_takes_turns_with_an_unsharded_one(build_checkpoint: BuildCheckpoint, sharded: Path) -> None:
    single, in_shards = described(build_checkpoint("single")), described(sharded)
    assert single.signature == in_shards.signature
    assert single.digest != in_shards.digest


def test_the_signature_does_not_ask_what_the_weights_are_but_what_shape_they_have(build_checkpoint: BuildCheckpoint) -> None:
    shape = {"x": np.zeros((2, 3), np.float32)}
    signatures = {
        name: described(build_checkpoint(name, tensors=tensors, **config)).signature
        for name, tensors, config in (
            ("first", shape, {}),
            ("other values", {"x": np.ones((2, 3), np.float32)}, {}),
            ("other shape", {"x": np.zeros((3, 2), np.float32)}, {}),
            ("other tensors", {"y": np.zeros((2, 3), np.float32)}, {}),
            ("other dtype", {"x": np.zeros((2, 3), np.float16)}, {}),
            ("other config", shape, {"rope_theta": 1e6}),
            ("other precision", shape, {"dtype": "bfloat16"}),
        )
    }
    assert signatures["first"] == signatures["other values"]
    assert len(set(signatures.values())) == 6


def test_the_precision_is_that_of_most_of_the_weights_where_none_is_stated(build_checkpoint: BuildCheckpoint) -> None:
    tensors = {"big": np.zeros((9, 9), np.float16), "small": np.zeros(3, np.float32)}
    assert described(build_checkpoint(tensors=tensors, dtype=None)).dtype == "float16"


def test_a_chat_template_is_noticed(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    assert described(directory).has_chat_template


def test_a_directory_in_a_package_is_described_where_it_is(
    build_checkpoint: BuildCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build_checkpoint("site/holds_a_model/tiny")
    (directory.parent / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    checkpoint = describe(Source("demo", "package://holds_a_model/tiny", None), allow_pickle=False, trust_remote_code=False)
    assert (checkpoint.kind, checkpoint.directory) == ("package", directory)


def write(name: str, content: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / name).write_text(content)

    return change


def remove(*names: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return change


def cut(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def own_code(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    auto_map = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    (directory / "config.json").write_text(json.dumps({**config, "architectures": ["OwnForCausalLM"], "auto_map": auto_map}))
    (directory / "modeling_own.py").write_text("raise RuntimeError('run')")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("config.json"), "config.json: there is no such file"),
        (write("config.json", "{"), "config.json: not valid JSON"),
        (write("config.json", "{}"), "`architectures` is None"),
        (remove("model.safetensors"), "no weights; allowed are *.safetensors files"),
        (cut, "model.safetensors: cut short: its header says"),
        (pickled, "set `engine.allow_pickle: true`"),
        (remove("tokenizer.json"), "no tokenizer; allowed are tokenizer.json"),
        (write("tokenizer.json", "{"), "tokenizer.json: cut short or no JSON object"),
        (write("tokenizer_config.json", "{"), "tokenizer_config.json: not valid JSON"),
        (write("generation_config.json", "{"), "generation_config.json: not valid JSON"),
        (own_code, "needs Python code of its own (modeling_own.OwnForCausalLM); allowed are models that transformers has itself"),
        (own_code, "set `engine.trust_remote_code: true`"),
        (write("adapter_config.json", "{}"), "holds whole weights and an adapter"),
    ],
)
def test_a_broken_checkpoint_is_refused_by_its_id_and_the_file_at_fault(
    build_checkpoint: BuildCheckpoint, change: Callable[[Path], None], message: str
) -> None:
    directory = build_checkpoint()
    change(directory)
    with pytest.raises(CheckpointError) as raised:
        described(directory)
    assert str(raised.value).startswith(f"checkpoint 'demo': {directory}")
    assert message in str(raised.value)


def test_a_directory_that_went_away_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint 'demo': .*/gone: there is no such directory or file; correct the path"):
        described(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_an_error_of_the_checkpoint(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    (directory / "model.safetensors").chmod(0)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read or written \(Permission denied\)"):
        described(directory)


def test_a_cache_that_cannot_be_made_is_an_error_of_the_checkpoint(tmp_path: Path, write_gguf: Callable[..., Path]) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "occupied").write_text("")
    source = Source("demo", str(write_gguf()), None)
    with pytest.raises(CheckpointError, match=r"checkpoint 'demo': .*occupied/gguf/v1 cannot be read or written"):
        describe(source, allow_pickle=False, trust_remote_code=False, cache=tmp_path / "occupied")


def test_code_of_a_checkpoint_is_taken_when_allowed_counts_in_the_signature_and_is_not_run(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    own_code(directory)
    before = described(directory, trust_remote_code=True)
    assert before.architecture == "OwnForCausalLM"
    (directory / "modeling_own.py").write_text("raise RuntimeError('other code')")
    after = described(directory, trust_remote_code=True)
    assert after.signature != before.signature
    assert after.digest != before.digest


def test_pickled_weights_are_taken_when_allowed(build_checkpoint: BuildCheckpoint) -> None:
    torch = pytest.importorskip("torch")
    directory = build_checkpoint()
    (directory / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(2, dtype=torch.bfloat16)}, directory / "pytorch_model.bin")
    checkpoint = described(directory, allow_pickle=True)
    assert checkpoint.size_bytes == (directory / "pytorch_model.bin").stat().st_size


def test_describing_a_known_directory_imports_no_heavy_library(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    describe(Source("demo", str(directory)), allow_pickle=False, trust_remote_code=False)  # what transformers says is kept
    code = (
        "import sys\nfrom wdct_dist.checkpoints.describe import describe\nfrom wdct_dist.checkpoints.fetch import fetch_model\n"
        "from wdct_dist.checkpoints.types import Source\n"
        "describe(Source('demo', sys.argv[1], None), allow_pickle=False, trust_remote_code=False)\n"
        "print(sorted({'torch', 'transformers', 'huggingface_hub', 'gguf', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def transformers_model() -> Any:
    """A llama of two layers with random weights, as transformers builds it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=64, max_position_embeddings=96
    )
    return transformers.LlamaForCausalLM(config).to(torch.bfloat16)


@pytest.mark.slow
def test_what_transformers_saves_is_described_in_one_file_and_in_shards(transformers_model: Any, tmp_path: Path) -> None:
    for name, options in (("single", {}), ("shards", {"max_shard_size": "8KB"})):
        transformers_model.save_pretrained(tmp_path / name, **options)
        (tmp_path / name / "tokenizer.json").write_text("{}")
    single, shards = described(tmp_path / "single"), described(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert (single.architecture, single.dtype, single.max_position) == ("LlamaForCausalLM", "bfloat16", 96)
    assert single.signature == shards.signature
