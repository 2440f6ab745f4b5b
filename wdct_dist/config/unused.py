"""Settings that a configuration gives and that nothing in it uses: allowed, and said, since somebody meant something by them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from wdct_dist.config.align_schema import AlignConfig, Method, TrainedOrders
from wdct_dist.config.load import as_plain, flatten
from wdct_dist.config.schema import Config, EngineKind, Orders

OURS = {"direct", "cot", "augmented", "joint", "joint-reverse", "paper"}
"""Variants whose settings are known; those of other packages may read any."""

OF_VLLM = ("dtype", "max_num_seqs", "block_size", "gpu_memory_utilization", "cpu_cache_gib", "enforce_eager", "deterministic", "extra")


def unused(config: Config) -> list[str]:
    """A sentence for each setting that is not what it is by default and has no effect: what came, why, what to do."""
    return _sentences(config, Config(), _without_use(config))


def unused_in_alignment(config: AlignConfig) -> list[str]:
    """The same of an experiment. What its evaluation says of augmented items is not judged: items are trained in paraphrases too."""
    augment_too = list(dict.fromkeys([*config.evaluation.variants, "augmented"]))
    of_evaluation = unused(replace(config.evaluation, variants=augment_too))
    return [*_sentences(config, AlignConfig(), _without_use_in_alignment(config)), *(f"evaluation.{line}" for line in of_evaluation)]


def _sentences(config: Any, default: Any, without_use: Iterable[tuple[str, str]]) -> list[str]:
    given, usual = flatten(as_plain(config)), flatten(as_plain(default))
    return [
        f"{key}: {value!r} came and has no effect: {why}, or leave it out."
        for section, why in without_use
        for key, value in given.items()
        if (key == section or key.startswith(f"{section}.")) and value != usual.get(key)
    ]


def _without_use(config: Config) -> Iterator[tuple[str, str]]:
    """Sections and keys that nothing reads, each with why."""
    variants = set(config.variants)
    if variants <= OURS:
        if "cot" not in variants:
            yield "cot", "no variant reasons; add cot to variants"
        if "augmented" not in variants:
            yield "augment", "no variant is augmented; add augmented to variants"
    if config.orders is not Orders.random:
        yield "order_seed", f"orders: {config.orders.value} draws none; set orders: random"
    if variants <= {"direct", "augmented"} and config.engine.kind is EngineKind.vllm and (config.prompt.reply_tokens or 1) == 1:
        if config.augment.paraphraser is None:
            for name in ("temperature", "top_p", "max_new_tokens"):
                yield f"sampling.{name}", "no text is generated; set prompt.reply_tokens, or add a variant that generates, such as cot"
    elif config.sampling.temperature == 0:
        yield "sampling.top_p", "nothing is drawn at temperature 0; set sampling.temperature"
    kind = config.engine.kind
    if kind is not EngineKind.endpoint:
        yield "engine.endpoint", f"engine.kind is {kind.value}; set engine.kind: endpoint"
    if kind is not EngineKind.scripted:
        yield "engine.scripted", f"engine.kind is {kind.value}; set engine.kind: scripted"
    if kind is EngineKind.endpoint:
        for name in OF_VLLM:
            yield f"engine.{name}", "the server behind the API decides it; set it there"


def _without_use_in_alignment(config: AlignConfig) -> Iterator[tuple[str, str]]:
    if Method.sft not in config.methods:
        for section in ("sft", "instructions"):
            yield section, "methods is [dpo]; add sft to methods"
    if Method.dpo not in config.methods:
        for section in ("dpo", "divergence.margin_window", "divergence.min_reward_margin", "divergence.max_margin_fall"):
            yield section, "methods is [sft]; add dpo to methods"
    if config.held_out == 0:
        yield "split_seed", "nothing is held out; set held_out"
    if config.augment.orders is not TrainedOrders.one:
        yield "augment.order_seed", f"augment.orders: {config.augment.orders.value} draws none; set augment.orders: one"
    if config.divergence.control is None:
        for name in ("control_limit", "min_control_accuracy", "max_control_fall"):
            yield f"divergence.{name}", "no control questions are asked; set divergence.control"
