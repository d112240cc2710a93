import hashlib
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from bestiary.errors import CheckpointError
from bestiary.weights import store
from bestiary.weights.registry import Published, find_entry

CONTENT = bytes(range(256)) * 9000
"""More than two pieces of a download."""


def entry_of(content: bytes = CONTENT) -> Published:
    """An entry whose digest is that of `content`, and whose file is nowhere."""
    digest = hashlib.sha256(content).hexdigest()[:8]
    return replace(find_entry("resnet18"), file=f"toy-{digest}.pth")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every folder of the store lies in the test's own; the environment allows the network."""
    for name in ("BESTIARY_OFFLINE", "HF_HUB_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("BESTIARY_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "weights"


class Handler(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, tuple[int, bytes, int]]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        code, body, length = self.answers.get(self.path, (404, b"no", 2))
        self.send_response(code)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    Handler.answers, Handler.asked = {}, []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{httpd.server_address[1]}/"
    monkeypatch.setattr("bestiary.weights.registry.ADDRESS", address)
    yield Handler
    httpd.shutdown()
    httpd.server_close()


def serve(server: type[Handler], entry: Published, body: bytes, length: int | None = None, code: int = 200) -> None:
    server.answers["/" + entry.file] = (code, body, len(body) if length is None else length)


def test_folders_follow_the_environment() -> None:
    def folders(**environment: str) -> list[str]:
        return [str(path) for path in store.search_folders(environment)]

    user = str(Path("~").expanduser())
    assert folders() == [f"{user}/.cache/bestiary/weights", f"{user}/.cache/torch/hub/checkpoints"]
    assert folders(XDG_CACHE_HOME="/c") == ["/c/bestiary/weights", "/c/torch/hub/checkpoints"]
    assert folders(BESTIARY_HOME="/b", TORCH_HOME="/t") == ["/b/weights", "/t/hub/checkpoints"]


def test_download_is_checked_kept_and_used_again(server: type[Handler], home: Path) -> None:
    entry = entry_of()
    serve(server, entry, CONTENT)
    told: list[tuple[int, int | None]] = []
    path = store.fetch(entry, progress=lambda done, total: told.append((done, total)))
    assert path == home / entry.file
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert len(told) > 1
    assert store.fetch(entry) == path
    assert len(server.asked) == 1
    assert os.listdir(home) == [entry.file]


def test_a_wrong_digest_is_refused_and_nothing_kept(server: type[Handler], home: Path) -> None:
    entry = entry_of()
    serve(server, entry, b"<html>log in first</html>")
    with pytest.raises(CheckpointError, match="not the published file"):
        store.fetch(entry)
    assert os.listdir(home) == []


def test_a_connection_that_ends_early_keeps_nothing(server: type[Handler], home: Path) -> None:
    entry = entry_of()
    serve(server, entry, CONTENT[:5000], len(CONTENT))
    with pytest.raises(CheckpointError, match=rf"ended after 5000 of {len(CONTENT)} bytes.*Put http.* at {home}"):
        store.fetch(entry)
    assert os.listdir(home) == []


def test_mirrors_are_tried_in_order_and_all_failures_named(server: type[Handler], home: Path) -> None:
    entry = entry_of()
    serve(server, entry, b"", code=503)
    base = entry.urls[0].rsplit("/", 1)[0]
    failing = replace(entry, mirrors=(base + "/gone",))
    with pytest.raises(CheckpointError, match=r"503.*404"):
        store.fetch(failing)
    server.answers["/second"] = (200, CONTENT, len(CONTENT))
    assert store.fetch(replace(entry, mirrors=(base + "/gone", base + "/second"))).read_bytes() == CONTENT
    assert server.asked[-3:] == ["/" + entry.file, "/gone", "/second"]


def test_an_unreachable_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("bestiary.weights.registry.ADDRESS", "http://127.0.0.1:9/")
    entry = entry_of()
    with pytest.raises(CheckpointError, match=f"could not be fetched.*Put http://127.0.0.1:9/{entry.file} at {home}"):
        store.fetch(entry)


@pytest.mark.parametrize("way", ["argument", "BESTIARY_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_never_asks_and_says_which_file_to_put_where(
    way: str, server: type[Handler], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "argument":
        monkeypatch.setenv(way, "1")
    entry = entry_of()
    serve(server, entry, CONTENT)
    with pytest.raises(CheckpointError, match=f"network is off.*Put .*{entry.file} at {home / entry.file}"):
        store.fetch(entry, offline=way == "argument")
    assert server.asked == []
    home.mkdir(parents=True)
    (home / entry.file).write_bytes(CONTENT)
    assert store.fetch(entry, offline=True) == home / entry.file


def test_only_words_of_consent_switch_the_network_off() -> None:
    for word, off in (
        ("1", True),
        ("TRUE", True),
        ("yes", True),
        ("on", True),
        ("0", False),
        ("", False),
        ("no", False),
    ):
        assert store.is_offline({"BESTIARY_OFFLINE": word}) is off


def test_files_of_torchs_cache_are_found_after_our_own(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    entry = entry_of()
    assert store.find_file(entry) is None
    theirs = tmp_path / "torch" / "hub" / "checkpoints" / entry.file
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(CONTENT)
    assert store.fetch(entry, offline=True) == theirs
    home.mkdir(parents=True)
    (home / entry.file).write_bytes(CONTENT)
    assert store.fetch(entry, offline=True) == home / entry.file


def test_a_damaged_file_on_disk_is_refused(home: Path) -> None:
    entry = entry_of()
    home.mkdir(parents=True)
    (home / entry.file).write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match=r"not the published file\. Delete it") as caught:
        store.fetch(entry)
    assert caught.value.where == str(home / entry.file)


def test_a_path_of_the_users_own(tmp_path: Path) -> None:
    entry = entry_of()
    mine = tmp_path / "mine.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        store.fetch(entry, path=mine)
    mine.write_bytes(CONTENT)
    assert store.fetch(entry, path=str(mine)) == mine


def test_a_folder_that_cannot_be_written_is_no_traceback(server: type[Handler], home: Path) -> None:
    entry = entry_of()
    serve(server, entry, CONTENT)
    home.parent.mkdir(parents=True)
    home.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match="could not be fetched"):
        store.fetch(entry)


def test_find_published_takes_names(home: Path) -> None:
    with pytest.raises(CheckpointError, match=r"resnet34-b627a593\.pth"):
        store.find_published("resnet34", offline=True)


def test_digest_is_hashlibs(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(CONTENT)
    assert store.sha256_of(path) == hashlib.sha256(CONTENT).hexdigest()
