"""Settings without effect are said; those that something uses are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.config.load import load_config
from wdct_dist.config.unused import unused

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


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_no_shipped_configuration_of_an_evaluation_says_what_is_not_used(path: Path) -> None:
    if "models:" not in path.read_text():
        assert unused(load_config(path)) == []
