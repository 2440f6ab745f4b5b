"""Whether a directory has a tokenizer that an engine can load, and a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.safetensors_header import is_lfs_pointer
from wdct_dist.errors import CheckpointError

TOKENIZER_FORMS = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("tokenizer.model.v3",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.json", "merges.txt"),
    ("tekken.json",),
)
"""Each is enough by itself."""


def require_tokenizer(directory: Path, *, custom_code: bool) -> None:
    """Raises `CheckpointError` where there is no tokenizer, or only part of its files.

    With `custom_code` (allowed and present) the checkpoint may bring a tokenizer in a form of its own.
    """
    whole = [form for form in TOKENIZER_FORMS if all((directory / name).is_file() for name in form)]
    if not whole and not custom_code:
        forms = ", ".join(" with ".join(form) for form in TOKENIZER_FORMS)
        raise CheckpointError(
            f"{directory}: no tokenizer; allowed are {forms}. Copy the tokenizer of the base model there "
            "(`AutoTokenizer.from_pretrained(BASE).save_pretrained(DIRECTORY)`)."
        )
    for name in {name for form in whole for name in form}:
        _require_whole(directory / name)


def has_chat_template(directory: Path) -> bool:
    """Whether a template is in a file of its own or in tokenizer_config.json."""
    if (directory / "chat_template.jinja").is_file():
        return True
    files = (directory / "chat_template.json", directory / "tokenizer_config.json")
    return any(bool(_read_object(file).get("chat_template")) for file in files if file.is_file())


def _require_whole(file: Path) -> None:
    """Finds pointers and files cut short, without parsing some 30 MB of JSON for each checkpoint."""
    if is_lfs_pointer(file):
        raise CheckpointError(f"{file}: a Git LFS pointer, not the tokenizer; run `git lfs pull` in that clone.")
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(64).strip()
        stream.seek(max(0, size_bytes - 64))
        tail = stream.read().strip()
    if not head or (file.suffix == ".json" and (head[:1], tail[-1:]) != (b"{", b"}")):
        raise CheckpointError(
            f"{file}: cut short or no JSON object: {size_bytes:,} bytes that begin with {head[:12]!r} and end with {tail[-12:]!r}; "
            "copy or download it again."
        )


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error}); copy or save it again.") from None
    return content if isinstance(content, dict) else {}
