"""Turns a GGUF file, once, into a directory of safetensors that every engine loads.

    python -m wdct_dist.checkpoints.gguf SOURCE DIRECTORY

Precision: a quantised block means `scale * q + offset` in float32, and that is what is kept: the weights are saved in the
narrowest of bfloat16, float16 and float32 that holds every value exactly. For quantised files that is float32 (Q4_1 already
needs 15 bits of mantissa; bfloat16 has 8), for files of bfloat16 weights it is bfloat16. So the conversion loses nothing, and
`engine.dtype` alone decides in which precision the model is run; an engine in bfloat16 rounds to the same values as a conversion
to bfloat16 would have.

The work is done in a process of its own, so that torch's memory and threads never stay with the caller. The same file gives the
same bytes: everything that would vary (version strings, paths) is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wdct_dist.checkpoints.digest import file_hashes
from wdct_dist.checkpoints.file_lock import locked
from wdct_dist.checkpoints.gguf_header import GgufHeader, read_header
from wdct_dist.errors import CheckpointError

CONVERSION = "v1"
"""Raised when the conversion gives other bytes, so that older directories are not taken for its own."""
BYTES_PER_PARAMETER = 6
"""Memory of a conversion, over 0.5 GiB for torch itself (measured: 1.28 GB at the peak for 135 million parameters)."""
VARYING_KEYS = ("transformers_version", "_name_or_path", "is_local", "local_files_only", "name_or_path")


def dequantise(gguf: Path, cache: Path) -> Path:
    """The directory under `cache` with the safetensors, configuration, tokenizer and chat template of the file.

    Named after the file's SHA-256, so a moved file is not converted again and a changed one is. Safe with any number of processes: one
    converts, the others wait. Raises `CheckpointError` where the file is not GGUF, not whole, or of an architecture that transformers
    cannot read.
    """
    header = read_header(gguf)
    if header.num_splits > 1:
        raise CheckpointError(
            f"{gguf}: one of {header.num_splits} parts of a split GGUF file; allowed are whole ones: join them first "
            "(llama.cpp: `llama-gguf-split --merge FIRST-PART WHOLE`)."
        )
    sha256 = file_hashes([gguf], cache)[gguf]
    home = cache / "gguf" / CONVERSION
    home.mkdir(parents=True, exist_ok=True)
    directory = home / sha256
    if directory.is_dir():
        return directory
    with locked(home / f"{sha256}.lock"):
        for remains in home.glob(f"{sha256}.part-*"):  # of a process that was killed while it converted
            shutil.rmtree(remains, ignore_errors=True)
        if not directory.is_dir():
            _require_space(gguf, header, home)
            _convert_beside(gguf, header, directory)
    return directory


def _require_space(gguf: Path, header: GgufHeader, home: Path) -> None:
    needed_bytes, free_bytes = header.num_parameters * 4, shutil.disk_usage(home).free
    if needed_bytes > free_bytes:
        raise CheckpointError(
            f"{gguf}: its {header.num_parameters:,} parameters need up to {needed_bytes / 2**30:.1f} GiB as safetensors, {home} has "
            f"{free_bytes / 2**30:.1f} GiB free; make room, or set WDCT_CACHE to a larger disk."
        )


def _convert_beside(gguf: Path, header: GgufHeader, directory: Path) -> None:
    part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f"{directory.name}.part-"))
    try:
        part.chmod(0o755)  # mkdtemp makes it private; other users of a shared cache read it too
        _convert_in_subprocess(gguf, header, part)
        try:
            part.rename(directory)
        except OSError:  # on a file system without locks another process may have been first
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _convert_in_subprocess(gguf: Path, header: GgufHeader, part: Path) -> None:
    package_root = Path(__file__).parents[2]
    search_path = os.pathsep.join(filter(None, (str(package_root), os.environ.get("PYTHONPATH"))))
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__, str(gguf.absolute()), str(part.absolute())],
        env={**os.environ, **quiet, "PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    if done.returncode < 0:
        raise CheckpointError(
            f"{gguf}: the conversion was ended by signal {-done.returncode}; most often memory ran out: it needs about "
            f"{header.num_parameters * BYTES_PER_PARAMETER / 2**30 + 0.5:.1f} GiB. Convert it on a larger machine "
            "and set WDCT_CACHE to a disk that both see, or give the model as safetensors."
        )
    reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise CheckpointError(
        f"{gguf}: cannot be turned into safetensors: {reason}; allowed are the architectures that transformers reads from GGUF. "
        "Give the model as safetensors instead."
    )


def convert(source: Path, directory: Path) -> None:
    """Writes the model in `source` to `directory`, in this process.

    Raises whatever transformers raises for files that it cannot read, and `ValueError` where tensors are missing.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    loaded, info = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True, **_unpacked())
    # transformers fills what a file lacks with random numbers and only warns.
    if absent := sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])}):
        raise ValueError(f"{len(absent)} tensors of {type(loaded).__name__} are not in the file, such as {absent[0]}")
    state = _in_narrowest_dtype(loaded.state_dict())
    config = loaded.config
    # What was loaded from GGUF counts as quantised and refuses to be saved; a model of the same configuration without that entry
    # takes its tensors over (on the meta device, so that they are held once).
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = next(iter(state.values())).dtype
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    model.generation_config = loaded.generation_config
    # A list holds more ways to end than the tokenizer's one (Gemma); anything else may be the configuration class's default.
    if tokenizer.eos_token_id is not None and not isinstance(model.generation_config.eos_token_id, list):
        model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    for file in directory.glob("*config.json"):
        _without_varying_keys(file)
    for file in directory.iterdir():
        file.chmod(0o644)


def _unpacked() -> dict[str, Any]:
    """From 5.19 on, transformers keeps quantised blocks packed where it finds a kernel for them, unless told not to."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _in_narrowest_dtype(state: Mapping[str, Any]) -> dict[str, Any]:
    """The float32 tensors in the narrowest dtype that holds every value of all of them exactly."""
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor) for tensor in state.values()):
            return {name: tensor.to(dtype) for name, tensor in state.items()}
    return dict(state)


def _without_varying_keys(file: Path) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    for key in VARYING_KEYS:
        content.pop(key, None)
    file.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
