"""One sweep of a real engine over checkpoints that a node brings or makes itself, and one that is broken.

From an object store, and merged from an adapter: they answer as the same weights in a directory do. The broken one is named before any
engine starts, and the others are evaluated.
"""

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
data: {{limit: 2}}
checkpoints:
- {{id: base, path: {base}}}
- {{id: stored, path: '{stored}'}}
- {{id: other, path: {other}}}
- {{id: broken, path: {broken}}}
- {{id: adapter, path: {adapter}, base: {base}}}
- {{id: by-peft, path: {by_peft}}}
engine: {{cpu_cache_gib: 0.1, max_model_len: 512}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 0}}
"""
TOLERANCE = 1e-4
"""Of log-probabilities: the merged weights agree with peft's within float32's rounding."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_sweep_over_them_answers_as_the_same_weights_in_directories_do_and_leaves_the_broken_one_out(
    write_model: Callable[..., Path],
    wdct: Callable[..., subprocess.CompletedProcess[str]],
    s3_server: Any,
    s3_bucket: str,
    tmp_path: Path,
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
    broken = write_model("broken", seed=3)
    whole = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(whole[:-1000])
    run = tmp_path / "run"
    (tmp_path / "c.yaml").write_text(
        CONFIG.format(run=run, base=base, stored=stored, other=other, broken=broken, adapter=tmp_path / "adapter", by_peft=by_peft)
    )

    done = wdct("evaluate", str(tmp_path / "c.yaml"), WDCT_CACHE=str(tmp_path / "cache"))

    assert done.returncode == 3, done.stderr
    left_out = done.stderr.index(f"checkpoint broken is left out: {broken}")
    assert f"cut short: its header says {len(whole):,} bytes, the file has {len(whole) - 1000:,}" in done.stderr
    assert left_out < done.stderr.index("0 of "), "named before the first engine started"
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).collect()
    logprobs = {name: by_prompt(answers, name) for name in ("base", "stored", "other", "adapter", "by-peft")}
    assert apart(logprobs["adapter"], logprobs["by-peft"]) < TOLERANCE
    assert apart(logprobs["adapter"], logprobs["base"]) > 100 * TOLERANCE, "the adapter was applied"
    assert logprobs["stored"] == logprobs["other"]
    assert apart(logprobs["stored"], logprobs["base"]) > 100 * TOLERANCE
    record = json.loads((run / "provenance.json").read_text())
    assert list(record["failed_checkpoints"]) == ["broken"]
    by_id = {one["checkpoint_id"]: one for one in record["checkpoints"]}
    assert (by_id["adapter"]["kind"], by_id["adapter"]["base"]) == ("adapter", by_id["base"]["digest"])
    assert f"checkpoint adapter: {tmp_path / 'adapter'} over {base}" in " ".join(done.stdout.split())
    assert "adapters merged into their base (adapter): without a GPU that is faster" in " ".join(done.stdout.split())
    assert by_id["stored"]["digest_of"].startswith("size and ETag of the weights")


def by_prompt(answers: pl.DataFrame, name: str) -> dict[str, list[float]]:
    rows = answers.filter(pl.col("checkpoint_id") == name).select("prompt_id", "option_logprobs")
    assert rows.height > 0
    return dict(rows.iter_rows())


def apart(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    assert one.keys() == other.keys()
    return max(abs(a - b) for prompt in one for a, b in zip(one[prompt], other[prompt], strict=True))
