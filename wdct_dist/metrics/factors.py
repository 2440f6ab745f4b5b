"""What a variant's name says: `augmented/labels=digits/wording=2` is a member of the family `augmented`, with two factors."""

from __future__ import annotations

OPTION_ORDER = "option_order"
"""The factor that no name says, since a variant is asked in all its orders: see `order_effects`."""


def factors(variant: str) -> dict[str, str]:
    """Factor to level, in the name's order; empty for a variant that is not a member of a family.

    Every part after the first slash is `factor=level`; a name with any other part (`mine/special`) is a name and nothing more.
    """
    _, *parts = variant.split("/")
    pairs = [part.partition("=") for part in parts]
    if not all(factor and sign and level for factor, sign, level in pairs):
        return {}
    return {factor: level for factor, _, level in pairs}


def family(variant: str) -> str | None:
    """The family that a variant is a member of; None for a variant that stands alone."""
    return variant.split("/")[0] if factors(variant) else None
