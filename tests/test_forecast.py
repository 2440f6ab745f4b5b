"""`wdct plan`: what an evaluation will be, counted as the evaluation then does it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.load import load_config
from wdct_dist.config.schema import Config
from wdct_dist.dispatch.rates import Rate, recall, remember
from wdct_dist.errors import DataError, RunDirError
from wdct_dist.forecast import TEMPLATE_TOKENS, forecast, forecast_text
from wdct_dist.pipeline import evaluate

Configure = Callable[..., Config]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "c.yaml"
    file.write_text(
        f"run_dir: {tmp_path / 'run'}\ndata: {{limit: 12}}\ncheckpoints: [demo]\nengine: {{kind: scripted}}\n"
        "dispatch: {executor: local, shard_size: 16}\nmetrics: {bootstrap_resamples: 0}\n"
    )
    return lambda *overrides: load_config(file, overrides)


def test_the_plan_counts_items_prompts_by_variant_and_shards(configure: Configure) -> None:
    plan = forecast(configure("variants=[direct,joint]", "trials=2", "checkpoints=[a,b]"))
    assert plan.num_items == 12
    assert plan.index.num_by_variant == {"direct": 54, "joint": 92}
    assert plan.num_prompts == 2 * 2 * (54 + 92)
    # 54 prompts are 4 shards of up to 16, 92 are 6; no shard crosses variants
    assert plan.num_shards == 2 * 2 * (4 + 6)
    assert "584 prompts over 2 checkpoint(s) and 2 trial(s), in 40 shards of up to 16" in forecast_text(plan)


def test_what_a_variant_leaves_out_and_items_that_are_dropped_are_said(configure: Configure, tmp_path: Path) -> None:
    good = {"domain": "Opinion", "word": {"question": "Cats?", "options": ["Yes.", "No."]}}
    items = [
        {**good, "item_id": "good", "deed": {"question": "Adopt one?", "options": ["Yes.", "No."]}},
        {**good, "item_id": "bad", "deed": {"question": "Adopt?", "options": ["Yes."]}},
    ]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    with pytest.raises(DataError, match=r"data\.on_bad_item: drop"):
        forecast(configure(f"data.path={tmp_path / 'items.jsonl'}"))
    overrides = [f"data.path={tmp_path / 'items.jsonl'}", "data.on_bad_item=drop", "variants=[augmented]", "augment.paraphrases=[0,1]"]
    text = forecast_text(forecast(configure(*overrides)))
    assert text.startswith("1 items, 1 dropped\n")
    assert "no paraphrase 1" in text


def test_without_a_measured_rate_no_time_is_invented(configure: Configure) -> None:
    plan = forecast(configure())
    assert plan.checkpoints[0].seconds is None
    assert "time unknown: none measured here yet" in forecast_text(plan)


def test_the_time_is_that_of_what_earlier_runs_measured(configure: Configure) -> None:
    remember(scripted_checkpoint("another"), configure(), Rate(prompts_per_s=4.5, seconds_to_start=8.0))
    assert forecast(configure()).checkpoints[0].seconds == 8.0 + 54 / 4.5
    assert "about 20 s on one engine" in forecast_text(forecast(configure()))


def test_runs_that_end_at_the_same_time_keep_each_other_s_rates(configure: Configure) -> None:
    configs = [configure(f"sampling.max_new_tokens={number}") for number in range(1, 33)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda config: remember(scripted_checkpoint("one"), config, Rate(4.5, 8.0)), configs))
    assert [recall(scripted_checkpoint("one"), config) for config in configs] == [Rate(4.5, 8.0)] * 32


def test_the_schedule_says_which_checkpoints_are_on_how_many_engines_and_until_when(configure: Configure) -> None:
    overrides = ["dispatch.executor=ray", "dispatch.num_engines=2", "checkpoints=[a,b]", "trials=20"]
    remember(scripted_checkpoint("another"), configure(), Rate(prompts_per_s=10.0, seconds_to_start=8.0, seconds_to_swap=1.0))
    plan = forecast(configure(*overrides))
    # 1,080 prompts of each at 10 a second, each on an engine of its own
    assert plan.schedule.makespan_s == pytest.approx(8.0 + 108.0, abs=1.0)
    text = forecast_text(plan)
    assert "schedule on 2 engine(s): about 116 s, with 2 start(s) and 0 swap(s)" in text
    assert "  a: on 1 engine(s), from 0 s to 116 s" in text


def test_the_schedule_of_what_was_not_measured_has_no_times(configure: Configure) -> None:
    text = forecast_text(forecast(configure("checkpoints=[a,b]")))
    [line] = [line for line in text.splitlines() if line.startswith("schedule")]
    assert line.endswith("(no times: not all of it was measured here): a on 1, b on 1")
    assert "dispatch.num_engines is empty" in line


def test_on_a_run_that_was_begun_only_what_is_left_is_to_do(configure: Configure) -> None:
    assert evaluate(configure("dispatch.shard_size=20")).exit_code == 0
    shards = sorted(Path(configure().run_dir, "answers").iterdir())
    shards[0].unlink()
    plan = forecast(configure("dispatch.shard_size=20", "checkpoints=[demo,new]"))
    assert (plan.num_prompts, plan.num_done) == (108, 34)
    assert "34 of them are done, 74 are left" in forecast_text(plan)
    remember(scripted_checkpoint("another"), configure(), Rate(prompts_per_s=4.5, seconds_to_start=8.0))
    left = forecast(configure("dispatch.shard_size=20", "checkpoints=[demo,new]")).checkpoints
    assert [one.seconds for one in left] == [8.0 + 20 / 4.5, 8.0 + 54 / 4.5]


def test_nothing_is_started_where_all_is_done(configure: Configure) -> None:
    assert evaluate(configure()).exit_code == 0
    plan = forecast(configure())
    assert plan.checkpoints[0].seconds == 0.0
    assert "checkpoint demo: scripted, nothing left to do" in forecast_text(plan)


def test_a_run_that_evaluate_would_refuse_to_go_on_with_is_refused_already(configure: Configure) -> None:
    assert evaluate(configure()).exit_code == 0
    with pytest.raises(RunDirError, match="holds a run of another configuration"):
        forecast(configure("data.limit=11"))


def test_a_run_directory_that_nobody_reads_is_named_before_the_evening(configure: Configure) -> None:
    with pytest.raises(RunDirError, match="not a URI that pyarrow reads"):
        forecast(configure("run_dir=ftp://host/run"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint whose tokens are words and signs; its weights are two numbers."""
    folder = tmp_path / "model"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    (folder / "config.json").write_text(json.dumps({"architectures": ["WordsForCausalLM"], "model_type": "words"}))
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.enable_padding(length=500)  # which must not count as tokens
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_tokens_are_counted_with_the_checkpoints_own_tokenizer(configure: Configure, model: Path) -> None:
    from wdct_dist.items.selection import select_items
    from wdct_dist.prompts.build import build_prompts

    config = configure("engine.kind=vllm", f"checkpoints=[{model}]")
    words = Whitespace()
    texts = [message.content for prompt in build_prompts(select_items(config.data), config) for message in prompt.messages]
    assert len(texts) == 54
    assert forecast(config).checkpoints[0].tokens == sum(len(words.pre_tokenize_str(text)) + TEMPLATE_TOKENS for text in texts)


def test_two_names_of_the_same_weights_are_counted_once(configure: Configure, model: Path) -> None:
    plan = forecast(configure("engine.kind=vllm", f"checkpoints=[{{id: one, path: {model}}}, {{id: two, path: {model}}}]"))
    assert plan.num_prompts == 54


def test_a_broken_checkpoint_is_named_beside_the_others(configure: Configure, model: Path, tmp_path: Path) -> None:
    config = configure("engine.kind=vllm", f"checkpoints=[{model}, {{id: broken, path: {tmp_path / 'empty'}}}]")
    (tmp_path / "empty").mkdir()
    plan = forecast(config)
    assert [one.checkpoint.checkpoint_id for one in plan.checkpoints] == ["model"]
    assert "checkpoint broken cannot be evaluated: " in forecast_text(plan)
