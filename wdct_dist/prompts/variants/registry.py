"""Finds variants by name: ours and those of other packages, through the same entry-point group."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from wdct_dist.errors import ConfigError
from wdct_dist.prompts.variants.types import Variant

GROUP = "wdct_dist.variants"


def find_variant(name: str) -> Variant:
    """The variant registered as `name`; a `ConfigError` names those that there are."""
    found: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigError(f"variants: there is no variant {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    try:
        variant: Variant = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"variants: {name!r} ({found[name].value}) cannot be imported ({error}); mend or remove its package.") from None
    if not callable(variant):
        raise ConfigError(f"variants: {name!r} ({found[name].value}) is not a function; a variant maps an Ask to a Draft.")
    return variant
