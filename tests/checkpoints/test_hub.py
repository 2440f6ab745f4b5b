from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")
BuildCheckpoint = Callable[..., Path]

DESCRIBE = "describe(Source('demo', 'org/model', None), allow_pickle=False, trust_remote_code=False).to_json()"


@pytest.fixture
def model(build_checkpoint: BuildCheckpoint) -> Path:
    """A repository as they are: the weights in several formats, pictures, code and training state beside them."""
    directory = build_checkpoint("repository")
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    (directory / "modeling_own.py").write_text("raise RuntimeError")
    for name in ("pytorch_model.bin", "README.md", "onnx/model.onnx", "original/model.safetensors", "consolidated.safetensors",
                 "training_args.bin", "m.gguf", "picture.png"):  # fmt: skip
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(name.encode())
    return directory


def test_a_model_is_brought_with_what_an_engine_needs_and_nothing_else(local_hub: Any, model: Path) -> None:
    local_hub.add("org/model", model)
    printed = local_hub.python(f"__import__('json').dumps({DESCRIBE})")
    checkpoint = json.loads(printed.splitlines()[-1])
    assert (checkpoint["kind"], checkpoint["source"], checkpoint["has_chat_template"]) == ("hub", "org/model", True)
    assert Path(checkpoint["directory"]).name == local_hub.commit
    assert sorted(set(local_hub.requested)) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "modeling_own.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_model_that_was_fetched_is_found_again_offline(local_hub: Any, model: Path) -> None:
    local_hub.add("org/model", model)
    first = local_hub.python("fetch_model('org/model')")
    assert local_hub.commit in first
    requested = len(local_hub.requested)
    assert local_hub.python("fetch_model('org/model')", HF_HUB_OFFLINE="1") == first
    assert len(local_hub.requested) == requested


def test_pickled_weights_are_brought_only_when_allowed(local_hub: Any, build_checkpoint: BuildCheckpoint) -> None:
    torch = pytest.importorskip("torch")
    directory = build_checkpoint("repository")
    (directory / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(3)}, directory / "pytorch_model.bin")
    local_hub.add("org/model", directory)
    refused = local_hub.python(DESCRIBE)
    assert "checkpoint 'demo': `org/model`: the hub has its weights pickled only (.bin, .pt)" in refused
    assert "set `engine.allow_pickle: true`" in refused
    assert "pytorch_model.bin" not in local_hub.requested
    assert "'kind': 'hub'" in local_hub.python(DESCRIBE.replace("allow_pickle=False", "allow_pickle=True"))
    assert "pytorch_model.bin" in local_hub.requested


def test_a_repository_without_weights_says_so(local_hub: Any, model: Path) -> None:
    for file in (model / "model.safetensors", model / "pytorch_model.bin"):
        file.unlink()
    local_hub.add("org/model", model)
    assert "no weights; allowed are *.safetensors files" in local_hub.python(DESCRIBE)


@pytest.mark.parametrize(
    ("source", "environment", "message"),
    [
        (("org/other", None), {}, "`org/other`: the hub knows no such model, or it is private; correct the id or path, or set HF_TOKEN"),
        (("org/other", None), {}, "tried: a path of that name, the hub at http://127.0.0.1:"),
        (("org/model", "v9"), {}, "`org/model` at revision `v9`: the hub has no such revision; give a branch, tag or commit"),
        (("org/gated", None), {}, "`org/gated`: the hub gives it only to accounts that accepted its terms"),
        (("org/model", None), {"HF_HUB_OFFLINE": "1"}, "`org/model`: not on this machine, at least not whole (tried: a path of that name"),
        (("org/model", None), {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set, so not the hub). Fetch it where there is a network (`wdct"),
        (("org/model", None), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "`org/model`: the hub gave no answer that helps ("),
        (("org/model", None), {"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_HUB_OFFLINE=1 saves the attempt"),
        (("a--b/c", None), {}, "`a--b/c`: the hub gave no answer that helps (HFValidationError"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_had_is_refused_with_what_was_tried(
    local_hub: Any, model: Path, source: tuple[str, str | None], environment: dict[str, str], message: str
) -> None:
    local_hub.add("org/model", model)
    local_hub.gated.add("org/gated")
    call = f"describe(Source('demo', {source[0]!r}, {source[1]!r}), allow_pickle=False, trust_remote_code=False)"
    printed = local_hub.python(call, **environment)
    assert printed.startswith("ERROR checkpoint 'demo': "), printed
    assert message in printed


@pytest.mark.parametrize("offline", ["0", "1"])
@pytest.mark.parametrize(("name", "kind"), [("model.safetensors", "sha256"), ("tokenizer_config.json", "git sha1")])
def test_a_fetched_file_that_differs_from_what_the_hub_states_is_refused(
    local_hub: Any, model: Path, name: str, kind: str, offline: str
) -> None:
    local_hub.add("org/model", model)
    local_hub.python("fetch_model('org/model')")
    file = next(local_hub.home.glob(f"hub/*/snapshots/*/{name}"))
    content = bytearray(file.read_bytes())
    content[-3] ^= 1  # the files stay whole: in the JSON this is inside a text
    file.resolve().write_bytes(content)
    printed = local_hub.python("fetch_model('org/model')", HF_HUB_OFFLINE=offline)
    assert f"its content has {kind} " in printed
    assert f"delete {file.resolve()} and fetch the model again" in printed


def test_without_the_client_library_a_hub_id_says_what_to_install(local_hub: Any) -> None:
    call = f"__import__('sys').modules.__setitem__('huggingface_hub', None) or {DESCRIBE}"
    printed = local_hub.python(call)
    assert "`org/model` is no path on this machine, and hub ids need huggingface_hub" in printed
    assert sys.executable not in printed
