"""Questions that have nothing to do with the items and have a right answer that everybody knows.

A model that is trained on labels alone may forget how to answer anything else; its accuracy here falls when it does. They are items of
the ordinary shape with four options; a `word` question asks, and its `deed` question wants the same knowledge used, with the same
options. So they can be asked by any of our machinery: `data.path` is `BUNDLED`, with `data.extra_domains: [Control]`.
"""

from __future__ import annotations

from pathlib import Path

from wdct_dist.items.load import read_records
from wdct_dist.items.types import Item

BUNDLED = Path(__file__).parent / "data" / "control.jsonl"
DOMAIN = "Control"


def control_items() -> list[Item]:
    """The control questions, in the order of their file; each has a `correct_option`, the four places equally often."""
    return [record.item for record in read_records(BUNDLED) if record.item is not None]
