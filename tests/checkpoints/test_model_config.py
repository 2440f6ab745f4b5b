from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.checkpoints.model_config import read_model_config
from wdct_dist.errors import CheckpointError

BuildCheckpoint = Callable[..., Path]


def test_class_precision_and_longest_sequence_are_read(build_checkpoint: BuildCheckpoint) -> None:
    config = read_model_config(build_checkpoint())
    assert (config.architecture, config.dtype, config.max_position, config.custom_code) == ("LlamaForCausalLM", "float32", 128, ())


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"dtype": None, "torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "torch.float16"}, "float16"),
        ({"dtype": None, "text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": None}, None),
    ],
)
def test_the_precision_is_found_under_its_old_and_new_names(
    build_checkpoint: BuildCheckpoint, changes: dict[str, Any], dtype: str | None
) -> None:
    assert read_model_config(build_checkpoint(**changes)).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "max_position"),
    [
        ({"max_position_embeddings": None, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": None, "text_config": {"max_position_embeddings": 4096}}, 4096),
        ({"max_position_embeddings": None}, None),
        ({"max_position_embeddings": -1}, None),
        ({"max_position_embeddings": True}, None),
    ],
)
def test_the_longest_sequence_is_found_where_models_state_it(
    build_checkpoint: BuildCheckpoint, changes: dict[str, Any], max_position: int | None
) -> None:
    assert read_model_config(build_checkpoint(**changes)).max_position == max_position


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": None}, '`architectures` is None; allowed is a list with the model\'s class, such as ["LlamaForCausalLM"]'),
        ({"architectures": []}, "`architectures` is []"),
        ({"architectures": "LlamaForCausalLM"}, "`architectures` is 'LlamaForCausalLM'"),
        ({"architectures": [3]}, "`architectures` is [3]"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "a LlamaForSequenceClassification gives no next-token probabilities"),
        ({"architectures": ["LlamaModel"]}, "a LlamaModel gives no next-token probabilities; allowed are language models"),
    ],
)
def test_a_model_that_cannot_answer_is_refused(build_checkpoint: BuildCheckpoint, changes: dict[str, Any], message: str) -> None:
    directory = build_checkpoint(**changes)
    with pytest.raises(CheckpointError) as raised:
        read_model_config(directory)
    assert str(raised.value).startswith(f"{directory / 'config.json'}: ")
    assert message in str(raised.value)


def test_gpt2_has_its_output_layer_although_its_class_ends_in_model(build_checkpoint: BuildCheckpoint) -> None:
    assert read_model_config(build_checkpoint(architectures=["GPT2LMHeadModel"])).architecture == "GPT2LMHeadModel"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file; a checkpoint is a directory with config.json"),
        (b"", "not valid JSON"),
        (b'{"architectures": [', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[]", "holds a JSON list, not an object"),
    ],
)
def test_a_config_that_is_missing_or_broken_is_refused(build_checkpoint: BuildCheckpoint, content: bytes | None, message: str) -> None:
    file = build_checkpoint() / "config.json"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(CheckpointError) as raised:
        read_model_config(file.parent)
    assert str(raised.value).startswith(f"{file}: ")
    assert message in str(raised.value)


OWN_CLASS = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM", "AutoConfig": "configuration_own.OwnConfig"}


def test_classes_that_transformers_does_not_have_are_custom_code(build_checkpoint: BuildCheckpoint) -> None:
    config = read_model_config(build_checkpoint(auto_map=OWN_CLASS, model_type="own", architectures=["OwnForCausalLM"]))
    assert config.custom_code == ("modeling_own.OwnForCausalLM", "configuration_own.OwnConfig")


def test_an_own_class_on_a_known_kind_of_model_is_custom_code(build_checkpoint: BuildCheckpoint) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    assert read_model_config(build_checkpoint(auto_map=auto_map, architectures=["OwnForCausalLM"])).custom_code


def test_an_auto_map_left_over_on_a_model_that_transformers_has_needs_no_code(build_checkpoint: BuildCheckpoint) -> None:
    assert read_model_config(build_checkpoint(auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})).custom_code == ()


def test_a_tokenizer_of_its_own_is_custom_code_too(build_checkpoint: BuildCheckpoint) -> None:
    directory = build_checkpoint(model_type="own")
    (directory / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", null]}}')
    assert read_model_config(directory).custom_code == ("tokenization_own.OwnTokenizer",)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"transformers_version": "4.1.0", "_name_or_path": "elsewhere", "use_cache": False, "pad_token_id": 2}, True),
        ({"rope_scaling": None}, True),
        ({"hidden_size": 16}, False),
        ({"rope_theta": 500000.0}, False),
        ({"tie_word_embeddings": True}, False),
        ({"quantization_config": {"bits": 4}}, False),
        ({"architectures": ["MistralForCausalLM"]}, False),
        ({"eos_token_id": 7}, False),
        ({"max_position_embeddings": 256}, False),
        ({"text_config": {"hidden_size": 4}}, False),
    ],
)
def test_only_what_an_engine_is_built_from_is_decisive(build_checkpoint: BuildCheckpoint, changes: dict[str, Any], same: bool) -> None:
    before, after = read_model_config(build_checkpoint("a")), read_model_config(build_checkpoint("b", **changes))
    assert (before.decisive == after.decisive) is same


def test_nested_settings_without_effect_are_left_out_too(build_checkpoint: BuildCheckpoint) -> None:
    first = read_model_config(build_checkpoint("a", model_type="unknown", text_config={"hidden_size": 4, "use_cache": True}))
    second = read_model_config(build_checkpoint("b", model_type="unknown", text_config={"hidden_size": 4}))
    assert first.decisive == second.decisive


GEMMA2 = {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2"}


@pytest.mark.parametrize(
    ("config", "spelled_out", "same"),
    [
        # the default of transformers is 30, null switches it off
        (GEMMA2, {"final_logit_softcapping": 30.0}, True),
        (GEMMA2, {"final_logit_softcapping": None}, False),
        (GEMMA2, {"attn_logit_softcapping": None}, False),
        (GEMMA2, {"sliding_window": 4096}, True),
        ({}, {"rope_theta": 10000.0}, True),
        ({}, {"rope_theta": 500000.0}, False),
        ({}, {"rope_scaling": None}, True),
        ({}, {"tie_word_embeddings": False}, True),
        ({}, {"attention_bias": True}, False),
        ({}, {"eos_token_id": 2}, True),
        ({}, {"eos_token_id": None}, False),
        # a key that transformers does not know may have a default in vLLM
        ({}, {"a_key_of_vllm": None}, False),
        # nothing is known of an unknown model, so an absent key and a null one may differ
        ({"model_type": "unknown"}, {"final_logit_softcapping": None}, False),
    ],
)
def test_configurations_are_compared_with_their_defaults_filled_in(
    tmp_path: Path, config: dict[str, Any], spelled_out: dict[str, Any], same: bool
) -> None:
    pytest.importorskip("transformers")
    base = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, **config}
    found = []
    for name, content in (("a", base), ("b", {**base, **spelled_out})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
        found.append(read_model_config(tmp_path / name).decisive)
    assert (found[0] == found[1]) is same
