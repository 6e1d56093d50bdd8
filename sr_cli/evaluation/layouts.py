"""Where published sets keep their HR and LR images: folders by their names, and frames below.

    Set5/HR + Set5/LR                          also GT, target, GTmod12 / LQ, input; any case
    Set5/HR + Set5/LR_bicubic/X4               also LR/X4, LRbicx4, LR_unknown/x4
    DIV2K_valid_HR + DIV2K_valid_LR_bicubic/X4 the folder that holds both, or the HR folder itself
    test_HR + test_LR                          DRealSR and StableSR's crops
    x_HR.png + x_LR4.png                       RealSR: both in one folder
    x.png                                      HR alone: LR is made of it, as on demand elsewhere
    val_sharp/000/00000000.png                 REDS, + val_sharp_bicubic/X4/000/00000000.png
    GT/archpeople/0000.png                     UDM10, + BIx4 or BDx4/archpeople/0000.png
    sequences/00001/0001/im1.png               Vimeo90K

A folder without pictures of its own is a set of sequences: of all that lie below it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sr_cli.engine.inputs import pictures
from sr_cli.errors import UsageError
from sr_cli.evaluation.matching import Named, named

WORD = r"(?<![^\W_])"
"""Nothing before it, or what is no letter and no digit."""
HR_FOLDER = re.compile(
    rf"(?P<set>.*?)[_-]?(HR|GT|target|original|{WORD}sharp)(mod\d+)?", re.IGNORECASE
)
LR_FOLDER = re.compile(
    rf"(?P<set>.*?)[_-]?(LR|LQ|input|{WORD}sharp(?=_bic)|{WORD}B[ID](?=x\d))"
    r"(_?(bicubic|bic|unknown))?(_?x(?P<scale>[\d.]+))?",
    re.IGNORECASE,
)
SCALE_FOLDER = re.compile(r"x\d+(\.\d+)?")
LR_FILE = re.compile(r"(?P<key>.+)_LR(?P<scale>[\d.]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What a folder holds: a name for the set, its HR images, and its LR images, None for none."""

    name: str
    hr: Sequence[Named]
    lr: Sequence[Named] | None


def layout(path: Path, lr: Path | None, scale: float, *, alone: bool) -> Layout:
    """What a folder holds, with the folder `lr` of LR images if there is one.

    alone: HR images are wanted and no others. Raises UsageError where there are none or several
    sets, InputError when a folder cannot be read.
    """
    if lr is not None:
        return Layout(title(path), frames(path), frames(lr))
    _check_folder(path)
    folders = list(_folders(path, scale))
    if len(folders) > 1:
        several = " and ".join(str(hr) for hr, _ in folders)
        raise UsageError(f"{path} holds several sets, {several}: name one of them.")
    if folders:
        hr, low = folders[0]
        if alone or not low:
            return Layout(title(path), frames(hr), None)
        if len(low) > 1:
            several = " and ".join(map(str, low))
            raise UsageError(
                f"There are several folders of LR images for {hr}, {several}: name {hr} itself, "
                "and one of them by --lr."
            )
        return Layout(title(path), frames(hr), frames(low[0]))
    files = frames(path)
    marked = [(each, LR_FILE.fullmatch(each.path.stem)) for each in files]
    beside = [each for each, match in marked if match and _is_scale(match["scale"], scale)]
    own = [each for each, match in marked if not match]
    if not own:
        raise UsageError(f"There are LR images alone in {path}, and no HR image.")
    return Layout(title(path), own, None if alone else beside or None)


def title(folder: Path) -> str:
    """The folder's name; its parent's if it is only a mark: Set5 of Set5/HR."""
    folder = folder.resolve()
    own = HR_FOLDER.fullmatch(folder.name)
    return folder.parent.name if own and not own["set"] else folder.name


def images(folder: Path) -> list[Path]:
    """What `inputs.pictures` finds in a folder. Raises UsageError when there is nothing."""
    _check_folder(folder)
    found = pictures(folder)
    if not found:
        raise UsageError(f"There is no image in {folder}.")
    return found


def frames(folder: Path) -> list[Named]:
    """The pictures of a folder, or, where it has none itself, all that lie below it.

    Raises UsageError where there are none, and where a folder below looks like a set of its own.
    """
    _check_folder(folder)
    found = pictures(folder) or pictures(folder, recursive=True)
    if not found:
        raise UsageError(f"There is no image in {folder}.")
    files = [named(file, folder) for file in found]
    for below in dict.fromkeys(each.folder for each in files):
        if any(HR_FOLDER.fullmatch(part) for part in below.parts):
            raise UsageError(f"{folder} holds the set {folder / below}: name that one.")
    return files


def at_scale(folder: Path, scale: float) -> Path | None:
    """The folder X2.7 (or x2.7) inside; the folder itself where none inside is of a scale, None
    where only others are."""
    inner = {entry.name.lower(): entry for entry in folder.iterdir() if entry.is_dir()}
    others = any(SCALE_FOLDER.fullmatch(name) for name in inner)
    return inner.get(f"x{scale:g}", None if others else folder)


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        missing = f"There is no folder {path}."
        raise UsageError(f"{path} is a file, not a folder." if path.exists() else missing)


def _folders(path: Path, scale: float) -> Iterator[tuple[Path, list[Path]]]:
    """HR folders with their LR folders: of `path`, or `path` itself and its neighbours."""
    own = HR_FOLDER.fullmatch(path.resolve().name)
    inside = sorted(entry for entry in path.iterdir() if entry.is_dir())
    beside = sorted(e for e in path.resolve().parent.iterdir() if e.is_dir()) if own else []
    for folder in inside:
        match = HR_FOLDER.fullmatch(folder.name)
        if match:
            yield folder, _partners(match["set"], inside, scale)
    if own and (low := _partners(own["set"], beside, scale)):
        yield path, low


def _partners(name: str, folders: Sequence[Path], scale: float) -> list[Path]:
    """The LR folders of the set `name` at this scale."""
    matches = [(folder, LR_FOLDER.fullmatch(folder.name)) for folder in folders]
    fitting = [
        at_scale(folder, scale)
        for folder, match in matches
        if match and match["set"].lower() == name.lower() and _is_scale(match["scale"], scale)
    ]
    return [folder for folder in fitting if folder]


def _is_scale(text: str | None, scale: float) -> bool:
    return not text or float(text) == scale
