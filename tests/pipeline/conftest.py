"""Models of a few layers with random weights and the small model's tokenizer: real to every engine, and quick to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WriteModel = Callable[..., Path]


@pytest.fixture
def write_model(small_model: Path, tmp_path: Path) -> WriteModel:
    """Writes a llama of two layers to tmp_path/NAME; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def write(name: str, *, seed: int, tied: bool = False) -> Path:
        settings = json.loads((small_model / "config.json").read_text())
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=settings["vocab_size"],
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=tied,
            initializer_range=0.2,
            dtype="float32",
        )
        directory = tmp_path / name
        LlamaForCausalLM(config).save_pretrained(directory)
        for file in small_model.iterdir():
            if file.name.startswith(("tokenizer", "special_tokens", "chat_template", "vocab", "merges")):
                shutil.copy(file, directory)
        return directory

    return write


@pytest.fixture
def wdct() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in a process of its own, as a user has it."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wdct_dist", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )

    return run
