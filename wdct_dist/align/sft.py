"""Supervised fine-tuning by TRL, on rows of token ids: the loss is on the completion alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from wdct_dist.align.tokens import SftRow

NO_LOSS = -100
"""The label of a token that has no part in the loss."""


def sft_trainer(
    model: Any, tokenizer: Any, rows: Sequence[SftRow], common: dict[str, Any], adapter: Any | None, callbacks: list[Any]
) -> Any:
    """TRL's trainer of the model on `rows`, which it takes as they are."""
    data = Dataset.from_dict(
        {
            "input_ids": [[*row.prompt_ids, *row.completion_ids] for row in rows],
            "labels": [[*([NO_LOSS] * len(row.prompt_ids)), *row.completion_ids] for row in rows],
        }
    )
    return SFTTrainer(
        model=model,
        args=SFTConfig(**common, packing=False, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=callbacks,
    )
