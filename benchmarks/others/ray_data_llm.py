"""Answers requests with `ray.data.llm`: `python ray_data_llm.py REQUESTS ANSWERS`, two JSON files.

REQUESTS: `{"model", "engine": {…}, "cpus", "requests": [{"token_ids", "max_tokens", "stop", "read"}]}`. ANSWERS: for each request the
tokens, the logprobs of the `read` tokens at the first place, the finish reason, and of all `asking_s`: from the moment that the first
request was at the engine to the end of the last. Runs with a Python that has ray[data], pandas and vLLM; nothing of this project is needed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig

BATCH = 64


def sampling(request: dict[str, Any]) -> dict[str, Any]:
    params = {"temperature": 0.0, "max_tokens": request["max_tokens"], "detokenize": bool(request["stop"]), "skip_special_tokens": False}
    if request["stop"]:
        params["stop"] = list(request["stop"])
    if request["read"]:
        params["logprob_token_ids"] = list(request["read"])
    return params


def before(row: dict[str, Any]) -> dict[str, Any]:
    request = json.loads(row["request"])
    return {"number": row["number"], "tokenized_prompt": request["token_ids"], "sampling_params": sampling(request)}


def after(row: dict[str, Any]) -> dict[str, Any]:
    # as JSON: a row's columns must have one type
    logprobs = row["logprobs"]
    first = dict(logprobs[0]) if logprobs is not None and len(logprobs) > 0 else {}
    read = {int(token): float(one["logprob"]) for token, one in first.items() if one is not None}
    generated = [int(token) for token in row["generated_tokens"]]
    answer = {"token_ids": generated, "logprobs": read, "ended": time.time(), "took_s": float(row["time_taken_llm"])}
    return {"number": row["number"], "answer": json.dumps(answer)}


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text())
    cpus = asked["cpus"]
    # the other stages need places of their own beside the engine, which is given all cores
    ray.init(
        address="local", num_cpus=cpus + 2, include_dashboard=False, logging_level="ERROR", log_to_driver=False, object_store_memory=2**28
    )
    threads = {"OMP_NUM_THREADS": str(cpus), "VLLM_CPU_OMP_THREADS_BIND": f"0-{cpus - 1}", "HF_HUB_OFFLINE": "1"}
    config = vLLMEngineProcessorConfig(
        model_source=asked["model"],
        engine_kwargs=asked["engine"],
        batch_size=BATCH,
        concurrency=1,
        runtime_env={"env_vars": threads | {name: os.environ[name] for name in ("VLLM_CPU_KVCACHE_SPACE",) if name in os.environ}},
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        log_engine_metrics=False,
        placement_group_config={"bundles": [{"CPU": 1}]},
    )
    processor = build_processor(config, preprocess=before, postprocess=after)
    rows = [{"number": number, "request": json.dumps(request)} for number, request in enumerate(asked["requests"])]
    found = processor(ray.data.from_items(rows)).take_all()
    answers = [json.loads(row["answer"]) for row in sorted(found, key=lambda row: row["number"])]
    assert len(answers) == len(rows), "answers are missing"
    # the first one to come waited longest in no queue but its own batch's: it began at the latest when the engine was ready
    began = min(one["ended"] - one["took_s"] for one in answers)
    seconds = max(one["ended"] for one in answers) - began
    Path(sys.argv[2]).write_text(json.dumps({"asking_s": seconds, "answers": answers}))


if __name__ == "__main__":
    main()
