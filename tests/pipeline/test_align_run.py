"""A whole experiment on models of two layers, killed twice on the way: the process that trains, then the program itself."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.processes import command, descendants
from wdct_dist.report.status import status_text
from wdct_dist.tables.storage import Store

CONFIG = """
run_dir: {run}
models:
- {{id: good, path: {good}}}
- {{id: wild, path: {wild}, settings: {{sft: {{learning_rate: 1e30}}}}}}
held_out: 0.25
instructions: {{ratio: 0.5}}
sft: {{epochs: 20, learning_rate: 1e-3, batch_size: 4}}
dpo: {{epochs: 20, learning_rate: 1e-3, batch_size: 4}}
warmup_steps: 2
max_length: 1024
save_every_steps: 2
divergence: {{control: null, min_reward_margin: null, max_margin_fall: null}}
resources: {{cpus: 1}}
evaluation:
  data: {{limit: 8}}
  engine: {{cpu_cache_gib: 0.1, max_model_len: 1024}}
  metrics: {{bootstrap_resamples: 50}}
  report: {{html: false}}
"""


TEMPLATE = "{% for m in messages %}{{ m.role }}\n{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}assistant\n{% endif %}"


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., Path]:
    """Writes a llama of two layers with a vocabulary of six hundred pieces, which is trained in hundredths of a second a step."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from wdct_dist.items.load import BUNDLED

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train([str(BUNDLED)], trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])

    def write(name: str, *, seed: int) -> Path:
        directory = tmp_path / name
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
        fast.chat_template = TEMPLATE
        fast.save_pretrained(directory)
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=1,
            num_key_value_heads=1,
            max_position_embeddings=1024,
            initializer_range=0.2,
            eos_token_id=fast.eos_token_id,
            bos_token_id=None,
            dtype="float32",
        )
        LlamaForCausalLM(config).save_pretrained(directory)
        return directory

    return write


def training_process(program: int, lock: Path) -> int | None:
    """The process of `program` that trains: the one that has the stage's lock. None: there is none yet."""
    for pid in descendants(program):
        try:
            held = {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:
            continue
        if pid != program and str(lock) in held:
            return pid
    return None


def wait_for(condition: Callable[[], Any], program: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert program.poll() is None, program.communicate()[1]
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


def stopped_with_a_state(program: subprocess.Popen[str], branch: Path, stage: str) -> int:
    """The process that trains `stage`, stopped in the midst of it, after it has saved a state to go on from.

    Until then it is let go on for a moment at a time, so that it cannot be through before this process has looked.
    """
    lock = branch / f".{stage}.lock"
    wait_for(lambda: lock.exists() and training_process(program.pid, lock), program)
    trainer = training_process(program.pid, lock)
    assert trainer is not None

    def has_state() -> bool:
        os.kill(trainer, signal.SIGSTOP)
        if list(branch.glob(f"{stage}.states/checkpoint-*/whole")):
            return True
        os.kill(trainer, signal.SIGCONT)
        return False

    wait_for(has_state, program)
    return trainer


def events_of(run: Path, name: str) -> list[dict[str, Any]]:
    from wdct_dist.tables.events import read_events

    return [event for event in read_events(Store(str(run))) if event["event"] == name]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_an_experiment_that_is_killed_twice_is_gone_on_with_where_it_was(
    tiny_model: Callable[..., Path], wdct: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")
    run, file = tmp_path / "run", tmp_path / "config.yaml"
    file.write_text(CONFIG.format(run=run, good=tiny_model("good", seed=1), wild=tiny_model("wild", seed=2)))
    branch = run / "align" / "good-word-s0"
    program = subprocess.Popen(
        [sys.executable, "-m", "wdct_dist", "align", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    trainers = []
    try:
        trainers.append(stopped_with_a_state(program, branch, "sft"))
        assert re.search(
            r": running, training\n(.*\n)*  training:\n    good-word-s0/sft: running, step [\d,]+ of [\d,]+ \(\d+ %\).*, loss [\d.]+\n"
            r"    good-word-s0/dpo: waits for sft\n",
            status_text(Store(str(run))),
        )
        os.kill(trainers.pop(), signal.SIGKILL)
        trainers.append(stopped_with_a_state(program, branch, "dpo"))
    finally:
        started = descendants(program.pid)
        program.kill()
        for trainer in trainers:  # which would go on, and might end, before Ray misses the program
            with contextlib.suppress(ProcessLookupError):
                os.kill(trainer, signal.SIGKILL)
        program.communicate()
    made_at = (branch / "sft" / "provenance.json").stat().st_mtime_ns
    assert [event["task"] for event in events_of(run, "task lost")] == ["good-word-s0/sft"]
    (trained,) = events_of(run, "stage trained")
    assert (trained["stage"], trained["resumed_at"] > 0) == ("good-word-s0/sft", True)
    deadline = time.monotonic() + 120
    while any("ray::" in command(pid) for pid in started) and time.monotonic() < deadline:
        time.sleep(0.1)
    text = status_text(Store(str(run)))
    assert ": not running, incomplete; the same `wdct align` goes on from here\n" in text
    assert re.search(
        r"    good-word-s0/sft: done, [\d,]+ steps in 0:\d\d:\d\d\n    good-word-s0/dpo: not over, .*; goes on from step \d+\n", text
    )

    ended = wdct("align", str(file))
    assert ended.returncode == 3, ended.stderr  # one of the branches diverged
    assert "branch wild-word-s0 was stopped: sft: " in ended.stderr
    assert (branch / "sft" / "provenance.json").stat().st_mtime_ns == made_at
    trained = events_of(run, "stage trained")
    assert [event["stage"] for event in trained] == ["good-word-s0/sft", "good-word-s0/dpo"]
    assert trained[1]["resumed_at"] > 0
    # not twice; and not at all where the program was killed before it heard of it
    assert len(events_of(run, "stage diverged")) <= 1

    text = status_text(Store(str(run)))
    assert re.search(r": ended; 1 of 4 stages diverged\n(.*\n)*    good-word-s0/dpo: done, [\d,]+ steps in .*\n", text)
    assert re.search(
        r"    wild-word-s0/sft: stopped, it diverged: the .*\n    wild-word-s0/dpo: not trained, since there is no sft\n", text
    )

    change = pl.read_ipc(run / "scores" / "change.arrow")
    rates = change.filter(pl.col("metric").is_in(["direct_change", "indirect_change"]), domain="all")
    assert set(rates.select("checkpoint_id", "split").rows()) == {
        (f"good-word-s0/{stage}", split) for stage in ("sft", "dpo") for split in ("train", "held_out")
    }
    assert rates.filter(checkpoint_id="good-word-s0/dpo", split="train", metric="direct_change")["value"].item() > 0.5
    assert_trained_prompts_are_those_that_were_sent(run, branch)


def assert_trained_prompts_are_those_that_were_sent(run: Path, branch: Path) -> None:
    """By the digests of the token ids that the engine really sent."""
    from transformers import AutoTokenizer

    from wdct_dist.align.tokens import TrainingTokens
    from wdct_dist.align.types import Example
    from wdct_dist.config.schema import PromptConfig
    from wdct_dist.engine.render import rendered_digest
    from wdct_dist.prompts.types import Message

    answers = pl.concat([pl.read_ipc(file) for file in (run / "answers").glob("*.arrow")])
    sent = answers.filter(checkpoint_id="good-word-s0/dpo").join(pl.read_ipc(run / "prompts.arrow"), on="prompt_id")
    messages = [tuple(Message(one["role"], one["content"]) for one in row) for row in sent["messages"].to_list()]
    tokens = TrainingTokens(AutoTokenizer.from_pretrained(branch / "dpo"), PromptConfig())
    rows = tokens.examples([Example(one, "A", "item", "i") for one in messages], 1024).sft
    assert [rendered_digest(row.prompt_ids) for row in rows] == sent["rendered_digest"].to_list()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_what_cannot_be_trained_is_said_before_anything_is_asked(
    tiny_model: Callable[..., Path], wdct: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")
    model, file = tiny_model("model", seed=1), tmp_path / "config.yaml"
    (model / "chat_template.jinja").unlink()
    file.write_text(f"run_dir: {tmp_path / 'run'}\nmodels: [{{id: plain, path: {model}}}]\n")
    ended = wdct("align", str(file), "evaluation.prompt.format=chat")
    assert ended.returncode == 2
    assert ended.stderr.strip() == (
        "wdct: models: plain has no chat template, and evaluation.prompt.format: chat needs one; use auto or plain, or add "
        "chat_template.jinja to the model."
    )
    ended = wdct("align", str(file), "target_sides=[both]")
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_the_quickstart_turns_the_words_of_the_real_model_within_a_quarter_of_an_hour(small_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")
    began = time.monotonic()
    file = Path(__file__).parents[2] / "configs" / "align" / "quickstart.yaml"
    program = [sys.executable, "-m", "wdct_dist", "align", str(file), f"run_dir={tmp_path / 'run'}"]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=3600, check=False)
    assert ended.returncode == 0, ended.stderr
    change = pl.read_ipc(tmp_path / "run" / "scores" / "change.arrow")
    rates = change.filter(checkpoint_id="SmolLM2-135M-Instruct-word-s0/dpo", split="train", domain="all")
    assert rates.filter(metric="direct_change")["value"].item() >= 0.8
    indirect = rates.filter(metric="indirect_change").row(0, named=True)
    assert indirect["ci_low"] <= indirect["value"] <= indirect["ci_high"]
    assert time.monotonic() - began < 15 * 60
