"""`{watch: DIRECTORY}` among the checkpoints: those that a training run writes into it, as they become complete.

A directory in the watched one counts once its settings are there, every weight file that its index names is there and whole by its
own header, and nothing in it has changed for `settle_s` seconds. When the file `until` appears, training is over: what is there
then is all there will be, and what is still not whole is broken.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wdct_dist.checkpoints.adapter import CONFIG as ADAPTER_CONFIG
from wdct_dist.checkpoints.adapter import is_adapter, read_adapter
from wdct_dist.checkpoints.sources import is_temporary, natural
from wdct_dist.checkpoints.tensor_data import places
from wdct_dist.checkpoints.weights import ADAPTER_WEIGHTS, read_weights
from wdct_dist.errors import CheckpointError, ConfigError

KEYS = ("watch", "until", "id", "base", "settle_s")
UNTIL = "done"
SETTLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Watch:
    directory: Path
    name: str
    """First part of the ids: NAME/checkpoint-100."""
    until: str = UNTIL
    """File in the directory that ends the watching."""
    base: str | None = None
    """Of adapters."""
    settle_s: float = SETTLE_S

    @property
    def is_over(self) -> bool:
        return (self.directory / self.until).exists()

    def entries(self, *, everything: bool) -> list[dict[str, str]]:
        """Entries for `parse_sources` of what is complete, in natural order; with `everything` also of what is not."""
        if not self.directory.is_dir():
            return []
        folders = [entry for entry in self.directory.iterdir() if entry.is_dir() and not is_temporary(entry.name)]
        found = [folder for folder in folders if _has_settings(folder) and (everything or self._is_complete(folder))]
        base = {} if self.base is None else {"base": self.base}
        return [{"path": str(folder), "id": f"{self.name}/{folder.name}", **base} for folder in sorted(found, key=natural)]

    def _is_complete(self, folder: Path) -> bool:
        try:
            last_change = max(file.stat().st_mtime for file in (folder, *folder.iterdir()))
            if time.time() - last_change < self.settle_s:
                return False
            if is_adapter(folder):
                read_adapter(folder)
                places(folder / ADAPTER_WEIGHTS[0])
            else:
                read_weights(folder, allow_pickle=False)
        except (CheckpointError, OSError):  # also a file that went while we looked
            return False
        return True


def read_watches(entries: Sequence[object], start: Path) -> list[Watch]:
    """The watched directories among the entries; relative ones begin at `start`. Raises `ConfigError`."""
    return [_read(entry, start) for entry in entries if isinstance(entry, Mapping) and "watch" in entry]


def expand(entries: Sequence[object], start: Path, *, everything: bool = False) -> list[object]:
    """The entries with each watched directory replaced by what is complete in it now."""
    expanded: list[object] = []
    for entry in entries:
        if isinstance(entry, Mapping) and "watch" in entry:
            expanded += _read(entry, start).entries(everything=everything)
        else:
            expanded.append(entry)
    return expanded


def _has_settings(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / ADAPTER_CONFIG).is_file()


def _read(entry: Mapping[object, object], start: Path) -> Watch:
    if unknown := [str(key) for key in entry if key not in KEYS]:
        raise ConfigError(
            f"checkpoints: {dict(entry)!r} has the unknown key {', '.join(map(repr, unknown))}; allowed are {', '.join(KEYS)}."
        )
    texts = {key: entry[key] for key in ("watch", "until", "id", "base") if entry.get(key) is not None}
    for key, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"checkpoints: `{key}`: {value!r} is not allowed; allowed is a text.")
    settle_s = entry.get("settle_s", SETTLE_S)
    if isinstance(settle_s, bool) or not isinstance(settle_s, int | float) or not 0 <= settle_s < float("inf"):
        raise ConfigError(f"checkpoints: `settle_s`: {settle_s!r} is not allowed; allowed are seconds from 0 on.")
    if "watch" not in texts:
        raise ConfigError(f"checkpoints: {dict(entry)!r} watches nothing; give the directory that training writes to.")
    directory = Path(os.path.abspath(start / Path(str(texts["watch"])).expanduser()))
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"checkpoints: `watch`: {directory} is a file; allowed is a directory, also one that is not there yet.")
    base = texts.get("base")
    until = str(texts.get("until", UNTIL))
    return Watch(directory, str(texts.get("id", directory.name)), until, None if base is None else str(base), float(settle_s))
