"""Tiny real checkpoints, GGUF files and a real hub (an HTTP server on this machine) for the tests of this package."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from safetensors.numpy import save_file

HIDDEN, VOCAB = 8, 16
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "dtype": "float32",
    "eos_token_id": 2,
}
TENSORS = {
    "model.embed_tokens.weight": np.arange(VOCAB * HIDDEN, dtype=np.float32).reshape(VOCAB, HIDDEN),
    "model.norm.weight": np.ones(HIDDEN, dtype=np.float32),
    "lm_head.weight": np.ones((VOCAB, HIDDEN), dtype=np.float32),
}

BuildCheckpoint = Callable[..., Path]
WriteGguf = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache root of the test's own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("WDCT_CACHE", str(root))
    return root


@pytest.fixture
def build_checkpoint(tmp_path: Path) -> BuildCheckpoint:
    """Writes a whole checkpoint to tmp_path/NAME; `config` is laid over the usual one, `tensors` replaces the usual ones."""

    def build(name: str = "model", *, tensors: dict[str, Any] | None = None, **config: Any) -> Path:
        directory = tmp_path / name
        directory.mkdir(parents=True)
        merged = {key: value for key, value in {**CONFIG, **config}.items() if value is not None}
        (directory / "config.json").write_text(json.dumps(merged))
        (directory / "generation_config.json").write_text('{"eos_token_id": 2}')
        (directory / "tokenizer.json").write_text('{"version": "1.0"}')
        (directory / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
        save_file(TENSORS if tensors is None else tensors, directory / "model.safetensors")
        return directory

    return build


@pytest.fixture
def sharded(build_checkpoint: BuildCheckpoint) -> Path:
    """A checkpoint in two shards with an index."""
    directory = build_checkpoint()
    (directory / "model.safetensors").unlink()
    weight_map = {}
    for number, names in enumerate((["lm_head.weight"], ["model.embed_tokens.weight", "model.norm.weight"]), start=1):
        file_name = f"model-{number:05d}-of-00002.safetensors"
        save_file({name: TENSORS[name] for name in names}, directory / file_name)
        weight_map |= dict.fromkeys(names, file_name)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


@pytest.fixture
def write_gguf(tmp_path: Path) -> WriteGguf:
    """Writes a llama of one layer with a byte-level tokenizer; all values are whole numbers, so bfloat16 holds them exactly."""

    def write(
        name: str = "tiny.gguf",
        *,
        leave_out: str | None = None,
        architecture: str = "llama",
        scale: float = 1.0,
        splits: int | None = None,
        seed: int = 0,
    ) -> Path:
        from gguf import GGUFWriter, TokenType

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden, inner, heads = 32, 64, 4
        byte_tokens = [chr(code) for code in range(33, 127)]
        tokens = ["<s>", "</s>", *byte_tokens, "ab"]
        writer = GGUFWriter(path, architecture)
        writer.add_name("tiny")
        writer.add_context_length(64)
        writer.add_embedding_length(hidden)
        writer.add_feed_forward_length(inner)
        writer.add_block_count(1)
        writer.add_head_count(heads)
        writer.add_head_count_kv(heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(len(tokens))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.CONTROL] * 2 + [TokenType.NORMAL] * (len(tokens) - 2))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_chat_template("{% for message in messages %}{{ message['content'] }}</s>{% endfor %}")
        if splits is not None:
            writer.add_uint16("split.count", splits)
        shapes = {
            "token_embd.weight": (len(tokens), hidden),
            "blk.0.attn_norm.weight": (hidden,),
            "blk.0.attn_q.weight": (hidden, hidden),
            "blk.0.attn_k.weight": (hidden, hidden),
            "blk.0.attn_v.weight": (hidden, hidden),
            "blk.0.attn_output.weight": (hidden, hidden),
            "blk.0.ffn_norm.weight": (hidden,),
            "blk.0.ffn_gate.weight": (inner, hidden),
            "blk.0.ffn_up.weight": (inner, hidden),
            "blk.0.ffn_down.weight": (hidden, inner),
            "output_norm.weight": (hidden,),
        }
        numbers = np.random.default_rng(seed)
        for tensor, shape in shapes.items():
            if tensor != leave_out:
                writer.add_tensor(tensor, (numbers.integers(-8, 8, shape) * scale).astype(np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@dataclass
class Hub:
    """What the server holds, and how to ask it from a process of one's own."""

    home: Path
    """HF_HOME of the asking processes."""
    endpoint: str = ""
    commit: str = "c" * 40
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Content by file name by repository."""
    gated: set[str] = field(default_factory=set)
    requested: list[str] = field(default_factory=list)
    """Names of the files that were downloaded."""

    def add(self, repo: str, directory: Path) -> None:
        self.repos[repo] = {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}

    def python(self, code: str, **environment: str) -> str:
        """What `code` prints, in a fresh interpreter that knows this hub; its BadInput ends as a printed message."""
        whole = (
            "from pathlib import Path\n"
            "from wdct_dist.checkpoints.describe import describe\n"
            "from wdct_dist.checkpoints.fetch import fetch_model\n"
            "from wdct_dist.checkpoints.types import Source\n"
            "from wdct_dist.errors import BadInput\n"
            f"try:\n    print({code})\nexcept BadInput as error:\n    print('ERROR', error)\n"
        )
        root = str(Path(__file__).parents[2])
        network = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy") and not key.startswith("HF_")}
        patience = {"HF_HUB_ETAG_TIMEOUT": "60", "HF_HUB_DOWNLOAD_TIMEOUT": "60"}  # seconds; the client gives up after 10
        done = subprocess.run(
            [sys.executable, "-c", whole],
            env={**network, **patience, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "PYTHONPATH": root, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def local_hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that speaks what huggingface_hub asks for: revision, tree and files; weights count as large files (LFS)."""
    hub = Hub(home=tmp_path / "hf")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"]:
                self._answer_api("/".join(parts[2:4]), parts[4:])
            else:
                self._answer_file("/".join(parts[:2]), "/".join(parts[4:]))

        def _answer_api(self, repo: str, rest: list[str]) -> None:
            if repo in hub.gated:
                return self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            if repo not in hub.repos:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            if rest[1] not in ("main", hub.commit):
                return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            files = hub.repos[repo]
            if rest[0] == "tree":
                return self._send(200, json.dumps([self._entry(name, content) for name, content in files.items()]).encode())
            model = {"id": repo, "sha": hub.commit, "private": False, "tags": [], "downloads": 0, "likes": 0}
            return self._send(200, json.dumps({**model, "siblings": [{"rfilename": name} for name in files]}).encode())

        def _answer_file(self, repo: str, name: str) -> None:
            content = hub.repos.get(repo, {}).get(name)
            if content is None:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            if self.command == "GET":
                hub.requested.append(name)
            entry = self._entry(name, content)
            etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
            return self._send(200, content, {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Repo-Commit": hub.commit})

        def _entry(self, name: str, content: bytes) -> dict[str, Any]:
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": oid}
            if name.endswith((".safetensors", ".bin")):
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
            return entry

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
