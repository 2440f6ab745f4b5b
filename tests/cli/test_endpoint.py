"""`wdct evaluate` on a model behind an API: what is asked, what it costs, what it never says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.cli.main import main

KEY = "sk-test-5fe2c1d09b"
CONFIG = """
run_dir: {run}
data: {{limit: 12}}
checkpoints: [tiny]
engine: {{kind: endpoint, endpoint: {{base_url: "{url}", api_key_env: TEST_KEY, backoff_s: 0.01}}}}
report: {{html: false}}
dispatch: {{executor: {executor}, shard_size: 16}}
metrics: {{bootstrap_resamples: 20}}
"""
NUM_PROMPTS = 54


class Run:
    """A configuration and its run directory."""

    def __init__(self, folder: Path, url: str, executor: str = "local") -> None:
        self.folder = folder / "run"
        self.config = folder / "c.yaml"
        self.config.write_text(CONFIG.format(run=self.folder, url=url, executor=executor))

    def evaluate(self, *overrides: str) -> int:
        return main(["evaluate", str(self.config), *overrides])

    def command(self, *overrides: str) -> list[str]:
        return [sys.executable, "-m", "wdct_dist", "evaluate", str(self.config), *overrides]

    def answers(self) -> pl.DataFrame:
        return pl.scan_ipc(str(self.folder / "answers" / "*.arrow")).collect()

    def tokens(self) -> int:
        return int(self.answers().select(pl.col("num_prompt_tokens").sum() + pl.col("num_output_tokens").sum()).item())


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    # rates that other tests have measured decide how a run is cut
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))


def asked(server: Any) -> Counter[str]:
    """How often each real prompt was answered well."""
    bodies = [json.dumps(body["messages"]) for body in server.answered]
    return Counter(body for body in bodies if "comes first in the alphabet" not in body)


def files_with(text: str, *folders: Path) -> list[str]:
    """The files that hold the text, also where it is compressed, as in the tables."""
    found = []
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # Ray's last process has taken it away
            continue
        if path.suffix == ".arrow":
            with pa.ipc.open_file(pa.BufferReader(content)) as reader:
                content += repr([reader.schema.metadata, reader.read_all().to_pylist()]).encode()
        if text.encode() in content:
            found.append(path.name)
    return found


def test_every_way_of_asking_works_and_the_report_says_what_was_asked(api: Any, tmp_path: Path, capsys: Any) -> None:
    with api(hidden=0.2, prose=0.1) as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate("variants=[direct,cot,augmented,joint,joint-reverse,paper]", "augment.wordings=[0,1]", "data.limit=4") == 0
    answers = run.answers()
    errors = answers.filter(pl.col("error").is_not_null())
    # of the conversations whose first answer is prose that names a label, all can be read
    assert errors.height == 0, errors["error"].to_list()
    prompts = pl.read_ipc(run.folder / "prompts.arrow")
    assert answers.height == prompts.height == answers["prompt_id"].n_unique()
    both = answers.join(prompts, on="prompt_id")
    assert both.filter(pl.col("mode") == "reason")["reasoning"].null_count() == 0
    assert set(both["variant"].str.split("/").list.first()) == {"direct", "cot", "augmented", "joint", "joint-reverse", "paper"}
    said = capsys.readouterr().out
    assert f"engine endpoint at {server.url}" in said


def test_a_server_without_logprobs_is_scored_by_its_replies(api: Any, tmp_path: Path, capsys: Any) -> None:
    with api(logprobs=False) as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate("variants=[direct,cot]", "trials=2") == 0
    assert run.answers()["option_logprobs"].null_count() == run.answers().height == 4 * NUM_PROMPTS
    summary = pl.read_ipc(run.folder / "scores" / "summary.arrow").filter(pl.col("domain") == "all")
    found = {(variant, metric): value for variant, metric, value in summary.select("variant", "metric", "value").iter_rows()}
    for variant in ("direct", "cot"):
        assert 0 <= found[variant, "cs"] <= 1
        assert (found[variant, "pcs"], found[variant, "label_mass"], found[variant, "parse_rate"]) == (None, None, 1.0)
    items = pl.read_ipc(run.folder / "scores" / "items.arrow").select("variant", "item_id", "trial", "word_option", "deed_option", "match")
    first, second = (items.filter(trial=trial).drop("trial") for trial in (0, 1))
    assert first.equals(second)  # the server says the same each time


def test_the_provenance_says_that_the_weights_cannot_be_hashed(api: Any, tmp_path: Path) -> None:
    with api() as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate() == 0
    [checkpoint] = json.loads((run.folder / "provenance.json").read_text())["checkpoints"]
    assert checkpoint["source"] == "tiny"
    assert "cannot be hashed" in checkpoint["digest_of"]
    shard = next((run.folder / "answers").glob("*.arrow"))
    facts = json.loads(pa.ipc.open_file(str(shard)).schema.metadata[b"wdct.facts"])["engine"]
    assert facts["settings"]["system_fingerprints"] == ["fp_test"]


def test_another_address_model_or_revision_is_another_checkpoint() -> None:
    from wdct_dist.checkpoints.sources import endpoint_checkpoints

    entries = ["a", {"path": "a", "revision": "may", "id": "x"}, {"path": "a", "id": "again"}, "b"]
    here = endpoint_checkpoints(entries, "http://h/v1")
    assert [one.checkpoint_id for one in here] == ["a", "x", "again", "b"]
    assert len({one.digest for one in here}) == 3
    assert here[0].digest == here[2].digest == endpoint_checkpoints(["a"], "http://h/v1/")[0].digest
    assert endpoint_checkpoints(["a"], "http://other/v1")[0].digest != here[0].digest


def test_a_server_that_fails_in_passing_changes_no_answer(api: Any, tmp_path: Path) -> None:
    found = []
    for name, faults in (("calm", ()), ("rough", ("429", "500", "drop", "malformed", "truncated", "empty", "nan"))):
        with api(faults=faults, fault_share=0.3) as server:
            (tmp_path / name).mkdir()
            run = Run(tmp_path / name, server.url)
            assert run.evaluate("engine.endpoint.max_attempts=30") == 0
            assert set(asked(server).values()) == {1}
        found.append(run.answers().drop("checkpoint_digest").sort("prompt_id"))
    assert found[0].equals(found[1])
    assert found[0]["error"].null_count() == NUM_PROMPTS


def test_a_budget_stops_the_run_which_then_goes_on_without_asking_again(api: Any, tmp_path: Path, capsys: Any) -> None:
    with api(delay_s=0.002) as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate("engine.endpoint.budget_tokens=1500", "engine.endpoint.concurrency=5") == 3
        assert "stopped by the budget engine.endpoint.budget_tokens is spent" in capsys.readouterr().err
        done = run.answers()
        assert 0 < done.height < NUM_PROMPTS
        assert done["error"].null_count() == done.height
        assert 1000 < run.tokens() <= 1500
        assert sum(asked(server).values()) == done.height

        assert run.evaluate("engine.endpoint.budget_tokens=1500") == 3  # spent is spent
        assert run.tokens() <= 1500
        assert run.evaluate("engine.endpoint.budget_money=1", "engine.endpoint.prices={tiny: {input: 100, output: 100}}") == 0
        assert set(asked(server).values()) == {1}
    assert run.answers().height == NUM_PROMPTS
    assert run.answers()["prompt_id"].is_unique().all()


def test_a_budget_in_money_holds_over_several_models(api: Any, tmp_path: Path) -> None:
    with api(models=("tiny", "large")) as server:
        run = Run(tmp_path, server.url)
        prices = "engine.endpoint.prices={tiny: {input: 10, output: 10}, large: {input: 100, output: 100}}"
        assert run.evaluate("checkpoints=[tiny,large]", prices, "engine.endpoint.budget_money=0.4") == 3
    used = run.answers().group_by("checkpoint_id").agg(pl.col("num_prompt_tokens").sum() + pl.col("num_output_tokens").sum(), rows=pl.len())
    found = {name: (tokens, rows) for name, tokens, rows in used.iter_rows()}
    assert found["tiny"][1] == NUM_PROMPTS
    assert 0 < found["large"][1] < NUM_PROMPTS
    money = (10 * found["tiny"][0] + 100 * found["large"][0]) / 1e6
    assert money <= 0.4
    assert main(["report", str(run.folder), "--html"]) == 0
    assert f"engine.endpoint.budget_money: {money:.4f} of 0.40 used" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_a_server_that_goes_down_leaves_the_rest_pending(api: Any, tmp_path: Path, capsys: Any) -> None:
    with api(dies_after=21) as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate("engine.endpoint.max_attempts=2", "engine.endpoint.concurrency=4") == 3
        assert "has not answered 5 prompts in a row" in capsys.readouterr().err
        assert run.answers()["error"].null_count() == run.answers().height == 20
        server.behaviour.dies_after = None
        assert run.evaluate() == 0
        assert set(asked(server).values()) == {1}
    assert run.answers()["error"].null_count() == NUM_PROMPTS


def test_the_key_is_in_no_file_and_no_output(api: Any, tmp_path: Path, capfd: Any) -> None:
    """The server repeats the key in its replies and in its refusals."""
    with api(key=KEY, refuse="money", faults=("500", "429"), fault_share=0.2) as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate("variants=[direct,cot]") == 0
        assert run.answers()["error"].count() > 0
        for command in ("score", "report", "status"):
            assert main([command, str(run.folder)]) == 0
        server.behaviour.key = "another"
        assert run.evaluate("variants=[direct,cot]", "trials=2") == 2  # another configuration: refused before anything is asked
        other = tmp_path / "other"
        assert run.evaluate(f"run_dir={other}") == 1
    said = capfd.readouterr()
    assert "Bearer [key]" in said.err
    assert KEY not in said.out + said.err
    assert files_with(KEY, tmp_path) == []
    assert files_with("Key Bearer [key]", run.folder / "answers") != []


@pytest.mark.slow
def test_on_ray_the_key_is_in_no_log_either(api: Any, tmp_path: Path) -> None:
    with api(key=KEY, refuse="money") as server:
        run = Run(tmp_path, server.url, executor="ray")
        # Ray's logs stand under this folder; a short one, since its sockets have long names
        logs = Path("/tmp") / f"wdct{os.getpid()}"
        try:
            result = subprocess.run(run.command(), env={**os.environ, "RAY_TMPDIR": str(logs)}, capture_output=True, text=True, timeout=600)
            assert result.returncode == 0, result.stderr
            assert KEY not in result.stdout + result.stderr
            assert any(logs.rglob("*.log"))
            assert files_with(KEY, run.folder, logs) == []
        finally:
            shutil.rmtree(logs, ignore_errors=True)  # Ray's last processes may still write
    assert run.answers().height == NUM_PROMPTS


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_signal_ends_the_run_within_a_unit_and_nothing_is_asked_again(executor: str, api: Any, tmp_path: Path) -> None:
    with api(delay_s=0.25) as server:
        run = Run(tmp_path, server.url, executor=executor)
        overrides = ("engine.endpoint.concurrency=1", "dispatch.shard_size=256")
        process = subprocess.Popen(run.command(*overrides), env=os.environ, stderr=subprocess.PIPE, text=True)
        while len(server.answered) < 8:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=240)
        assert process.returncode == 3, said
        assert "stopped by SIGTERM" in said
        assert 6 <= run.answers().height == sum(asked(server).values()) < NUM_PROMPTS
        server.behaviour.delay_s = 0.0
        assert run.evaluate("dispatch.executor=local") == 0
        assert set(asked(server).values()) == {1}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["engine.endpoint.base_url=null"], ["engine.endpoint.base_url", "https://api.openai.com/v1"]),
        (["engine.endpoint.base_url=ftp://host/v1"], ["engine.endpoint.base_url", "'ftp://host/v1'", "http://localhost:8000/v1"]),
        (["engine.endpoint.base_url=localhost:8000"], ["engine.endpoint.base_url", "'localhost:8000'"]),
        (["engine.endpoint.base_url=http://"], ["engine.endpoint.base_url", "'http://'"]),
        (["engine.endpoint.base_url=http://host:port/v1"], ["engine.endpoint.base_url", "'http://host:port/v1'"]),
        (["engine.endpoint.api_key_env=NO_SUCH_KEY"], ["the environment has no NO_SUCH_KEY", "export it", "null"]),
        (["engine.endpoint.api_key_env=sk-1234"], ["engine.endpoint.api_key_env", "the name of an environment variable"]),
        (["engine.endpoint.api_key_header='a b'"], ["engine.endpoint.api_key_header", "name of a header"]),
        (["engine.endpoint.api=responses"], ["engine.endpoint.api", "'responses'", "auto, chat, completions"]),
        (["engine.endpoint.top_logprobs=-1"], ["engine.endpoint.top_logprobs", "0 to 1000"]),
        (["engine.endpoint.concurrency=0"], ["engine.endpoint.concurrency", "from 1"]),
        (["engine.endpoint.requests_per_minute=0"], ["engine.endpoint.requests_per_minute", "above 0"]),
        (["engine.endpoint.tokens_per_minute=-5"], ["engine.endpoint.tokens_per_minute", "above 0"]),
        (["engine.endpoint.timeout_s=0"], ["engine.endpoint.timeout_s", "above 0"]),
        (["engine.endpoint.max_attempts=0"], ["engine.endpoint.max_attempts", "1 to 100"]),
        (["engine.endpoint.backoff_s=-1"], ["engine.endpoint.backoff_s", "from 0 on"]),
        (["engine.endpoint.budget_tokens=0"], ["engine.endpoint.budget_tokens", "from 1 on"]),
        (["engine.endpoint.budget_money=5"], ["engine.endpoint.prices has no price of tiny", "input", "million"]),
        (["engine.endpoint.prices={tiny: {input: 3}}"], ["engine.endpoint.prices", "both prices"]),
        (["engine.endpoint.prices={tiny: 3}"], ["engine.endpoint.prices"]),
        (["engine.endpoint.extra={logprobs: true}"], ["engine.endpoint.extra", "other fields than"]),
        (["engine.endpoint.model=x"], ["engine.endpoint.model", "no such key"]),
        (["dispatch.num_engines=2", "dispatch.executor=ray"], ["dispatch.num_engines", "engine.endpoint.concurrency"]),
        (["prompt.answer_prefix='Answer:'"], ["prompt.answer_prefix", "engine.endpoint.continue_reply"]),
        (["prompt.format=plain", "engine.endpoint.api=chat"], ["prompt.format", "api: completions"]),
        (["prompt.format=chat", "engine.endpoint.api=completions"], ["prompt.format", "api: chat"]),
        (["checkpoints=[tiny,tiny]"], ["'tiny'", "twice"]),
        (["checkpoints=[]"], ["checkpoints", "at least one"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else None,
)
def test_a_mistake_is_named_and_nothing_is_asked(overrides: list[str], words: list[str], api: Any, tmp_path: Path, capsys: Any) -> None:
    with api() as server:
        run = Run(tmp_path, server.url)
        assert run.evaluate(*overrides) == 2
        assert server.num_requests == 0
    said = capsys.readouterr().err
    for word in words:
        assert word in said, said
    assert "Traceback" not in said
    assert not run.folder.exists()


@pytest.mark.parametrize(
    "secret", ["http://user:sk-secret@localhost/v1", "http://localhost/v1?api-key=sk-secret", "http://localhost/v1#sk-secret"]
)
def test_an_address_with_a_key_in_it_is_refused(secret: str, tmp_path: Path, capsys: Any) -> None:
    run = Run(tmp_path, "http://localhost/v1")
    assert run.evaluate(f"engine.endpoint.base_url={secret}") == 2
    said = capsys.readouterr().err
    assert "without user, key or query" in said
    assert not run.folder.exists()


def test_plan_needs_no_key_and_asks_nothing(api: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.delenv("TEST_KEY")
    with api() as server:
        run = Run(tmp_path, server.url)
        assert main(["plan", str(run.config)]) == 0
        assert server.num_requests == 0
    assert f"{NUM_PROMPTS} prompts" in capsys.readouterr().out
