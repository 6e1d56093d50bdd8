"""Shares of one run for several processes or machines: each file in one of them, by its name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePath

from sr_cli.errors import UsageError


@dataclass(frozen=True)
class Shard:
    """Share `number` of `count`, from 1 on. Raises UsageError where there is no such share."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"shard must be K/N with K from 1 to N, not {self}.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that is written K/N. Raises UsageError."""
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None:
            raise UsageError(f"shard must be K/N like 1/3, not {text!r}.")
        return cls(int(match[1]), int(match[2]))

    @property
    def label(self) -> str:
        """As a part of file names."""
        return f"{self.number}-of-{self.count}"

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: PurePath) -> bool:
        """Whether a file is of this share, by its path below the folder that named it alone: on
        every machine, wherever the folder is there, and whatever other files are beside it."""
        digest = hashlib.sha256(name.as_posix().encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1
