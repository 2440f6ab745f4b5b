"""Settings without effect are said; those that something uses are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.config.align_rules import load_align_config
from wdct_dist.config.load import load_config
from wdct_dist.config.unused import unused, unused_in_alignment

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def said(tmp_path: Path):
    """What is said of overrides."""
    file = tmp_path / "c.yaml"
    file.write_text("checkpoints: [a]\n")
    return lambda *overrides: unused(load_config(file, overrides))


@pytest.mark.parametrize(
    ("setting", "why", "use"),
    [
        ("cot.shots=3", "add cot to variants", "variants=[cot]"),
        ("augment.sample=2", "add augmented to variants", "variants=[direct,augmented]"),
        ("order_seed=7", "set orders: random", "orders=random"),
        ("sampling.temperature=0.7", "no text is generated", "prompt.reply_tokens=16"),
        ("sampling.max_new_tokens=9", "no text is generated", "variants=[cot]"),
        ("engine.scripted.bias=first", "set engine.kind: scripted", "engine.kind=scripted"),
        ("engine.endpoint.concurrency=4", "engine.kind is vllm", "engine.kind=endpoint engine.endpoint.base_url=http://localhost:1/v1"),
    ],
)
def test_what_nothing_uses_is_said_with_what_would_use_it(said, setting: str, why: str, use: str) -> None:
    (line,) = said(setting)
    assert line.startswith(f"{setting.partition('=')[0]}: ")
    assert "has no effect" in line
    assert why in line
    assert said(setting, *use.split()) == []


def test_variants_of_other_packages_may_read_any_setting(said) -> None:
    assert said("cot.shots=3", "variants=[theirs]") == []


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["methods=[dpo]", "sft.epochs=9"], "sft.epochs"),
        (["methods=[sft]", "dpo.beta=0.5"], "dpo.beta"),
        (["held_out=0", "split_seed=3"], "split_seed"),
        (["augment.order_seed=3"], "augment.order_seed"),
        (["divergence.control=null", "divergence.control_limit=3"], "divergence.control_limit"),
        (["evaluation.cot.shots=2"], "evaluation.cot.shots"),
    ],
)
def test_what_an_experiment_does_not_use_is_said(tmp_path: Path, settings: list[str], key: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("models: [a]\nevaluation: {augment: {paraphrases: [0, 1]}}\n")
    (line,) = unused_in_alignment(load_align_config(file, settings))
    assert line.startswith(f"{key}: ")


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_configuration_has_what_is_not_used(path: Path) -> None:
    aligns = "models:" in path.read_text()
    assert (unused_in_alignment(load_align_config(path)) if aligns else unused(load_config(path))) == []
