"""Checkpoints that were fetched: of DoSSR's kind, or networks alone, which are kept as they are."""

from pathlib import Path

from sr_cli.errors import ModelError
from sr_cli.files import home, writing
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.fetch import discard
from sr_cli.models.preprocess import load_preprocessor


def folder() -> Path:
    """Where networks alone are kept."""
    return home() / "networks"


def is_dossr(path: Path) -> bool:
    """Whether a checkpoint is one to import. Raises ModelError where it cannot be read."""
    from sr_cli.models.dossr.names import PREFIXES  # brings diffusers, which takes seconds

    return any(name.startswith(PREFIXES["control"]) for name in read_state_dict(path))


def keep(path: Path, name: str) -> Path:
    """A network alone for `--model FILE`: a download moves to its place; a file of a file:// URL
    stays where it is.

    Raises ModelError where srx cannot use it, which removes a download, and where another has this
    name.
    """
    try:
        load_preprocessor(path)
    except ModelError:
        discard(path)
        raise
    if home() / "downloads" not in path.parents:
        return path
    target = folder() / f"{name}{path.suffix.lower()}"
    if target.exists():
        raise ModelError(
            f"{target} is there already: srx weights fetch NAME --url URL takes another name."
        )
    with writing(target.parent):
        path.rename(target)
    discard(path)
    return target
