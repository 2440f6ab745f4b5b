from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wdct_dist.checkpoints.package import find_in_package
from wdct_dist.errors import BadInput, CheckpointError, ConfigError


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that says so when it is imported."""
    package = tmp_path / "site" / "carries_models"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner" / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_a_file_or_directory_in_a_package_is_found_without_importing_it(installed: Path) -> None:
    assert find_in_package("package://carries_models/inner/m.gguf") == installed / "inner" / "m.gguf"
    assert find_in_package("package://carries_models/inner") == installed / "inner"
    assert "carries_models" not in sys.modules


@pytest.mark.parametrize(
    ("location", "error", "message"),
    [
        ("package://carries_models/other.gguf", CheckpointError, "has no `other.gguf` (looked in "),
        ("package://carries_models/other.gguf", CheckpointError, ", for example inner/m.gguf"),
        ("package://not_installed/m.gguf", CheckpointError, "no package `not_installed` is installed"),
        ("package://__main__/m.gguf", CheckpointError, "no package `__main__` is installed"),
        ("package://json.decoder/m.gguf", ConfigError, "names no file in a package"),
        ("package://carries_models", ConfigError, "allowed is `package://module/file.gguf`"),
        ("package:///m.gguf", ConfigError, "names no file in a package"),
        ("package://carries_models/../../etc/passwd", ConfigError, "names no file in a package"),
        ("package://carries_models//etc/passwd", ConfigError, "names no file in a package"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_is_not_in_a_package_is_refused(location: str, error: type[BadInput], message: str) -> None:
    with pytest.raises(error) as raised:
        find_in_package(location)
    assert message in str(raised.value)
