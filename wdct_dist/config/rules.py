"""What a configuration may hold: the range of each value, and the combinations that cannot be."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from wdct_dist.config.schema import Adapters, Config, EndpointApi, EngineKind, Executor, PromptFormat, Protocol, Reuse
from wdct_dist.errors import ConfigError

Rule = tuple[str, Callable[[Any], bool], str]


def above(low: float) -> Callable[[Any], bool]:
    return lambda value: value is None or (math.isfinite(value) and value > low)


def at_least(low: float) -> Callable[[Any], bool]:
    return lambda value: value is None or (math.isfinite(value) and value >= low)


def _within(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: value is None or low <= value <= high


def _from_0_each_once(value: Any) -> bool:
    return 0 < len(value) == len(set(value)) and min(value) >= 0


def share(value: Any) -> bool:
    return math.isfinite(value) and 0 <= value <= 1


def _iso_date(value: str) -> bool:
    import datetime

    try:
        datetime.date.fromisoformat(value)
    except ValueError:
        return False
    return True


def _plain_url(value: str) -> bool:
    """Whether it is an address without secrets: what stands in it is written to tables and reports."""
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    held = "@" in parts.netloc or parts.query or parts.fragment
    return (
        parts.scheme in ("http", "https") and bool(parts.hostname) and not held and port != 0 and value.isprintable() and " " not in value
    )


OWN_FIELDS = frozenset({"model", "messages", "prompt", "n", "stream", "logprobs", "top_logprobs", "max_tokens", "max_completion_tokens"})
"""What `engine.endpoint.extra` may not set: it would change what is asked, or how it is read."""

PROJECT = re.compile(r"([\w.-]+/)?[\w.-]+")
"""A project of Weights & Biases."""

KEYS = re.compile(r"(?<=://)[^/\s]*:[^/\s]*@")
"""What a URI says of a user and a password, or an id and its key."""

RULES: tuple[Rule, ...] = (
    ("run_dir", lambda value: bool(value.strip()), "a path or a URI"),
    (
        "run_dir",
        lambda value: not KEYS.search(value),
        "a URI without keys, which would be written to the run and its report; give them in the environment (AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or a profile)",
    ),
    ("data.path", lambda value: bool(value.strip()), "a file, `bundled` or `wdct`"),
    ("data.limit", at_least(1), "a whole number from 1 on, or null"),
    ("data.domains", lambda value: value is None or len(value) > 0, "at least one domain, or null for all"),
    ("data.languages", lambda value: 0 < len(value) == len(set(value)), "at least one language, such as [en], each once"),
    ("prompt.labels", lambda value: len(value) >= 2, "at least two labels"),
    ("prompt.labels", lambda value: len(set(value)) == len(value), "labels that differ from each other"),
    (
        "prompt.labels",
        lambda value: all(label.strip() == label and label for label in value),
        "labels that are not empty and have no outer white space",
    ),
    (
        "prompt.labels",
        lambda value: not any(a != b and b.startswith(a) for a in value for b in value),
        "labels of which none begins with another (`1` beside `10` could not be told apart)",
    ),
    ("prompt.date", _iso_date, "a date such as 2025-01-01"),
    ("prompt.reply_tokens", _within(1, 4096), "a whole number from 1 to 4096, or null"),
    ("prompt.block_items", at_least(1), "a whole number from 1 on"),
    ("cot.sides", lambda value: 0 < len(value) == len(set(value)), "word, deed or both, each once"),
    ("cot.shots", _within(0, 32), "a whole number from 0 to 32"),
    ("cot.demonstrations", lambda value: bool(value.strip()), "`bundled` or a CSV file"),
    ("augment.label_sets", lambda value: 0 < len(value) == len(set(value)), "letters, digits, parens or some of them, each once"),
    ("augment.wordings", _from_0_each_once, "numbers of wordings from 0 on, at least one, each once"),
    ("augment.paraphrases", _from_0_each_once, "0 for the item's own text and numbers of paraphrases, at least one, each once"),
    ("augment.paraphrases", lambda value: max(value, default=0) <= 255, "numbers of paraphrases up to 255"),
    ("augment.systems", lambda value: 0 < len(value) == len(set(value)), "system messages or null, at least one, each once"),
    ("augment.systems", lambda value: all(text is None or text.strip() for text in value), "texts that are not empty, or null"),
    ("augment.paraphraser", lambda value: value is None or bool(value.strip()), "a checkpoint, or null"),
    ("augment.sample", at_least(1), "a whole number from 1 on, or null for all combinations"),
    ("variants", lambda value: len(value) > 0, "at least one variant, such as [direct]"),
    ("variants", lambda value: len(set(value)) == len(value), "each variant once"),
    ("trials", lambda value: 1 <= value <= 65535, "a whole number from 1 to 65535"),
    ("checkpoints", lambda value: len(value) > 0, "at least one checkpoint"),
    ("engine.max_model_len", at_least(16), "a whole number from 16 on, or null for the checkpoint's own"),
    ("engine.max_num_seqs", at_least(1), "a whole number from 1 on, or null"),
    ("engine.block_size", at_least(1), "a whole number from 1 on, or null"),
    ("engine.gpu_memory_utilization", lambda value: 0 < value <= 1, "a share above 0, at most 1"),
    ("engine.cpu_cache_gib", above(0), "a number above 0"),
    ("engine.seed", _within(0, 2**32 - 1), "a whole number from 0 to 4294967295"),
    ("engine.start_timeout_s", above(0), "seconds above 0"),
    (
        "engine.endpoint.base_url",
        lambda value: value is None or _plain_url(value),
        "an address such as https://api.openai.com/v1 or http://localhost:8000/v1, without user, key or query in it",
    ),
    (
        "engine.endpoint.api_key_env",
        lambda value: value is None or bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value)),
        "the name of an environment variable, such as OPENAI_API_KEY, or null for a server without keys",
    ),
    (
        "engine.endpoint.api_key_header",
        lambda value: bool(re.fullmatch(r"[A-Za-z0-9-]{1,64}", value)),
        "the name of a header, such as Authorization or api-key",
    ),
    ("engine.endpoint.top_logprobs", _within(0, 1000), "a whole number from 0 to 1000"),
    ("engine.endpoint.max_tokens_field", lambda value: value.isidentifier(), "the name of a field, such as max_completion_tokens"),
    ("engine.endpoint.extra", lambda value: not OWN_FIELDS & value.keys(), f"other fields than {', '.join(sorted(OWN_FIELDS))}"),
    ("engine.endpoint.concurrency", _within(1, 10_000), "a whole number from 1 to 10000"),
    ("engine.endpoint.requests_per_minute", above(0), "a number above 0, or null"),
    ("engine.endpoint.tokens_per_minute", above(0), "a number above 0, or null"),
    ("engine.endpoint.timeout_s", above(0), "seconds above 0"),
    ("engine.endpoint.max_attempts", _within(1, 100), "a whole number from 1 to 100"),
    ("engine.endpoint.backoff_s", at_least(0), "seconds from 0 on"),
    ("engine.endpoint.budget_tokens", at_least(1), "a whole number from 1 on, or null"),
    ("engine.endpoint.budget_money", above(0), "an amount above 0, or null"),
    (
        "engine.endpoint.prices",
        lambda value: all(math.isfinite(part) and part >= 0 for price in value.values() for part in (price.input, price.output)),
        "both prices of a model, input and output, from 0 on",
    ),
    ("engine.scripted.strength", math.isfinite, "a finite number"),
    ("engine.scripted.spread", at_least(0), "a number from 0 on"),
    ("engine.scripted.delay_s", at_least(0), "seconds from 0 on"),
    ("sampling.temperature", at_least(0), "a number from 0 on"),
    ("sampling.top_p", lambda value: 0 < value <= 1, "a share above 0, at most 1"),
    ("sampling.max_new_tokens", at_least(1), "a whole number from 1 on"),
    ("dispatch.num_engines", at_least(1), "a whole number from 1 on, or null"),
    ("dispatch.tensor_parallel_size", at_least(1), "a whole number from 1 on"),
    ("dispatch.engine_cpus", above(0), "a number above 0, or null"),
    ("dispatch.shard_size", at_least(1), "a whole number from 1 on"),
    ("dispatch.units_in_flight", lambda value: 1 <= value <= 64, "a whole number from 1 to 64"),
    ("dispatch.max_attempts", at_least(1), "a whole number from 1 on"),
    ("dispatch.max_restarts", at_least(0), "a whole number from 0 on"),
    ("dispatch.unit_timeout_s", above(0), "seconds above 0, or null"),
    ("dispatch.store_retry_s", at_least(0), "seconds from 0 on"),
    ("dispatch.head_wait_s", at_least(0), "seconds from 0 on"),
    ("cache.max_gib", above(0), "a number above 0, or null"),
    ("metrics.bootstrap_resamples", at_least(0), "a whole number from 0 on"),
    ("metrics.bootstrap_seed", at_least(0), "a whole number from 0 on"),
    ("metrics.noise_repeats", lambda value: 0 <= value <= 100, "a whole number from 0 to 100"),
    ("metrics.level", lambda value: 0 < value < 1, "a share between 0 and 1"),
    ("report.min_label_mass", share, "a share from 0 to 1"),
    ("report.min_parse_rate", share, "a share from 0 to 1"),
    ("report.max_position_share", share, "a share from 0 to 1"),
    (
        "tracking.mlflow",
        lambda value: value is None or (bool(value.strip()) and "@" not in value.partition("://")[2].partition("/")[0]),
        "an address such as http://localhost:5000, without user or password in it (MLFLOW_TRACKING_USERNAME and _PASSWORD have them)",
    ),
    ("tracking.experiment", lambda value: bool(value.strip()), "a name"),
    ("tracking.wandb", lambda value: value is None or bool(PROJECT.fullmatch(value)), "a project, or entity/project, or null"),
)


def check(config: Config) -> None:
    """Raises a `ConfigError` that names every value out of range and every combination that cannot be."""
    problems = broken(config, RULES)
    if config.dispatch.executor is Executor.local and (config.dispatch.num_engines or 1) > 1:
        problems.append(
            f"dispatch.num_engines: {config.dispatch.num_engines} engines do not fit dispatch.executor: local, which has "
            "one; use dispatch.executor: ray."
        )
    if config.engine.adapters is Adapters.share and config.dispatch.reuse is Reuse.restart:
        problems.append(
            "engine.adapters: share came beside dispatch.reuse: restart, with which no engine takes a second adapter; use reuse: swap, "
            "or adapters: merge."
        )
    if config.protocol is Protocol.paper and "paper" not in config.variants:
        problems.append(
            f"variants: {config.variants} came beside protocol: paper, which is about the variant paper; add it to the variants, "
            "or leave the protocol out."
        )
    if config.augment.paraphraser is not None and not any(config.augment.paraphrases):
        problems.append(
            f"augment.paraphraser: {config.augment.paraphraser} would write paraphrases, and augment.paraphrases asks for none "
            f"({config.augment.paraphrases}); name numbers from 1 on there, such as [0, 1], or leave the paraphraser out."
        )
    if config.engine.kind is EngineKind.endpoint:
        problems += _endpoint_problems(config)
    if problems:
        raise ConfigError("\n".join(problems))


def _endpoint_problems(config: Config) -> list[str]:
    """Combinations of settings that cannot be with `engine.kind: endpoint`."""
    endpoint, problems = config.engine.endpoint, []
    if endpoint.base_url is None:
        problems.append(
            "engine.endpoint.base_url: none came, and engine.kind: endpoint needs one, such as https://api.openai.com/v1 or "
            "http://localhost:8000/v1."
        )
    if (config.dispatch.num_engines or 1) > 1:
        problems.append(
            f"dispatch.num_engines: {config.dispatch.num_engines} came; an API has one engine, whose limits and budget are then the run's. "
            "Raise engine.endpoint.concurrency instead."
        )
    if config.prompt.answer_prefix and endpoint.api is not EndpointApi.completions and not endpoint.continue_reply:
        problems.append(
            f"prompt.answer_prefix: {config.prompt.answer_prefix!r} begins the model's reply, which chat APIs do not take in general; set "
            "engine.endpoint.continue_reply: true where the server knows `continue_final_message` (vLLM, SGLang), or "
            "engine.endpoint.api: completions, or leave it out."
        )
    if config.prompt.format is PromptFormat.plain and endpoint.api is EndpointApi.chat:
        problems.append("prompt.format: plain came beside engine.endpoint.api: chat, whose server formats the chat; use api: completions.")
    if config.prompt.format is PromptFormat.chat and endpoint.api is EndpointApi.completions:
        problems.append("prompt.format: chat came beside engine.endpoint.api: completions, which takes plain text; use api: chat.")
    if endpoint.budget_money is not None:
        names = [entry.get("path") if isinstance(entry, Mapping) else entry for entry in config.checkpoints]
        problems += [
            f"engine.endpoint.budget_money: {endpoint.budget_money:g} came, and engine.endpoint.prices has no price of {name}; give it as "
            f"prices: {{{name}: {{input: …, output: …}}}}, each for a million tokens."
            for name in [*names, *([config.augment.paraphraser] if config.augment.paraphraser else [])]
            if name not in endpoint.prices
        ]
    return problems


def broken(settings: Any, rules: Iterable[Rule], where: str = "") -> list[str]:
    """A sentence for each rule that does not hold; `where` stands before its key."""
    return [
        f"{where}{key}: {_shown(value_of(settings, key))} is not allowed; allowed is {allowed}."
        for key, holds, allowed in rules
        if not holds(value_of(settings, key))
    ]


def _shown(value: Any) -> str:
    """For a message, which ends up in a job's log: without keys."""
    plain = [getattr(one, "value", one) for one in value] if isinstance(value, list) else getattr(value, "value", value)
    return KEYS.sub("…@", repr(plain))


def value_of(config: Any, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = getattr(config, part)
    return config
