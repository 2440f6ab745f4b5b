"""Tensors that are missing or of another shape: refused before an engine starts, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.checkpoints.model_config import read_model_config
from wdct_dist.checkpoints.tensor_check import find_missing_experts, require_all_tensors
from wdct_dist.checkpoints.weights import read_weights
from wdct_dist.errors import CheckpointError

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "max_position_embeddings": 64,
}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 128, "n_positions": 64}
MODELS: dict[str, dict[str, Any]] = {
    "Llama": SHAPE,
    "Qwen2": SHAPE,
    "Gemma2": {**SHAPE, "head_dim": 16},
    "Phi3": {**SHAPE, "pad_token_id": 0},
    "GPTNeoX": SHAPE,
    "GPTJ": {**GPT, "rotary_dim": 8},
    "Falcon": {key: SHAPE[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")},
    "Mixtral": {**SHAPE, "num_local_experts": 4},
    "Mamba": {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 128},
}


RENAMED = {"embed_out.weight": "lm_head.weight"} | {
    f"model.layers.{number}.block_sparse_moe.gate.weight": f"model.layers.{number}.mlp.gate.weight" for number in range(2)
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Saves a small random model of a family, once for each set of settings; returns its directory."""
    made: dict[str, Path] = {}

    def save(family: str, **settings: Any) -> Path:
        key = json.dumps([family, settings], sort_keys=True)
        if key not in made:
            config = getattr(transformers, f"{family}Config")(**MODELS[family], **settings)
            made[key] = tmp_path_factory.mktemp(family)
            getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(made[key])
        return made[key]

    return save


def edited(directory: Path, folder: Path, *, without: tuple[str, ...] = (), added: dict[str, Any] | None = None, **config: Any) -> Path:
    """Return a copy of the checkpoint without some tensors, with others, and with other settings in config.json."""
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor for name, tensor in load_file(directory / "model.safetensors").items() if name not in without}
    folder.mkdir()
    save_file({**tensors, **(added or {})}, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((directory / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def check(directory: Path) -> None:
    weights = read_weights(directory, allow_pickle=False)
    require_all_tensors(directory, read_model_config(directory).architecture, weights)


@pytest.mark.parametrize("family", MODELS)
def test_each_tensor_of_a_model_is_missed_by_name_if_it_is_not_there(saved: Any, family: str, tmp_path: Path) -> None:
    directory = saved(family)
    check(directory)
    names = [tensor.name for tensor in read_weights(directory, allow_pickle=False).tensors]
    for number, name in enumerate(names):
        # biases too, each piece of a packed layer, the embedding and the output layer
        with pytest.raises(CheckpointError, match="the weights lack 1 tensors") as refused:
            check(edited(directory, tmp_path / str(number), without=(name,)))
        # transformers may have another name for the layer than an old file
        assert f"{RENAMED.get(name, name).rpartition('.experts.')[2]}." in str(refused.value)


def test_a_tied_output_layer_need_not_be_in_the_files(saved: Any, tmp_path: Path) -> None:
    tied = saved("Llama", tie_word_embeddings=True)
    assert "lm_head.weight" not in {tensor.name for tensor in read_weights(tied, allow_pickle=False).tensors}
    check(tied)
    for folder, added in (("neither", {}), ("output", {"lm_head.weight": torch.ones(128, 64)})):
        with pytest.raises(CheckpointError, match=r"lack 1 tensors of a LlamaForCausalLM: model\.embed_tokens\.weight\."):
            check(edited(tied, tmp_path / folder, without=("model.embed_tokens.weight",), added=added))


def test_leftovers_of_old_checkpoints_are_no_fault(saved: Any, tmp_path: Path) -> None:
    leftovers = {
        "gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        "gpt_neox.layers.0.attention.masked_bias": torch.tensor(-1e9),
    }
    check(edited(saved("GPTNeoX"), tmp_path / "neox", added=leftovers))
    check(edited(saved("Llama"), tmp_path / "llama", added={"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))


@pytest.mark.parametrize("vocab_size", [120, 136])
def test_another_vocabulary_size_is_refused_with_both_numbers_and_the_cause(saved: Any, vocab_size: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: vocab_size is {vocab_size}, .* in model\.safetensors has 128 rows.*added"):
        check(edited(saved("Llama"), tmp_path / "model", vocab_size=vocab_size))


def test_another_shape_is_refused_with_both_shapes(saved: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has shape \[64, 96\] in model\.safetensors, but config\.json implies \[64, 112\]"):
        check(edited(saved("Llama"), tmp_path / "model", intermediate_size=112))


def test_tensors_without_values_are_refused_with_the_usual_cause(saved: Any, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: 1 of \d+ tensors hold no values \(`{name}` .*ZeRO-3"):
        check(edited(saved("Llama"), tmp_path / "model", added={name: torch.empty(0)}))


def test_experts_of_one_layer_have_the_same_tensors() -> None:
    names = [f"model.layers.0.mlp.experts.{number}.{part}.weight" for number in range(4) for part in ("up_proj", "down_proj")]
    assert find_missing_experts(names) == []
    assert find_missing_experts(names[:3] + names[4:]) == [names[3]]
    assert find_missing_experts(names[:2] + names[4:]) == sorted(names[2:4])
