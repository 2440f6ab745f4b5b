"""Brings a checkpoint from the model hub into the hub's own cache (HF_HOME), so that other programs find it there too."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wdct_dist.checkpoints.digest import file_hashes
from wdct_dist.checkpoints.weights import PICKLE_INDEX, SAFETENSORS_INDEX, weight_files
from wdct_dist.errors import CheckpointError

SAFETENSORS = ("*.safetensors", SAFETENSORS_INDEX)
PICKLES = ("*.bin", "*.pt", PICKLE_INDEX)
SETTINGS = (
    "config.json", "generation_config.json", "params.json", "quantize_config.json", "quantization_config.json",
    "hf_quant_config.json", "*preprocessor_config.json", "processor_config.json", "adapter_config.json", "*.py",
    "tokenizer*", "*.spm", "spiece.model", "sentencepiece*.model", "vocab.*", "merges.txt", "tekken.json", "*.tiktoken",
    "special_tokens_map.json", "added_tokens.json", "chat_template*",
)  # fmt: skip
"""Also model code (*.py): it is small, and is run only with `engine.trust_remote_code: true`."""
NOT_NEEDED = ("*/*", "consolidated*", "training_args.*", "optimizer.*", "scheduler.*", "scaler.*", "rng_state*")
"""Directories hold the same weights in other formats; Mistral's `consolidated` files are the same weights twice."""

SHA256 = re.compile(r"[0-9a-f]{64}")
GIT_SHA1 = re.compile(r"[0-9a-f]{40}")


def bring(repo: str, revision: str | None, *, allow_pickle: bool) -> Path:
    """The directory of the hub's snapshot with all that an engine needs and nothing else.

    Pickled weights are brought only where there are no others and `allow_pickle` is true. With HF_HUB_OFFLINE=1 only the hub's cache on
    this machine is looked at. Raises `CheckpointError` saying what was tried.
    """
    directory = _snapshot(repo, revision, (*SETTINGS, *SAFETENSORS))
    if allow_pickle and not weight_files(directory):
        directory = _snapshot(repo, revision, (*SETTINGS, *PICKLES))
    return directory


def offers_pickles_only(repo: str, directory: Path) -> bool:
    """Whether the hub has pickled weights and no others for this snapshot; False also where the hub cannot be asked."""
    names = [stated.name for stated in _state_of_hub(repo, directory.name)]
    return any(name.endswith((".bin", ".pt")) for name in names) and not any(name.endswith(".safetensors") for name in names)


def verify(repo: str, directory: Path, cache: Path | None = None) -> int:
    """Reads every file of the snapshot again and compares it with the hash that the hub states; the number of files compared.

    The hub is asked for the hashes; where it cannot be, they are taken from its cache, which names each file's content after the hash that
    came with it. Raises `CheckpointError` for the first file that differs.
    """
    stated = {entry.name: entry for entry in (*_state_of_cache(directory), *_state_of_hub(repo, directory.name))}
    files = {directory / name: entry for name, entry in stated.items() if (directory / name).is_file()}
    large = file_hashes([file for file, entry in files.items() if entry.kind == "sha256"], cache, fresh=True)
    for file, entry in sorted(files.items()):
        actual = large[file] if file in large else _git_sha1(file)
        if actual != entry.hash:
            raise CheckpointError(
                f"{file}: its content has {entry.kind} {actual}, the hub states {entry.hash}; delete {file.resolve()} and fetch "
                "the model again."
            )
    return len(files)


@dataclass(frozen=True, slots=True)
class _Stated:
    """What the hub says about a file."""

    name: str
    hash: str
    kind: Literal["sha256", "git sha1"]


def _snapshot(repo: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        import huggingface_hub
    except ImportError:
        raise CheckpointError(
            f"`{repo}` is no path on this machine, and hub ids need huggingface_hub, which is not installed: "
            "`pip install huggingface_hub`, or give a directory."
        ) from None
    try:
        return Path(
            huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=list(patterns), ignore_patterns=list(NOT_NEEDED))
        )
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSErrors
        raise CheckpointError(_explain(repo, revision, error)) from None


def _explain(repo: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants, errors

    named = f"`{repo}`" if revision is None else f"`{repo}` at revision `{revision}`"
    tried = f"tried: a path of that name, the hub at {constants.ENDPOINT}, the hub's cache {constants.HF_HUB_CACHE}"
    if isinstance(error, errors.GatedRepoError):
        return f"{named}: the hub gives it only to accounts that accepted its terms; accept them there and set HF_TOKEN ({tried})."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{named}: the hub has no such revision; give a branch, tag or commit that it has ({tried})."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{named}: the hub knows no such model, or it is private; correct the id or path, or set HF_TOKEN ({tried})."
    if constants.HF_HUB_OFFLINE:
        tried = f"tried: a path of that name, the hub's cache {constants.HF_HUB_CACHE}; HF_HUB_OFFLINE is set, so not the hub"
        return f"{named}: not on this machine, at least not whole ({tried}). Fetch it where there is a network (`wdct fetch {repo}`)."
    reason = " ".join(str(error).split())[:200]
    return (
        f"{named}: the hub gave no answer that helps ({type(error).__name__}: {reason}; {tried}). Correct the id or path, "
        "or bring the model here by hand and give its directory; HF_HUB_OFFLINE=1 saves the attempt."
    )


def _state_of_hub(repo: str, commit: str) -> list[_Stated]:
    """Name and hash of each file; empty where the hub cannot be asked."""
    import huggingface_hub

    try:
        entries = list(huggingface_hub.HfApi().list_repo_tree(repo, revision=commit, recursive=True))
    except Exception:  # offline, or any of the errors of `_snapshot`: the caller has another way to know
        return []
    files = [entry for entry in entries if isinstance(entry, huggingface_hub.hf_api.RepoFile)]
    return [
        _Stated(entry.path, entry.lfs.sha256, "sha256") if entry.lfs else _Stated(entry.path, entry.blob_id, "git sha1") for entry in files
    ]


def _state_of_cache(directory: Path) -> list[_Stated]:
    """The cache links each file of a snapshot to content that is named after its hash: sha256 for large files, git's for others."""
    links = [file for file in directory.iterdir() if file.is_symlink()]
    names = [(file.name, os.path.basename(os.readlink(file))) for file in links]
    return [
        _Stated(name, blob, "sha256" if SHA256.fullmatch(blob) else "git sha1")
        for name, blob in names
        if SHA256.fullmatch(blob) or GIT_SHA1.fullmatch(blob)
    ]


def _git_sha1(file: Path) -> str:
    """The hash under which git keeps the file's content."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
