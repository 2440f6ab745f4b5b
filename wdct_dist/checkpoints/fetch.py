"""`wdct fetch MODEL`: brings a model to this machine ahead of a run and verifies it."""

from __future__ import annotations

from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints import hub
from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.node_copy import on_this_node
from wdct_dist.checkpoints.sources import parse_sources
from wdct_dist.errors import ConfigError


def fetch_model(name: str, *, base: Path | None = None, cache: Path | None = None) -> tuple[Path, str]:
    """(directory, digest) of a hub id, a prefix in an object store, a GGUF file, `package://module/file` or a directory.

    It is brought here and proven whole. Every file of a hub model is read again and compared with the hash that the hub states.
    Model code is brought but never run, so `trust_remote_code` is not asked for; pickled weights are refused, because an evaluation
    refuses them too. Relative paths start at `base` (default: the working directory). Raises `ConfigError` where `name` is more
    than one checkpoint, `CheckpointError` where it cannot be had or is not what it should be.
    """
    sources = parse_sources([name], base or Path.cwd())
    if len(sources) > 1:
        raise ConfigError(f"`{name}` matches {len(sources)} checkpoints; fetch them one by one.")
    cache = cache or cache_root()
    checkpoint = describe(sources[0], allow_pickle=False, trust_remote_code=True, cache=cache)
    if checkpoint.kind == "hub":
        hub.verify(sources[0].location, checkpoint.directory, cache)
    with on_this_node(checkpoint, max_gib=None, allow_pickle=False, cache=cache) as lease:
        return lease.directory, checkpoint.digest
