"""Read YAML by the schema's types: a field that is declared as text receives the text as it is written.

YAML guesses a type for each unquoted value: `Yes` becomes True, `no` False, `2024_11_05` a number, `12:30:45` a count of seconds, and
`[01, 08]` loses its zeros. Here every unquoted value is kept as written until the declared type of its field is known.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any

import yaml
from omegaconf import OmegaConf

from wdct_dist.config.schema import TEXT_ENTRIES
from wdct_dist.errors import ConfigError


class Plain(str):
    """An unquoted scalar as it is written."""

    __slots__ = ()


class _Loader(yaml.SafeLoader):
    """Leaves unquoted scalars as `Plain`, but for null; refuses a key that comes twice."""

    def construct_plain(self, node: yaml.Node) -> Any:
        assert isinstance(node, yaml.ScalarNode)
        return Plain(node.value) if node.style is None else str(node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT])
}
_Loader.add_constructor("tag:yaml.org,2002:str", _Loader.construct_plain)


def parse(text: str) -> Any:
    """Return the YAML document `text` with its unquoted scalars as `Plain`. Raises `yaml.YAMLError`."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def typed(value: Any, schema: type) -> Any:
    """Return what `parse` returned for a configuration of `schema`, with each value as its field declares it.

    Raises `ConfigError` that names each list or mapping which stands for a single value. What else is wrong (unknown keys, values out of
    range) is left as it is.
    """
    problems: list[str] = []
    found = _typed(value, schema, "", problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def override(schema: type, key: str, raw: str) -> dict[str, Any]:
    """Return the override `key=raw` as nested mappings, in the form that `parse` returns. Raises `yaml.YAMLError`.

    If the field is text, `raw` is taken as written: it may hold a colon or begin with any sign. Only quotes around it are removed, and
    a list or a mapping in brackets is left for `typed` to refuse.
    """
    names = key.strip().split(".")
    is_text = _is_text(_hint_at(schema, names))
    try:
        value = parse(raw)
    except yaml.YAMLError:
        if not is_text:
            raise
        value = Plain(raw)
    if is_text and value is not None and not raw.lstrip().startswith(("[", "{", '"', "'")):
        value = Plain(raw.strip())
    for name in reversed(names):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def resolved(value: Any) -> Any:
    """Return a value of undeclared type as YAML would have it."""
    if isinstance(value, Mapping):
        return {str(key): resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [resolved(part) for part in value]
    if isinstance(value, Plain):
        plain = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]), resolve=False)
        assert isinstance(plain, dict)
        return plain["value"]
    return value


def _typed(value: Any, hint: Any, key: str, problems: list[str], metadata: Mapping[str, Any] | None = None) -> Any:
    if value is None:
        return None
    if metadata is not None and TEXT_ENTRIES in metadata:
        return _text_entries(value, metadata[TEXT_ENTRIES])
    hint = _without_none(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            return resolved(value)
        hints, fields = typing.get_type_hints(hint), {entry.name: entry for entry in dataclasses.fields(hint)}
        return {
            str(name): _typed(part, hints[name], f"{key}{name}.", problems, fields[name].metadata) if name in fields else resolved(part)
            for name, part in value.items()
        }
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list and isinstance(value, list):
        return [_typed(part, arguments[0], f"{key[:-1]}[{number}].", problems) for number, part in enumerate(value)]
    if origin is dict and isinstance(value, Mapping):
        return {str(name): _typed(part, arguments[1], f"{key}{name}.", problems) for name, part in value.items()}
    if hint is Any or origin in (list, dict) or not isinstance(hint, type):
        return resolved(value)
    if isinstance(value, list | Mapping):
        kind = "list" if isinstance(value, list) else "mapping"
        problems.append(f"{key[:-1]} must be {_KINDS.get(hint, 'a single value')}, got the {kind} {_shown(value)}.")
        return None
    if hint is str or issubclass(hint, Enum):
        return str(value)
    found = resolved(value)
    # as written, so that a message shows what the user wrote
    return str(value) if isinstance(value, Plain) and type(found) not in _FITTING.get(hint, (type(found),)) else found


_KINDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
_FITTING = {int: (int,), float: (int, float), bool: (bool,)}


def _text_entries(value: Any, not_text: tuple[str, ...]) -> Any:
    if isinstance(value, Mapping):
        return {
            str(name): resolved(part) if name in not_text else _text_entries(part, not_text) if part is not None else None
            for name, part in value.items()
        }
    if isinstance(value, list):
        return [_text_entries(part, not_text) for part in value]
    return str(value) if isinstance(value, str) else value


def _without_none(hint: Any) -> Any:
    """Return `T` for `T | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(hint) if part is not type(None)]
        return rest[0] if len(rest) == 1 else Any
    return hint


def _hint_at(schema: Any, names: list[str]) -> Any:
    """Return the declared type at a dotted key; Any if there is none."""
    for name in names:
        schema = _without_none(schema)
        if typing.get_origin(schema) is dict:
            schema = typing.get_args(schema)[1]
        elif dataclasses.is_dataclass(schema) and isinstance(schema, type):
            schema = typing.get_type_hints(schema).get(name, Any)
        else:
            return Any
    return _without_none(schema)


def _is_text(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, str)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_shown(part)}" for name, part in value.items()) + "}"
    return f"[{', '.join(map(_shown, value))}]" if isinstance(value, list) else str(value)
