"""Stages trained by TRL in this process: a llama of two layers with a vocabulary of a few words."""

from __future__ import annotations

import json
import math
import pickle
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.heap import PAGES, measured_in_a_process
from wdct_dist.align.stage import Question, Settings, Stage
from wdct_dist.align.types import Example, Pair
from wdct_dist.config.align_schema import DivergenceConfig, DpoConfig, LoraConfig, Optimizer, Precision, StageConfig
from wdct_dist.config.schema import PromptConfig
from wdct_dist.errors import DataError
from wdct_dist.prompts.types import Message

pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")

pytestmark = [
    pytest.mark.slow,
    # torch, transformers and TRL warn about each other
    pytest.mark.filterwarnings("ignore"),
]

WORDS = ["<unk>", "<end>", "\n", "Which", "one", *(f"q{number}" for number in range(16)), "A", "B", "yes", "no", "user", "assistant"]
TEMPLATE = "{% for m in messages %}{{ m.role }} \n {{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}assistant \n {% endif %}"
LIMITS = DivergenceConfig(min_reward_margin=None, max_margin_fall=None, max_control_fall=None)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """The model as a checkpoint."""
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r" "), behavior="removed")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<end>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(WORDS), num_key_value_heads=2, max_position_embeddings=64, eos_token_id=1, bos_token_id=None, **shape
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return describe(Source("tiny", str(folder)), allow_pickle=False, trust_remote_code=False)


QUESTIONS = [(Message("user", f"Which one q{number}"),) for number in range(16)]
EXAMPLES = tuple(Example(messages, "AB"[number % 2], "item", str(number)) for number, messages in enumerate(QUESTIONS))
PAIRS = tuple(Pair(messages, "AB"[number % 2], "BA"[number % 2], str(number)) for number, messages in enumerate(QUESTIONS))
CONTROL = (Question((Message("user", "yes no"),), ("yes", "no"), 0),)


@pytest.fixture
def stage_of(parent, tmp_path):
    def make(name: str, method: StageConfig, *, folder: Path = tmp_path / "branch", limits=LIMITS, lora=None, keeps_epochs=False, **fields):
        settings = Settings(
            method, lora or LoraConfig(), Precision.float32, Optimizer.rmsprop, 2, 10.0, 64, False, keeps_epochs, PromptConfig(), 0
        )
        data = EXAMPLES if name == "sft" else PAIRS
        stage = Stage("tiny-word-s0", name, parent, folder, data, CONTROL, settings, limits, 3, False, False, None, 1, False)
        return replace(stage, **fields)

    return make


SFT = StageConfig(epochs=4, learning_rate=3e-3, batch_size=4, micro_batch_size=2)
DPO = DpoConfig(epochs=8, learning_rate=3e-3, batch_size=4)


def log_of(stage):
    import polars as pl

    return pl.read_ipc(stage.folder / "training" / f"{stage.name}.arrow")


def weights(directory):
    from safetensors.numpy import load_file

    return load_file(directory / "model.safetensors")


def test_sft_then_dpo_teach_the_target_and_leave_checkpoints_with_their_provenance(stage_of, parent):
    from wdct_dist.align.trainer import train
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    sft = stage_of("sft", SFT, keeps_epochs=True)
    report = train(sft)
    assert (report.diverged, report.num_steps, report.num_examples, len(report.control_accuracy)) == (None, 16, 16, 5)
    losses = log_of(sft)["loss"].to_list()
    assert losses[-1] < losses[0] / 3
    assert log_of(sft)["step"].to_list() == list(range(1, 17))
    made = describe(Source("tiny-word-s0/sft", str(sft.checkpoint)), allow_pickle=False, trust_remote_code=False)
    record = json.loads((sft.checkpoint / "provenance.json").read_text())
    assert (record["parent"]["digest"], record["data_hash"], record["seed"]) == (parent.digest, sft.data_hash, 0)
    assert record["settings"]["method"]["learning_rate"] == 3e-3
    assert [json.loads((sft.epoch(number) / "provenance.json").read_text())["epoch"] for number in sft.epochs_kept] == [1, 2, 3]
    dpo = stage_of("dpo", DPO, parent=made)
    assert train(dpo).diverged is None
    log = log_of(dpo)
    assert log["loss"][0] == pytest.approx(math.log(2), abs=1e-6)  # the reference is the model that it starts from
    assert log["reward_margin"][-1] > 0.5
    assert log["reward_accuracy"][-1] == 1.0
    assert not list(dpo.folder.glob("*.states"))


@pytest.mark.parametrize(
    ("long_items", "max_left_out", "ends"),
    [(0, 0.0, False), (1, 0.0, True), (1, 0.1, False), (2, 0.1, True), (16, 1.0, True)],
)
def test_a_stage_ends_if_max_length_leaves_out_too_many_of_its_items(stage_of, parent, long_items, max_left_out, ends):
    from transformers import AutoTokenizer

    from wdct_dist.align.tokens import TrainingTokens
    from wdct_dist.align.trainer import training_rows

    tokens = TrainingTokens(AutoTokenizer.from_pretrained(parent.directory), PromptConfig())
    longer = [Example((Message("user", "Which one " * 40),), "A", "item", str(number)) for number in range(long_items)]
    instructions = [Example((Message("user", f"q{number}"),), "yes", "instruction", None) for number in range(16)]
    data = (*longer, *EXAMPLES[long_items:], *instructions)
    stage = stage_of("sft", SFT, data=data, max_left_out=max_left_out)
    if ends:
        with pytest.raises(DataError, match=rf"leaves out {long_items} of 16 item examples \(the longest has \d+ tokens\)"):
            training_rows(stage, tokens)
    else:
        assert len(training_rows(stage, tokens).sft) == 32 - long_items


def test_a_stage_that_is_gone_on_with_ends_in_the_same_weights(stage_of, tmp_path, monkeypatch):
    import numpy as np

    from wdct_dist.align import trainer

    whole = stage_of("sft", SFT, folder=tmp_path / "whole")
    trainer.train(whole)

    class Killed(BaseException):
        pass

    class Kill(trainer._Watch):
        def on_step_begin(self, args, state, control, **rest):
            if state.global_step == 10:
                raise Killed

    cut = stage_of("sft", SFT, folder=tmp_path / "cut")
    monkeypatch.setattr(trainer, "_Watch", Kill)
    with pytest.raises(Killed):
        trainer.train(cut)
    monkeypatch.undo()
    (cut.states / "checkpoint-12").mkdir()  # one that was being written
    assert not cut.checkpoint.exists()
    assert trainer.train(cut).resumed_at == 9
    assert log_of(cut)["step"].to_list() == list(range(1, 17))
    for name, tensor in weights(whole.checkpoint).items():
        assert np.array_equal(tensor, weights(cut.checkpoint)[name]), name


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap is tuned")
def test_a_training_on_a_cpu_keeps_what_it_frees(stage_of, tmp_path):
    (tmp_path / "stage").write_bytes(pickle.dumps(stage_of("sft", SFT)))
    assert measured_in_a_process(HEAP_BEHIND_A_TRAINING, str(tmp_path / "stage"))["faults"] < 0.1 * PAGES


HEAP_BEHIND_A_TRAINING = """
import json, pickle, sys
from tests.heap import new_pages
from wdct_dist.align.trainer import train

with open(sys.argv[1], "rb") as file:
    train(pickle.load(file))
print(json.dumps({"faults": new_pages()}))
"""


def test_the_loss_of_dpo_is_the_formula_of_the_paper_and_that_of_sft_is_on_the_completion_alone(stage_of, parent):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from wdct_dist.align.dpo import dpo_trainer
    from wdct_dist.align.sft import sft_trainer
    from wdct_dist.align.tokens import TrainingTokens
    from wdct_dist.align.trainer import arguments

    tokenizer = AutoTokenizer.from_pretrained(parent.directory)
    tokens = TrainingTokens(tokenizer, PromptConfig())
    sft_rows, dpo_rows = tokens.examples(EXAMPLES, 64).sft, tokens.pairs(PAIRS, 64).dpo

    def model(noise=0.0):
        made = AutoModelForCausalLM.from_pretrained(parent.directory, dtype=torch.float32)
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
        return made

    def logprob(of, prompt, completion):
        """Sum over the completion's tokens, by a plain forward pass."""
        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            logs = torch.log_softmax(of(ids).logits[0].double(), -1)
        return sum(logs[place - 1, ids[0, place]] for place in range(len(prompt), ids.shape[1]))

    reference, policy, beta = model(), model(0.3), 0.1
    for precomputed in (True, False):
        common = arguments(stage_of("dpo", DPO))
        trainer = dpo_trainer(model(), tokenizer, dpo_rows, DpoConfig(beta=beta, precompute_reference=precomputed), common, None, [])
        trainer.model.load_state_dict(policy.state_dict())
        batch = trainer.data_collator([trainer.train_dataset[number] for number in range(6)])
        rewards = [
            beta * (logprob(policy, row.prompt_ids, ids) - logprob(reference, row.prompt_ids, ids))
            for row in dpo_rows[:6]
            for ids in (row.chosen_ids, row.rejected_ids)
        ]
        margins = torch.stack([rewards[2 * number] - rewards[2 * number + 1] for number in range(6)])
        assert float(trainer.compute_loss(trainer.model, batch)) == pytest.approx(
            float(-torch.nn.functional.logsigmoid(margins).mean()), abs=1e-5
        )
    trainer = sft_trainer(model(0.3), tokenizer, sft_rows, arguments(stage_of("sft", SFT)), None, [])
    rows = [trainer.train_dataset[number] for number in range(6)]
    assert [row["input_ids"] for row in rows] == [[*row.prompt_ids, *row.completion_ids] for row in sft_rows[:6]]
    expected = -sum(logprob(policy, row.prompt_ids, row.completion_ids) for row in sft_rows[:6]) / sum(
        len(row.completion_ids) for row in sft_rows[:6]
    )
    assert float(trainer.compute_loss(trainer.model, trainer.data_collator(rows))) == pytest.approx(float(expected), abs=1e-5)


def test_a_training_that_diverges_stops_with_the_reason_and_leaves_no_checkpoint(stage_of):
    from wdct_dist.align.trainer import train
    from wdct_dist.align.training_log import read_diverged

    wild = stage_of("sft", replace(SFT, learning_rate=1e30))
    report = train(wild)
    assert "at step" in str(report.diverged)
    assert not wild.checkpoint.exists()
    assert log_of(wild).height > 0
    assert read_diverged(wild) == report.diverged
    assert read_diverged(replace(wild, limits=DivergenceConfig())) is None  # other limits: it may be tried again
    strict = stage_of(
        "sft",
        SFT,
        limits=replace(LIMITS, min_control_accuracy=1.0),
        control=(replace(CONTROL[0], labels=("A", "B"), correct=0), replace(CONTROL[0], labels=("A", "B"), correct=1)),
    )
    assert "accuracy on the control questions is 0.500" in str(train(strict).diverged)


def test_an_adapter_is_trained_and_merged_into_full_weights_beside_which_it_is_kept(stage_of, parent):
    from wdct_dist.align.trainer import train

    stage = stage_of("dpo", DPO, lora=LoraConfig(r=4))
    assert train(stage).diverged is None
    assert (stage.checkpoint / "adapter" / "adapter_config.json").is_file()
    before, after = weights(parent.directory), weights(stage.checkpoint)
    assert before.keys() == after.keys()
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert changed
    assert all(".self_attn." in name or ".mlp." in name for name in changed)
