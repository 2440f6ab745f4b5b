"""`package://module/file`: a file or directory inside an installed Python package, found without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePosixPath

from wdct_dist.errors import CheckpointError, ConfigError

SCHEME = "package://"


def find_in_package(location: str) -> Path:
    """The path that `package://module/inner/file` stands for.

    Only the top-level module is looked up, because the lookup of a nested one would import its parents.
    Raises `ConfigError` where `location` is not of that form, `CheckpointError` where the package or the file is missing.
    """
    module, _, inner = location.removeprefix(SCHEME).partition("/")
    parts = PurePosixPath(inner).parts
    if not module.isidentifier() or not parts or inner.startswith("/") or ".." in parts:
        raise ConfigError(
            f"{location!r} names no file in a package; allowed is `{SCHEME}module/file.gguf`, with the name of a "
            "top-level Python module and a path inside it."
        )
    roots = _directories(module)
    if not roots:
        raise CheckpointError(f"{location}: no package `{module}` is installed for this Python; install it, or give another checkpoint.")
    for root in roots:
        if (root / inner).exists():
            return root / inner
    raise CheckpointError(
        f"{location}: the package `{module}` has no `{inner}` (looked in {', '.join(map(str, roots))}); "
        f"allowed is a file or directory of that package{_offer(roots)}."
    )


def _directories(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # an imported module without a spec, such as __main__
        return []
    return [] if spec is None else [Path(folder) for folder in spec.submodule_search_locations or []]


def _offer(roots: list[Path]) -> str:
    models = sorted(str(path.relative_to(root)) for root in roots for path in root.rglob("*.gguf"))
    return f", for example {models[0]}" if models else ""
