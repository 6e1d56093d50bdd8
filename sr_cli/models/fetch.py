"""Checkpoints from where they are published: resumed, verified, kept until they are imported."""

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import digest, home, is_file_name, require_space, writing
from sr_cli.models import hub
from sr_cli.models.store import Progress

RETRIES = 3
SILENCE = 60.0
"""Seconds without a byte after which a connection is given up."""


@dataclass(frozen=True)
class Download:
    """A published checkpoint.

    name: of the model. file: of the checkpoint. url: of the file, or of the Google Drive folder
    that holds it. page: what its authors say of it. licence: for the card.
    """

    name: str
    file: str
    url: str
    page: str
    licence: str


DOWNLOADS = tuple(
    Download(
        name,
        file,
        url="https://drive.google.com/drive/folders/1BTGRbAqXDSNWjyUnTLgDfmjd2xyu8GvP",
        page="https://github.com/AMD-AIG-AIMA/DoSSR",
        licence="not stated for the weights (the authors' repository has the MIT licence); trained "
        "from Stable Diffusion 2.1-base (CreativeML Open RAIL++-M) and Real-ESRGAN (BSD-3-Clause)",
    )
    for name, file in (("dossr", "dossr_default.ckpt"), ("dossr-onestep", "dossr_onestep.ckpt"))
)
"""What is known, from the README on that page; the authors publish no checksums."""


def fetch(
    name: str, progress: Progress, *, url: str | None = None, sha256: str | None = None
) -> Path:
    """A checkpoint on this machine: the download, or the file itself of a file:// URL.

    name: of DOWNLOADS, or any with a `url` (https, http, file, Google Drive's, or a `HubFile`'s).
    An interrupted download goes on where it stopped. Raises UsageError for a name or URL that leads
    nowhere or a sha256 that is none; ModelError when the source cannot be reached, what it gives is
    no checkpoint or has another SHA-256, or the disk is full.
    """
    source = located(name, url, sha256)
    parts = urlsplit(source.url)
    if parts.scheme == "file":
        path = Path(url2pathname(parts.path))
        _verify(path, source, sha256)
        return path
    place = hashlib.sha256(source.url.encode()).hexdigest()[:16]  # each URL has its own partial
    path = home() / "downloads" / place / source.file
    with writing(path.parent):
        if parts.scheme == hub.SCHEME:
            path = hub.download(hub.HubFile.parsed(source.url), path.parent, progress)
        else:
            _download(source, path, progress)
        try:
            _verify(path, source, sha256)
        except ModelError:
            discard(path)  # whole but wrong: nothing to go on with
            raise
    return path


def discard(path: Path) -> None:
    """Remove a download; a file that `fetch` found elsewhere stays."""
    downloads = home() / "downloads"
    if downloads in path.parents:
        shutil.rmtree(downloads / path.relative_to(downloads).parts[0])


def located(name: str, url: str | None, sha256: str | None = None) -> Download:
    """What `fetch` would download; nothing is reached. Raises UsageError as that does."""
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}.")
    if url:
        scheme = urlsplit(url).scheme
        if scheme not in ("http", "https", "file", hub.SCHEME):
            raise UsageError(
                f"url must begin with https://, http://, hf:// or file://, not {url!r}."
            )
        if scheme == hub.SCHEME:
            hub.HubFile.parsed(url)
        file = unquote(urlsplit(url).path).rpartition("/")[2] or name
        if not is_file_name(file):
            raise UsageError(f"url must end in the name of a file like model.ckpt, not {file!r}.")
        return Download(name, file, url, url, "")
    for source in DOWNLOADS:
        if source.name == name:
            return source
    known = ", ".join(source.name for source in DOWNLOADS)
    raise UsageError(f"srx does not know where {name!r} is published (only {known}): give --url.")


def _verify(path: Path, source: Download, sha256: str | None) -> None:
    from sr_cli.models.checkpoints import read_state_dict  # brings torch, which takes seconds

    try:
        read_state_dict(path)
    except ModelError as error:
        raise ModelError(f"What {source.url} gives cannot be used. {error}") from error
    if sha256 and (found := digest(path)) != sha256.lower():
        raise ModelError(
            f"What {source.url} gives is not the file that was expected: its SHA-256 is {found}, "
            f"not {sha256}. Fetch it again, or check --sha256 and --url."
        )


def _download(source: Download, path: Path, progress: Progress) -> None:
    """Make `path` appear, whole; what arrived of it before an interruption is used."""
    by_hand = (
        f"download {source.file} from {source.page} with a browser and run "
        f"srx weights import PATH/{source.file} --name {source.name}"
    )
    try:
        import gdown
        import requests
    except ImportError as error:
        raise ModelError(
            f"gdown is not installed, which downloads: run pip install 'srx[import]', or {by_hand}."
        ) from error

    def notify(done: int, total: int | None) -> None:
        if total:
            require_space(path.parent, total - done)
        progress(f"fetching {path.name}", done, total)

    try:
        address = _in_folder(source) if "/drive/folders/" in source.url else source.url
        before = _received(path)
        try:
            _transfer(address, path, notify)
        except gdown.DownloadError as error:
            lost = isinstance(error.__cause__, requests.RequestException)
            if lost or not before or _received(path) != before:
                raise
            for partial in path.parent.iterdir():  # this server does not go on: begin again
                partial.unlink()
            _transfer(address, path, notify)
    except (gdown.DownloadError, requests.RequestException) as error:
        raise ModelError(
            f"{source.file} could not be fetched from {source.url} ({_reason(error)}). Try again, "
            f"what arrived is kept; or {by_hand}."
        ) from error


def _reason(error: BaseException) -> str:
    """What the system said, where the connection failed; else what the library says, in a line."""
    first = error
    while following := first.__cause__ or first.__context__:
        first = following
    said = first.strerror if isinstance(first, OSError) else None
    return said or str(error).partition("\n")[0]


def _transfer(address: str, path: Path, notify: Callable[[int, int | None], None]) -> None:
    import gdown

    gdown.download(
        address,
        str(path),
        quiet=True,
        use_cookies=False,
        progress=notify,
        resume=True,
        retries=RETRIES,
        timeout=SILENCE,
    )


def _received(path: Path) -> int:
    """Bytes of an unfinished download."""
    return sum(partial.stat().st_size for partial in path.parent.glob(f"{path.name}*.part"))


def _in_folder(source: Download) -> str:
    """The URL of a file in a Google Drive folder."""
    import gdown

    found: Any = gdown.download_folder(
        source.url, quiet=True, use_cookies=False, skip_download=True, timeout=SILENCE
    )
    for entry in found:
        if Path(entry.path).name == source.file:
            return f"https://drive.google.com/uc?id={entry.id}"
    raise gdown.DownloadError("the folder does not list it")
