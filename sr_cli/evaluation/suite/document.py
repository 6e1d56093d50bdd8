"""Text that is measured, inside pages that are written: each piece between two marks of its own."""

import re
from pathlib import Path

from sr_cli.errors import InputError
from sr_cli.files import whole


def replaced(page: str, name: str, text: str) -> str:
    """The page with this text as the piece of that name, which comes last where it is new."""
    begin, end = f"<!-- measured: {name} -->", "<!-- end -->"
    piece = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: piece, page, count=1)
    return f"{page.rstrip()}\n\n{piece}\n".lstrip()


def write_piece(file: Path, name: str, text: str) -> None:
    """Put it into a page, which may not exist yet. Raises InputError where that cannot be."""
    try:
        page = file.read_text("utf-8") if file.exists() else ""
        write_text(file, replaced(page, name, text))
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no text, so that no table goes into it.") from error


def write_text(file: Path, text: str) -> None:
    """A whole file or none. Raises InputError where that cannot be."""
    try:
        with whole(file) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}.") from error
