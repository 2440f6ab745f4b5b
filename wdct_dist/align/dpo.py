"""Direct preference optimisation by TRL, on rows of token ids. The reference model is the model as it comes: the SFT checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from trl import DPOConfig, DPOTrainer

from wdct_dist.align import workers
from wdct_dist.align.tokens import DpoRow
from wdct_dist.config.align_schema import DpoConfig


class PretokenisedDpoTrainer(DPOTrainer):  # type: ignore[misc]
    """Takes rows of token ids as they are; TRL's own would make them from text (1.16)."""

    def _prepare_dataset(self, dataset: Any, *rest: Any, **others: Any) -> Any:
        return dataset


def dpo_trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[DpoRow],
    settings: DpoConfig,
    common: dict[str, Any],
    adapter: Any | None,
    callbacks: list[Any],
    shared: Path | None = None,
) -> Any:
    """TRL's trainer of the model on `rows`, against the model as it is now.

    `shared`: a folder that all workers see, with several. TRL has the first one write the reference's log-probabilities beside the data,
    for all to read; of data in memory alone each would look for them in a folder of its own (1.16).
    """
    data = Dataset.from_dict(
        {
            "prompt_ids": [list(row.prompt_ids) for row in rows],
            "chosen_ids": [list(row.chosen_ids) for row in rows],
            "rejected_ids": [list(row.rejected_ids) for row in rows],
        }
    )
    if shared is not None:
        workers.from_first(lambda: data.save_to_disk(shared) if not (shared / "state.json").exists() else None)
        data = load_from_disk(shared)
    # with an adapter the reference is the model without it, and where it is asked before training no copy is needed
    # under FSDP, TRL would compute beforehand with a model that is not on the GPU yet (1.16)
    precomputes = settings.precompute_reference and not (adapter is not None and common.get("fsdp"))
    needs_copy = adapter is None and not precomputes
    return PretokenisedDpoTrainer(
        model=model,
        ref_model=copy.deepcopy(model) if needs_copy else None,
        args=DPOConfig(**common, beta=settings.beta, loss_type=["sigmoid"], precompute_ref_log_probs=precomputes),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=adapter,
        callbacks=callbacks,
    )
