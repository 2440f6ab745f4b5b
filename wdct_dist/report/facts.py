"""What a run says of itself, for whoever reads its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wdct_dist.config.schema import Config, EngineKind


def facts(config: Config, provenance: Mapping[str, Any]) -> list[str]:
    """What a reader needs beside the figures, one line each: the items, the precision, the intervals, what is not there."""
    lines = [f"run {config.run_dir}"]
    data = provenance.get("data", {})
    if "items" in data:
        lines.append(f"{data['items']:,} items of {data.get('path', config.data.path)}")
    lines.append(f"{_engine(config, provenance)}, orders {config.orders.value}, trials {config.trials}")
    if config.trials > 1:
        lines[-1] += f", temperature {config.sampling.temperature:g}"
    if config.metrics.bootstrap_resamples:
        lines.append(
            f"intervals: {100 * config.metrics.level:g} %, percentile bootstrap over items, "
            f"{config.metrics.bootstrap_resamples:,} resamples, seed {config.metrics.bootstrap_seed}"
        )
    lines += provenance.get("paraphrases", [])[:1]
    lines += [
        f"checkpoint {one['checkpoint_id']}: {one['source']}" for one in provenance.get("checkpoints", []) if one.get("kind") == "adapter"
    ]
    lines += [f"checkpoint {name} failed: {reason}" for name, reason in provenance.get("failed_checkpoints", {}).items()]
    return lines


def _engine(config: Config, provenance: Mapping[str, Any]) -> str:
    if config.engine.kind is EngineKind.scripted:
        return "engine scripted: pseudo-answers, no model"
    if config.engine.kind is EngineKind.endpoint:
        return f"engine endpoint at {config.engine.endpoint.base_url}: weights and precision unknown"
    precision = config.engine.dtype.value
    if precision == "auto":
        stated = sorted({_in_engine(str(one["dtype"])) for one in provenance.get("checkpoints", []) if one.get("dtype")})
        precision = "as the checkpoints state it" + (f" ({', '.join(stated)})" if stated else "")
    return f"engine {config.engine.kind.value}, precision {precision}"


def _in_engine(dtype: str) -> str:
    """What vLLM makes of a stated precision where `engine.dtype` is auto: it keeps 16 bits, and brings float32 down to them."""
    return "float32, which vLLM runs in 16 bits unless engine.dtype is float32" if dtype == "float32" else dtype
