"""Instruction examples, mixed with the items so that a model is not trained on labels alone: files in Alpaca's format.

A record has `instruction`, `output` and, where there is one, `input`; JSON (a list of records), JSONL, Parquet, or a data set of the hub
that has such files. `bundled` is the small set that comes with the package.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wdct_dist.align.types import Example
from wdct_dist.errors import DataError
from wdct_dist.prompts.types import Message

BUNDLED = Path(__file__).parent / "data" / "instructions.jsonl"

SUFFIXES = (".parquet", ".jsonl", ".json")
"""Formats, in the order in which a data set of the hub is looked through for them."""

TRAIN_SPLIT = "train"
"""What the names of a data set's training files contain, where it has several splits."""

EMPTY, REPEATED, OTHER = "instruction or output is empty", "it says the same as one before", "it has no instruction and output as text"


@dataclass(frozen=True, slots=True)
class Instructions:
    """The examples of one instruction set."""

    examples: tuple[Example, ...]
    source: str
    """As the configuration names it."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Records that are not used, by reason."""

    def lines(self) -> list[str]:
        """What was read, in words."""
        said = [f"instructions: {len(self.examples):,} examples from {self.source}"]
        return said + [f"instructions: {count:,} records are left out: {reason}" for reason, count in self.left_out.items()]


def read_instructions(setting: str) -> Instructions:
    """The examples that `setting` names: `bundled`, a file, or a hub id `org/name`.

    Records without instruction or output and repeated ones are left out and counted. Raises `DataError` where the file cannot be read,
    or has no example.
    """
    seen: set[Example] = set()
    left_out: Counter[str] = Counter()
    found: list[Example] = []
    for record in _records(setting):
        example = _example(record)
        if isinstance(example, str):
            left_out[example] += 1
        elif example in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(example)
            found.append(example)
    if not found:
        reasons = "".join(f"; {count:,} records: {reason}" for reason, count in left_out.items())
        raise DataError(
            f"{setting} has no instruction example{reasons}. A record has `instruction`, `output` and perhaps `input` (Alpaca's format)."
        )
    return Instructions(tuple(found), setting, dict(left_out))


def _example(record: Any) -> Example | str:
    """The example of one record, or why it is none."""
    if not isinstance(record, Mapping):
        return OTHER
    instruction, given, output = (record.get(name) for name in ("instruction", "input", "output"))
    if not isinstance(instruction, str) or not isinstance(output, str) or not isinstance(given, str | None):
        return OTHER
    instruction, given, output = instruction.strip(), (given or "").strip(), output.strip()
    if not instruction or not output:
        return EMPTY
    return Example((Message("user", f"{instruction}\n\n{given}" if given else instruction),), output, "instruction", None)


def _records(setting: str) -> Iterator[Any]:
    for path in _files(setting):
        try:
            yield from _of_file(path)
        except (OSError, ValueError, NotImplementedError) as error:  # of JSON, of Arrow, and for text that is not UTF-8
            raise DataError(f"{path} cannot be read as {path.suffix[1:]}: {str(error).partition(chr(10))[0]}.") from None


def _of_file(path: Path) -> Iterable[Any]:
    match path.suffix.lower():
        case ".parquet":
            from pyarrow import parquet

            return list(parquet.read_table(path).to_pylist())
        case ".jsonl":
            return _lines(path)
        case _:
            records = json.loads(path.read_text(encoding="utf-8-sig"))
            if not isinstance(records, list):
                raise ValueError("it is not a list of records")
            return records


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from None


def _files(setting: str) -> list[Path]:
    if setting == "bundled":
        return [BUNDLED]
    path = Path(setting).expanduser()
    allowed = f"a file ({', '.join(SUFFIXES)}) in Alpaca's format, `bundled`, or a hub id such as org/name"
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{setting}: the suffix {path.suffix!r} is not read; give {allowed}.")
        return [path]
    if path.suffix.lower() in SUFFIXES or setting.count("/") != 1 or setting.startswith((".", "/", "~")):
        raise DataError(f"There is no instruction set {setting}; give {allowed}.")
    return _of_hub(setting, allowed)


def _of_hub(repo: str, allowed: str) -> list[Path]:
    """The files of a data set of the hub, brought into the hub's own cache: those of one format, and of its training split."""
    try:
        import huggingface_hub
    except ImportError:
        raise DataError(
            f"{repo} is no file on this machine, and hub ids need huggingface_hub: `pip install huggingface_hub`, or give {allowed}."
        ) from None
    try:
        patterns = [f"*{suffix}" for suffix in SUFFIXES]
        folder = Path(
            huggingface_hub.snapshot_download(repo, repo_type="dataset", allow_patterns=patterns, ignore_patterns=["dataset_info*"])
        )
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSErrors
        raise DataError(
            f"{repo} is no file on this machine, and the hub did not give a data set of that name "
            f"({type(error).__name__}: {' '.join(str(error).split())[:200]}); give {allowed}."
        ) from None
    for suffix in SUFFIXES:
        files = sorted(folder.rglob(f"*{suffix}"))
        if files:
            return [path for path in files if TRAIN_SPLIT in path.name] or files
    raise DataError(f"{repo} has no file of a format that is read ({', '.join(SUFFIXES)}); give {allowed}.")
