"""Reads a configuration file and overrides into a checked `Config`.

Everything that a user can get wrong here ends in one `ConfigError` that names each key at fault, what came and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from wdct_dist.config import yaml_values
from wdct_dist.config.rules import check
from wdct_dist.config.schema import Config, EngineKind, Protocol
from wdct_dist.errors import ConfigError


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of the file at `path` with dotlist `overrides` (`key=value`) on top, checked."""
    config = read_into(Config, path, overrides)
    check(config)
    return config


Schema = TypeVar("Schema")


def read_into(schema: type[Schema], path: str | Path, overrides: Sequence[str], section: str = "") -> Schema:
    """A configuration of any schema that has a `run_dir`, not checked yet; `section`: where it holds a `Config`, for its presets."""
    file = Path(path)
    layers = [
        (f"in {file}", _read_file(file, schema)),
        *((f"in the override `{text}`", _read_override(text, schema)) for text in overrides),
    ]
    merged = OmegaConf.merge(OmegaConf.structured(schema), *_presets([layer for _, layer in layers], section))
    for origin, layer in layers:
        if problems := unknown_keys(schema, as_mapping(layer)):
            _refuse_other_command(schema, as_mapping(layer), origin)
            raise ConfigError("\n".join(f"{problem} ({origin})" for problem in problems))
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{_explain(error)} ({origin})") from None
    try:
        config: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from None
    assert isinstance(config, schema)
    config.run_dir = config.run_dir.replace("{name}", file.stem)  # type: ignore[attr-defined]
    return config


PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    # a model behind an API may give no logprobs: then what it says is all there is
    "engine.kind": {EngineKind.endpoint.value: {"prompt": {"reply_tokens": 16}}},
    "protocol": {Protocol.paper.value: {"variants": ["paper"], "orders": "paper", "prompt": {"reply_tokens": 10}}},
}
"""What the value of a key sets besides: defaults, under whatever the file and the overrides say; later ones over earlier ones."""


def _refuse_other_command(schema: type, layer: Mapping[Any, Any], origin: str) -> None:
    """One sentence instead of many where a whole configuration is of the other command."""
    known = {entry.name for entry in dataclasses.fields(schema)}
    for mark, command, here in (("models", "align", "checkpoints"), ("checkpoints", "evaluate", "models")):
        if mark in layer and mark not in known and here not in layer:
            raise ConfigError(f"{mark}: no such key here; `wdct {command}` takes it. Give the file to that, or write {here}. ({origin})")


def _presets(layers: Sequence[DictConfig], section: str) -> list[DictConfig]:
    """The presets of the values that the last layer to give one gives; a value that is none is left for the merge to refuse."""
    found = []
    for key, by_value in PRESETS.items():
        where = f"{section}.{key}" if section else key
        given = [value for layer in layers if (value := _given(as_mapping(layer), where)) is not _ABSENT]
        preset = OmegaConf.create(dict(by_value.get(str(given[-1]), {})) if given else {})
        found.append(OmegaConf.create({section: preset}) if section else preset)
    return found


_ABSENT = object()


def _given(layer: Any, key: str) -> Any:
    """What a layer gives at a dotted key (null takes a preset back), or `_ABSENT`."""
    for part in key.split("."):
        if not isinstance(layer, Mapping) or part not in layer:
            return _ABSENT
        layer = layer[part]
    return layer


def to_yaml(config: Any) -> str:
    """The whole resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def from_yaml(text: str) -> Config:
    """The inverse of `to_yaml`."""
    return from_yaml_into(Config, text)


def from_yaml_into(schema: type[Schema], text: str) -> Schema:
    """The inverse of `to_yaml`, for any schema."""
    layer = OmegaConf.create(yaml_values.typed(yaml_values.parse(text) or {}, schema))
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), layer))
    assert isinstance(config, schema)
    return config


def as_mapping(layer: DictConfig) -> Mapping[Any, Any]:
    """A layer of configuration as plain mappings, interpolations left as they are written."""
    plain = OmegaConf.to_container(layer, resolve=False)
    assert isinstance(plain, dict)
    return plain


def unknown_keys(schema: type, layer: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """A sentence for each key of `layer` that `schema` does not have, with the nearest one that it has."""
    hints = typing.get_type_hints(schema)
    known = {entry.name: hints[entry.name] for entry in dataclasses.fields(schema)}
    problems: list[str] = []
    for key in layer:
        where = f"{prefix}{key}"
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean `{prefix}{near[0]}`?" if near else f"allowed here: {', '.join(sorted(known))}."
            problems.append(f"{where}: there is no such key; {hint}")
        elif dataclasses.is_dataclass(known[key]):
            child = layer[key]
            if not isinstance(child, Mapping):
                problems.append(f"{where}: {child!r} is not allowed; it is a section with keys of its own.")
            else:
                problems += unknown_keys(typing.cast(type, known[key]), child, f"{where}.")
    return problems


def _read_file(file: Path, schema: type) -> DictConfig:
    if not file.exists():
        raise ConfigError(f"{file}: there is no such file; give the path of a configuration (see configs/ for examples).")
    if file.is_dir():
        raise ConfigError(f"{file}: a directory; give the path of a configuration file (YAML).")
    try:
        content = yaml_values.parse(file.read_text(encoding="utf-8"))
        if isinstance(content, str):
            content = {content: None}  # a key without its colon
        layer = OmegaConf.create(_typed(content if content is not None else {}, schema, f"in {file}"))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{file}: not readable as YAML: {_one_line(error)}") from None
    except PermissionError:
        raise ConfigError(f"{file}: may not be read by this user; change its permissions.") from None
    if not isinstance(layer, DictConfig):
        raise ConfigError(f"{file}: holds a list; a configuration is a mapping of keys to values.")
    return layer


def _typed(content: Any, schema: type, origin: str) -> Any:
    try:
        return yaml_values.typed(content, schema)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{line} ({origin})" for line in str(error).splitlines())) from None


def _read_override(text: str, schema: type) -> DictConfig:
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        raise ConfigError(f"`{text}` is not an override; write key=value, for example data.limit=10.")
    try:
        if "[" in key or "\\" in key:
            layer = OmegaConf.from_dotlist([text])
        else:
            layer = OmegaConf.create(_typed(yaml_values.override(schema, key, raw), schema, f"in the override `{text}`"))
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise ConfigError(f"the override `{text}` is not readable: {_one_line(error)}") from None
    assert isinstance(layer, DictConfig)
    return layer


def _explain(error: OmegaConfBaseException) -> str:
    key = getattr(error, "full_key", None) or getattr(error, "key", None) or "configuration"
    reason = str(getattr(error, "msg", None) or error).strip().splitlines()[0]
    if "ListConfig" in reason:
        reason = "one value came; a list is needed, such as [first, second]."
    for pattern, words in _IN_OUR_WORDS:
        if match := re.fullmatch(pattern, reason):
            reason = words.format(*(_KINDS.get(group, group) for group in match.groups()))
    return f"{key}: {reason}"


_KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
_IN_OUR_WORDS = (
    (r"Value ('.*') of type '\w+' could not be converted to (\w+)", "{} is not allowed; allowed is {}."),
    (r"Invalid value ('.*'), expected one of \[(.*)\]", "{} is not allowed; allowed is one of {}."),
    (r"Value ('.*') is not a valid bool \(type \w+\)", "{} is not allowed; allowed is true or false."),
    (r"field '.*' is not Optional|Incompatible value 'None' for field of type '\w+'", "nothing came; a value is needed."),
)
"""Messages of OmegaConf, and what a user reads instead."""


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


FREE_ON_RESUME = (
    "run_dir",
    "checkpoints",
    "dispatch",
    "cache",
    "metrics",
    "report",
    "tracking",
    "engine.max_num_seqs",
    "engine.block_size",
    "engine.gpu_memory_utilization",
    "engine.cpu_cache_gib",
    "engine.enforce_eager",
    "engine.start_timeout_s",
    "engine.trust_remote_code",
    "engine.allow_pickle",
    "engine.endpoint.api_key_env",
    "engine.endpoint.api_key_header",
    "engine.endpoint.concurrency",
    "engine.endpoint.requests_per_minute",
    "engine.endpoint.tokens_per_minute",
    "engine.endpoint.timeout_s",
    "engine.endpoint.max_attempts",
    "engine.endpoint.backoff_s",
    "engine.endpoint.budget_tokens",
    "engine.endpoint.budget_money",
    "engine.endpoint.prices",
    "engine.scripted.delay_s",
    "engine.scripted.fail_on",
    "engine.scripted.hang_on",
    "engine.scripted.fail_start",
)
"""What may change between the start of a run and its resumption: it says how fast and where, not what is asked."""


def differences(before: Any, now: Any, free_on_resume: Sequence[str] = FREE_ON_RESUME) -> list[str]:
    """A line for each setting that decides what comes out and is not what the run was started with."""
    old, new = (flatten(as_plain(config)) for config in (before, now))
    return [
        f"{key}: the run has {old.get(key)!r}, now came {new.get(key)!r}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(key == free or key.startswith(f"{free}.") for free in free_on_resume)
    ]


def unlike(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """The settings that are not the same in all configurations, by dotted key in their order, with the value that each has."""
    flat = [flatten(as_plain(config)) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = {key: [one.get(key) for one in flat] for key in keys if key != "run_dir"}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_plain(config: Any) -> Any:
    """A configuration (or section) as JSON-able values; enums become their names."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {entry.name: as_plain(getattr(config, entry.name)) for entry in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): as_plain(value) for key, value in config.items()}
    if isinstance(config, str | int | float | bool) or config is None:
        return config
    if isinstance(config, Iterable):
        return [as_plain(value) for value in config]
    return getattr(config, "value", str(config))
