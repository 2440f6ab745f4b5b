"""Checkpoints that cannot be evaluated: named before any engine starts, exit code 2, no run directory."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Shell


def header(tensors: dict[str, object]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


WEIGHTS = header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + bytes(8)
MODEL = {"config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}), "tokenizer.json": "{}"}


def checkpoint(name: str, words: tuple[str, ...], **files: str | bytes) -> Any:
    return pytest.param(files, words, id=name)


CHECKPOINTS = [
    checkpoint("no weights", ("model", "weights"), **MODEL),
    checkpoint("no tokenizer", ("tokenizer",), **{"config.json": MODEL["config.json"], "model.safetensors": WEIGHTS}),
    checkpoint("no config", ("config.json",), **{"tokenizer.json": "{}", "model.safetensors": WEIGHTS}),
    checkpoint("config is not JSON", ("config.json",), **{**MODEL, "config.json": "{", "model.safetensors": WEIGHTS}),
    checkpoint("truncated weights", ("model.safetensors", "bytes"), **MODEL, **{"model.safetensors": WEIGHTS[:-3]}),
    checkpoint("weights that are no weights", ("model.safetensors",), **MODEL, **{"model.safetensors": b"hello"}),
    checkpoint("pickled weights", ("engine.allow_pickle",), **MODEL, **{"pytorch_model.bin": b"\x80\x02."}),
    checkpoint("a missing part", ("model-2.safetensors",), **MODEL, **{
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}),
        "model-1.safetensors": WEIGHTS,
    }),
    checkpoint("code of its own", ("engine.trust_remote_code",), **{
        **MODEL, "config.json": json.dumps({"architectures": ["X"], "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
        "model.safetensors": WEIGHTS,
    }),
    checkpoint("an adapter alone", ("adapter",), **{"adapter_config.json": "{}", "adapter_model.safetensors": WEIGHTS}),
]  # fmt: skip


@pytest.mark.parametrize(("files", "words"), CHECKPOINTS)
def test_a_broken_checkpoint_is_named_before_any_engine_starts(files: dict[str, str | bytes], words: tuple[str, ...], shell: Shell) -> None:
    for name, content in files.items():
        shell.write(f"model/{name}", content)
    shell.refused(("engine.kind=vllm", "checkpoints=[./model]"), words)
    assert not shell.run_dir.exists()


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("./nowhere", "nowhere"),
        ("out/*/checkpoint-*", "matches no"),
        ("package://no_such_package/model.gguf", "no_such_package"),
        ("s3x://bucket", "s3x"),
        ("model.gguf", "model.gguf"),
    ],
)
def test_a_checkpoint_that_is_not_there(entry: str, word: str, shell: Shell) -> None:
    shell.refused(("engine.kind=vllm", f"checkpoints=['{entry}']"), (word,))
    assert not shell.run_dir.exists()


def test_a_gguf_file_that_is_none(shell: Shell) -> None:
    shell.write("model.gguf", b"not a model")
    shell.refused(("engine.kind=vllm", "checkpoints=[./model.gguf]"), ("GGUF",))
