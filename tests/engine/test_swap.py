"""Whether an engine can take another checkpoint, from what is known of it and from its files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.engine.swap import Build, can_swap, difference, other_vocabulary, read_build
from wdct_dist.errors import CheckpointError

BUILD = Build(
    "LlamaForCausalLM",
    "bfloat16",
    {"vocab_size": 100, "hidden_size": 8},
    (2, 2),
    {"embed": ((100, 8), "BF16"), "norm": ((8,), "BF16"), "q": ((8, 8), "BF16")},
)


def test_checkpoints_of_one_signature_can_take_turns(make_checkpoint):
    assert can_swap(make_checkpoint("a", "1" * 64), make_checkpoint("b", "2" * 64)).possible


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "Qwen2ForCausalLM"}, "another architecture: Qwen2ForCausalLM, the engine has LlamaForCausalLM"),
        ({"dtype": "float32"}, "another dtype: float32, the engine has bfloat16"),
        ({"signature": "t"}, "another model configuration, other tensors or other end-of-text tokens"),
    ],
)
def test_other_checkpoints_need_a_fresh_engine(change: dict[str, str], reason: str, make_checkpoint):
    verdict = can_swap(make_checkpoint(), replace(make_checkpoint(), **change))
    assert not verdict.possible
    assert verdict.reason == reason


def test_the_same_build_does_not_differ():
    assert difference(BUILD, replace(BUILD, tensors=dict(BUILD.tensors))) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architecture": "Qwen2ForCausalLM"}, "another architecture: Qwen2ForCausalLM"),
        ({"dtype": "float32"}, "another dtype: float32, the engine has bfloat16"),
        ({"end_tokens": (2, 7)}, r"other end-of-text tokens: \[2, 7\], the engine has \[2, 2\]"),
        ({"settings": {"vocab_size": 101, "hidden_size": 8}}, "another vocabulary: 101 tokens, the engine has 100"),
        ({"settings": {"vocab_size": 100, "hidden_size": 8, "rope_theta": 1.0}}, "its config.json differs in rope_theta"),
        ({"settings": BUILD.settings | {"quantization_config": {"quant_method": "awq"}}}, "its weights are quantised"),
        ({"is_pickled": True}, "its weights are pickled"),
        ({"tensors": {"embed": BUILD.tensors["embed"]}}, "it lacks 2 of the engine's 3 tensors: norm, q$"),
        ({"tensors": BUILD.tensors | {"bias": ((8,), "BF16")}}, "it has 1 tensors that the engine has not: bias"),
        ({"tensors": BUILD.tensors | {"q": ((8, 9), "BF16")}}, r"tensor q is BF16\[8, 9\], the engine's BF16\[8, 8\]"),
        ({"tensors": BUILD.tensors | {"q": ((8, 8), "F32")}}, r"tensor q is F32\[8, 8\], the engine's BF16\[8, 8\]"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], reason: str):
    assert re.match(reason, difference(BUILD, replace(BUILD, **change)) or "nothing")


def test_a_build_is_read_from_configuration_and_headers(small_model: Path):
    build = read_build(small_model, allow_pickle=False)
    assert build.architecture == "LlamaForCausalLM"
    assert build.tensors["model.embed_tokens.weight"] == ((49152, 576), "F32")
    assert build.settings["vocab_size"] == 49152
    assert not build.is_pickled
    assert difference(build, read_build(small_model, allow_pickle=False)) is None


def test_a_file_that_is_cut_short_is_not_a_build(small_model: Path, tmp_path: Path):
    for file in small_model.iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).symlink_to(file)
    with (small_model / "model.safetensors").open("rb") as stream:
        (tmp_path / "model.safetensors").write_bytes(stream.read(1_000_000))
    with pytest.raises(CheckpointError, match="cut short"):
        read_build(tmp_path, allow_pickle=False)


def test_tokenizers_of_one_vocabulary_may_differ_in_their_template_alone(make_tokenizer):
    one, other = make_tokenizer("byte_fallback"), make_tokenizer("byte_fallback", chat_template="{{ messages }}")
    assert other_vocabulary(one, other) is None
    assert "another vocabulary: its tokenizer's" in (other_vocabulary(one, make_tokenizer("unigram")) or "")
    other.eos_token = "<s>"
    assert other_vocabulary(one, other) == "another end-of-text token: '<s>', the engine has '</s>'"


def test_settings_without_effect_do_not_stand_in_the_way(small_model: Path, tmp_path: Path):
    for file in small_model.iterdir():
        if file.name != "config.json":
            (tmp_path / file.name).symlink_to(file)
    config = json.loads((small_model / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"transformers_version": "0", "use_cache": False}), encoding="utf-8")
    assert difference(read_build(small_model, allow_pickle=False), read_build(tmp_path, allow_pickle=False)) is None
