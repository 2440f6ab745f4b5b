"""`revisions:` of a checkpoint's entry: many revisions of one hub id, as a list or as a numbered range."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wdct_dist.errors import ConfigError

PLACE = re.compile(r"\{(?::0(?P<width>\d{1,2}))?\}")
"""Where the number goes: `{}`, or `{:06}` for six digits with zeros before."""
RANGE_KEYS = ("pattern", "from", "to", "step")
MAX_REVISIONS = 10_000
"""More is a slip of the keyboard."""
ALLOWED = "allowed is a list such as [step1000, step2000], or a range such as {pattern: 'step{}', from: 1000, to: 143000, step: 1000}"


def read_revisions(value: object) -> list[str]:
    """The revisions in their order; a range includes `to` where its steps reach it. Raises `ConfigError`."""
    revisions = _numbered(value) if isinstance(value, Mapping) else _listed(value)
    if repeated := [name for name in revisions if revisions.count(name) > 1]:
        raise ConfigError(f"checkpoints: `revisions` has {repeated[0]!r} twice; name each once.")
    return revisions


def _listed(value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"checkpoints: `revisions`: {value!r} is not allowed; {ALLOWED}.")
    for name in value:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ConfigError(f"checkpoints: `revisions`: {name!r} is no name of a revision; {ALLOWED} (quote numbers in YAML).")
    return [name.strip() for name in value]


def _numbered(value: Mapping[object, object]) -> list[str]:
    if unknown := [str(key) for key in value if key not in RANGE_KEYS]:
        raise ConfigError(f"checkpoints: `revisions` has the unknown key {', '.join(map(repr, unknown))}; {ALLOWED}.")
    pattern, step = value.get("pattern"), value.get("step", 1)
    places = list(PLACE.finditer(pattern)) if isinstance(pattern, str) else []
    if len(places) != 1 or not isinstance(pattern, str):
        raise ConfigError(f"checkpoints: `revisions.pattern`: {pattern!r} needs one place for the number, `{{}}` or `{{:06}}`; {ALLOWED}.")
    first, last = (_whole(key, value.get(key)) for key in ("from", "to"))
    step = _whole("step", step)
    if step < 1 or last < first or (last - first) // step >= MAX_REVISIONS:
        raise ConfigError(
            f"checkpoints: `revisions`: from {first} to {last} in steps of {step} is no range of 1 to {MAX_REVISIONS:,} revisions; "
            f"{ALLOWED}."
        )
    width = int(places[0]["width"] or 0)
    head, tail = pattern[: places[0].start()], pattern[places[0].end() :]
    return [f"{head}{number:0{width}d}{tail}" for number in range(first, last + 1, step)]


def _whole(key: str, value: object) -> int:
    if type(value) is not int or value < 0:
        raise ConfigError(f"checkpoints: `revisions.{key}`: {value!r} is not allowed; allowed is a whole number from 0 on.")
    return value
