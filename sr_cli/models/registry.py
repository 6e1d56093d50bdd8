"""Cards: what is known of weights, as data beside them.

`weights/NAME.safetensors` has a card `NAME.json`, and `NAME.md` shows the same to people. The card
of a model in several files lists them as `shards`.
"""

import contextlib
import difflib
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import digest, is_file_name, whole
from sr_cli.models.checkpoints import read_state_dict
from sr_cli.models.kinds import NAMED, SUFFIXES
from sr_cli.models.limits import Limits
from sr_cli.models.store import Shard, installed

PACKAGE = Path(__file__).parents[1]
MAX_CARD = 1 << 20
"""Bytes of a card."""
CARD_KEYS = {"kind", "architecture"}
"""What tells a card from other JSON files, which may lie beside it."""
MAX_DEPTH = 16
"""Objects and lists of a card, one in the other."""


@dataclass(frozen=True)
class Card:
    """One set of weights.

    name, file: of the card and of the weights beside it. kind: which class takes the weights
    ("embedded", "compact", "prior", "dossr"). architecture: its constructor's arguments. licence:
    of the weights. training: data with their licences, iterations, hardware, time. scores: measured
    figures by data set. sha256: of the file, filled in by `write_card`. shards: instead of
    file and sha256, the files of a model that has several. folder: where all of it lies, not part
    of the JSON. use: what it is for and what it is not for, in sentences.
    """

    name: str
    kind: str
    file: str
    architecture: Mapping[str, Any]
    licence: str
    training: Mapping[str, Any]
    limits: Limits
    scores: Mapping[str, Any]
    sha256: str = ""
    shards: Mapping[str, Shard] = field(default_factory=dict)
    folder: Path = field(default=Path(), compare=False)
    use: str = ""

    @property
    def path(self) -> Path:
        """The file of the weights; of a model in several files their folder."""
        return self.folder / self.file

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the weights."""
        return tuple(self.folder / name for name in self.shards) or (self.path,)

    @property
    def identity(self) -> str:
        """SHA-256 of the weights; of several files that of their digests."""
        digests = [self.shards[name].sha256 for name in sorted(self.shards)]
        return hashlib.sha256("".join(digests).encode()).hexdigest() if digests else self.sha256

    @property
    def schedule(self) -> str:
        """Name of ᾱ."""
        return self.limits.schedule

    @property
    def dial(self) -> bool:
        """Whether the network can be told how much texture is wanted."""
        return bool(self.architecture.get("dial"))

    @property
    def remedy(self) -> str:
        """What helps when the weights are missing or damaged."""
        if self.folder in installed():
            return f"delete {self.folder} and import or fetch {self.name} again"
        return "install srx again"


def folders() -> tuple[Path, ...]:
    """Where cards are looked for, in this order: $SRX_WEIGHTS, the installed package, the source
    tree of an editable installation, the models that were imported or fetched.

    Raises ModelError when SRX_WEIGHTS names no folder.
    """
    chosen = os.environ.get("SRX_WEIGHTS")
    if chosen and not Path(chosen).expanduser().is_dir():
        raise ModelError(f"SRX_WEIGHTS names {chosen}, which is no folder: correct or unset it.")
    tree = PACKAGE.parent
    places = [PACKAGE / "_weights"]
    if (tree / "pyproject.toml").is_file():  # else it is somebody's site-packages
        places.append(tree / "weights")
    places += installed()
    return (Path(chosen).expanduser(), *places) if chosen else tuple(places)


def names() -> tuple[str, ...]:
    """Names of all cards, of damaged ones too, sorted."""
    return tuple(sorted({path.stem for path in _files() if _is_card(path)}))


def cards(kinds: Collection[str] = ()) -> tuple[Card, ...]:
    """All cards, of these kinds where some are given, by name. Damaged ones are passed over."""
    found = []
    for name in names():
        with contextlib.suppress(ModelError):
            found.append(card(name))
    return tuple(each for each in found if not kinds or each.kind in kinds)


def card(name: str, kinds: Collection[str] = ()) -> Card:
    """The card of this name, and of one of these kinds where some are given.

    Raises ModelError when there is none, or it is damaged or of another kind.
    """
    paths = (path for path in _files() if path.stem == name and _is_card(path))
    found = next(map(_read_card, paths), None)
    if found and (not kinds or found.kind in kinds):
        return found
    known = ", ".join(each.name for each in cards(kinds)) or "none"
    if found:
        raise ModelError(f"{name} is a {found.kind} network, not of use here: choose from {known}.")
    if Path(name).suffix and Path(name).is_file():
        raise ModelError(f"{name} is no model file: srx reads {', '.join(SUFFIXES)}.")
    raise ModelError(
        f"There are no weights named {name!r} (found: {known}).{_meant(name, kinds)} Fetch or "
        f"import them with srx weights, or let SRX_WEIGHTS name the folder that holds {name}.json."
    )


def _meant(name: str, kinds: Collection[str]) -> str:
    """A question after the name that somebody seems to mean; nothing where none is near."""
    named = () if kinds and "alone" not in kinds else NAMED
    names = [*named, *(each.name for each in cards(kinds))]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def check_name(name: str) -> None:
    """Raise UsageError for what cannot be a model's name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UsageError(
            f"{name!r} is no name for a model: begin --name with a letter or digit, "
            "then letters, digits, dots, dashes and underscores."
        )


def require_free(name: str) -> None:
    """Raise UsageError when a model of this name is there."""
    if name in names():
        raise UsageError(
            f"There is a model {name} already in {card(name).folder}: choose another --name."
        )


def _files() -> Iterator[Path]:
    """The files that may be cards, in the order in which they are looked for."""
    for folder in folders():
        yield from folder.glob("[!.]*.json")


def _is_card(path: Path) -> bool:
    """Whether a JSON file is a card, a damaged one or not.

    What cannot be parsed may be what is left of a card; of what is too large the beginning decides.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CARD + 1)
        if len(text) > MAX_CARD:
            return all(f'"{key}"'.encode() in text for key in CARD_KEYS)
        content = json.loads(text)
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(content, dict) and content.keys() >= CARD_KEYS


def load_weights(card: Card) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, in the dtype they are stored in.

    A single file is compared with its card's SHA-256. Of a model in several files only the sizes
    are: hashing gigabytes would take longer than loading them; `verify` does it on demand.
    Raises ModelError when a file is missing or is not the one that the card describes.
    """
    check(card, hashing=not card.shards)
    return {name: t for path in card.files for name, t in read_state_dict(path).items()}


def check(card: Card, *, hashing: bool) -> None:
    """Compare the files with the card: their sizes and, if wanted, their SHA-256.

    Raises ModelError that names the first file that is missing or differs.
    """
    for path in card.files:
        shard = card.shards.get(path.name)
        if not path.is_file():
            raise ModelError(f"The weights {path} are missing: {card.remedy}.")
        if shard and path.stat().st_size != shard.bytes:
            raise ModelError(
                f"The weights {path} are damaged ({path.stat().st_size} bytes, not {shard.bytes} "
                f"as on the card): {card.remedy}."
            )
        if hashing and digest(path) != (shard.sha256 if shard else card.sha256):
            raise ModelError(
                f"The weights {path} are damaged (their SHA-256 is not the card's): {card.remedy}."
            )


def write_card(card: Card) -> Card:
    """Write NAME.json and NAME.md beside the weights, each whole or not at all; the card with their
    SHA-256.

    Raises ModelError when the weights are not in the card's folder.
    """
    if missing := [path for path in card.files if not path.is_file()]:
        raise ModelError(f"There are no weights {missing[0]} to write a card for.")
    if not card.shards:
        card = replace(card, sha256=digest(card.path))
    content = asdict(card) | {"limits": card.limits.to_json()}
    del content["folder"], content["file" if card.shards else "shards"]
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    for suffix, written in ((".json", text), (".md", _markdown(content))):
        with whole(card.folder / f"{card.name}{suffix}") as partial:
            partial.write_text(written, "utf-8")
    return card


def _read_card(path: Path) -> Card:
    """A card, which may come from anywhere: what it names lies in its own folder."""
    try:
        if path.stat().st_size > MAX_CARD:
            raise ValueError("too large")
        content = {"file": ""} | json.loads(path.read_text("utf-8"))
        if _depth(content) > MAX_DEPTH:
            raise ValueError("too deep")
        shards = {name: Shard(**shard) for name, shard in content.pop("shards", {}).items()}
        files = [*shards, *([content["file"]] if content["file"] else [])]
        if not files or content["name"] != path.stem or not all(map(is_file_name, files)):
            raise ValueError("no files of its folder")
        limits = Limits.from_json(content.pop("limits"))
        return Card(**content, limits=limits, shards=shards, folder=path.parent)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ModelError(
            f"The card {path} is damaged: install srx again, or import the model again."
        ) from error


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)


def _markdown(content: Mapping[str, Any]) -> str:
    """A heading, what it is for, then nested lists of everything else."""
    rest = {key: value for key, value in content.items() if key not in ("name", "use")}
    use = [content["use"], ""] if content["use"] else []
    return "\n".join([f"# {content['name']}", "", *use, *_bullets(rest), ""])


def _bullets(content: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in content.items():
        label = f"{indent}- **{key}**:"
        if isinstance(value, Mapping):
            lines += [label, *_bullets(value, indent + "  ")]
        else:
            lines.append(f"{label} {value}")
    return lines
