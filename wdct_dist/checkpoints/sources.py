"""Reads `checkpoints:` of the configuration: which checkpoints, under which ids. Touches no hub and no weights."""

from __future__ import annotations

import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from wdct_dist.checkpoints import object_store
from wdct_dist.checkpoints.package import SCHEME, find_in_package
from wdct_dist.checkpoints.revisions import read_revisions
from wdct_dist.checkpoints.types import Checkpoint, Source
from wdct_dist.errors import CheckpointError, ConfigError
from wdct_dist.ids import stable_hash

TEXT_KEYS = ("path", "id", "revision", "base")
ALLOWED_KEYS = (*TEXT_KEYS, "revisions")
FORMS = (
    "allowed are an existing directory, a GGUF file, a glob such as `outputs/*/checkpoint-*`, "
    f"`{SCHEME}module/file.gguf`, `s3://bucket/prefix`, or a hub id `org/model` or `org/model@revision`"
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
HUB_REVISION = re.compile(r"[\w./-]+", re.ASCII)

TEMPORARY = re.compile(r"^\.|(^|[._-])(tmp|incomplete|partial)([._-]|$)", re.IGNORECASE)
"""Names of directories that trainers rename once a checkpoint in them is whole."""


def parse_sources(entries: Sequence[object], base: Path) -> list[Source]:
    """The checkpoints that the entries name, in their order; a glob's in natural order (checkpoint-2 before checkpoint-10).

    An entry is a text or a mapping with `path` and, where wanted, `id` and `revision`, or `revisions` (see `revisions.py`) for
    many of them, and for LoRA adapters `base`. Relative paths start at `base`, and what exists there wins over a hub id of the
    same spelling. An id that is not given is the last component of the path, or as many of the last components as tell it from
    all others; for a hub id it is the entry itself, for one of many revisions ID@REVISION.
    Raises `ConfigError` for entries that cannot be read or that name a checkpoint or an id twice, `CheckpointError` for paths and
    globs that lead nowhere.
    """
    if not entries:
        raise ConfigError(f"checkpoints: none are named; {FORMS}.")
    groups = []
    for entry in _read_entries(entries):
        found = _resolve(entry.text, entry.revision, base)
        over = None if entry.base is None else resolve_base(entry.base, None, base)
        groups.append(_Group(entry.text, entry.checkpoint_id, found, over))
        if entry.checkpoint_id is not None and len(groups[-1].found) > 1:
            raise ConfigError(
                f"checkpoints: `{entry.text}` matches {len(groups[-1].found)} checkpoints, so they cannot all have the id "
                f"{entry.checkpoint_id!r}; leave the id out, or name them one by one."
            )
    return _with_unique_ids(groups)


def resolve_base(text: str, revision: str | None, base: Path) -> Source:
    """The model that an adapter changes; named like a checkpoint. Raises as `parse_sources`, also where it is not one."""
    found = _resolve(text, revision, base)
    if len(found) > 1:
        raise ConfigError(f"checkpoints: the base `{text}` matches {len(found)} checkpoints; name one.")
    return Source(text, found[0].location, found[0].revision)


def scripted_checkpoints(entries: Sequence[object]) -> list[Checkpoint]:
    """For `engine.kind: scripted`, where any name is a checkpoint: one for each entry. Raises `ConfigError`."""
    if not entries:
        raise ConfigError("checkpoints: none are named; with engine.kind: scripted any name is one, such as `demo`.")
    return [scripted_checkpoint(name) for name, _, _ in _named(entries)]


def endpoint_checkpoints(entries: Sequence[object], base_url: str) -> list[Checkpoint]:
    """For `engine.kind: endpoint`, where a name is a model's behind the API: one for each entry. Raises `ConfigError`."""
    if not entries:
        raise ConfigError("checkpoints: none are named; with engine.kind: endpoint they are names of the API's models, such as `gpt-4o`.")
    return [endpoint_checkpoint(name, model, revision, base_url) for name, model, revision in _named(entries)]


def endpoint_checkpoint(checkpoint_id: str, model: str, revision: str | None, base_url: str) -> Checkpoint:
    """A model behind an API. `revision` is the user's own word for which weights the name stands for at present."""
    return Checkpoint(
        checkpoint_id=checkpoint_id,
        digest=stable_hash(["endpoint", base_url.rstrip("/"), model, revision], 64),
        directory=Path(),
        source=model,
        architecture=f"behind {base_url}",
        signature=f"endpoint {base_url} {model}",
        size_bytes=0,
        dtype="unknown",
        max_position=None,
        has_chat_template=True,
        kind="endpoint",
    )


def _named(entries: Sequence[object]) -> list[tuple[str, str, str | None]]:
    """(id, name, revision) of entries that are names and nothing on this machine."""
    named: dict[str, tuple[str, str, str | None]] = {}
    for entry in _read_entries(entries):
        name = entry.checkpoint_id or (entry.text if entry.revision is None else f"{entry.text}@{entry.revision}")
        if name in named:
            raise ConfigError(f"checkpoints: the id {name!r} comes twice; give each checkpoint an id of its own.")
        named[name] = (name, entry.text, entry.revision)
    return list(named.values())


def scripted_checkpoint(name: str) -> Checkpoint:
    """A checkpoint without a model: its answers are decided by its name, so its digest is the hash of the name."""
    return Checkpoint(
        checkpoint_id=name,
        digest=stable_hash(["scripted", name], 64),
        directory=Path(),
        source=name,
        architecture="scripted",
        signature="scripted",
        size_bytes=0,
        dtype="none",
        max_position=None,
        has_chat_template=True,
        kind="scripted",
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """What one entry says of one revision."""

    text: str
    checkpoint_id: str | None = None
    revision: str | None = None
    base: str | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    location: str
    revision: str | None
    parts: tuple[str, ...]
    """What an id is made of, outermost first."""


@dataclass(slots=True)
class _Group:
    """What one entry named."""

    text: str
    checkpoint_id: str | None
    found: list[_Found]
    base: Source | None = None
    depth: int = field(default=1)
    """How many of the last parts make an id, the same number for all of a glob's matches."""

    def id_of(self, found: _Found) -> str:
        return self.checkpoint_id if self.checkpoint_id is not None else "/".join(found.parts[-self.depth :])

    def can_go_deeper(self) -> bool:
        return self.checkpoint_id is None and any(len(found.parts) > self.depth for found in self.found)


def _read_entries(entries: Sequence[object]) -> Iterator[_Entry]:
    """What the entries say, one revision at a time."""
    for entry in entries:
        if isinstance(entry, str):
            yield _Entry(_text("checkpoints", entry))
        elif isinstance(entry, Mapping):
            yield from _read_mapping(entry)
        else:
            raise ConfigError(
                f"checkpoints: {entry!r} is neither a text nor a mapping; {FORMS}, or a mapping with {', '.join(ALLOWED_KEYS)}."
            )


def _read_mapping(entry: Mapping[object, object]) -> list[_Entry]:
    unknown = [str(key) for key in entry if key not in ALLOWED_KEYS]
    if unknown:
        raise ConfigError(
            f"checkpoints: {dict(entry)!r} has the unknown key {', '.join(map(repr, unknown))}; allowed are {', '.join(ALLOWED_KEYS)}."
        )
    if entry.get("path") is None:
        raise ConfigError(f"checkpoints: {dict(entry)!r} has no `path`; {FORMS}.")
    texts = {key: _text(f"checkpoints: `{key}`", entry[key]) for key in TEXT_KEYS if entry.get(key) is not None}
    one = _Entry(texts["path"], texts.get("id"), texts.get("revision"), texts.get("base"))
    if entry.get("revisions") is None:
        return [one]
    if one.revision is not None:
        raise ConfigError(f"checkpoints: {dict(entry)!r} has `revision` and `revisions`; give one of them.")
    name = one.checkpoint_id
    return [replace(one, checkpoint_id=name and f"{name}@{revision}", revision=revision) for revision in read_revisions(entry["revisions"])]


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigError(f"{where}: {value!r} is not allowed; allowed is a text on one line (quote numbers in YAML).")
    return value.strip()


def _resolve(text: str, revision: str | None, base: Path) -> list[_Found]:
    if text.startswith(SCHEME):
        find_in_package(text)
        _refuse_revision(text, revision)
        return [_Found(text, None, _parts(PurePath(text.removeprefix(SCHEME))))]
    if text.startswith(object_store.SCHEMES):
        object_store.refuse_unfit(text)
        _refuse_revision(text, revision)
        bucket_and_key = PurePath(text.partition("://")[2].partition("?")[0].rpartition("@")[2])
        return [_Found(text, None, _parts(bucket_and_key))]
    if "://" in text:
        raise ConfigError(f"checkpoints: `{text}` is not on this machine; {FORMS}. Copy it to a directory first.")
    path = Path(os.path.abspath(base / Path(text).expanduser()))
    if path.exists():
        _refuse_plain_file(path)
        _refuse_revision(text, revision)
        return [_Found(str(path), None, _parts(path))]
    if glob.has_magic(text):
        _refuse_revision(text, revision)
        return [_Found(str(match), None, _parts(match)) for match in _matches(text, base)]
    repo, at, pinned = text.partition("@")
    if not HUB_ID.fullmatch(repo) or path.suffix.lower() == ".gguf":
        raise CheckpointError(f"`{text}` does not exist (looked for {path}); {FORMS}.")
    if at and not HUB_REVISION.fullmatch(pinned):
        raise ConfigError(f"checkpoints: `{text}` has no revision that a hub knows after `@`; {FORMS}.")
    if at and revision not in (None, pinned):
        raise ConfigError(f"checkpoints: `{text}` also has `revision: {revision}`; give one revision.")
    revision = pinned if at else revision
    return [_Found(repo, revision, (repo if revision is None else f"{repo}@{revision}",))]


def _refuse_revision(text: str, revision: str | None) -> None:
    if revision is not None:
        raise ConfigError(f"checkpoints: `{text}` has no `revision: {revision}`; only hub ids have revisions.")


def _refuse_plain_file(path: Path) -> None:
    if path.is_dir() or _is_gguf(path):
        return
    hint = f"give the directory {path.parent}" if (path.parent / "config.json").is_file() else FORMS
    raise CheckpointError(f"{path} is a file, but no GGUF file; {hint}.")


def _is_gguf(path: Path) -> bool:
    """By name, or by content: other programs keep GGUF files under their hashes."""
    if path.suffix.lower() == ".gguf":
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def is_temporary(name: str) -> bool:
    """Return whether a trainer gives such a name to a checkpoint that it is still writing, for example `tmp-checkpoint-500`."""
    return TEMPORARY.search(name) is not None


def _matches(text: str, base: Path) -> list[Path]:
    """Directories and GGUF files that the glob matches, in natural order."""
    pattern = str(Path(text).expanduser())
    paths = [Path(os.path.abspath(base / name)) for name in glob.glob(pattern, root_dir=base, recursive=True)]
    paths = [path for path in paths if not is_temporary(path.name) or is_temporary(Path(pattern).name)]
    matches = sorted({path for path in paths if path.is_dir() or path.suffix.lower() == ".gguf"}, key=natural)
    if not matches:
        others = f" ({len(paths)} other files match)" if paths else ""
        raise CheckpointError(
            f"`{text}` matches no directory and no GGUF file under {base}{others}; "
            "check the pattern, or leave the entry out until there are checkpoints."
        )
    return matches


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sorts digits as numbers, everything else as text."""
    return [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for part in path.parts
        for piece in (*filter(None, re.split(r"(\d+)", part)), "/")
    ]


def _parts(path: PurePath) -> tuple[str, ...]:
    name = path.stem if path.suffix.lower() == ".gguf" else path.name
    return (*path.parent.parts[1 if path.is_absolute() else 0 :], name)


def _with_unique_ids(groups: list[_Group]) -> list[Source]:
    _refuse_repeats(groups)
    while True:
        owners: defaultdict[str, list[tuple[_Group, _Found]]] = defaultdict(list)
        for group in groups:
            for found in group.found:
                owners[group.id_of(found)].append((group, found))
        clashes = {name: pairs for name, pairs in owners.items() if len(pairs) > 1}
        if not clashes:
            return [Source(group.id_of(found), found.location, found.revision, group.base) for group in groups for found in group.found]
        to_deepen = {id(group): group for pairs in clashes.values() for group, _ in pairs if group.can_go_deeper()}
        if not to_deepen:
            name, pairs = next(iter(clashes.items()))
            raise ConfigError(
                f"checkpoints: the id {name!r} comes {len(pairs)} times "
                f"({', '.join(found.location for _, found in pairs)}); give each checkpoint an `id` of its own."
            )
        for group in to_deepen.values():
            group.depth += 1


def _refuse_repeats(groups: list[_Group]) -> None:
    """The same checkpoint twice without ids: no depth would tell them apart."""
    first: dict[tuple[str, str | None], _Group] = {}
    for group in groups:
        if group.checkpoint_id is not None:
            continue
        for found in group.found:
            other = first.setdefault((found.location, found.revision), group)
            if other is not group:
                raise ConfigError(
                    f"checkpoints: {found.location} comes twice (as `{other.text}` and as `{group.text}`); name each checkpoint once."
                )
