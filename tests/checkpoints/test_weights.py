from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from wdct_dist.checkpoints.weights import read_weights, weight_files
from wdct_dist.errors import CheckpointError

BuildCheckpoint = Callable[..., Path]
INDEX = "model.safetensors.index.json"
ONE = {"x": np.ones(1, np.float32)}


def names(files: tuple[Path, ...]) -> list[str]:
    return [file.name for file in files]


def test_a_single_file_gives_its_tensors_by_name_and_its_size(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    weights = read_weights(directory, allow_pickle=False)
    assert names(weights.files) == ["model.safetensors"]
    assert [tensor.name for tensor in weights.tensors] == ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"]
    assert weights.size_bytes == (directory / "model.safetensors").stat().st_size


def test_shards_give_the_same_tensors_as_one_file(build_checkpoint: BuildCheckpoint, sharded: Path) -> None:
    single = build_checkpoint("single")
    assert read_weights(sharded, allow_pickle=False).tensors == read_weights(single, allow_pickle=False).tensors


def test_shards_without_an_index_are_taken_when_all_are_there(sharded: Path) -> None:
    (sharded / INDEX).unlink()
    assert len(read_weights(sharded, allow_pickle=False).files) == 2


def test_training_state_and_other_files_are_no_weights(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt", "training_args.bin", "optimizer.bin"):
        (directory / name).write_bytes(b"x")
    assert names(weight_files(directory)) == ["model.safetensors"]


def test_pickled_weights_beside_safetensors_are_ignored_without_asking(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint()
    (directory / "pytorch_model.bin").write_bytes(b"never read")
    assert names(read_weights(directory, allow_pickle=False).files) == ["model.safetensors"]


def test_a_shard_that_the_index_does_not_name_is_ignored_as_engines_do(sharded: Path) -> None:
    save_file(ONE, sharded / "model-00001-of-00009.safetensors")
    assert len(read_weights(sharded, allow_pickle=False).files) == 2


def test_consolidated_weights_count_too_because_vllm_prefers_them(sharded: Path) -> None:
    save_file(ONE, sharded / "consolidated.safetensors")
    assert names(weight_files(sharded))[0] == "consolidated.safetensors"


def remove_weights(directory: Path) -> None:
    for file in directory.glob("model*"):
        file.unlink()


def only_pickled(directory: Path, name: str = "pytorch_model.bin") -> None:
    remove_weights(directory)
    (directory / name).write_bytes(b"pickle")


def with_file(name: str, content: str = "{}") -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)

    return change


def instead_of_weights(name: str) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        remove_weights(directory)
        with_file(name)(directory)

    return change


def as_adapter(directory: Path) -> None:
    remove_weights(directory)
    (directory / "adapter_config.json").write_text("{}")
    save_file(ONE, directory / "adapter_model.safetensors")


def repeated(directory: Path) -> None:
    save_file({"model.norm.weight": np.ones(8, np.float32)}, directory / "model.fp16.safetensors")


def empty(directory: Path) -> None:
    save_file({}, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_weights, "no weights; allowed are *.safetensors files (or model.safetensors.index.json and its shards)"),
        (instead_of_weights("m.gguf"), "or a GGUF file named by itself: give "),
        (instead_of_weights("global_step10/x.pt"), "this is a trainer's sharded state: gather it into safetensors first"),
        (instead_of_weights("state/shard/__0_0.distcp"), "this is a trainer's sharded state"),
        (instead_of_weights("checkpoint-5/config.json"), "checkpoint-5 looks like a checkpoint: give that directory"),
        (instead_of_weights("training_args.bin"), "no weights; allowed are"),
        (only_pickled, "its weights are pickled only (pytorch_model.bin), and loading a pickle can run code"),
        (only_pickled, "set `engine.allow_pickle: true`"),
        (lambda directory: only_pickled(directory, "model.pt"), "pickled only (model.pt)"),
        (lambda directory: only_pickled(directory, "consolidated.00.pth"), "pickled only (consolidated.00.pth)"),
        (as_adapter, "a LoRA adapter (adapter_config.json), but a whole model is needed here"),
        (as_adapter, "name the adapter as a checkpoint of its own: {path: ADAPTER, base: MODEL}"),
        (with_file("adapter_config.json"), "holds whole weights and an adapter"),
        (repeated, "tensor `model.norm.weight` is in model.fp16.safetensors and in model.safetensors"),
        (empty, "model.safetensors hold no tensors; save the model again"),
        (with_file(INDEX, '{"weight_map": {"x": "model-00001-of-00001.safetensors"}}'), "names 1 weight files, of which 1 are missing"),
        (with_file(INDEX, "{"), "not an index of weight files (JSON with `weight_map`"),
        (with_file(INDEX, "[]"), "not an index of weight files"),
        (with_file(INDEX, '{"weight_map": 3}'), "not an index of weight files"),
        (with_file(INDEX, '{"weight_map": {"x": "../other/model.safetensors"}}'), "which is not a file of its own directory"),
    ],
)
def test_weights_that_cannot_be_loaded_are_refused_with_what_to_do(
    build_checkpoint: BuildCheckpoint, change: Callable[[Path], None], message: str
) -> None:
    directory = build_checkpoint()
    change(directory)
    with pytest.raises(CheckpointError) as raised:
        read_weights(directory, allow_pickle=False)
    assert str(directory) in str(raised.value)
    assert message in str(raised.value)


def lose_shard(directory: Path) -> None:
    (directory / "model-00002-of-00002.safetensors").unlink()


def lose_shard_and_index(directory: Path) -> None:
    lose_shard(directory)
    (directory / INDEX).unlink()


def cut_shard(directory: Path) -> None:
    shard = directory / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])


def stale_single_file(directory: Path) -> None:
    save_file(ONE, directory / "model.safetensors")


def index_of_another_model(directory: Path) -> None:
    index = json.loads((directory / INDEX).read_text())
    index["weight_map"]["model.layers.0.mlp.weight"] = "model-00001-of-00002.safetensors"
    (directory / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lose_shard, "names 2 weight files, of which 1 are missing: model-00002-of-00002.safetensors; copy or download them too"),
        (lose_shard_and_index, "of 2 weight files 1 are missing: model-00002-of-00002.safetensors"),
        (cut_shard, "model-00002-of-00002.safetensors: cut short: its header says"),
        (stale_single_file, "holds both model.safetensors and model.safetensors.index.json, which does not name it"),
        (index_of_another_model, "says that tensor `model.layers.0.mlp.weight` is in model-00001-of-00002.safetensors, which does not"),
    ],
)
def test_shards_that_do_not_fit_together_are_refused(sharded: Path, change: Callable[[Path], None], message: str) -> None:
    change(sharded)
    with pytest.raises(CheckpointError) as raised:
        read_weights(sharded, allow_pickle=False)
    assert message in str(raised.value)


def test_allowed_pickled_weights_give_names_and_shapes_without_running_code(build_checkpoint: BuildCheckpoint) -> None:
    torch = pytest.importorskip("torch")
    directory = build_checkpoint()
    remove_weights(directory)
    torch.save({"b": torch.zeros(2, 3, dtype=torch.bfloat16), "a": torch.zeros(4)}, directory / "pytorch_model.bin")
    weights = read_weights(directory, allow_pickle=True)
    assert [(tensor.name, tensor.dtype, tensor.shape, tensor.num_bytes) for tensor in weights.tensors] == [
        ("a", "float32", (4,), 16),
        ("b", "bfloat16", (2, 3), 12),
    ]


def test_allowed_pickled_shards_are_those_that_their_index_names(build_checkpoint: BuildCheckpoint) -> None:
    torch = pytest.importorskip("torch")
    directory = build_checkpoint()
    remove_weights(directory)
    torch.save({"a": torch.zeros(4)}, directory / "pytorch_model-00001-of-00002.bin")
    index = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(CheckpointError, match=r"names 2 weight files, of which 1 are missing: pytorch_model-00002-of-00002\.bin"):
        read_weights(directory, allow_pickle=True)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code of a pickle ran",))


def test_even_allowed_pickles_run_no_code_while_they_are_described(
    build_checkpoint: BuildCheckpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    directory = build_checkpoint()
    remove_weights(directory)
    torch.save({"a": RunsCode()}, directory / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: not a whole file of pickled weights"):
        read_weights(directory, allow_pickle=True)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pytorch_model.bin", b"no pickle", "pytorch_model.bin: not a whole file of pickled weights"),
        ("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the weights"),
        ("consolidated.00.pth", b"x", "no engine reads consolidated.00.pth; allowed are *.safetensors, *.bin and *.pt"),
    ],
)
def test_allowed_pickles_must_still_be_weights(build_checkpoint: BuildCheckpoint, name: str, content: bytes, message: str) -> None:
    directory = build_checkpoint()
    remove_weights(directory)
    (directory / name).write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        read_weights(directory, allow_pickle=True)
    assert message in str(raised.value)
