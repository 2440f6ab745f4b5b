"""Which files of a directory hold the weights, and whether they are all there and whole."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from wdct_dist.checkpoints.safetensors_header import Tensor, is_lfs_pointer, read_tensors
from wdct_dist.errors import CheckpointError

SAFETENSORS_INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth")
TRAINING_STATE = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state.*)\.(bin|pt|pth)")
"""What trainers leave beside the weights; no engine needs it."""
SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


@dataclass(frozen=True, slots=True)
class Weights:
    """The weight files of a directory (sorted by name) and the tensors in them (sorted by name)."""

    files: tuple[Path, ...]
    tensors: tuple[Tensor, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The files that an engine would load from `directory`, sorted by name, whether or not they are there and whole.

    With an index those that it names; otherwise all safetensors files except an adapter's; Mistral's `consolidated*.safetensors`
    in addition, because vLLM prefers them. Pickled weights count only where there are no safetensors.
    Raises `CheckpointError` for an index that cannot be read.
    """
    index = directory / SAFETENSORS_INDEX
    if index.is_file():
        names = set(read_index(index).values()) | {file.name for file in directory.glob("consolidated*.safetensors")}
    else:
        names = {file.name for file in directory.glob("*.safetensors")} - set(ADAPTER_WEIGHTS)
    return tuple(directory / name for name in sorted(names)) or pickle_files(directory)


def pickle_files(directory: Path) -> tuple[Path, ...]:
    """Pickled weight files, sorted by name; of the three suffixes the first that occurs, as vLLM chooses."""
    index = directory / PICKLE_INDEX
    if index.is_file():
        return tuple(directory / name for name in sorted(set(read_index(index).values())))
    for suffix in PICKLE_SUFFIXES:
        files = (file for file in directory.glob(f"*{suffix}") if not TRAINING_STATE.fullmatch(file.name))
        if found := tuple(sorted(file for file in files if file.name not in ADAPTER_WEIGHTS)):
            return found
    return ()


def read_index(index: Path) -> dict[str, str]:
    """File name by tensor name. Raises `CheckpointError` where the index is not of that form."""
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = {str(tensor): str(name) for tensor, name in weight_map.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise CheckpointError(
            f"{index}: not an index of weight files (JSON with `weight_map`: file name by tensor name); copy or download it again."
        ) from None
    if outside := sorted(name for name in set(names.values()) if Path(name).name != name):
        raise CheckpointError(f"{index}: names {outside[0]!r}, which is not a file of its own directory; correct the index.")
    return names


def read_weights(directory: Path, *, allow_pickle: bool) -> Weights:
    """The weights of `directory`, each file proven whole.

    Raises `CheckpointError` where there are none, a shard is missing, a file is cut short or broken, two files could each be
    meant, or the weights are pickled and `allow_pickle` is false.
    """
    _refuse_adapter(directory)
    files = weight_files(directory)
    if not files:
        raise CheckpointError(f"{directory}: no weights; {_what_is_there_instead(directory)}")
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{directory}: its index names {len(files)} weight files, of which {len(missing)} are missing: "
            f"{_some(missing)}; copy or download them too."
        )
    if files[0].suffix in PICKLE_SUFFIXES:
        return _read_pickled(directory, files, allow_pickle)
    _refuse_missing_shards(directory, files)
    _refuse_stale_weights(directory, files)
    by_file = {file: read_tensors(file) for file in files}
    _refuse_repeated_tensors(directory, by_file)
    _refuse_empty_tensors(by_file)
    if (directory / SAFETENSORS_INDEX).is_file():
        _refuse_tensors_out_of_place(directory, by_file)
    tensors = sorted((tensor for group in by_file.values() for tensor in group), key=lambda tensor: tensor.name)
    if not tensors:
        raise CheckpointError(f"{directory}: {_some([file.name for file in files])} hold no tensors; save the model again.")
    return Weights(files, tuple(tensors))


def _refuse_adapter(directory: Path) -> None:
    if not (directory / "adapter_config.json").is_file() and not any((directory / name).is_file() for name in ADAPTER_WEIGHTS):
        return
    if weight_files(directory):
        raise CheckpointError(
            f"{directory}: holds whole weights and an adapter (adapter_config.json or adapter_model.*), so that it is open which of "
            "them is meant; move one of the two to a directory of its own."
        )
    raise CheckpointError(
        f"{directory}: a LoRA adapter (adapter_config.json), but a whole model is needed here. Give the model that the adapter changes, or "
        "name the adapter as a checkpoint of its own: {path: ADAPTER, base: MODEL}."
    )


def _what_is_there_instead(directory: Path) -> str:
    allowed = "allowed are *.safetensors files"
    if any(directory.glob("*.gguf")):
        return f"{allowed}, or a GGUF file named by itself: give {next(iter(sorted(directory.glob('*.gguf'))))}."
    if any(directory.glob("global_step*")) or any(directory.glob("**/*.distcp")):
        gather = "gather it into safetensors first (zero_to_fp32.py, or `accelerate merge-weights`)"
        return f"{allowed}; this is a trainer's sharded state: {gather}."
    if nested := sorted(directory.glob("*/config.json")):
        return f"{allowed}; {nested[0].parent} looks like a checkpoint: give that directory."
    return f"{allowed} (or {SAFETENSORS_INDEX} and its shards); save or copy the weights there."


def _refuse_missing_shards(directory: Path, files: tuple[Path, ...]) -> None:
    """For sharded weights without an index: their names say how many there are."""
    for match in filter(None, (SHARD_NAME.fullmatch(file.name) for file in files)):
        width = range(1, int(match["count"]) + 1)
        names = [f"{match['stem']}-{number:05d}-of-{match['count']}.safetensors" for number in width]
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise CheckpointError(
                f"{directory}: of {len(names)} weight files {len(missing)} are missing: {_some(missing)}; copy or download them too."
            )


def _refuse_stale_weights(directory: Path, files: tuple[Path, ...]) -> None:
    single = directory / "model.safetensors"
    if single.is_file() and single not in files:
        raise CheckpointError(
            f"{directory}: holds both model.safetensors and {SAFETENSORS_INDEX}, which does not name it; vLLM would load the one and "
            "transformers the other. Remove the one that is not meant."
        )


def _refuse_repeated_tensors(directory: Path, by_file: dict[Path, tuple[Tensor, ...]]) -> None:
    seen: dict[str, Path] = {}
    for file, tensors in by_file.items():
        for tensor in tensors:
            other = seen.setdefault(tensor.name, file)
            if other != file:
                raise CheckpointError(
                    f"{directory}: tensor `{tensor.name}` is in {other.name} and in {file.name}; which counts would be left to "
                    "chance. Remove the file that is not meant."
                )


def _refuse_empty_tensors(by_file: dict[Path, tuple[Tensor, ...]]) -> None:
    for file, tensors in by_file.items():
        if empty := [tensor for tensor in tensors if 0 in tensor.shape]:
            raise CheckpointError(
                f"{file}: {len(empty)} of {len(tensors)} tensors hold no values (`{empty[0].name}` has shape {list(empty[0].shape)}). "
                "The usual cause is a model saved under DeepSpeed ZeRO-3 without gathering its weights: set "
                "`stage3_gather_16bit_weights_on_model_save`, or gather the saved state with zero_to_fp32.py, and save again."
            )


def _refuse_tensors_out_of_place(directory: Path, by_file: dict[Path, tuple[Tensor, ...]]) -> None:
    held = {(tensor.name, file.name) for file, tensors in by_file.items() for tensor in tensors}
    lacking = sorted(set(read_index(directory / SAFETENSORS_INDEX).items()) - held)
    if lacking:
        name, file_name = lacking[0]
        raise CheckpointError(
            f"{directory / SAFETENSORS_INDEX}: says that tensor `{name}` is in {file_name}, which does not have it "
            f"({len(lacking)} such tensors); the index and the files are of different models: copy or download both again."
        )


def _read_pickled(directory: Path, files: tuple[Path, ...], allow_pickle: bool) -> Weights:
    names = _some([file.name for file in files])
    if not allow_pickle:
        raise CheckpointError(
            f"{directory}: its weights are pickled only ({names}), and loading a pickle can run code; allowed are *.safetensors files. "
            "Convert the weights, or, where you trust their origin, set `engine.allow_pickle: true`."
        )
    if files[0].suffix == ".pth":
        raise CheckpointError(f"{directory}: no engine reads {names}; allowed are *.safetensors, *.bin and *.pt: convert the weights.")
    tensors = sorted((tensor for file in files for tensor in _pickled_tensors(file)), key=lambda tensor: tensor.name)
    return Weights(files, tuple(tensors))


def _pickled_tensors(file: Path) -> list[Tensor]:
    """Names and shapes in a pickled state dict, by torch's restricted unpickler and without the data."""
    if is_lfs_pointer(file):
        raise CheckpointError(f"{file}: a Git LFS pointer, not the weights; run `git lfs pull` in that clone.")
    try:
        import torch
    except ImportError:
        raise CheckpointError(f"{file}: pickled weights need torch, which is not installed; `pip install torch`.") from None
    try:
        state = torch.load(file, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(file))
        return [
            Tensor(str(name), str(value.dtype).removeprefix("torch."), tuple(value.shape), value.nbytes) for name, value in state.items()
        ]
    except Exception as error:  # torch raises what its zip reader, its unpickler and its legacy format happen to raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file}: not a whole file of pickled weights ({reason}); copy it again, or convert the weights to safetensors."
        ) from None


def _some(names: list[str], limit: int = 3) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{', '.join(names[:limit])}{more}"
