"""A run in the log formats of other evaluators, for their viewers: `cases` reads it, `inspect_log` and `lm_eval_log` write it."""

from __future__ import annotations

FORMATS = ("inspect", "lm-eval")
