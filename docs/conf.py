"""How `make docs` builds these pages: Markdown by MyST, the reference out of the docstrings."""

import re
from typing import Any

from sphinx.application import Sphinx

from sr_cli import __version__

project = "srx"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "srx"
html_show_copyright = False
html_copy_source = False
myst_heading_anchors = 3
default_role = "code"  # docstrings write `name`
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80

ENTRY = re.compile(r"(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?P<text>\S.*)")
"""How a docstring of this package says what an argument or attribute is."""


def as_list(_: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Make a list of the paragraphs `name: what it is` of a docstring."""
    found: list[str] = []
    inside = False
    for previous, line in zip(["", *lines], lines, strict=False):
        entry = ENTRY.fullmatch(line) if inside or not previous.strip() else None
        inside = bool(line.strip()) and (inside or entry is not None)
        if entry:
            found += ["", f"- ``{entry['names']}``: {entry['text']}"]
        else:
            found.append(f"  {line.strip()}" if inside else line)
    lines[:] = found


def as_code(  # noqa: PLR0917
    _: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Let signatures with a `default_factory` be read as Python, so that types become short."""
    return signature and signature.replace("<factory>", "..."), result


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", as_code)
    app.connect("autodoc-process-docstring", as_list)
