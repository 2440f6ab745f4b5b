"""Finds variants by name: ours and those of other packages, through the same entry-point group."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError, WdctError
from wdct_dist.prompts.variants.types import Variant

GROUP = "wdct_dist.variants"

Variants = Sequence[tuple[str, Variant]]
"""Variants by the name that tables show, in the order in which they are asked."""


def find_variants(config: Config) -> list[Variants]:
    """The variants that `variants` names, family by family; a function is a family of one.

    Raises `ConfigError` for a name that is not installed, for what is no variant, and for two variants of one name.
    """
    families = [find_family(name, config) for name in config.variants]
    names = [name for family in families for name, _ in family]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"variants: {config.variants} make {', '.join(repeated)} more than once; leave one of them out.")
    return families


def find_family(name: str, config: Config) -> Variants:
    """The variants registered as `name`; a `ConfigError` names those that there are."""
    found: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise ConfigError(f"variants: there is no variant {name!r}; installed are {', '.join(sorted(found)) or 'none'}.")
    what = f"variants: {name!r} ({found[name].value})"
    try:
        registered = found[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{what} cannot be imported ({error}); mend or remove its package.") from None
    if not hasattr(registered, "expand"):
        if not callable(registered):
            raise ConfigError(f"{what} is not a function; a variant maps an Ask to a Draft, a family has `expand`.")
        return [(name, registered)]
    try:
        family = [(str(own), variant) for own, variant in registered.expand(config)]
    except WdctError:
        raise
    except Exception as error:
        raise ConfigError(f"{what}: its `expand` failed with {type(error).__name__}: {error}; mend or remove its package.") from error
    if not family or not all(own and callable(variant) for own, variant in family):
        raise ConfigError(f"{what}: its `expand` must give at least one pair of a name and a function from an Ask to a Draft.")
    return family
