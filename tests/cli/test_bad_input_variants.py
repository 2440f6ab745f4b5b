"""Bad input about variants, protocols and demonstrations: one clear message, exit code 2, nothing written.

Each row is a mistake that a user can make, and words that its message has to have: what came, what is allowed or what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wdct_dist.cli.main import main

CONFIG = "run_dir: {run}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\ndispatch: {{executor: local}}\n"
COLUMNS = "id,Type,Prompt,Question,Belief\n"
DEMONSTRATION = '{name},Opinion,p,"Q {name}?\nA. a\nB. b","Belief: so it is\nAnswer: A"\n'


@dataclass(frozen=True)
class Case:
    """A mistake. `make` prepares files in the folder; `arguments` follow `wdct evaluate c.yaml`."""

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    make: Callable[[Path], None] | None = None


def setting(overrides: str, *words: str) -> Case:
    return Case(overrides, tuple(overrides.split(" ")), words)


def demonstrations(content: str, *words: str) -> Case:
    def make(folder: Path) -> None:
        (folder / "demo.csv").write_text(content)

    arguments = ("variants=[cot]", "cot.shots=1", "cot.demonstrations={folder}/demo.csv")
    return Case(f"demonstrations: {words[0]}", arguments, words, make)


SETTINGS = [
    setting("protocol=papers", "protocol", "'papers'", "paper"),
    setting("protocol=paper variants=[direct]", "variants", "['direct']", "protocol: paper"),
    setting("prompt.reply_tokens=0", "prompt.reply_tokens", "0", "1 to 4096"),
    setting("prompt.reply_tokens=99999", "prompt.reply_tokens", "99999", "1 to 4096"),
    setting("prompt.block_items=0", "prompt.block_items", "from 1 on"),
    setting("cot.sides=[]", "cot.sides", "word, deed or both"),
    setting("cot.sides=[word,word]", "cot.sides", "each once"),
    setting("cot.sides=[thought]", "cot.sides", "'thought'", "word, deed"),
    setting("cot.sides=deed", "cot.sides", "list"),
    setting("cot.shots=-1", "cot.shots", "-1", "0 to 32"),
    setting("cot.shots=33", "cot.shots", "33", "0 to 32"),
    setting("cot.shots=few", "cot.shots", "'few'", "Integer"),
    setting("cot.demonstrations=''", "cot.demonstrations", "`bundled` or a CSV"),
    setting("cot.shot=3", "cot.shot", "cot.shots"),
    setting("variants=[cot] cot.shots=2 cot.demonstrations=nowhere.csv", "cot.demonstrations", "nowhere.csv", "not there"),
    setting("augment.label_sets=[]", "augment.label_sets", "letters, digits, parens"),
    setting("augment.label_sets=[runes]", "augment.label_sets", "'runes'", "letters, digits, parens"),
    setting("augment.wordings=[]", "augment.wordings", "at least one"),
    setting("augment.wordings=[-1]", "augment.wordings", "[-1]", "from 0 on"),
    setting("variants=[augmented] augment.wordings=[0,9]", "augment.wordings", "[9]", "0 to 5"),
    setting("augment.paraphrases=[1,1]", "augment.paraphrases", "[1, 1]", "each once"),
    setting("augment.paraphrases=[300]", "augment.paraphrases", "[300]", "up to 255"),
    setting("augment.systems=[]", "augment.systems", "at least one"),
    setting("augment.systems=['']", "augment.systems", "not empty"),
    setting("augment.paraphraser=writer", "augment.paraphraser", "writer", "augment.paraphrases"),
    setting("augment.sample=0", "augment.sample", "from 1 on"),
    setting("variants=[augmented] augment.sample=99", "augment.sample", "99", "have 15", "null for all"),
    setting("variants=[augmented] augment.paraphrases=[9]", "no item can be asked", "no paraphrase 9", "in en"),
    setting("variants=[joint,joint]", "variants", "each variant once"),
    setting("orders=papers", "orders", "'papers'", "paper"),
]

DEMONSTRATIONS = [
    demonstrations("", "cot.demonstrations", "lacks id", "Belief"),
    demonstrations(COLUMNS, "no rows"),
    demonstrations(COLUMNS + DEMONSTRATION.format(name="one"), "cot.shots: 1", "1 items", "fewer"),
    demonstrations(COLUMNS + DEMONSTRATION.format(name="one").replace("Answer: A", "A"), "no demonstrations", "Answer: A"),
    demonstrations(COLUMNS + DEMONSTRATION.format(name="one").replace("Answer: A", "Answer: D"), "answers D", "A, B"),
]


@pytest.mark.parametrize("case", [*SETTINGS, *DEMONSTRATIONS], ids=lambda case: case.name)
def test_bad_input_is_named_and_ends_with_2(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=run))
    if case.make is not None:
        case.make(tmp_path)
    arguments = [argument.format(folder=tmp_path) for argument in case.arguments]
    assert main(["evaluate", "c.yaml", *arguments]) == 2
    said = capsys.readouterr().err
    for word in case.words:
        assert word in said
    assert "Traceback" not in said
    assert not (run / "answers").exists() or not any((run / "answers").iterdir())


def test_a_variant_that_cannot_be_leaves_no_run_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    for overrides in (["variants=[telepathy]"], ["variants=[augmented]", "augment.wordings=[9]"]):
        assert main(["evaluate", "c.yaml", *overrides]) == 2
    assert not (tmp_path / "run").exists()
