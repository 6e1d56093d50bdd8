"""Buckets and other remote folders by fsspec: their addresses, their files, what goes wrong."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sr_cli.errors import InputError, SrxError, UsageError

if sys.platform == "win32":
    from pathlib import WindowsPath as LocalPath
else:
    from pathlib import PosixPath as LocalPath

FOLDER: Final = ".srx-manifest"
"""Of what is known of results, beside them."""
PATIENT: Final = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}
SETTINGS: Final[dict[str, dict[str, Any]]] = {"s3": {"config_kwargs": PATIENT}}
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):/")


class Address(LocalPath):
    """A path that reads like s3://bucket/name. Nothing of the disk is behind it."""

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":/")
        return f"{scheme}://{rest.lstrip('/')}"


def is_remote(path: Path) -> bool:
    """Whether an argument is an address such as s3://bucket/folder."""
    return bool(_SCHEME.match(str(path))) and not path.exists()


@contextmanager
def reaching(what: object) -> Iterator[None]:
    """Make an InputError of what file systems raise, with what to do about it."""
    try:
        yield
    except SrxError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{what} does not exist: check the bucket and the name.") from error
    except FileExistsError as error:
        raise InputError(
            f"{what} appeared while the run went on, and was kept: remove it, or use --overwrite."
        ) from error
    except Exception as error:  # of botocore, aiohttp and others, which have no common base
        name = type(error).__name__
        reason = str(error).strip().partition("\n")[0].rstrip(".") or name
        if "Credential" in name or "credential" in reason:
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        elif isinstance(error, PermissionError):
            advice = "check the credentials and what they allow"
        else:
            advice = "check the network and AWS_ENDPOINT_URL, then run the same command again"
        raise InputError(f"{what} cannot be reached ({reason}): {advice}.") from error


class Store:
    """A remote folder or file."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError where its kind is unknown or not installed."""
        import fsspec

        self.address = Address(str(path))
        match = _SCHEME.match(str(path))
        scheme = match[1] if match else ""
        if set(str(path)) & set("*?["):
            raise UsageError(f"{self.address} is a pattern: name a folder or a file.")
        try:
            settings = {"use_listings_cache": False, "skip_instance_cache": True}
            self.fs = fsspec.filesystem(scheme, **settings, **SETTINGS.get(scheme, {}))
        except ImportError as error:
            extra = "run pip install 'srx[s3]'" if scheme == "s3" else str(error).rstrip(".")
            raise UsageError(f"{self.address} needs another package: {extra}.") from error
        except ValueError as error:
            raise UsageError(f"{scheme}:// is known to nobody: use s3:// or gs://.") from error
        self.root = str(self.fs._strip_protocol(str(self.address))).rstrip("/")

    def list(self, *, deep: bool) -> dict[str, Mapping[str, Any]]:
        """Facts of the files by their names below the folder; of a file itself as "".

        Raises InputError where nothing can be listed.
        """
        with reaching(self.address):
            found = self.fs.find(self.root, maxdepth=None if deep else 1, detail=True)
        names = {str(path)[len(self.root) :].lstrip("/"): info for path, info in found.items()}
        return {name: info for name, info in names.items() if not name.startswith(f"{FOLDER}/")}

    def place(self, name: str) -> str:
        """Of a file below the folder, as the file system has it."""
        return f"{self.root}/{name}" if name else self.root


def tag_of(info: Mapping[str, Any]) -> str:
    """What changes when a remote file does."""
    known = (info.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "mtime"))
    first = next((value for value in known if value), info.get("created", ""))
    return f"{info.get('size')} {first}"
