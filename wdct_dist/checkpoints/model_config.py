"""What config.json says: the model's class, precision, longest sequence, and all that an engine is built from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.reference_model import resolve_config
from wdct_dist.errors import CheckpointError

WITHOUT_EFFECT = frozenset(
    {
        "_name_or_path", "_model_name_or_path", "name_or_path", "_commit_hash", "_attn_implementation_autoset",
        "transformers_version", "unsloth_version", "unsloth_fixed", "use_cache", "torch_dtype", "dtype",
        "pad_token_id", "bos_token_id", "eos_token_id", "id2label", "label2id", "finetuning_task", "task_specific_params",
        "architectures", "initializer_range", "attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop",
    }
)  # fmt: skip
"""Keys that change nothing in an engine, or that `ModelConfig` states separately."""
MAX_POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx", "max_seq_len")
NOT_GENERATIVE = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "ForMaskedLM",
                  "RewardModel", "ForReward")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelConfig:
    architecture: str
    dtype: str | None
    """As config.json states it, for example `bfloat16`; None where it does not."""
    max_position: int | None
    custom_code: tuple[str, ...]
    """Python classes beside the weights that transformers would have to run, `module.Class`; empty where it has its own."""
    decisive: str
    """Canonical JSON of every field that an engine is built from, defaults of transformers included, with the end-of-text tokens (a live
    engine keeps its own)."""


def read_model_config(directory: Path) -> ModelConfig:
    """Raises `CheckpointError` where config.json is missing, is not JSON, or names no model that can answer."""
    config = _read_json_object(directory / "config.json")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise CheckpointError(
            f"{directory / 'config.json'}: `architectures` is {architectures!r}; allowed is a list with the model's class, such as "
            '["LlamaForCausalLM"]: save the model with `save_pretrained`, or add the entry.'
        )
    architecture = architectures[0]
    bare = architecture.endswith("Model") and not architecture.endswith("LMHeadModel")
    if bare or architecture.endswith(NOT_GENERATIVE):
        raise CheckpointError(
            f"{directory / 'config.json'}: a {architecture} gives no next-token probabilities; allowed are language models with "
            "their output layer, such as LlamaForCausalLM."
        )
    text = config["text_config"] if isinstance(config.get("text_config"), Mapping) else {}
    positions = (part.get(key) for part in (text, config) for key in MAX_POSITION_KEYS)
    dtypes = (part.get(key) for part in (config, text) for key in ("dtype", "torch_dtype"))
    dtype = next((value for value in dtypes if isinstance(value, str)), None)
    return ModelConfig(
        architecture=architecture,
        dtype=dtype.removeprefix("torch.") if dtype is not None else None,
        max_position=next((value for value in positions if type(value) is int and value > 0), None),
        custom_code=_custom_code(directory, config, architecture),
        decisive=_decisive(directory, config, architectures),
    )


def _read_json_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(
            f"{file}: there is no such file; a checkpoint is a directory with config.json, *.safetensors and a tokenizer, as "
            "`save_pretrained` writes it: copy or save config.json there."
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); copy or save it again.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: holds a JSON {type(content).__name__}, not an object; copy or save it again.")
    return content


def _read_optional(file: Path) -> dict[str, Any]:
    return _read_json_object(file) if file.is_file() else {}


def _decisive(directory: Path, config: dict[str, Any], architectures: list[Any]) -> str:
    settings = resolve_config(directory) or config
    generation = directory / "generation_config.json"
    # vLLM takes the end tokens of config.json only if there is no generation_config.json
    ends = [(_read_optional(generation) if generation.is_file() else settings).get("eos_token_id"), settings.get("eos_token_id")]
    return json.dumps([architectures, ends, _with_effect(settings)], sort_keys=True)


def _with_effect(value: Any) -> Any:
    """Return `value` without the keys that have no effect. A null stays: for many keys an absent key means another value."""
    if isinstance(value, Mapping):
        return {key: _with_effect(part) for key, part in value.items() if key not in WITHOUT_EFFECT}
    return [_with_effect(part) for part in value] if isinstance(value, list) else value


def _custom_code(directory: Path, config: dict[str, Any], architecture: str) -> tuple[str, ...]:
    """Classes of `auto_map` (of the model and of the tokenizer), unless transformers has this model itself and so needs none."""
    maps = [config.get("auto_map"), _read_optional(directory / "tokenizer_config.json").get("auto_map")]
    named = [value for auto_map in maps if isinstance(auto_map, Mapping) for value in auto_map.values()]
    classes = [name for value in named for name in (value if isinstance(value, list) else [value]) if isinstance(name, str)]
    if not classes or _is_built_in(config.get("model_type"), architecture):
        return ()
    return tuple(dict.fromkeys(classes))


def _is_built_in(model_type: object, architecture: str) -> bool:
    """Many models on the hub keep their old `auto_map` after transformers took them in; transformers then ignores it."""
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
            MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
            MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        )
    except ImportError:
        return False
    mappings = (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    classes = {name for mapping in mappings for name in mapping.values() if isinstance(name, str)}
    return model_type in CONFIG_MAPPING_NAMES and architecture in classes
