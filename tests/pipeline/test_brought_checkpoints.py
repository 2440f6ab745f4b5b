"""Checkpoints that a node brings or makes itself, before real engines: from an object store, and merged from an adapter."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pyarrow import fs

CONFIG = """
run_dir: {run}
data: {{limit: 8}}
checkpoints:
- {{id: base, path: {base}}}
- {{id: stored, path: '{stored}'}}
- {{id: adapter, path: {adapter}, base: {base}}}
- {{id: by-peft, path: {by_peft}}}
engine: {{cpu_cache_gib: 0.1, max_model_len: 512}}
dispatch: {{executor: {executor}}}
metrics: {{bootstrap_resamples: 0}}
"""
TOLERANCE = 1e-4
"""Of log-probabilities: the merged weights agree with peft's within float32's rounding."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_they_answer_as_the_same_weights_in_a_directory_do(
    write_model: Callable[..., Path],
    wdct: Callable[..., subprocess.CompletedProcess[str]],
    s3_server: Any,
    s3_bucket: str,
    tmp_path: Path,
    executor: str,
) -> None:
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft", reason="peft is not installed (the extra `test` brings it)")
    from transformers import AutoModelForCausalLM

    base = write_model("base", seed=1)
    other = write_model("other", seed=2)
    stored = s3_server.uri(f"{s3_bucket}/other")
    store, root = fs.FileSystem.from_uri(stored)
    for file in other.iterdir():
        with store.open_output_stream(f"{root}/{file.name}") as stream:
            stream.write(file.read_bytes())
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=4)
    )
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    by_peft = write_model("by-peft", seed=1)
    adapted.merge_and_unload().save_pretrained(by_peft)
    run = tmp_path / "run"
    (tmp_path / "c.yaml").write_text(
        CONFIG.format(run=run, base=base, stored=stored, adapter=tmp_path / "adapter", by_peft=by_peft, executor=executor)
    )

    done = wdct("evaluate", str(tmp_path / "c.yaml"), WDCT_CACHE=str(tmp_path / "cache"))

    assert done.returncode == 0, done.stderr
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).collect()
    logprobs = {name: by_prompt(answers, name) for name in ("base", "stored", "adapter", "by-peft")}
    assert apart(logprobs["adapter"], logprobs["by-peft"]) < TOLERANCE
    assert apart(logprobs["adapter"], logprobs["base"]) > 100 * TOLERANCE, "the adapter was applied"
    assert apart(logprobs["stored"], logprobs["base"]) > 100 * TOLERANCE
    record = json.loads((run / "provenance.json").read_text())
    by_id = {one["checkpoint_id"]: one for one in record["checkpoints"]}
    assert by_id["adapter"]["kind"] == "adapter"
    assert f"checkpoint adapter: {tmp_path / 'adapter'} merged into {base}" in " ".join(done.stdout.split())
    assert by_id["stored"]["digest_of"].startswith("size and ETag of the weights")

    (tmp_path / "c.yaml").write_text((tmp_path / "c.yaml").read_text().replace(stored, str(other)))
    again = wdct("evaluate", str(tmp_path / "c.yaml"), f"run_dir={tmp_path / 'again'}", WDCT_CACHE=str(tmp_path / "cache"))
    assert again.returncode == 0, again.stderr
    assert by_prompt(pl.scan_ipc(str(tmp_path / "again" / "answers" / "*.arrow")).collect(), "stored") == logprobs["stored"]


def by_prompt(answers: pl.DataFrame, name: str) -> dict[str, list[float]]:
    rows = answers.filter(pl.col("checkpoint_id") == name).select("prompt_id", "option_logprobs")
    assert rows.height > 0
    return dict(rows.iter_rows())


def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    assert one.keys() == other.keys()
    return max(abs(a - b) for prompt in one for a, b in zip(one[prompt], other[prompt], strict=True))
