"""Trains one stage: loads the parent, has TRL train it, saves the checkpoint. Runs in a process of its own, on the machine that trains, or
in several that train together (`workers.py`).

While it trains it saves states to go on from, each whole or not there; a process that is started again for the same stage goes on from the
last of them. Everything that TRL is told stands in `arguments`, `sft.py` and `dpo.py`. Of several workers the first one alone reads and
writes states, tables and checkpoints, and decides.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from wdct_dist import host_memory
from wdct_dist.align import divergence, provenance, training_log, workers
from wdct_dist.align.dpo import dpo_trainer
from wdct_dist.align.sft import sft_trainer
from wdct_dist.align.stage import WHOLE, Stage, StageReport
from wdct_dist.align.tokens import Ids, Rows, TrainingTokens
from wdct_dist.checkpoints.file_lock import locked
from wdct_dist.checkpoints.node_copy import on_this_node
from wdct_dist.config.align_schema import DpoConfig, Precision
from wdct_dist.errors import DataError
from wdct_dist.tables.shared_directory import require_nonce
from wdct_dist.tables.storage import Store

IDENTITY = "identity"
"""File beside the states: of which stage they are."""

PAIRS = "pairs"
"""Folder beside the states: DPO's data with the reference model's log-probabilities, where several workers share them."""

CONTROL = "control_accuracy"
"""Key of the accuracy on the control questions in the trainer's log, which is saved with each state."""

CONTROL_BATCH = 16
"""Questions asked at once. With `precision: bfloat16` all weights are converted anew for each batch."""

TELL_EVERY_S = 2.0
"""Between two notes of how far a training is."""


def train(stage: Stage) -> StageReport:
    """Trains the stage from its beginning, or from its last saved state, and makes its checkpoint.

    Whoever else trains the same stage is waited for: after a lost driver or network its process may live on for a while.

    Raises `CheckpointError` if the model cannot be asked as the evaluation asks it, `DataError` if too many examples are too long,
    `RunDirError` if this node does not see the run directory of the driver.
    """
    began = time.perf_counter()
    _prepare_process(stage)
    require_nonce(Store(str(stage.run_dir)), stage.nonce)
    stage.folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        workers.from_first(lambda: held.enter_context(locked(stage.folder / f".{stage.name}.lock")))
        lease = held.enter_context(on_this_node(stage.parent, max_gib=stage.cache_gib, allow_pickle=stage.allow_pickle))
        if workers.from_first(lambda: provenance.is_made(stage, stage.checkpoint)):
            return StageReport(stage.title, time.perf_counter() - began, 0, 0, 0, 0)
        run = _Run(stage, lease.directory)
        try:
            run.train()
            diverged = None
        except divergence.Diverged as reason:
            diverged = str(reason)
        workers.from_first(lambda: _write_end(stage, run.history, diverged))
        if diverged is None:
            run.save(stage.checkpoint)
        workers.from_first(lambda: shutil.rmtree(stage.states, ignore_errors=True))
    control = tuple(entry[CONTROL] for entry in run.history if CONTROL in entry)
    return StageReport(
        stage.title,
        time.perf_counter() - began,
        run.num_steps,
        run.num_rows,
        run.rows.num_too_long,
        run.resumed_at,
        control,
        diverged,
    )


def _write_end(stage: Stage, history: Sequence[dict[str, Any]], diverged: str | None) -> None:
    if diverged is not None:
        training_log.write_diverged(stage, diverged)
    training_log.write(stage, history)


def _prepare_process(stage: Stage) -> None:
    warnings.simplefilter("ignore")  # of libraries about each other; nobody reads a worker's log
    if stage.num_threads is not None:
        torch.set_num_threads(stage.num_threads)
    if not stage.on_gpu:
        host_memory.keep_freed()


class _Run:
    """One process's work on a stage. With several workers all of them make the same calls in the same order."""

    def __init__(self, stage: Stage, source: Path) -> None:
        self._stage = stage
        self._source = source
        self._state = workers.from_first(lambda: last_state(stage))
        self._tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=stage.trust_remote_code)
        self.model = self._load()
        vocab_size = self.model.get_output_embeddings().weight.shape[0]
        tokens = TrainingTokens(self._tokenizer, stage.settings.prompt, vocab_size)
        self.rows = training_rows(stage, tokens)
        self._questions = tokens.questions([(one.messages, one.labels) for one in stage.control])
        self._padding = _padding(self.model)
        """What TRL changes in the model's configuration to fill up batches; put back before the model is saved."""
        self.resumed_at = 0
        self._trainer = self._build()

    @property
    def num_rows(self) -> int:
        return len(self.rows.sft) + len(self.rows.dpo)

    @property
    def num_steps(self) -> int:
        return int(self._trainer.state.global_step)

    @property
    def history(self) -> list[dict[str, Any]]:
        return list(self._trainer.state.log_history)

    def train(self) -> None:
        if self._state is not None:
            self.resumed_at = int(self._state.name.rpartition("-")[2])
        self._trainer.train(resume_from_checkpoint=None if self._state is None else str(self._state))

    def save(self, directory: Path, **facts: Any) -> None:
        """The model as it is now, as a checkpoint with its provenance; the first worker writes it."""
        if workers.from_first(lambda: provenance.is_made(self._stage, directory)):
            return
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        # all workers' parts together: what is written is an ordinary checkpoint, however many trained it
        parts = self._trainer.accelerator.get_state_dict(self._trainer.model) if self._stage.is_sharded else None
        workers.from_first(lambda: self._write(self._whole(parts) if parts is not None else model, directory, facts))

    def _whole(self, parts: dict[str, torch.Tensor]) -> Any:
        """The model with all of its weights, in main memory."""
        adapter = _adapter(self._stage)
        whole = self._load()
        if adapter is not None:
            from peft import get_peft_model

            whole = get_peft_model(whole, adapter)
        whole.load_state_dict(parts)
        return whole

    def _write(self, model: Any, directory: Path, facts: dict[str, Any]) -> None:
        for config, value in self._padding:
            config.pad_token_id = value
        with provenance.making(self._stage, directory, self._source, steps=self.num_steps, **facts) as folder:
            if self._stage.settings.lora.r is not None:
                # merged, so that every stage has full weights: the next one starts from them, and engines swap them in place
                model.save_pretrained(folder / "adapter")
                with _merged(model) as whole:
                    whole.save_pretrained(folder)
            else:
                model.save_pretrained(folder)

    def control_accuracy(self) -> float:
        """Share of the control questions whose right label is the most probable one."""
        model = self._trainer.model
        was_training = model.training
        model.eval()
        with torch.no_grad(), self._trainer.compute_loss_context_manager():
            scores = _label_scores(model, self._questions)
        model.train(was_training)
        best = [max(range(len(one)), key=one.__getitem__) for one in scores]
        return sum(place == question.correct for place, question in zip(best, self._stage.control, strict=True)) / len(scores)

    def _load(self) -> Any:
        stage = self._stage
        return load_model(
            self._source,
            dtype=torch.bfloat16 if stage.settings.precision is Precision.bfloat16_weights else torch.float32,
            trust_remote_code=stage.trust_remote_code,
            use_safetensors=True if not stage.allow_pickle else None,
        )

    def _build(self) -> Any:
        stage, settings = self._stage, self._stage.settings
        common = arguments(stage)
        callbacks = [_Watch(self, stage)]
        adapter = _adapter(stage)
        if stage.name == "sft":
            return sft_trainer(self.model, self._tokenizer, self.rows.sft, common, adapter, callbacks)
        assert isinstance(settings.method, DpoConfig)
        shared = stage.states / PAIRS if workers.number() > 1 else None
        return dpo_trainer(self.model, self._tokenizer, self.rows.dpo, settings.method, common, adapter, callbacks, shared)


def load_model(source: Path, **settings: Any) -> Any:
    """Load the model to train, so that it computes what an engine computes with the same weights.

    `settings` go to `from_pretrained`. Models that cap their attention scores (Gemma 2) get eager attention: the default of transformers,
    scaled dot-product attention, has no cap and leaves it out in silence (5.19), while vLLM applies it.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=settings.get("trust_remote_code", False))
    if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None:
        settings["attn_implementation"] = "eager"
    return AutoModelForCausalLM.from_pretrained(source, **settings)


def training_rows(stage: Stage, tokens: TrainingTokens) -> Rows:
    """Return the stage's data as token ids.

    Raises `DataError` if no example is short enough, or if `max_length` leaves out a larger share of the item examples than
    `Stage.max_left_out`: the report would count items as trained that the model has never seen.
    """
    limit = stage.settings.max_length
    rows = tokens.examples(stage.data, limit) if stage.name == "sft" else tokens.pairs(stage.data, limit)  # type: ignore[arg-type]
    left_out, total = rows.num_item_too_long, rows.num_item_examples
    if left_out and (left_out == total or left_out / total > stage.max_left_out):
        raise DataError(
            f"{stage.title}: max_length = {limit} leaves out {left_out:,} of {total:,} item examples (the longest has "
            f"{rows.longest_item:,} tokens), and max_left_out = {stage.max_left_out:g} allows a share of at most that. Set max_length to "
            f"{rows.longest_item} or more, in a new run_dir."
        )
    if not rows.sft and not rows.dpo:
        raise DataError(
            f"{stage.title}: all {len(stage.data):,} examples are longer than max_length = {limit} tokens. "
            "Raise max_length, in a new run_dir."
        )
    return rows


def arguments(stage: Stage) -> dict[str, Any]:
    """What SFTConfig and DPOConfig have in common."""
    settings, method = stage.settings, stage.settings.method
    each = method.batch_size // stage.num_workers
    micro = method.micro_batch_size or each
    assert micro * (each // micro) * stage.num_workers == method.batch_size, "checked with the configuration"
    return {
        "output_dir": str(stage.states),
        "num_train_epochs": method.epochs,
        "learning_rate": method.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warmup_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": each // micro,
        "max_grad_norm": settings.max_grad_norm,
        "optim": settings.optimizer.value,
        "bf16": settings.precision is Precision.bfloat16,
        "fp16": False,
        "gradient_checkpointing": settings.gradient_checkpointing and not stage.is_sharded,
        **(_sharding(settings.gradient_checkpointing) if stage.is_sharded else {}),
        "max_length": None,  # what is too long is left out before, and counted
        "seed": settings.seed,
        "data_seed": settings.seed,
        "use_cpu": not stage.on_gpu,
        "dataloader_pin_memory": stage.on_gpu,
        "save_strategy": "epoch" if stage.save_every_steps is None else "steps",
        **({} if stage.save_every_steps is None else {"save_steps": stage.save_every_steps}),
        "save_total_limit": None,  # `_Watch` removes the older ones, once the new one is whole
        "logging_steps": 1,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # else a loss that is no number would be logged as the mean of the others
        "report_to": [],
        "disable_tqdm": True,
    }


def _sharding(recomputes: bool) -> dict[str, Any]:
    """Every worker keeps its part of weights, gradients and optimiser alone (FSDP 2, full shard) and gathers a layer when it is computed.

    What is gathered at once is what the model names itself (`_no_split_modules`): a layer of the transformer. Saved states hold the whole
    model. `recomputes`: gradient checkpointing, which FSDP does by itself.
    """
    config = {
        "version": 2,
        "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "FULL_STATE_DICT",
        "activation_checkpointing": recomputes,
    }
    return {"fsdp": True, "fsdp_config": config}


def last_state(stage: Stage) -> Path | None:
    """The last whole state of this very stage to go on from; states of any other, or of another number of workers, are removed."""
    marker = stage.states / IDENTITY
    identity = stage.identity if stage.num_workers == 1 else f"{stage.identity} {stage.num_workers}"
    if not marker.is_file() or marker.read_text() != identity:
        shutil.rmtree(stage.states, ignore_errors=True)
        stage.states.mkdir(parents=True)
        marker.write_text(identity)
        return None
    whole = [state.parent for state in stage.states.glob(f"checkpoint-*/{WHOLE}")]
    for cut_short in set(stage.states.glob("checkpoint-*")) - set(whole):
        shutil.rmtree(cut_short, ignore_errors=True)
    return max(whole, key=lambda state: int(state.name.rpartition("-")[2]), default=None)


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Looks on: stops what diverges, asks the control questions, makes saved states whole, keeps the epochs."""

    def __init__(self, run: _Run, stage: Stage) -> None:
        self._run = run
        self._stage = stage
        self._told_at = -math.inf
        self._first: tuple[int, float] | None = None
        """The first step that this process made, and when it was made: what comes before is loading and warming up."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._stage.control and not any(CONTROL in entry for entry in state.log_history):
            self._ask(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        entry = logs or {}
        if "loss" in entry and workers.is_first() and time.monotonic() - self._told_at > TELL_EVERY_S:
            self._told_at = time.monotonic()
            rate = self._steps_per_s(state.global_step)
            training_log.write_progress(self._stage, state.global_step, state.max_steps, entry["loss"], rate)
        why = divergence.not_finite(state.global_step, entry.get("loss"), entry.get("grad_norm"))
        if why is None and "rewards/margins" in entry:
            margins = [one["rewards/margins"] for one in state.log_history if "rewards/margins" in one]
            why = divergence.margin_collapsed(margins, self._stage.limits)
        self._stop(why)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self._stage.control:
            self._ask(state)
            self._stop(divergence.control_fell([one[CONTROL] for one in state.log_history if CONTROL in one], self._stage.limits))
        epoch = round(state.epoch)
        if epoch in self._stage.epochs_kept:
            self._run.save(self._stage.epoch(epoch), epoch=epoch)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        workers.meet()  # each has its own random numbers to save
        if not workers.is_first():
            return
        new = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (new / WHOLE).touch()
        for other in Path(args.output_dir).glob("checkpoint-*"):
            if other != new:
                shutil.rmtree(other, ignore_errors=True)
        training_log.write(self._stage, state.log_history)

    def _steps_per_s(self, step: int) -> float | None:
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        first, began = self._first
        return None if step == first else round((step - first) / (now - began), 4)

    def _ask(self, state: Any) -> None:
        # with parts of the model alone all have to ask, since each gathers the others' parts
        own = self._run.control_accuracy() if self._stage.is_sharded else None
        accuracy = workers.from_first(lambda: self._run.control_accuracy() if own is None else own)
        state.log_history.append({CONTROL: accuracy, "step": state.global_step, "epoch": state.epoch})

    def _stop(self, why: str | None) -> None:
        told = workers.from_first(lambda: why)  # so that all stop at the same step
        if told is not None:
            raise divergence.Diverged(told)


def _adapter(stage: Stage) -> Any | None:
    lora = stage.settings.lora
    if lora.r is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha or 2 * lora.r,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules) if lora.target_modules else "all-linear",
        task_type="CAUSAL_LM",
    )


@contextlib.contextmanager
def _merged(model: Any) -> Iterator[Any]:
    """The base model with the adapter's weights added; taken away again afterwards, since training may go on."""
    import copy

    yield copy.deepcopy(model).merge_and_unload()


def _padding(model: Any) -> list[tuple[Any, Any]]:
    configs = [model.config.get_text_config(), model.generation_config]
    return [(config, getattr(config, "pad_token_id", None)) for config in configs if config is not None]


def _label_scores(model: Any, questions: Sequence[tuple[Ids, tuple[Ids, ...]]]) -> list[list[float]]:
    """By question, the log-probability of each label behind its prompt; of its first token alone where that tells the labels apart."""
    asked: list[tuple[int, Ids, list[list[tuple[int, int]]]]] = []
    """Number of the question, what the model is given, and by label what to read: (place from the end, token)."""
    for number, (prompt, labels) in enumerate(questions):
        if len({label[0] for label in labels}) == len(labels):
            asked.append((number, prompt, [[(-1, label[0])] for label in labels]))
        else:
            asked += [(number, (*prompt, *one[:-1]), [[(place - len(one), token) for place, token in enumerate(one)]]) for one in labels]
    num_places = max(-place for _, _, reads in asked for read in reads for place, _ in read)
    scores: list[list[float]] = [[] for _ in questions]
    for start in range(0, len(asked), CONTROL_BATCH):
        batch = asked[start : start + CONTROL_BATCH]
        for (number, _, reads), logprobs in zip(batch, _last_logprobs(model, [ids for _, ids, _ in batch], num_places), strict=True):
            sums = (math.fsum(float(logprobs[place, token]) for place, token in read) for read in reads)
            scores[number] += [one if math.isfinite(one) else -math.inf for one in sums]
    return scores


def _last_logprobs(model: Any, sequences: Sequence[Ids], num_places: int) -> torch.Tensor:
    """[sequences, places, tokens]: of what comes after each of the last tokens of each sequence."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[0] * (longest - len(one)) + list(one) for one in sequences])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in sequences])
    device = next(model.parameters()).device
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=num_places,
        use_cache=False,
    ).logits
    return logits.float().log_softmax(-1)
