"""Calls of the command in processes of their own."""

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a call ended: its exit code, its JSON document if there is one, and its stderr."""

    code: int
    report: dict[str, Any]
    said: str


def begin(*words: object) -> "subprocess.Popen[str]":
    """`srx` with these words, which `end` waits for."""
    line = [sys.executable, "-m", "sr_cli", *map(str, words)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: "subprocess.Popen[str]") -> Ended:
    """Of what has begun."""
    out, said = process.communicate()
    report: dict[str, Any] = {}
    with suppress(ValueError):
        report = json.loads(out)
    return Ended(process.returncode, report, said.strip())


def srx(*words: object) -> Ended:
    """From beginning to end."""
    return end(begin(*words))
