"""Configurations of experiments: what they may hold, and what is said where they may not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from wdct_dist.config.align_rules import FREE_TO_CHANGE, load_align_config, models_of
from wdct_dist.config.align_schema import AlignConfig, Method
from wdct_dist.config.load import differences, from_yaml_into, to_yaml
from wdct_dist.config.schema import Dtype
from wdct_dist.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "align"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "night.yaml"
    path.write_text("models: [org/model]\n")
    return path


def test_the_evaluation_has_its_own_section_and_the_run_directory_and_models_of_the_experiment(file: Path) -> None:
    config = load_align_config(file, ["evaluation.engine.dtype=float32", "dpo.beta=0.2"])
    assert (config.run_dir, config.evaluation.run_dir, config.evaluation.checkpoints) == ("runs/night", "runs/night", ["org/model"])
    assert (config.evaluation.engine.dtype, config.dpo.beta) == (Dtype.float32, 0.2)
    assert from_yaml_into(AlignConfig, to_yaml(config)) == config


def test_presets_of_the_evaluation_act_in_its_section(file: Path) -> None:
    config = load_align_config(file, ["evaluation.protocol=paper", "evaluation.variants=[paper,direct]"])
    assert config.evaluation.prompt.reply_tokens == 10


def test_a_model_has_settings_of_its_own_over_those_of_all(file: Path) -> None:
    file.write_text("models: [org/a, {path: org/b, id: b, settings: {sft: {learning_rate: 1e-6}, lora: {r: 4}}}]\nsft: {epochs: 2}\n")
    (first, plain), (second, own) = models_of(load_align_config(file))
    assert (first, second) == ("org/a", {"path": "org/b", "id": "b"})
    assert (plain.sft.learning_rate, plain.sft.epochs, plain.lora.r) == (1e-5, 2, None)
    assert (own.sft.learning_rate, own.sft.epochs, own.lora.r) == (1e-6, 2, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("target_sides=[words]", "target_sides"),
        ("sft.learning_rate=.inf", "sft.learning_rate: inf is not allowed; allowed is a finite number above 0"),
        ("dpo.learning_rate=.nan", "dpo.learning_rate: nan is not allowed"),
        ("methods=[dpo,sft]", r"methods: .* allowed is \[sft\], \[dpo\] or \[sft, dpo\]"),
        ("run_dir=s3://bucket/run", "allowed is a path that all nodes share"),
        ("held_out=1.0", "held_out: 1.0 is not allowed"),
        ("sft.lr=1e-5", "sft.lr: there is no such key"),
        ("evaluation.checkpoints=[a]", "evaluation.checkpoints: not allowed here; give models"),
        ("evaluation.trials=0", "evaluation.trials: 0 is not allowed"),
        ("evaluation.engine.kind=scripted", "only weights can be trained"),
        ("evaluation.variants=[cot]", "models are trained in the variant direct"),
        ("lora.alpha=8", "lora.alpha, lora.dropout or lora.target_modules came without lora.r"),
        ("models=[{path: a/b, base: c/d}]", "adapter and full weights do not mix"),
        ("models=[{path: a/b, settings: {epochs: 3}}]", "epochs came; allowed are sft, dpo, lora, precision"),
        ("dpo.micro_batch_size=3", r"dpo.batch_size: 8 is no multiple of dpo.micro_batch_size \(3\)"),
        ("resources.workers=0", "resources.workers: 0 is not allowed; allowed is a whole number from 1 on"),
        ("resources.workers=4", r"sft.batch_size: 2 is no multiple of resources.workers \(4\); it is the batch of all workers"),
    ],
)
def test_what_cannot_be_is_said_with_what_is_allowed(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_align_config(file, [override])


def test_a_batch_is_dealt_out_to_the_workers_of_the_stages_that_there_are(file: Path) -> None:
    alone = load_align_config(file, ["methods=[dpo]", "resources.workers=4"])
    assert (alone.resources.workers, alone.dpo.batch_size) == (4, 8)
    message = r"dpo.batch_size: 8 is no multiple of resources.workers \(4\) × dpo.micro_batch_size \(4\)"
    with pytest.raises(ConfigError, match=message):
        load_align_config(file, ["methods=[dpo]", "resources.workers=4", "dpo.micro_batch_size=4"])


def test_a_control_needs_sft_and_instructions(file: Path) -> None:
    with pytest.raises(ConfigError, match="the control is trained on instructions, which only SFT does"):
        load_align_config(file, ["target_sides=[none]", "methods=[dpo]"])
    with pytest.raises(ConfigError, match="the control is trained on nothing else"):
        load_align_config(file, ["target_sides=[none]", "instructions.ratio=0"])


def test_branches_may_be_added_to_an_experiment_and_its_training_not_changed(file: Path) -> None:
    before = load_align_config(file)
    more = load_align_config(file, ["seeds=[0,1]", "target_sides=[word,deed]", "resources.cpus=2", "evaluation.dispatch.num_engines=2"])
    other = load_align_config(file, ["dpo.beta=0.2", "evaluation.trials=2"])
    assert differences(before, more, FREE_TO_CHANGE) == []
    assert [line.split(":")[0] for line in differences(before, other, FREE_TO_CHANGE)] == ["dpo.beta", "evaluation.trials"]


def test_the_papers_configuration_has_the_published_settings() -> None:
    config = load_align_config(CONFIGS / "paper.yaml")
    (_, common), (_, mistral) = models_of(config)
    assert (config.domains, config.instructions.ratio) == (["Opinion", "NonEthV"], 9)
    assert (config.optimizer.value, config.warmup_steps, config.max_grad_norm, config.max_length) == ("rmsprop", 50, 10.0, 512)
    published = {"epochs": 4, "learning_rate": 1e-5, "batch_size": 2}
    assert published.items() <= dataclasses.asdict(common.stage(Method.sft)).items()
    assert {"epochs": 4, "learning_rate": 5e-6, "batch_size": 8, "beta": 0.1}.items() <= dataclasses.asdict(common.dpo).items()
    assert (mistral.sft.learning_rate, mistral.dpo.learning_rate) == (1e-6, 5e-7)


def test_the_quickstart_is_a_configuration() -> None:
    assert load_align_config(CONFIGS / "quickstart.yaml").run_dir == "runs/align-quickstart"
