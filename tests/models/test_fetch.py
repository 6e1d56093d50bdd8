"""Downloads from a server on this machine: whole, resumed, refused; and files that are here."""

import io
import re
import socket
import sys
from collections import namedtuple
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import gdown
import pytest
import torch

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import digest
from sr_cli.models import fetch as module
from sr_cli.models.fetch import DOWNLOADS, discard, fetch


class Server(ThreadingHTTPServer):
    """Serves `content` at any path but /gone.

    ranges: whether it goes on from an offset. cut: it breaks off after so many bytes of an answer.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = True
        self.cut: int | None = None
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/a%20model.ckpt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path == "/gone":
            self.send_error(404)
            return
        match = re.fullmatch(r"bytes=(\d+)-", asked or "")
        start = int(match[1]) if match and server.ranges else 0
        body, total = server.content[start:], len(server.content)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut])

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture(scope="module")
def checkpoint() -> bytes:
    """Large enough for more than one of gdown's chunks of 512 KiB."""
    file = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.randn(600, 1000)}}, file)
    return file.getvalue()


@pytest.fixture
def server(checkpoint: bytes) -> Iterator[Server]:
    with Server(checkpoint) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "RETRIES", 0)
    return tmp_path / "home"


def silent(what: str, done: int, total: int | None) -> None: ...


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_download(server: Server, checkpoint: bytes, own_home: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    path = fetch("mine", lambda *stage: told.append(stage), url=server.url)
    assert path.read_bytes() == checkpoint
    assert path.name == "a model.ckpt"
    assert own_home in path.parents
    assert told[-1] == ("fetching a model.ckpt", len(checkpoint), len(checkpoint))
    assert fetch("mine", silent, url=server.url) == path  # it is there, so no bytes are fetched
    assert server.asked[1:] in ([], [None])
    discard(path)
    assert files(own_home) == []


def test_an_interrupted_download_goes_on(server: Server, checkpoint: bytes, own_home: Path) -> None:
    server.cut = 1_000_000
    with pytest.raises(ModelError, match=r"could not be fetched.*what arrived is kept"):
        fetch("mine", silent, url=server.url)
    (partial,) = files(own_home)
    received = partial.stat().st_size
    assert 0 < received <= server.cut
    server.cut = None
    assert fetch("mine", silent, url=server.url).read_bytes() == checkpoint
    assert server.asked[-1] == f"bytes={received}-"
    assert len(files(own_home)) == 1


def test_a_server_that_is_not_there_is_told_in_the_systems_words(own_home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.pth"
    with pytest.raises(ModelError, match=r"fetched from \S+ \(Connection refused\)\. Try"):
        fetch("mine", silent, url=url)


def test_a_stopped_download_goes_on(server: Server, checkpoint: bytes, own_home: Path) -> None:
    def stop(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("mine", stop, url=server.url)
    assert files(own_home)
    assert fetch("mine", silent, url=server.url).read_bytes() == checkpoint
    assert server.asked[-1] is not None


@pytest.mark.parametrize("complete", [False, True])
def test_a_server_that_does_not_go_on(
    server: Server, checkpoint: bytes, own_home: Path, complete: bool
) -> None:
    server.cut = 1_000_000
    with pytest.raises(ModelError):
        fetch("mine", silent, url=server.url)
    if complete:  # killed just before the download got its name
        files(own_home)[0].write_bytes(checkpoint)
    server.cut, server.ranges = None, False
    assert fetch("mine", silent, url=server.url).read_bytes() == checkpoint
    assert len(files(own_home)) == 1


def test_short_breaks_are_bridged(
    server: Server, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRIES", 3)
    monkeypatch.setattr(sys.modules["gdown.download"], "_wait_or_cancel", lambda **_: None)
    server.cut = 1_000_000
    assert fetch("mine", silent, url=server.url).read_bytes() == checkpoint


def test_checksums(server: Server, checkpoint: bytes, own_home: Path, tmp_path: Path) -> None:
    (tmp_path / "here.ckpt").write_bytes(checkpoint)
    right, wrong = digest(tmp_path / "here.ckpt"), "0" * 64
    for url in (server.url, (tmp_path / "here.ckpt").as_uri()):
        fetch("mine", silent, url=url, sha256=right.upper())
        with pytest.raises(ModelError, match=rf"SHA-256 is {right}, not {wrong}"):
            fetch("mine", silent, url=url, sha256=wrong)
    assert files(own_home) == []
    assert (tmp_path / "here.ckpt").exists()


def test_a_file_that_is_here_is_used_where_it_is(
    tmp_path: Path, checkpoint: bytes, own_home: Path
) -> None:
    path = tmp_path / "a model.ckpt"
    path.write_bytes(checkpoint)
    assert fetch("mine", silent, url=path.as_uri()) == path
    discard(path)
    assert path.exists()
    assert not own_home.exists()
    path.unlink()
    with pytest.raises(ModelError, match="There is no model file"):
        fetch("mine", silent, url=path.as_uri())


def test_what_is_no_checkpoint_is_removed(server: Server, own_home: Path) -> None:
    server.content = b"<html>Too many people have fetched this file today.</html>"
    with pytest.raises(ModelError, match=r"cannot be used.*is damaged"):
        fetch("mine", silent, url=server.url)
    assert files(own_home) == []


def test_out_of_reach(server: Server) -> None:
    for url, reason in (
        (server.url.replace("a%20model.ckpt", "gone"), "404"),
        ("http://127.0.0.1:9/dossr.ckpt", "refused"),
    ):
        with pytest.raises(ModelError, match=rf"{reason}.*srx weights import PATH/.* --name mine"):
            fetch("mine", silent, url=url)


def test_too_little_space(server: Server, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(ModelError, match="make room"):
        fetch("mine", silent, url=server.url)


def test_unknown_names_and_schemes() -> None:
    with pytest.raises(UsageError, match=r"'mine' is published \(only dossr, .*--url"):
        fetch("mine", silent)
    with pytest.raises(UsageError, match="must begin with https"):
        fetch("mine", silent, url="ftp://127.0.0.1/a.ckpt")


def test_without_gdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    for source in DOWNLOADS:
        with pytest.raises(ModelError, match=rf"srx\[import\].*{source.file} from {source.page}"):
            fetch(source.name, silent)


def test_the_published_files_are_looked_up_in_their_folder(
    server: Server, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [SimpleNamespace(id=f"id-{source.name}", path=source.file) for source in DOWNLOADS]
    folders: list[str] = []

    def listing(url: str, **options: Any) -> list[SimpleNamespace]:
        assert options["skip_download"]
        folders.append(url)
        return listed

    real, addresses = gdown.download, []

    def download(url: str, *args: Any, **options: Any) -> Any:
        addresses.append(url)
        return real(server.url, *args, **options)

    monkeypatch.setattr(gdown, "download_folder", listing)
    monkeypatch.setattr(gdown, "download", download)
    path = fetch("dossr-onestep", silent)
    assert path.name == "dossr_onestep.ckpt"
    assert path.read_bytes() == checkpoint
    assert folders == [DOWNLOADS[1].url]
    assert addresses == ["https://drive.google.com/uc?id=id-dossr-onestep"]
    listed.pop()
    discard(path)
    with pytest.raises(ModelError, match="does not list it"):
        fetch("dossr-onestep", silent)
