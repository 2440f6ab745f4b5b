"""A source is what the configuration names; a checkpoint is what was found there."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["directory", "gguf", "hub", "package", "object store", "adapter", "endpoint", "scripted"]


DIGEST_OF: dict[str, str] = {
    "adapter": "what the base's digest vouches for, and the adapter's configuration, weights and tokenizer",
    "object store": "size and ETag of the weights, content of configuration, tokenizer and chat template",
    "endpoint": "base_url, model name and stated revision: the weights behind an API cannot be hashed, and may change without notice",
    "scripted": "the name: there are no weights",
}
"""What a digest vouches for, by kind, where it is not the weights."""


@dataclass(frozen=True, slots=True)
class Source:
    """One checkpoint as the configuration names it, not yet looked at."""

    checkpoint_id: str
    location: str
    """An absolute path (directory or GGUF file), `package://module/file`, `s3://bucket/prefix`, or a hub id `org/model`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; None is the hub's main branch."""
    base: Source | None = None
    """Of an adapter, the model that it changes; None: the one that it states itself."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights under test, known to be whole; `node_copy.on_this_node` says where a node has them."""

    checkpoint_id: str
    digest: str
    """What the weights, configuration, tokenizer and chat template are (see `digest.py`); 64 hex digits."""
    directory: Path
    """What an engine loads: safetensors, config.json and tokenizer."""
    source: str
    """What the configuration named, with `@revision` where it has one; of an adapter also its base."""
    architecture: str
    """Class name of the model, for example `LlamaForCausalLM`; `scripted` where there is no model."""
    signature: str
    """Checkpoints of the same signature can take turns in one live engine; any other needs a new engine."""
    size_bytes: int
    """Size of the weight files on disk."""
    dtype: str
    """Precision that the checkpoint states, for example `bfloat16`."""
    max_position: int | None
    """Longest sequence in tokens that the checkpoint states, or None where it states none."""
    has_chat_template: bool
    kind: Kind
    origin: Source | None = None
    """From which another node brings or makes the same; None where there is nothing to bring."""
    base: Checkpoint | None = None
    """Of an adapter, the model that it changes."""
    files_bytes: int = 0
    """What it takes on a node's disk, where it is brought or made there."""
    adapter_rank: int = 0
    """Of an adapter that an engine of its base could apply without merging, its rank."""
    merged_because: str | None = None
    """Why an adapter has to be merged, whatever the engine."""
    stamp: str = field(default="", compare=False)
    """Of a directory that is somebody's own and may be written to: `digest.stamp`, from before its files were hashed."""

    def to_json(self) -> dict[str, str | int | bool | None]:
        """For the run's provenance: all fields as JSON values (but `stamp`, and `origin`, which `source` names; of the base its digest),
        and what the digest vouches for."""
        return {
            "checkpoint_id": self.checkpoint_id,
            "digest": self.digest,
            "directory": str(self.directory),
            "source": self.source,
            "architecture": self.architecture,
            "signature": self.signature,
            "size_bytes": self.size_bytes,
            "dtype": self.dtype,
            "max_position": self.max_position,
            "has_chat_template": self.has_chat_template,
            "kind": self.kind,
            "base": None if self.base is None else self.base.digest,
            "files_bytes": self.files_bytes,
            "adapter_rank": self.adapter_rank,
            "merged_because": self.merged_because,
            "digest_of": DIGEST_OF.get(self.kind, "weights, configuration, tokenizer and chat template"),
        }
