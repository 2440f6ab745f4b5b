"""Bad input of every kind: one clear message, exit code 2, nothing written.

Each row is a mistake that a user can make, and words that its message has to have: what came, what is allowed or what to do.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wdct_dist.cli.main import main

GOOD_ITEM = {
    "item_id": "one",
    "domain": "Opinion",
    "word": {"question": "Cats or dogs?", "options": ["Cats.", "Dogs."]},
    "deed": {"question": "Which one do you take home?", "options": ["The cat.", "The dog."]},
}
CONFIG = "run_dir: {run}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\ndispatch: {{executor: local}}\n"


@dataclass(frozen=True)
class Case:
    """A mistake. `make` prepares files in the folder; `arguments` follow `wdct evaluate c.yaml`."""

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    make: Callable[[Path], None] | None = None


def setting(override: str, *words: str) -> Case:
    return Case(override, (override,), words)


def file(name: str, content: str | bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


def config(text: str, *words: str) -> Case:
    return Case(f"config {text[:30]!r}", (), words, file("c.yaml", text))


def items(name: str, content: str | bytes, *words: str) -> Case:
    return Case(f"items {name}: {words[0]}", (f"data.path={{folder}}/{name}",), words, file(name, content))


def item(*words: str, **changes: object) -> Case:
    return items(f"{words[0].replace(' ', '-')}.jsonl", json.dumps({**GOOD_ITEM, **changes}) + "\n", *words)


def side(question: str, *options: str) -> dict[str, object]:
    return {"question": question, "options": list(options)}


SETTINGS = [
    setting("data.limt=3", "data.limt", "no such key", "data.limit"),
    setting("nonsense=3", "nonsense", "no such key", "allowed here"),
    setting("engine.extr.block=3", "engine.extr", "engine.extra"),
    setting("data.limit=many", "data.limit", "'many'", "Integer"),
    setting("data.limit=0", "data.limit", "0", "from 1 on"),
    setting("data.limit=-4", "data.limit", "-4", "from 1 on"),
    setting("data.limit=1.5", "data.limit", "1.5", "Integer"),
    setting("data=bundled", "data", "'bundled'", "section"),
    setting("data.domains=[]", "data.domains", "at least one domain"),
    setting("data.domains=Opinion", "data.domains", "list"),
    setting("data.domains=[Sports]", "Sports", "Opinion"),
    setting("data.languages=[xx]", "xx"),
    setting("data.languages=[]", "data.languages", "at least one language"),
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
    setting("trials=two", "trials", "'two'", "Integer"),
    setting("checkpoints=[]", "checkpoints", "at least one"),
    setting("checkpoints=demo", "checkpoints", "list"),
    setting("checkpoints=[demo,demo]", "checkpoints", "'demo'", "twice"),
    setting("checkpoints=[{{path: a, digest: b}}]", "checkpoints", "digest", "path"),
    setting("checkpoints=[3]", "checkpoints", "3", "text"),
    setting("engine.kind=gpt", "engine.kind", "'gpt'", "vllm, scripted"),
    setting("engine.dtype=int8", "engine.dtype", "'int8'", "bfloat16"),
    setting("engine.max_model_len=1", "engine.max_model_len", "16"),
    setting("engine.gpu_memory_utilization=1.5", "engine.gpu_memory_utilization", "1.5", "at most 1"),
    setting("engine.cpu_cache_gib=nan", "engine.cpu_cache_gib", "nan", "above 0"),
    setting("engine.enforce_eager=perhaps", "engine.enforce_eager", "'perhaps'", "bool"),
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
    setting("dispatch.executor=slurm", "dispatch.executor", "'slurm'", "ray, local"),
    setting("metrics.level=95", "metrics.level", "95", "between 0 and 1"),
    setting("metrics.bootstrap_resamples=-1", "metrics.bootstrap_resamples", "from 0 on"),
    setting("report.min_label_mass=7", "report.min_label_mass", "0 to 1"),
    setting("run_dir=", "run_dir"),
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
    Case("binary config", (), ("not readable as YAML",), file("c.yaml", b"\xff\xfe\x00\x01")),
]

ITEMS = [
    item("option-count", "2", "3", deed=side("Which one?", "The cat.", "The dog.", "Both.")),
    item("too-few-options", word=side("Cats?", "Yes."), deed=side("Which?", "The cat.")),
    item("empty-text", word=side("", "Cats.", "Dogs.")),
    item("correct", "5", correct_option=5),
    items("repeated-id.jsonl", (json.dumps(GOOD_ITEM) + "\n") * 2, "repeated-id", "one"),
    items("broken.jsonl", '{"item_id": "one", \n', "JSON"),
    items("encoding.jsonl", b'{"item_id": "\xff\xfe"}\n', "encoding"),
    items("empty.jsonl", "", "no item"),
    items("table.xlsx", "x", ".csv"),
    items("columns.csv", "id,question\n1,hello\n", "speak"),
    items("empty.csv", "", "empty.csv"),
    items("labels.csv", 'Type,id,speak,act,correct_answer\nOpinion,1,"Q?\nA. a\nC. c","Q?\nA. a\nB. b",\n', "label-order"),
    items("options.csv", 'Type,id,speak,act,correct_answer\nOpinion,1,"Only a question?","Q?\nA. a\nB. b",\n', "1"),
    items("not.parquet", "plain text", "not.parquet"),
    items("not.arrow", "plain text", "not.arrow"),
]


@pytest.mark.parametrize("case", [*SETTINGS, *CONFIGS, *ITEMS], ids=lambda case: case.name)
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


def test_a_configuration_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path / "none.yaml")]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_a_directory_for_a_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "a directory" in capsys.readouterr().err


def header(tensors: dict[str, object]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


WEIGHTS = header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}) + bytes(8)
MODEL = {"config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}), "tokenizer.json": "{}"}


def checkpoint(name: str, words: tuple[str, ...], **files: str | bytes) -> Case:
    def make(folder: Path) -> None:
        directory = folder / "model"
        directory.mkdir()
        for file_name, content in files.items():
            file(file_name, content)(directory)

    return Case(name, (), words, make)


CHECKPOINTS = [
    checkpoint("no weights", ("model", "weights"), **MODEL),
    checkpoint("no tokenizer", ("tokenizer",), **{"config.json": MODEL["config.json"], "model.safetensors": WEIGHTS}),
    checkpoint("no config", ("config.json",), **{"tokenizer.json": "{}", "model.safetensors": WEIGHTS}),
    checkpoint("config is not JSON", ("config.json",), **{**MODEL, "config.json": "{", "model.safetensors": WEIGHTS}),
    checkpoint("truncated weights", ("model.safetensors", "bytes"), **MODEL, **{"model.safetensors": WEIGHTS[:-3]}),
    checkpoint("weights that are no weights", ("model.safetensors",), **MODEL, **{"model.safetensors": b"hello"}),
    checkpoint("pickled weights", ("engine.allow_pickle",), **MODEL, **{"pytorch_model.bin": b"\x80\x02."}),
    checkpoint("a missing part", ("model-2.safetensors",), **MODEL, **{
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}),
        "model-1.safetensors": WEIGHTS,
    }),
    checkpoint("code of its own", ("engine.trust_remote_code",), **{
        **MODEL, "config.json": json.dumps({"architectures": ["X"], "auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}),
        "model.safetensors": WEIGHTS,
    }),
    checkpoint("an adapter alone", ("adapter",), **{"adapter_config.json": "{}", "adapter_model.safetensors": WEIGHTS}),
]  # fmt: skip


@pytest.mark.parametrize("case", CHECKPOINTS, ids=lambda case: case.name)
def test_a_broken_checkpoint_is_named_before_any_engine_starts(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert case.make is not None
    case.make(tmp_path)
    (tmp_path / "c.yaml").write_text("run_dir: run\ncheckpoints: [./model]\nengine: {kind: vllm}\n")
    assert main(["evaluate", "c.yaml"]) == 2
    said = capsys.readouterr().err
    for word in case.words:
        assert word in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ("./nowhere", "nowhere"),
        ("out/*/checkpoint-*", "matches no"),
        ("package://no_such_package/model.gguf", "no_such_package"),
        ("s3x://bucket", "s3x"),
        ("model.gguf", "model.gguf"),
    ],
)
def test_a_checkpoint_that_is_not_there(
    entry: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(f"run_dir: run\ncheckpoints: ['{entry}']\n")
    assert main(["evaluate", "c.yaml"]) == 2
    assert word in capsys.readouterr().err


def test_a_gguf_file_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").write_bytes(b"not a model")
    (tmp_path / "c.yaml").write_text("run_dir: run\ncheckpoints: [./model.gguf]\n")
    assert main(["evaluate", "c.yaml"]) == 2
    assert "GGUF" in capsys.readouterr().err


def test_a_run_directory_of_another_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    assert main(["evaluate", "c.yaml", "data.limit=2"]) == 0
    before = sorted(path.name for path in (tmp_path / "run" / "answers").iterdir())
    assert main(["evaluate", "c.yaml", "data.limit=3"]) == 2
    said = capsys.readouterr().err
    assert "data.limit: the run has 2, now came 3" in said
    assert sorted(path.name for path in (tmp_path / "run" / "answers").iterdir()) == before


def test_items_that_changed_since_the_run_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "items.jsonl"
    data.write_text(json.dumps(GOOD_ITEM) + "\n")
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    assert main(["evaluate", "c.yaml", f"data.path={data}"]) == 0
    data.write_text(json.dumps({**GOOD_ITEM, "word": side("Birds or fish?", "Birds.", "Fish.")}) + "\n")
    assert main(["evaluate", "c.yaml", f"data.path={data}"]) == 2
    assert "have changed since it began" in capsys.readouterr().err


def test_a_run_directory_with_other_things_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    assert main(["evaluate", "c.yaml"]) == 2
    assert "not empty and not a run" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_a_run_directory_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").write_text("x")
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    assert main(["evaluate", "c.yaml"]) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_run_directory_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # /proc refuses new folders also to root, whom permission bits do not stop
    target = "/proc/run" if os.geteuid() == 0 else str(tmp_path / "locked" / "run")
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=target))
    assert main(["evaluate", "c.yaml"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "report", "status"])
def test_commands_on_something_that_is_no_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "not a run" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere.csv", "{folder}"])
def test_check_of_what_is_no_item_file(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", name.format(folder=tmp_path)]) == 2
    assert capsys.readouterr().err


def test_fetch_of_what_there_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "./nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_a_refused_configuration_can_be_corrected_in_the_same_run_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG.format(run=tmp_path / "run"))
    assert main(["evaluate", "c.yaml", "prompt.labels=[A,B]"]) == 2
    assert main(["evaluate", "c.yaml"]) == 0
