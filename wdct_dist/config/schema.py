"""Every knob on one screen. Each field is explained right under it.

Plain dataclasses for OmegaConf's structured mode: an unknown key or a wrong type is an error. Ranges and combinations
are checked in `rules.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

TEXT_ENTRIES = "text_entries"
"""Key of a field's metadata: its entries are text as written, also within mappings, but for the keys that the metadata names."""


class OnBadItem(Enum):
    stop = "stop"
    drop = "drop"


class Orders(Enum):
    rotations = "rotations"
    all = "all"
    as_given = "as_given"
    random = "random"
    paper = "paper"


class Protocol(Enum):
    paper = "paper"


class AskedSide(Enum):
    word = "word"
    deed = "deed"


class LabelSet(Enum):
    letters = "letters"
    digits = "digits"
    parens = "parens"


class PromptFormat(Enum):
    auto = "auto"
    chat = "chat"
    plain = "plain"


class EngineKind(Enum):
    vllm = "vllm"
    endpoint = "endpoint"
    scripted = "scripted"


class EndpointApi(Enum):
    auto = "auto"
    chat = "chat"
    completions = "completions"


class Dtype(Enum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Adapters(Enum):
    auto = "auto"
    merge = "merge"
    share = "share"


class Reuse(Enum):
    swap = "swap"
    restart = "restart"


class ScriptedBias(Enum):
    none = "none"
    first = "first"
    last = "last"
    tie = "tie"


class Executor(Enum):
    ray = "ray"
    local = "local"


@dataclass
class DataConfig:
    path: str = "bundled"
    """Item file (.csv in the WDCT format, .jsonl, .parquet, .arrow), `bundled`, or `wdct` (after `wdct fetch wdct`)."""
    limit: int | None = None
    """Take only the first N items (after the choice of domains)."""
    domains: list[str] | None = None
    """Only items of these domains."""
    extra_domains: list[str] = field(default_factory=list)
    """Domains of your own, so that they are not reported as unknown."""
    languages: list[str] = field(default_factory=lambda: ["en"])
    """Languages to ask in; `en` is the item's own text, others are taken from its translations."""
    on_bad_item: OnBadItem = OnBadItem.stop
    """What to do about items that cannot be evaluated: `stop` with a report, or `drop` them."""


@dataclass
class PromptConfig:
    format: PromptFormat = PromptFormat.auto
    """`chat` uses the checkpoint's chat template, `plain` a plain text for base models, `auto` whichever fits."""
    system: str | None = None
    """A system message before every prompt (chat format; in the plain format it opens the text)."""
    answer_prefix: str = ""
    """How the model's reply is begun for it, for example `Answer:`; raises the label mass of weak models."""
    labels: list[str] = field(default_factory=lambda: list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    """What the options are called, first option first."""
    date: str = "2025-01-01"
    """What chat templates that print today's date are given (ISO), so that prompts do not change overnight."""
    reply_tokens: int | None = None
    """Also generate up to this many tokens where the answer stands, so that there is a text to parse. Empty: one; behind an API 16."""
    block_items: int = 60
    """Items that the variants of one family go through together: few enough for the prefix cache to still hold what they share,
    and enough for full shards."""


@dataclass
class CotConfig:
    sides: list[AskedSide] = field(default_factory=lambda: [AskedSide.word, AskedSide.deed])
    """Sides asked with reasoning; the other one is asked directly. The paper reasons on deeds only."""
    shots: int = 0
    """Demonstrations before each question. The reasoning's limit is `sampling.max_new_tokens`."""
    demonstrations: str = "bundled"
    """Where they are drawn from: `bundled`, or a CSV with the columns id, Type, Prompt, Question, Belief."""
    demonstration_seed: int = 0
    """Seed of the drawing; each item and side draws its own from it."""


@dataclass
class AugmentConfig:
    label_sets: list[LabelSet] = field(default_factory=lambda: [LabelSet.letters, LabelSet.digits, LabelSet.parens])
    """What the options are called: `letters` (`prompt.labels`), `digits` (1, 2 …), `parens` ((a), (b) …)."""
    wordings: list[int] = field(default_factory=lambda: [0, 1, 2, 3, 4])
    """Instruction wordings by number; 0 is that of `direct`."""
    paraphrases: list[int] = field(default_factory=lambda: [0])
    """Texts of the items: 0 the item's own, n its n-th paraphrase; items without it are left out of that variant."""
    systems: list[str | None] = field(default_factory=lambda: [None])
    """System messages; null is `prompt.system`."""
    paraphraser: str | None = None
    """Checkpoint that writes the paraphrases that items lack, before the evaluation."""
    sample: int | None = None
    """Take this many combinations of the factors, drawn with a seed. Empty: all."""
    augment_seed: int = 0
    """Seed of `sample`."""


@dataclass
class ScriptedConfig:
    bias: ScriptedBias = ScriptedBias.none
    """`first` and `last` put most probability on that label whatever it says; `tie` gives all options the same."""
    strength: float = 4.0
    """Logit that the biased label gains."""
    spread: float = 2.0
    """Standard deviation of the pseudo-random logits."""
    delay_s: float = 0.0
    """Seconds that one prompt takes."""
    fail_on: str | None = None
    """Prompts whose text contains this kill the engine's process, as a poisonous prompt would."""
    hang_on: str | None = None
    """Prompts whose text contains this are never answered, nor anything after them."""
    error_on: str | None = None
    """Prompts whose text contains this are answered with an error."""
    fail_start: str | None = None
    """Checkpoints whose name contains this do not start."""
    fail_swap: str | None = None
    """Checkpoints whose name contains this break the live engine that takes them."""


@dataclass
class PriceConfig:
    input: float = math.nan
    """Price of a million prompt tokens, in any currency. Both are needed."""
    output: float = math.nan
    """Price of a million generated tokens, in the same currency."""


@dataclass
class EndpointConfig:
    base_url: str | None = None
    """Where the API is, for example `https://api.openai.com/v1` or `http://localhost:8000/v1`. Checkpoints are names of its models."""
    api: EndpointApi = EndpointApi.auto
    """`chat`, `completions` (prompts as plain text), or `auto`: completions where `prompt.format` is plain or there is no chat."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is written nowhere. Null: no key is sent."""
    api_key_header: str = "Authorization"
    """Header that carries the key, as `Bearer KEY`; under any other name (`api-key`) the key alone."""
    top_logprobs: int = 20
    """Most probable tokens whose logprobs are asked for; OpenAI gives 20 for chat and 5 for completions. 0: none, text alone is read."""
    continue_reply: bool = False
    """The server goes on with a reply that is begun for the model in a chat (`continue_final_message`, as vLLM and SGLang do)."""
    max_tokens_field: str = "max_tokens"
    """What the API calls the limit of a reply; newer models of OpenAI want `max_completion_tokens`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Put into every request as it is; null leaves a field out (`temperature: null` for models that refuse it)."""
    concurrency: int = 32
    """Requests under way at once."""
    requests_per_minute: float | None = None
    """Requests a minute, evenly spaced. Empty: no limit."""
    tokens_per_minute: float | None = None
    """Prompt tokens and allowed reply tokens a minute. Empty: no limit."""
    timeout_s: float = 120.0
    """A request without an answer after this time is asked again."""
    max_attempts: int = 8
    """Times that a prompt is asked while the server fails, before it is recorded as an error."""
    backoff_s: float = 1.0
    """Pause before the second attempt; it doubles with every further one, up to a minute, half of it at random. `Retry-After` wins."""
    budget_tokens: int | None = None
    """The run stops before it would use more tokens than this, prompts and replies of all its sessions together. Empty: no limit."""
    budget_money: float | None = None
    """The same in money, by `prices`. Empty: no limit."""
    prices: dict[str, PriceConfig] = field(default_factory=dict)
    """Prices by the model's name: `{gpt-4o: {input: 2.5, output: 10}}`."""


@dataclass
class EngineConfig:
    kind: EngineKind = EngineKind.vllm
    """`vllm`, `endpoint`: a model behind an OpenAI-compatible API, or `scripted`: deterministic pseudo-answers without a model."""
    dtype: Dtype = Dtype.auto
    """Precision of the weights in the engine; `auto` is the checkpoint's own, but that vLLM brings float32 down to 16 bits."""
    max_model_len: int | None = None
    """Longest prompt plus reply in tokens; longer prompts become rows with an error. Empty: the checkpoint's own."""
    max_num_seqs: int | None = None
    """Prompts that vLLM works on at once. Empty: chosen by platform."""
    block_size: int | None = None
    """Tokens in a block of the prefix cache. Empty: chosen by platform, small enough for prompts to share blocks."""
    gpu_memory_utilization: float = 0.9
    """Share of a GPU's memory that an engine takes."""
    cpu_cache_gib: float = 2.0
    """Memory of the prefix cache where there is no GPU."""
    enforce_eager: bool | None = None
    """No compilation and no CUDA graphs. Empty: on where there is no GPU, since compiling there takes a minute."""
    seed: int = 0
    """The engine's own seed (`engine_seed` in the provenance)."""
    deterministic: bool = False
    """Answers that do not depend on what else is in a batch, where vLLM and the hardware can (slower); said in the provenance."""
    trust_remote_code: bool = False
    """Run Python code that comes with a checkpoint. Only for checkpoints that you have read."""
    allow_pickle: bool = False
    """Load weights from pickle files (.bin, .pt), which can run code while they load."""
    adapters: Adapters = Adapters.auto
    """LoRA adapters: `share` has those of one base evaluated by one engine that has the base, in one batch, `merge` merges each into
    its base and swaps; `auto` shares where engines have GPUs and a base has several (on a CPU applying them costs seven times)."""
    start_timeout_s: float = 1800.0
    """An engine that is not ready after this time has failed."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Passed to vLLM as it is, over everything above."""
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    scripted: ScriptedConfig = field(default_factory=ScriptedConfig)


@dataclass
class SamplingConfig:
    temperature: float = 0.0
    """Temperature of generated text. Option probabilities are always read at temperature 1."""
    top_p: float = 1.0
    """Nucleus of generated text."""
    max_new_tokens: int = 256
    """Limit of generated text."""
    sampling_seed: int = 0
    """Seed of generated text; each prompt and trial draws its own from it."""


@dataclass
class DispatchConfig:
    executor: Executor = Executor.ray
    """`ray`: one actor an engine; `local`: one engine in this process, for debugging."""
    num_engines: int | None = None
    """Engines, all started at once. Empty: one for each tensor-parallel group of GPUs, or one where there is no GPU."""
    tensor_parallel_size: int = 1
    """GPUs an engine."""
    engine_cpus: float | None = None
    """CPU cores an engine. Empty: all, evenly shared, without a GPU; 1 with one."""
    shard_size: int = 256
    """Prompts a shard. A crash costs at most the shards in flight."""
    units_in_flight: int = 2
    """Units given to an engine at once; the second keeps it busy while the first is written."""
    max_attempts: int = 2
    """Times that a unit may kill its engine, alone, before it is split and at last recorded as an error."""
    max_restarts: int = 5
    """Times in a row that an engine may die without finishing a unit before its place is given up."""
    unit_timeout_s: float | None = None
    """An engine that finishes no unit in this time is ended and replaced, its units suspect. Empty: 20 times what such units were
    measured to take, never under 5 minutes, and an hour where none was measured yet."""
    store_retry_s: float = 60.0
    """How long a failing run directory's store is tried again."""
    head_wait_s: float = 300.0
    """How long a run waits for a cluster whose head node was lost to be there again; then it ends, to be gone on with later."""
    reuse: Reuse = Reuse.swap
    """`swap`: a live engine takes the next checkpoint of its architecture, and proves that it did; `restart`: a fresh engine each."""
    ray_address: str | None = None
    """Cluster to join (`auto` or an address). Empty: RAY_ADDRESS where set, else a local Ray that ends with the run."""


@dataclass
class CacheConfig:
    max_gib: float | None = None
    """Disk of a node for checkpoints that are brought from an object store or merged from an adapter; those used longest ago make
    room. Empty: what is free."""


@dataclass
class MetricsConfig:
    bootstrap_resamples: int = 1000
    """Resamples of the items for the intervals; 0 leaves the intervals out."""
    bootstrap_seed: int = 0
    """Seed of the resampling."""
    level: float = 0.95
    """Level of the intervals."""
    noise_repeats: int = 0
    """A/A repeats: everything is asked again this often, in another order and other shards, to see what changes mean nothing."""


@dataclass
class ReportConfig:
    title: str = "Words and Deeds Consistency"
    """Heading of the report."""
    html: bool = True
    """Write RUN/report.html at the end of `wdct evaluate` (needs the extra `html`); `wdct report RUN --html` writes it at any time."""
    min_label_mass: float = 0.5
    """Warn where less of the probability than this fell on the labels."""
    min_parse_rate: float = 0.9
    """Warn where fewer prompts than this have an answer."""
    max_position_share: float = 0.9
    """Warn where more answers than this follow one position, when orders are balanced."""


@dataclass
class TrackingConfig:
    mlflow: str | None = None
    """Write the run to the MLflow at this address at the end of `wdct evaluate`, as `wdct track` does at any time."""
    experiment: str = "wdct"
    """Its experiment there."""
    wandb: str | None = None
    """Write it to this project of Weights & Biases: a name, or `entity/name`."""


@dataclass
class Config:
    run_dir: str = "runs/{name}"
    """Where the run lives: a path or a URI that pyarrow reads; `{name}` is the name of the configuration file."""
    protocol: Protocol | None = None
    """`paper`: the published evaluation: its prompt, its option orders, ten new tokens; settings of yours come over it."""
    data: DataConfig = field(default_factory=DataConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    variants: list[str] = field(default_factory=lambda: ["direct"])
    """Ways of asking, by name: direct, cot, augmented, joint, joint-reverse, paper, and those of other packages."""
    cot: CotConfig = field(default_factory=CotConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    orders: Orders = Orders.rotations
    """Option orders: every rotation, every permutation, the data's own, one at random an item and side, or the published draws."""
    order_seed: int = 0
    """Seed of `orders: random`."""
    trials: int = 1
    """Statistical repeats of every prompt."""
    checkpoints: list[Any] = field(default_factory=list, metadata={TEXT_ENTRIES: ("from", "to", "step", "settle_s")})
    """Checkpoints: hub ids (`org/model@revision`), directories, globs, GGUF files, `package://module/file`, `s3://bucket/prefix`;
    or {id: NAME, path: …}.
    Many revisions of a hub id: {path: org/model, revisions: [a, b]}, or a range that includes its end:
    {path: org/model, revisions: {pattern: 'step{}', from: 1000, to: 143000, step: 1000}}.
    LoRA adapters (PEFT; see `engine.adapters`), whose base is {path: ADAPTER, base: …} or what the adapter states.
    While they are trained: {watch: outputs/run1} evaluates each that becomes complete there, until the file `done` appears there
    (another: `until: FILE`) or a signal comes.
    Behind an API: names of its models."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    dispatch: DispatchConfig = field(default_factory=DispatchConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
