"""Cards: what is known of the weights that ship with srx, as data beside them.

`weights/NAME.safetensors` has a card `NAME.json`, and `NAME.md` shows the same to people.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sr_cli.errors import ModelError
from sr_cli.models.checkpoints import read_state_dict

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Card:
    """One set of weights.

    name, file: of the card and of the weights beside it. kind: which class takes the weights
    ("embedded", "compact"). architecture: its constructor's arguments. licence: of the weights.
    training: data with their licences, iterations, hardware, time. limits: scale, multiple_of, tile
    margins, last_step ("x0" or "step"), t1. scores: measured figures by data set.
    sha256: of the file, filled in by `write_card`. folder: where both lie, not part of the JSON.
    """

    name: str
    kind: str
    file: str
    architecture: Mapping[str, Any]
    licence: str
    training: Mapping[str, Any]
    limits: Mapping[str, Any]
    scores: Mapping[str, Any]
    sha256: str = ""
    folder: Path = field(default=Path(), compare=False)

    @property
    def path(self) -> Path:
        """The file of the weights."""
        return self.folder / self.file


def folders() -> tuple[Path, ...]:
    """Where cards are looked for, in this order: $SRX_WEIGHTS, the installed package, the source
    tree of an editable installation."""
    chosen = os.environ.get("SRX_WEIGHTS")
    shipped = (PACKAGE / "_weights", PACKAGE.parent / "weights")
    return (Path(chosen).expanduser(), *shipped) if chosen else shipped


def names() -> tuple[str, ...]:
    """All cards, sorted."""
    return tuple(sorted({path.stem for folder in folders() for path in folder.glob("*.json")}))


def card(name: str) -> Card:
    """The card of this name. Raises ModelError when there is none or it is damaged."""
    for folder in folders():
        path = folder / f"{name}.json"
        if path.is_file():
            return _read_card(path)
    known = ", ".join(names()) or "none"
    raise ModelError(
        f"There are no weights named {name!r} (found: {known}): install srx again, "
        f"or let SRX_WEIGHTS name the folder that holds {name}.json."
    )


def load_weights(card: Card) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, in the dtype they are stored in.

    Raises ModelError when the file is missing or is not the one that the card describes.
    """
    if not card.path.is_file():
        raise ModelError(f"The weights {card.path} are missing: install srx again.")
    if _digest(card.path) != card.sha256:
        raise ModelError(
            f"The weights {card.path} are damaged (their SHA-256 is not the card's): "
            "install srx again."
        )
    return read_state_dict(card.path)


def write_card(card: Card) -> Card:
    """Write NAME.json and NAME.md beside the weights; the card with their SHA-256.

    Raises ModelError when the weights are not in the card's folder.
    """
    if not card.path.is_file():
        raise ModelError(f"There are no weights {card.path} to write a card for.")
    card = replace(card, sha256=_digest(card.path))
    content = asdict(card)
    del content["folder"]
    text = json.dumps(content, indent=2, ensure_ascii=False)
    (card.folder / f"{card.name}.json").write_text(text + "\n", "utf-8")
    (card.folder / f"{card.name}.md").write_text(_markdown(content), "utf-8")
    return card


def _read_card(path: Path) -> Card:
    try:
        return Card(**json.loads(path.read_text("utf-8")), folder=path.parent)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"The card {path} is damaged: install srx again.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _markdown(content: Mapping[str, Any]) -> str:
    """A heading, then nested lists of everything else."""
    rest = {key: value for key, value in content.items() if key != "name"}
    return "\n".join([f"# {content['name']}", "", *_bullets(rest), ""])


def _bullets(content: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in content.items():
        label = f"{indent}- **{key}**:"
        if isinstance(value, Mapping):
            lines += [label, *_bullets(value, indent + "  ")]
        else:
            lines.append(f"{label} {value}")
    return lines
