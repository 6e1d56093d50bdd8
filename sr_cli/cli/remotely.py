"""`srx upscale` with a bucket, or another remote folder, as its output."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_cli.cli.modes import NOT_ON_STDOUT, NOT_REMOTE, among
from sr_cli.cli.running import Run
from sr_cli.cli.streams import Aliases, Piped, streams
from sr_cli.engine.events import Finished, Skipped
from sr_cli.engine.options import OutputOptions
from sr_cli.engine.store import Address, is_remote
from sr_cli.errors import SrxError, UsageError

if TYPE_CHECKING:
    from sr_cli.engine.remote import Mirror


class Addresses(Aliases):
    """What people read where a remote file has a temporary stand-in."""

    def __init__(self, mirror: Mirror) -> None:
        super().__init__({base: str(address) for base, address in mirror.addresses.items()})
        self.path = mirror.name  # type: ignore[method-assign]


@dataclass(kw_only=True)
class RemoteRun(Run):
    """A run whose results go to `mirror.store`."""

    mirror: Mirror

    @property
    def place(self) -> str:
        """Where the results are; nothing where there are none."""
        there = any(isinstance(outcome, Finished | Skipped) for outcome in self.outcomes)
        return f"results in {self.mirror.store.address}" if there else ""

    def work(self) -> None:
        """Do what there is to do."""
        from sr_cli.engine import remote
        from sr_cli.engine.ledger import Ledger

        ledger = Ledger(self.mirror.store)
        jobs = self.planned.jobs
        todo, settled = remote.pending(jobs, self.options, self.files, self.mirror, ledger)
        self.settle(settled)
        if not todo:
            return
        with self.ending(todo, frozenset()):
            upscaler = self.loaded(todo)
            with self.watching(todo) as notify:
                remote.run(
                    *(todo, self.options, upscaler, notify),
                    files=self.files,
                    mirror=self.mirror,
                    ledger=ledger,
                )


Opened = tuple[Piped, Callable[..., Run]]


@contextmanager
def opened(
    arguments: list[Path],
    output: Path,
    files: OutputOptions,
    *,
    asked: Sequence[str],
    recursive: bool,
) -> Iterator[Opened]:
    """The arguments with files instead of streams and of what is remote, and what makes the run.

    asked: flags that are given, of which some exclude a stream or what is remote.
    """
    if any(map(is_remote, (*arguments, output))):
        others = among(asked, NOT_REMOTE)
        with mirrored(arguments, output, files, recursive=recursive, others=others) as found:
            yield found
    else:
        others, dry_run = among(asked, NOT_ON_STDOUT), "--dry-run" in asked
        with streams(arguments, output, files, others=others, dry_run=dry_run) as local:
            yield local, Run


@contextmanager
def mirrored(
    arguments: list[Path],
    output: Path,
    files: OutputOptions,
    *,
    recursive: bool,
    others: Sequence[str],
) -> Iterator[Opened]:
    """As `opened`, where something is remote. Raises UsageError where it cannot be done."""
    far = [Address(str(path)) for path in (*arguments, output) if is_remote(path)]
    if others:
        raise UsageError(f"{far[0]} cannot be used with {others[0]}.")
    if not is_remote(output):
        raise UsageError(
            f"{far[0]} needs a remote OUTPUT too: name one, or fetch the pictures first."
        )
    if files.name_needs_size:
        raise UsageError("--name with a size needs inputs on the disk: choose other fields.")
    try:
        from sr_cli.engine.remote import Mirror
    except ModuleNotFoundError as error:
        raise UsageError(f"{far[0]} needs fsspec: run pip install 'srx[s3]'.") from error
    with tempfile.TemporaryDirectory(prefix="srx-") as folder:
        mirror = Mirror(Path(folder), arguments, output, recursive=recursive)

        def make(*args: Any, **options: Any) -> Run:
            return RemoteRun(*args, **options, mirror=mirror)

        aliases = Addresses(mirror)
        try:
            yield Piped(mirror.arguments, mirror.place, aliases), make
        except SrxError as error:
            raise type(error)(aliases.text(str(error))) from error
