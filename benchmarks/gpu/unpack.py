"""Unpacks what `gather.py` packed, as far as it is there: python3 unpack.py PACKS TO.

PACKS holds files of all parts in any depth. TO/engine, TO/product and TO/ray are for PYTHONPATH; TO/model.gguf and TO/WDCT.csv are files.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
import time
import tomllib
from pathlib import Path


def name_entry_points(to: Path) -> None:
    """What an installation of this checkout would tell about it: the product finds its ways of asking by their entry points."""
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = to / "wdct_dist-0.0.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: wdct_dist\nVersion: 0.0\n", encoding="utf-8")
    groups = project["entry-points"] | {"console_scripts": project["scripts"]}
    lines = [line for group, names in groups.items() for line in (f"[{group}]", *(f"{name} = {at}" for name, at in names.items()))]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    packs, to = Path(sys.argv[1]), Path(sys.argv[2])
    to.mkdir(parents=True, exist_ok=True)
    for file in sorted(packs.rglob("*")):
        began = time.perf_counter()
        if file.name.endswith(".tar.xz"):
            folder = to / file.name.removesuffix(".tar.xz")
            if folder.exists():
                continue
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="tar")
        elif file.name == "WDCT.csv":
            shutil.copy(file, to / file.name)
        elif file.name.endswith(".gguf.00"):  # made anew each time: more of it may have come
            pieces = sorted(packs.rglob("model.gguf.*"), key=lambda piece: piece.name)
            with open(to / "model.gguf", "wb") as whole:
                for piece in pieces:
                    whole.write(piece.read_bytes())
        else:
            continue
        print(f"{file.name}: {time.perf_counter() - began:.1f} s", flush=True)
    name_entry_points(to / "product")


if __name__ == "__main__":
    main()
