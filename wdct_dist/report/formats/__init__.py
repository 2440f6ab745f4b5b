"""The report for pipes and papers: the tables of the terminal, whole, one file a format.

Figures are rounded as a terminal shows them; at full precision they are in scores/.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from wdct_dist.report.formats.json_object import as_json
from wdct_dist.report.formats.latex import as_latex
from wdct_dist.report.formats.markdown import as_markdown
from wdct_dist.report.formats.tidy_csv import as_csv

if TYPE_CHECKING:
    from wdct_dist.report.contents import Contents

TEXT = "text"
"""The terminal's own (`report/terminal.py`)."""

FORMATS: Mapping[str, Callable[[Contents], str]] = {"json": as_json, "csv": as_csv, "md": as_markdown, "latex": as_latex}
