"""One stage of training: what it is made from, and what became of it. Plain records that travel to the machine that trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from wdct_dist.align.types import Example, Pair
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.align_schema import DivergenceConfig, LoraConfig, Optimizer, Precision, StageConfig, TargetSide
from wdct_dist.config.load import as_plain
from wdct_dist.config.schema import PromptConfig
from wdct_dist.ids import slug, stable_hash
from wdct_dist.prompts.types import Message

StageName = Literal["sft", "dpo"]

WHOLE = "whole"
"""Empty file in a saved state, written last: only states that have it are gone on from."""


def branch_name(model_id: str, side: TargetSide, seed: int) -> str:
    """What the branch is called that aligns a model on one side with one seed; its folder too."""
    return f"{slug(model_id)}-{side.value}-s{seed}"


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides what a stage makes of its parent and its data."""

    method: StageConfig
    lora: LoraConfig
    precision: Precision
    optimizer: Optimizer
    warmup_steps: int
    max_grad_norm: float
    max_length: int
    gradient_checkpointing: bool
    keeps_epochs: bool
    """Whether a checkpoint of each epoch is kept."""
    prompt: PromptConfig
    seed: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question unrelated to the items, with one right answer."""

    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    correct: int
    """Index of the right label."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage to be trained."""

    branch: str
    name: StageName
    parent: Checkpoint
    folder: Path
    """Of the branch: the checkpoint is made at `folder`/NAME, its saved states are under `folder`/NAME.states meanwhile."""
    data: tuple[Example, ...] | tuple[Pair, ...]
    control: tuple[Question, ...]
    settings: Settings
    limits: DivergenceConfig
    save_every_steps: int | None
    allow_pickle: bool
    trust_remote_code: bool
    cache_gib: float | None
    num_threads: int | None
    """Of torch; None: as torch has it."""
    on_gpu: bool
    max_left_out: float = 0.0
    """Largest share of the item examples that `max_length` may leave out."""
    nonce: str | None = None
    """A file that the driver keeps in the run directory (see `tables/shared_directory.py`); None: there is nothing to prove."""
    num_workers: int = 1
    """Processes that train it together."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Versions and the like, for the provenance."""

    @property
    def title(self) -> str:
        return f"{self.branch}/{self.name}"

    @property
    def run_dir(self) -> Path:
        """The directory of the whole experiment: the branch's folder is RUN/align/BRANCH."""
        return self.folder.parents[1]

    @property
    def checkpoint(self) -> Path:
        """The directory that the stage makes, whole or not there."""
        return self.folder / self.name

    @property
    def is_sharded(self) -> bool:
        """Whether each worker has a part of the model alone (FSDP), not a copy of it."""
        return self.num_workers > 1 and self.on_gpu

    @property
    def states(self) -> Path:
        return self.folder / f"{self.name}.states"

    def epoch(self, number: int) -> Path:
        """The checkpoint of an epoch, from 1, where they are kept."""
        return self.folder / f"{self.name}-epoch{number}"

    @property
    def epochs_kept(self) -> Sequence[int]:
        """Numbers of the epochs that have a checkpoint of their own; the last one's is the stage's."""
        return range(1, self.settings.method.epochs) if self.settings.keeps_epochs else ()

    @property
    def data_hash(self) -> str:
        return stable_hash([_plain(one) for one in self.data], 64)

    @property
    def identity(self) -> str:
        """Hash of all that decides the checkpoint: parent, data, settings."""
        return stable_hash([self.name, self.parent.digest, self.data_hash, as_plain(self.settings)], 64)


@dataclass(frozen=True, slots=True)
class StageReport:
    """What became of a stage."""

    title: str
    seconds: float
    num_steps: int
    num_examples: int
    num_too_long: int
    resumed_at: int
    """The step from which it went on; 0: it began anew."""
    control_accuracy: tuple[float, ...] = ()
    """Before the stage, and after each epoch; empty without control questions."""
    diverged: str | None = None
    """Why it was stopped, or None."""


def _plain(one: Example | Pair) -> list[object]:
    messages = [[message.role, message.content] for message in one.messages]
    if isinstance(one, Example):
        return ["example", messages, one.completion]
    return ["pair", messages, one.chosen, one.rejected]
