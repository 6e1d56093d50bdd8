"""Files of the Hugging Face Hub by their address, hf://OWNER/REPO[@REVISION]/FILE."""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import is_file_name, require_space
from sr_cli.models.store import Progress

SCHEME = "hf"
TIMEOUT = 20.0
"""Seconds until the hub has answered that a file is there."""
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?/(.+)", re.ASCII)


@dataclass(frozen=True)
class HubFile:
    """One file of a repository of models.

    repository: OWNER/NAME. path: of the file in it. revision: a branch, a tag or a commit; None is
    the main branch.
    """

    repository: str
    path: str
    revision: str | None = None

    @staticmethod
    def parsed(url: str) -> HubFile:
        """Raises UsageError for what is no such address, or would leave the folder it goes to."""
        match = _ADDRESS.fullmatch(url)
        if match is None or not all(map(is_file_name, match[3].split("/"))):
            raise UsageError(
                f"{url} is no file of the hub: write it like hf://owner/repo/folder/net.pth, "
                "a revision like hf://owner/repo@main/net.pth."
            )
        return HubFile(match[1], match[3], match[2])

    @property
    def page(self) -> str:
        """Where a browser sees the file."""
        from huggingface_hub import constants

        place = f"{constants.ENDPOINT}/{self.repository}/blob/{self.revision or 'main'}"
        return f"{place}/{self.path}"


def download(wanted: HubFile, folder: Path, progress: Progress) -> Path:
    """The file in its place below `folder`. Breaks are bridged; what is interrupted begins again.

    A token of `hf auth login` or HF_TOKEN opens repositories that are not public. Raises ModelError
    that says what to do where the hub cannot be reached, has no such file or does not give it.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    place, page, told = wanted.repository, wanted.page, _told(progress, Path(wanted.path).name)
    file: dict[str, Any] = {"filename": wanted.path, "revision": wanted.revision}
    try:
        # Asked first, since hf_hub_download tries for half a minute where there is no network.
        size = get_hf_file_metadata(hf_hub_url(place, **file), timeout=TIMEOUT).size
        require_space(folder, size or 0)
        found = hf_hub_download(place, **file, local_dir=folder, tqdm_class=told)
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{place} is gated: accept its terms at {page}, then run hf auth login (or set "
            "HF_TOKEN) and fetch again."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub shows no repository {place}: check its name, or run hf auth login (or set "
            "HF_TOKEN) if it is not public."
        ) from error
    except (errors.RemoteEntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(f"The hub has no {page}: check the name of the file.") from error
    except ModelError:
        raise
    except Exception as error:  # no network, or not allowed, in the words of several libraries
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{page} could not be fetched ({reason}). Try again with a network, or download it "
            "with a browser and give srx the file: srx upscale --model FILE, or srx weights import "
            "FILE for DoSSR's own."
        ) from error
    return Path(found)


def _told(progress: Progress, file: str) -> type[tqdm]:
    """A bar, as huggingface_hub takes one, that shows nothing and tells `progress`."""

    class Told(tqdm):  # type: ignore[misc]  # tqdm has no types
        def __init__(self, *args: object, **settings: object) -> None:
            super().__init__(*args, file=StringIO(), **settings)

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            progress(f"fetching {file}", int(self.n), self.total and int(self.total))

    return Told
