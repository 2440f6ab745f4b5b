"""events.jsonl: what happened when. One JSON object a line, written as it happens."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from wdct_dist.tables.storage import Store

NAME = "events.jsonl"
UPLOAD_EVERY_S = 10.0

CLOSED = "closed"
"""The last event of a session that ended by itself, well or not; a killed one has none."""


class EventLog:
    """Appends events. On an object store, which cannot append, the whole log is put again every few seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._uploaded_at = 0.0
        self._text = b""
        if store.local is None and store.exists(NAME):
            self._text = store.read(NAME)

    def add(self, event: str, **facts: Any) -> None:
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts},
            ensure_ascii=False,
            default=str,
        )
        data = f"{line}\n".encode()
        if self._store.local is not None:
            self._store.append(NAME, data)
            return
        self._text += data
        if time.monotonic() - self._uploaded_at > UPLOAD_EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._store.local is None:
            self._store.write(NAME, self._text)
            self._uploaded_at = time.monotonic()


def read_events(store: Store) -> list[dict[str, Any]]:
    """All events in order; a line cut short by a crash is left out."""
    if not store.exists(NAME):
        return []
    events: list[dict[str, Any]] = []
    for line in store.read(NAME).decode("utf-8", "replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
