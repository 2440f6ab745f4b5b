"""Tokens that a run has used so far, by the model that was asked: read from its answers, so that a budget holds over all sessions."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.compute as pc

from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.tables.shards import parse_name
from wdct_dist.tables.storage import Store


def tokens_used(store: Store) -> dict[str, Usage]:
    """Of all shards under the run's root: its own, and those of noise repeats and paraphrases. Rows that do not say count nothing."""
    used: dict[str, Usage] = {}
    for name in store.names_below("", ".arrow"):
        if parse_name(f"answers/{name.rpartition('/')[2]}") is None:
            continue
        with store.open(name) as source:
            table = pa.ipc.open_file(source).read_all()
        facts = json.loads((table.schema.metadata or {}).get(b"wdct.facts", b"{}"))
        model = facts.get("engine", {}).get("settings", {}).get("model")
        if model is not None:
            asked, said = (pc.sum(table[column]).as_py() or 0 for column in ("num_prompt_tokens", "num_output_tokens"))
            used[model] = used.get(model, Usage()) + Usage(asked, said)
    return used
