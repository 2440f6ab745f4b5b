"""Bad input of every kind: one clear message, exit code 2, nothing written.

Each row is a mistake that a user can make, and words that its message has to have: what came, what is allowed or what to do. Mistakes
in checkpoints and run directories are in `test_bad_checkpoint` and `test_bad_run_dir`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Shell

GOOD_ITEM = {
    "item_id": "one",
    "domain": "Opinion",
    "word": {"question": "Cats or dogs?", "options": ["Cats.", "Dogs."]},
    "deed": {"question": "Which one do you take home?", "options": ["The cat.", "The dog."]},
}
COLUMNS = "id,Type,Prompt,Question,Belief\n"
DEMONSTRATION = '{name},Opinion,p,"Q {name}?\nA. a\nB. b","Belief: so it is\nAnswer: A"\n'


@dataclass(frozen=True)
class Case:
    """A mistake: a file in the folder, or overrides behind `wdct evaluate c.yaml`, or both. `{folder}` is that folder."""

    name: str
    overrides: tuple[str, ...]
    words: tuple[str, ...]
    file: str | None = None
    content: str | bytes = ""


def setting(override: str, *words: str) -> Case:
    return Case(override, (override,), words)


def together(overrides: Sequence[str], *words: str) -> Case:
    return Case(" ".join(overrides), tuple(overrides), words)


def config(text: str | bytes, *words: str) -> Case:
    return Case(f"config {text[:30]!r}", (), words, "c.yaml", text)


def items(name: str, content: str | bytes, *words: str) -> Case:
    return Case(f"items {name}: {words[0]}", (f"data.path={{folder}}/{name}",), words, name, content)


def item(*words: str, **changes: object) -> Case:
    return items(f"{words[0].replace(' ', '-')}.jsonl", json.dumps({**GOOD_ITEM, **changes}) + "\n", *words)


def side(question: str, *options: str) -> dict[str, object]:
    return {"question": question, "options": list(options)}


def demonstrations(content: str, *words: str) -> Case:
    overrides = ("variants=[cot]", "cot.shots=1", "cot.demonstrations={folder}/demo.csv")
    return Case(f"demonstrations: {words[0]}", overrides, words, "demo.csv", content)


SETTINGS = [
    setting("run_dir='s3://KEY:hunter2@bucket/run'", "run_dir", "a URI without keys", "AWS_SECRET_ACCESS_KEY"),
    setting("data.limt=3", "data.limt", "no such key", "data.limit"),
    setting("nonsense=3", "nonsense", "no such key", "allowed here"),
    setting("engine.extr.block=3", "engine.extr", "engine.extra"),
    setting("data.limit=many", "data.limit", "'many'", "whole number"),
    setting("data.limit=0", "data.limit", "0", "from 1 on"),
    setting("data.limit=-4", "data.limit", "-4", "from 1 on"),
    setting("data.limit=1.5", "data.limit", "1.5", "whole number"),
    setting("data=bundled", "data", "'bundled'", "section"),
    setting("data.domains=[]", "data.domains", "at least one domain"),
    setting("data.domains=Opinion", "data.domains", "list"),
    setting("data.domains=[Sports]", "Sports", "Opinion"),
    setting("data.languages=[xx]", "xx"),
    setting("data.languages=[]", "data.languages", "at least one language"),
    setting("data.languages=[en,en]", "data.languages", "each once"),  # every prompt would be asked twice, and no score made
    setting("data.on_bad_item=ignore", "data.on_bad_item", "'ignore'", "stop, drop"),
    setting("data.path=nowhere.csv", "nowhere.csv"),
    setting("data.path={folder}", "data.path"),
    setting("prompt.format=fancy", "prompt.format", "'fancy'", "auto, chat, plain"),
    setting("prompt.labels=[A]", "prompt.labels", "at least two"),
    setting("prompt.labels=[A,A]", "prompt.labels", "differ"),
    setting("prompt.labels=[1,10]", "prompt.labels", "begins with another"),
    setting("prompt.labels=[A,'']", "prompt.labels", "not empty"),
    setting("prompt.labels=[A,B]", "prompt.labels", "2 labels", "3 options"),
    setting("prompt.date=yesterday", "prompt.date", "'yesterday'", "2025-01-01"),
    setting("variants=[]", "variants", "at least one variant"),
    setting("variants=[direct,direct]", "variants", "each variant once"),
    setting("variants=[telepathy]", "variants", "'telepathy'", "direct"),
    setting("variants=direct", "variants", "list"),
    setting("orders=shuffled", "orders", "'shuffled'", "rotations"),
    setting("trials=0", "trials", "0", "1 to 65535"),
    setting("trials=70000", "trials", "70000", "1 to 65535"),
    setting("trials=two", "trials", "'two'", "whole number"),
    setting("checkpoints=[]", "checkpoints", "at least one"),
    setting("checkpoints=demo", "checkpoints", "list"),
    setting("checkpoints=[demo,demo]", "checkpoints", "'demo'", "twice"),
    setting("checkpoints=[{{path: a, digest: b}}]", "checkpoints", "digest", "path"),
    setting("checkpoints=[[3]]", "checkpoints", "3", "text"),
    setting("engine.kind=gpt", "engine.kind", "'gpt'", "vllm, endpoint, scripted"),
    setting("engine.dtype=int8", "engine.dtype", "'int8'", "bfloat16"),
    setting("engine.max_model_len=1", "engine.max_model_len", "16"),
    setting("engine.gpu_memory_utilization=1.5", "engine.gpu_memory_utilization", "1.5", "at most 1"),
    setting("engine.cpu_cache_gib=nan", "engine.cpu_cache_gib", "nan", "above 0"),
    setting("engine.enforce_eager=perhaps", "engine.enforce_eager", "'perhaps'", "true or false"),
    setting("engine.extra=3", "engine.extra", "Dict"),
    setting("engine.scripted.bias=middle", "engine.scripted.bias", "'middle'", "first"),
    setting("engine.scripted.delay_s=-1", "engine.scripted.delay_s", "from 0 on"),
    setting("sampling.temperature=-0.1", "sampling.temperature", "-0.1"),
    setting("sampling.top_p=0", "sampling.top_p", "above 0"),
    setting("sampling.max_new_tokens=0", "sampling.max_new_tokens", "from 1 on"),
    setting("dispatch.num_engines=0", "dispatch.num_engines", "from 1 on"),
    setting("dispatch.num_engines=2", "dispatch.num_engines", "dispatch.executor"),
    setting("dispatch.shard_size=0", "dispatch.shard_size", "from 1 on"),
    setting("dispatch.units_in_flight=0", "dispatch.units_in_flight", "1 to 64"),
    setting("dispatch.executor=slurm", "dispatch.executor", "'slurm'", "allowed is one of ray, local"),
    setting("metrics.level=95", "metrics.level", "95", "between 0 and 1"),
    setting("metrics.bootstrap_resamples=-1", "metrics.bootstrap_resamples", "from 0 on"),
    setting("metrics.bootstrap_seed=-1", "metrics.bootstrap_seed", "from 0 on"),
    setting("engine.seed=-1", "engine.seed", "0 to 4294967295"),
    setting("report.min_label_mass=7", "report.min_label_mass", "0 to 1"),
    setting("run_dir=", "run_dir", "nothing came"),
    setting("report.html=ja", "report.html", "'ja'", "true or false"),
    setting("run_dir=ftp://host/run", "run_dir", "pyarrow"),
    setting("data.limit", "`data.limit`", "key=value"),
    setting("=3", "key=value"),
    setting("variants=[direct", "not readable"),
]

CONFIGS = [
    config("", "checkpoints", "at least one"),
    config("- a\n- b\n", "a list", "mapping"),
    config("data: [", "not readable as YAML"),
    config("data: {path: x}\ndata: {path: y}\n", "not readable as YAML", "duplicate"),
    config("data: null\n", "data", "section"),
    config("engine: {kind: scripted, knid: 3}\n", "engine.knid", "engine.kind"),
    config(b"\xff\xfe\x00\x01", "not readable as YAML"),
    config("models: [a]\nsft: {epochs: 1}\n", "models", "`wdct align`", "write checkpoints"),
]

ITEMS = [
    item("option-count", "2", "3", deed=side("Which one?", "The cat.", "The dog.", "Both.")),
    item("too-few-options", word=side("Cats?", "Yes."), deed=side("Which?", "The cat.")),
    item("empty-text", word=side("", "Cats.", "Dogs.")),
    item("correct", "5", correct_option=5),
    items("repeated-id.jsonl", (json.dumps(GOOD_ITEM) + "\n") * 2, "repeated-id", "one"),
    item("lacks options; it has question, option", word={"question": "Cats?", "option": ["Yes.", "No."]}),
    items("broken.jsonl", '{"item_id": "one", \n', "JSON"),
    items("encoding.jsonl", b'{"item_id": "\xff\xfe"}\n', "encoding"),
    items("empty.jsonl", "", "no item"),
    items("table.xlsx", "x", ".csv"),
    items("columns.csv", "id,question\n1,hello\n", "speak"),
    items("empty.csv", "", "empty.csv is empty", "first line"),
    items("semicolons.csv", "Type;id;speak;act\n", "separated by semicolons"),
    items("utf-16.csv", "Type,id,speak,act\n".encode("utf-16"), "in UTF-16", "save it as UTF-8"),
    items("capitals.csv", "TYPE,ID,SPEAK,ACT\n", "Capitals count"),
    Case("items that are elsewhere", ("data.path=elsewhere.csv",), ("looked for /", "elsewhere.csv")),
    items("labels.csv", 'Type,id,speak,act,correct_answer\nOpinion,1,"Q?\nA. a\nC. c","Q?\nA. a\nB. b",\n', "label-order"),
    items("options.csv", 'Type,id,speak,act,correct_answer\nOpinion,1,"Only a question?","Q?\nA. a\nB. b",\n', "1"),
    items("not.parquet", "plain text", "not.parquet"),
    items("not.arrow", "plain text", "not.arrow"),
]


VARIANTS = [
    setting("protocol=papers", "protocol", "'papers'", "paper"),
    together(["protocol=paper", "variants=[direct]"], "variants", "['direct']", "protocol: paper"),
    setting("prompt.reply_tokens=0", "prompt.reply_tokens", "0", "1 to 4096"),
    setting("prompt.reply_tokens=99999", "prompt.reply_tokens", "99999", "1 to 4096"),
    setting("prompt.block_items=0", "prompt.block_items", "from 1 on"),
    setting("cot.sides=[]", "cot.sides", "word, deed or both"),
    setting("cot.sides=[word,word]", "cot.sides", "each once"),
    setting("cot.sides=[thought]", "cot.sides", "'thought'", "word, deed"),
    setting("cot.sides=deed", "cot.sides", "list"),
    setting("cot.shots=-1", "cot.shots", "-1", "0 to 32"),
    setting("cot.shots=33", "cot.shots", "33", "0 to 32"),
    setting("cot.shots=few", "cot.shots", "'few'", "whole number"),
    setting("cot.demonstrations=''", "cot.demonstrations", "`bundled` or a CSV"),
    setting("cot.shot=3", "cot.shot", "cot.shots"),
    together(["variants=[cot]", "cot.shots=2", "cot.demonstrations=nowhere.csv"], "cot.demonstrations", "nowhere.csv", "not there"),
    setting("augment.label_sets=[]", "augment.label_sets", "letters, digits, parens"),
    setting("augment.label_sets=[runes]", "augment.label_sets", "'runes'", "letters, digits, parens"),
    setting("augment.wordings=[]", "augment.wordings", "at least one"),
    setting("augment.wordings=[-1]", "augment.wordings", "[-1]", "from 0 on"),
    together(["variants=[augmented]", "augment.wordings=[0,9]"], "augment.wordings", "[9]", "0 to 5"),
    setting("augment.paraphrases=[1,1]", "augment.paraphrases", "[1, 1]", "each once"),
    setting("augment.paraphrases=[300]", "augment.paraphrases", "[300]", "up to 255"),
    setting("augment.systems=[]", "augment.systems", "at least one"),
    setting("augment.systems=['']", "augment.systems", "not empty"),
    setting("augment.paraphraser=writer", "augment.paraphraser", "writer", "augment.paraphrases"),
    setting("augment.sample=0", "augment.sample", "from 1 on"),
    together(["variants=[augmented]", "augment.sample=99"], "augment.sample", "99", "have 15", "null for all"),
    together(["variants=[augmented]", "augment.paraphrases=[9]"], "no item can be asked", "no paraphrase 9", "in en"),
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


@pytest.mark.parametrize("case", [*SETTINGS, *VARIANTS, *CONFIGS, *ITEMS, *DEMONSTRATIONS], ids=lambda case: case.name)
def test_bad_input_is_named_and_ends_with_2(case: Case, shell: Shell) -> None:
    if case.file is not None:
        shell.write(case.file, case.content)
    shell.refused(tuple(override.format(folder=shell.folder) for override in case.overrides), case.words)


def test_keys_in_a_run_directorys_address_are_not_repeated(shell: Shell) -> None:
    assert "hunter2" not in shell.evaluate("run_dir='s3://KEY:hunter2@bucket/run'").err


def test_a_variant_that_cannot_be_leaves_no_run_behind(shell: Shell) -> None:
    for overrides in (("variants=[telepathy]",), ("variants=[augmented]", "augment.wordings=[9]")):
        assert shell.evaluate(*overrides).code == 2
    assert not shell.run_dir.exists()


def test_items_that_changed_since_the_run_began(shell: Shell) -> None:
    data = shell.write("items.jsonl", json.dumps(GOOD_ITEM) + "\n")
    assert shell.evaluate(f"data.path={data}").code == 0
    shell.write("items.jsonl", json.dumps({**GOOD_ITEM, "word": side("Birds or fish?", "Birds.", "Fish.")}) + "\n")
    ended = shell.evaluate(f"data.path={data}")
    assert ended.code == 2
    assert "have changed since it began" in ended.err


def test_a_configuration_that_is_not_there(shell: Shell) -> None:
    ended = shell.wdct("evaluate", "none.yaml")
    assert ended.code == 2
    assert "there is no such file" in ended.err


def test_a_directory_for_a_configuration(shell: Shell) -> None:
    ended = shell.wdct("evaluate", str(shell.folder))
    assert ended.code == 2
    assert "a directory" in ended.err


@pytest.mark.parametrize("command", ["score", "report", "status"])
def test_commands_on_something_that_is_no_run(command: str, shell: Shell) -> None:
    ended = shell.wdct(command, str(shell.folder))
    assert ended.code == 2
    assert "not a run" in ended.err


@pytest.mark.parametrize(("name", "words"), [("nowhere.csv", "There is no item file"), ("{folder}", "is not a file")])
def test_check_of_what_is_no_item_file(name: str, words: str, shell: Shell) -> None:
    ended = shell.wdct("check", name.format(folder=shell.folder))
    assert ended.code == 2
    assert words in ended.err


def test_fetch_of_what_there_is_not(shell: Shell) -> None:
    ended = shell.wdct("fetch", "./nowhere")
    assert ended.code == 2
    assert "nowhere" in ended.err
