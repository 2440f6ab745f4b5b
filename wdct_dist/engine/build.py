"""Makes the configured engine for a checkpoint, and has its process ready before."""

from __future__ import annotations

from collections.abc import Mapping

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.engine.protocol import Engine, Sharing
from wdct_dist.errors import ConfigError


def build_engine(
    checkpoint: Checkpoint, config: Config, spent: Mapping[str, float] | None = None, sharing: Sharing | None = None
) -> Engine:
    """An engine that is ready to answer. Raises `EngineError` where it does not start, `ConfigError` where vLLM is missing.

    `spent`: what the run has used of an API's budget, by the name of the limit. `sharing`: the checkpoint is a base, and the engine takes
    adapters of it (`Shares`); vLLM only.
    """
    if config.engine.kind is EngineKind.scripted:
        from wdct_dist.engine.scripted import ScriptedEngine

        return ScriptedEngine(checkpoint, config.engine.scripted, config.sampling)
    if config.engine.kind is EngineKind.endpoint:
        from wdct_dist.engine.endpoint_engine import EndpointEngine

        return EndpointEngine(checkpoint, config.engine.endpoint, config.prompt, config.sampling, spent or {})
    _require_vllm()
    from wdct_dist.engine.vllm_engine import start_vllm

    return start_vllm(checkpoint, config.engine, config.prompt, config.sampling, config.dispatch.tensor_parallel_size, sharing)


def prepare_engine(config: Config) -> None:
    """Imports what an engine of this configuration needs, before there is a checkpoint for it. Raises what `build_engine` would."""
    if config.engine.kind is EngineKind.vllm:
        _require_vllm()
        from wdct_dist.engine.vllm_start import import_vllm

        import_vllm(config.engine)


def _require_vllm() -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise ConfigError(
            "engine.kind: vllm needs vLLM, which is not installed here; run `make install` in the project, or "
            "`pip install 'wdct_dist[gpu]'` (on a machine without a GPU `pip install 'wdct_dist[cpu]'`), "
            "or use engine.kind: scripted."
        )
