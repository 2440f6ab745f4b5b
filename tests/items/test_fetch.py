from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wdct_dist.errors import EXIT_FAILED, WdctError
from wdct_dist.items import fetch
from wdct_dist.items.fetch import DEMO_CSV, WDCT_COMMIT, WDCT_CSV, fetch_wdct


class Site:
    """A real HTTP server on this machine. `replies` maps a path to its status, its bytes and the length it announces."""

    def __init__(self) -> None:
        self.replies: dict[str, tuple[int, bytes, int | None]] = {}
        self.asked: list[str] = []
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                status, content, length = site.replies.get(self.path, (404, b"no such file", None))
                self.send_response(status)
                self.send_header("Content-Length", str(len(content) if length is None else length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/repo"

    def serve(self, file: fetch.PublishedFile, content: bytes, status: int = 200, length: int | None = None) -> None:
        self.replies[f"/repo/{WDCT_COMMIT}/{file.path}"] = (status, content, length)


@pytest.fixture
def site(monkeypatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    thread.join()
    site.server.server_close()


@pytest.fixture
def real(public_folder) -> dict[str, bytes]:
    return {name: (public_folder / name).read_bytes() for name in ("WDCT.csv", "demo.csv")}


@pytest.fixture
def full(site, real) -> Site:
    """The site with both real files."""
    site.serve(WDCT_CSV, real["WDCT.csv"])
    site.serve(DEMO_CSV, real["demo.csv"])
    return site


@pytest.fixture
def small(site, monkeypatch) -> Site:
    """The site with two short files in the place of the real ones, for what does not hang on their content."""
    for name, content in (("WDCT_CSV", b"items\n" * 200), ("DEMO_CSV", b"demonstrations\n")):
        file = getattr(fetch, name)
        made = fetch.PublishedFile(file.name, file.path, len(content), fetch.hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(fetch, name, made)
        site.serve(made, content)
    return site


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_published_files_are_fetched_verified_and_named(full, tmp_path, real) -> None:
    path = fetch_wdct(tmp_path / "new" / "cache", full.url)
    assert path == tmp_path / "new" / "cache" / "WDCT.csv"
    assert path.read_bytes() == real["WDCT.csv"]
    assert (path.parent / "demo.csv").read_bytes() == real["demo.csv"]
    assert kept(path.parent) == ["WDCT.csv", "demo.csv"]


def test_the_cache_of_the_environment_is_used_by_default(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "c"))
    assert fetch_wdct(url_base=small.url) == tmp_path / "c" / "WDCT.csv"


def test_files_that_are_there_are_not_fetched_again(small, tmp_path) -> None:
    fetch_wdct(tmp_path, small.url)
    small.asked.clear()
    fetch_wdct(tmp_path, small.url)
    assert small.asked == []


def test_a_file_that_was_changed_in_the_cache_is_fetched_again(small, tmp_path) -> None:
    path = fetch_wdct(tmp_path, small.url)
    path.write_bytes(path.read_bytes().swapcase())
    small.asked.clear()
    fetch_wdct(tmp_path, small.url)
    assert small.asked == [f"/repo/{WDCT_COMMIT}/data/WDCT.csv"]
    assert path.read_bytes() == b"items\n" * 200


@pytest.mark.parametrize("change", [bytes.swapcase, lambda content: content + b"more"], ids=["other bytes", "longer"])
def test_other_content_is_refused_and_nothing_of_it_is_kept(small, tmp_path, change) -> None:
    small.serve(fetch.WDCT_CSV, change(b"items\n" * 200))
    with pytest.raises(
        WdctError, match=r"is not the published WDCT\.csv: its SHA-256 is [0-9a-f]{64}, expected [0-9a-f]{64}; nothing was kept"
    ):
        fetch_wdct(tmp_path, small.url)
    assert kept(tmp_path) == ["demo.csv"]


def test_other_content_does_not_replace_what_is_there(small, tmp_path) -> None:
    (tmp_path / "WDCT.csv").write_bytes(b"an older file")
    small.serve(fetch.WDCT_CSV, b"ITEMS\n" * 200)
    with pytest.raises(WdctError, match="nothing was kept"):
        fetch_wdct(tmp_path, small.url)
    assert (tmp_path / "WDCT.csv").read_bytes() == b"an older file"


@pytest.mark.parametrize("length", [None, 1200], ids=["shorter file", "connection lost"])
def test_a_transfer_that_breaks_off_is_named_and_nothing_of_it_is_kept(small, tmp_path, length) -> None:
    small.serve(fetch.WDCT_CSV, b"items\n" * 100, length=length)
    with pytest.raises(WdctError, match="broke off after 600 of 1,200 bytes; nothing was kept") as caught:
        fetch_wdct(tmp_path, small.url)
    assert caught.value.exit_code == EXIT_FAILED
    assert kept(tmp_path) == ["demo.csv"]


@pytest.mark.parametrize(("status", "said"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_refusal_of_the_server_is_passed_on(small, tmp_path, status, said) -> None:
    small.serve(fetch.DEMO_CSV, b"", status=status)
    with pytest.raises(WdctError, match=f"was answered with {said}; try again later, or bring the file from elsewhere"):
        fetch_wdct(tmp_path, small.url)
    assert kept(tmp_path) == []


def test_without_a_network_the_message_says_so(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(WdctError, match=r"cannot be reached: .*refused.* Run this where there is a network") as caught:
            fetch_wdct(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert caught.value.exit_code == EXIT_FAILED
    assert f"or bring the file from elsewhere to {tmp_path / 'demo.csv'} (SHA-256 {DEMO_CSV.sha256})" in str(caught.value)


def test_a_server_that_says_nothing_is_given_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(WdctError, match="cannot be reached: timed out"):
            fetch_wdct(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_server_that_does_not_speak_http_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as odd:
        odd.bind(("127.0.0.1", 0))
        odd.listen()

        def reply() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"hello\r\n\r\n")

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(WdctError, match="cannot be reached: hello"):
            fetch_wdct(tmp_path, f"http://127.0.0.1:{odd.getsockname()[1]}")
        thread.join()


def test_a_cache_that_cannot_be_written_is_named(small, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WdctError, match=r"cannot be written: .* Set WDCT_CACHE to a folder that can be"):
        fetch_wdct(tmp_path / "file" / "cache", small.url)
    (tmp_path / "demo.csv").mkdir()
    with pytest.raises(WdctError, match=r"demo\.csv cannot be written"):
        fetch_wdct(tmp_path, small.url)
    assert kept(tmp_path) == ["demo.csv", "file"]


def test_the_default_address_is_the_public_repository_at_one_commit() -> None:
    assert fetch.WDCT_URL == "https://raw.githubusercontent.com/icip-cas/Word-Deed-Consistency-Test"
    assert WDCT_COMMIT.startswith("63cba03")
    assert len(WDCT_COMMIT) == 40


def test_the_public_files_at_hand_are_those_that_are_fetched(public_folder) -> None:
    assert WDCT_CSV.is_at(public_folder / "WDCT.csv")
    assert DEMO_CSV.is_at(public_folder / "demo.csv")
    assert not WDCT_CSV.is_at(public_folder / "demo.csv")
    assert not WDCT_CSV.is_at(public_folder / "absent.csv")
