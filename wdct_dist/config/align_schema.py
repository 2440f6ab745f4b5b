"""Every knob of `wdct align` on one screen. What an evaluation is asked with stands under `evaluation`, as in any other configuration.

Ranges and combinations are checked in `align_rules.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wdct_dist.config.schema import TEXT_ENTRIES, Config


class TargetSide(Enum):
    word = "word"
    deed = "deed"
    none = "none"


class Method(Enum):
    sft = "sft"
    dpo = "dpo"


class Optimizer(Enum):
    rmsprop = "rmsprop"
    adamw_torch = "adamw_torch"
    adamw_torch_fused = "adamw_torch_fused"
    adafactor = "adafactor"
    adagrad = "adagrad"
    sgd = "sgd"


class Precision(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    bfloat16_weights = "bfloat16_weights"


class TrainedOrders(Enum):
    one = "one"
    rotations = "rotations"


@dataclass
class StageConfig:
    epochs: int = 4
    """Times that every example is seen."""
    learning_rate: float = 1e-5
    """At its highest, when the warm-up is over."""
    batch_size: int = 2
    """Examples (or pairs) an update, of all workers together."""
    micro_batch_size: int | None = None
    """Examples that go through the model at once, of one worker; their gradients are added up to `batch_size`. Empty: all of the batch, or
    of a worker's share of it."""


@dataclass
class DpoConfig(StageConfig):
    learning_rate: float = 5e-6
    batch_size: int = 8
    beta: float = 0.1
    """How much a reward weighs against staying near the reference model, which is the SFT checkpoint."""
    precompute_reference: bool = True
    """The reference model's log-probabilities are computed once, before training, rather than at every step."""


@dataclass
class LoraConfig:
    r: int | None = None
    """Rank of the adapter. Empty: all weights are trained."""
    alpha: int | None = None
    """Scale of the adapter, over `r`. Empty: twice `r`."""
    dropout: float = 0.0
    target_modules: list[str] | None = None
    """Names of the layers that get an adapter. Empty: all linear layers but the output layer."""


@dataclass
class AugmentTrainingConfig:
    orders: TrainedOrders = TrainedOrders.rotations
    """Orders of the options that an item is trained in: `one`, drawn with `order_seed`, or all `rotations`, as they are evaluated."""
    paraphrases: bool = False
    """Also the items' paraphrases, as many as both sides of an item have."""
    order_seed: int = 0


@dataclass
class InstructionsConfig:
    path: str | None = "bundled"
    """Instruction data mixed into SFT: `bundled`, a file in the Alpaca format (.json, .jsonl, .parquet) or a hub id. Null: none."""
    ratio: float = 9.0
    """Instructions for each example of an item; with fewer than that at hand all are taken, and it is said. 0: none."""
    limit: int | None = None
    """Instructions at most, whatever the ratio says."""


@dataclass
class DivergenceConfig:
    margin_window: int = 8
    """Steps of DPO over which the reward margin is averaged before it is judged."""
    min_reward_margin: float | None = -1.0
    """DPO stops where the averaged reward margin is under this."""
    max_margin_fall: float | None = 0.9
    """DPO stops where the averaged reward margin has lost more than this share of the highest that it had."""
    control: str | None = "bundled"
    """Questions unrelated to the items, asked after each epoch: `bundled`, or a file in the items' format with correct options."""
    control_limit: int | None = None
    """Ask only the first N of them: without a GPU all of them take as long as a few steps of training. Empty: all."""
    min_control_accuracy: float | None = None
    """A stage stops where the accuracy on them is under this."""
    max_control_fall: float | None = 0.5
    """A stage stops where the accuracy on them has fallen by more than this since the stage began, as a difference of shares."""


@dataclass
class ResourcesConfig:
    workers: int = 1
    """Workers that train a stage together, by Ray Train: on GPUs each has a part of the model (FSDP, full shard), on CPUs a copy (DDP over
    gloo). A batch is dealt out to them: `batch_size` stays the examples an update. 1: a plain task."""
    cpus: float | None = None
    """CPU cores a worker. Empty: 1 beside a GPU, else all of the smallest node's, or as many as leave room for all workers."""
    gpus: int | None = None
    """GPUs a worker: 0 or 1. Empty: 1 where the cluster has any."""
    max_attempts: int = 3
    """Times that a training task may be killed before its branch is given up; each attempt goes on from the last saved step."""


@dataclass
class AlignConfig:
    run_dir: str = "runs/{name}"
    """Where the experiment lives, a path that all nodes share; `{name}` is the name of the configuration file."""
    evaluation: Config = field(default_factory=Config)
    """How checkpoints are evaluated, the baseline as well as those that are produced: the whole configuration of `wdct evaluate`, but for
    `run_dir` and `checkpoints`."""
    models: list[Any] = field(default_factory=list, metadata={TEXT_ENTRIES: ("from", "to", "step", "settings")})
    """Models to align, named as checkpoints are: hub ids, directories, GGUF files, `package://module/file` …; or {path: …, id: NAME,
    settings: {sft: {learning_rate: 1e-6}}}, where `settings` holds this model's own `sft`, `dpo`, `lora` and `precision`."""
    target_sides: list[TargetSide] = field(default_factory=lambda: [TargetSide.word])
    """Sides to align, each in a branch of its own; `none` is the control: instructions alone, without an item."""
    methods: list[Method] = field(default_factory=lambda: [Method.sft, Method.dpo])
    """Stages of a branch: `sft`, then `dpo` from the SFT checkpoint; or one of them alone, from the model itself."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of the training: order of the examples, choice of the instructions; each in a branch of its own."""
    domains: list[str] | None = None
    """Domains whose items are trained on. Empty: all. Items of the others are evaluated."""
    held_out: float = 0.2
    """Share of the items of each of these domains that is not trained on."""
    split_seed: int = 0
    """Seed of the choice of held-out items."""
    augment: AugmentTrainingConfig = field(default_factory=AugmentTrainingConfig)
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    sft: StageConfig = field(default_factory=StageConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    optimizer: Optimizer = Optimizer.rmsprop
    """As the `optim` of transformers calls them. The learning rate falls in a straight line to zero after the warm-up."""
    warmup_steps: int = 50
    """Steps in which the learning rate rises from zero."""
    max_grad_norm: float = 10.0
    """Gradients longer than this are shortened to it."""
    max_length: int = 512
    """Longest example in tokens, prompt and reply; longer ones are left out and counted, never cut."""
    max_left_out: float = 0.05
    """Largest share of a stage's item examples that `max_length` may leave out, from 0 to 1. A branch that would lose more, or all, ends
    with the reason."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    precision: Precision = Precision.float32
    """`float32`; `bfloat16`: weights kept in float32, computed with in bfloat16; `bfloat16_weights`: weights in bfloat16 too, which loses
    updates much smaller than they are."""
    gradient_checkpointing: bool = False
    """Less memory for a third more time."""
    save_every_steps: int | None = None
    """Steps between two saved states, from which a killed training goes on. Empty: at the end of each epoch."""
    evaluate_each_epoch: bool = False
    """Keep and evaluate a checkpoint of each epoch, not of each stage's end alone."""
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
