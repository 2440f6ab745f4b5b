"""report.html: one file that opens from disk without a network. `page` writes it, `charts` draws, `item_sample` chooses the items shown."""

from __future__ import annotations

from importlib.util import find_spec

NAME = "report.html"
NEEDED = ("altair", "vl_convert", "jinja2")


def what_html_lacks() -> str | None:
    """Why report.html cannot be written here, with the line that mends it; None where it can."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if not missing:
        return None
    verb = "is" if len(missing) == 1 else "are"
    return f"report.html needs {', '.join(missing)}, which {verb} not installed: `pip install 'wdct_dist[html]'`."
