"""hf:// from a server on this machine that answers as the hub does."""

import hashlib
import io
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from huggingface_hub import constants

from sr_cli.errors import ModelError, UsageError
from sr_cli.models.compact import CompactNet
from sr_cli.models.fetch import discard, fetch
from sr_cli.models.hub import HubFile
from sr_cli.models.kept import folder, is_dossr, keep

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Has one file, me/nets/sub/net.pth, in the revisions main and v1. cut: it breaks off after so
    many bytes of an answer, once."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.cut: int | None = None
        self.asked: list[tuple[str, str | None, str | None]] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        server, asked = self.server, self.headers.get("Range")
        match = re.fullmatch(r"/(\w+/\w+)/resolve/([\w.-]+)/(.+)", self.path)
        if match:  # the library asks other things too
            server.asked.append((self.path, asked, self.headers.get("Authorization")))
        repository, revision, file = match.groups() if match else ("", "", "")
        refusal = None
        if repository == "me/gated" and not self.headers.get("Authorization"):
            refusal = 401, "GatedRepo"
        elif repository not in ("me/nets", "me/gated"):
            refusal = 401, "RepoNotFound"
        elif revision not in ("main", "v1", COMMIT):
            refusal = 404, "RevisionNotFound"
        elif file != "sub/net.pth":
            refusal = 404, "EntryNotFound"
        if refusal:
            self.send_response(refusal[0])
            self.send_header("X-Error-Code", refusal[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        range_ = re.fullmatch(r"bytes=(\d+)-.*", asked or "")
        start, total = int(range_[1]) if range_ else 0, len(server.content)
        self.send_response(206 if range_ else 200)
        if range_:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(server.content).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(server.content[start : server.cut])
            if server.cut is not None:
                server.cut = None
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture(scope="module")
def network() -> bytes:
    file = io.BytesIO()
    torch.save({"params": CompactNet(num_feat=64, num_conv=4, upscale=2).state_dict()}, file)
    return file.getvalue()


@pytest.fixture
def hub(network: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    with Hub(network) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{running.server_port}"
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield running
        running.shutdown()
        thread.join()


def silent(what: str, done: int, total: int | None) -> None: ...


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_a_file_of_the_hub(hub: Hub, network: bytes, revision: str) -> None:
    told: list[tuple[str, int, int | None]] = []
    url = f"hf://me/nets{revision}/sub/net.pth"
    path = fetch("mine", lambda *stage: told.append(stage), url=url)
    assert path.read_bytes() == network
    assert told[-1] == ("fetching net.pth", len(network), len(network))
    assert hub.asked[0][0] == f"/me/nets/resolve/{revision[1:] or 'main'}/sub/net.pth"
    count = len(hub.asked)
    assert fetch("mine", silent, url=url) == path
    assert len(hub.asked) <= count + 2  # nothing but whether it is the same
    assert not is_dossr(path)
    kept = keep(path, "mine")
    assert (kept, kept.read_bytes()) == (folder() / "mine.pth", network)
    assert not list((folder().parent / "downloads").iterdir())


def test_a_break_is_bridged(hub: Hub, network: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    hub.cut = len(network) // 2
    assert fetch("mine", silent, url="hf://me/nets/sub/net.pth").read_bytes() == network
    assert any(asked and asked.startswith("bytes=") for _, asked, _ in hub.asked)


def test_a_stopped_download_leaves_nothing_that_misleads(hub: Hub, network: bytes) -> None:
    def stop(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    url = "hf://me/nets/sub/net.pth"
    with pytest.raises(KeyboardInterrupt):
        fetch("mine", stop, url=url)
    assert fetch("mine", silent, url=url).read_bytes() == network


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("me/nets/sub/gone.pth", r"The hub has no http\S+/me/nets/blob/main/sub/gone.pth"),
        ("me/nets@v2/sub/net.pth", r"The hub has no http\S+/me/nets/blob/v2/sub/net.pth"),
        ("me/none/net.pth", "no repository me/none: check its name, or run hf auth login"),
        ("me/gated/sub/net.pth", "me/gated is gated: accept its terms at"),
    ],
)
def test_what_the_hub_does_not_give(hub: Hub, address: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        fetch("mine", silent, url=f"hf://{address}")


def test_a_token_opens_what_is_gated(
    hub: Hub, network: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch("mine", silent, url="hf://me/gated/sub/net.pth").read_bytes() == network
    assert hub.asked[-1][2] == "Bearer hf_secret"


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"could not be fetched .*HF_HUB_OFFLINE.*--model FILE"):
        fetch("mine", silent, url="hf://me/nets/sub/net.pth")
    assert hub.asked == []


def test_no_checkpoint_and_no_network(hub: Hub) -> None:
    url = "hf://me/nets/sub/net.pth"
    hub.content = b"<html>"
    with pytest.raises(ModelError, match=r"cannot be used.*damaged"):
        fetch("mine", silent, url=url)
    file = io.BytesIO()
    torch.save({"what": torch.zeros(3)}, file)
    hub.content = file.getvalue()
    path = fetch("mine", silent, url=url)
    with pytest.raises(ModelError, match="no architecture that srx knows"):
        keep(path, "mine")
    assert not list((folder().parent / "downloads").iterdir())


def test_a_name_that_is_taken(hub: Hub, network: bytes) -> None:
    url = "hf://me/nets/sub/net.pth"
    keep(fetch("mine", silent, url=url), "mine")
    path = fetch("mine", silent, url=url)
    with pytest.raises(ModelError, match="is there already"):
        keep(path, "mine")
    assert keep(path, "other").read_bytes() == network


@pytest.mark.parametrize(
    "url",
    [
        *("hf://net.pth", "hf://me/nets", "hf://me/nets/", "hf://me/nets/../../x.pth"),
        *("hf://me/nets/.ssh/x.pth", "hf://me/nets//x.pth", "hf://me/nets@/x.pth"),
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match=r"no file of the hub|must end in the name of a file"):
        fetch("mine", silent, url=url)
    HubFile.parsed("hf://me/nets@refs/x.pth")  # the control


def test_a_file_elsewhere_stays(tmp_path: Path, network: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(network)
    assert keep(fetch("mine", silent, url=path.as_uri()), "mine") == path
    discard(path)
    assert path.exists()
