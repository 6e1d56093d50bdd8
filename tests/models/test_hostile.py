"""What a stranger's cards, checkpoints and URLs may not do: leave their folder, or take all of the
time and memory there is."""

import json
import os
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sr_cli.errors import ModelError, UsageError
from sr_cli.files import is_file_name
from sr_cli.models import fetch, registry
from sr_cli.models.checkpoints import SPARE, read_state_dict
from sr_cli.models.limits import Limits
from sr_cli.models.preprocess import load_preprocessor
from sr_cli.models.registry import Card, card, write_card

FUZZ = settings(
    max_examples=int(os.environ.get("SRX_FUZZ_EXAMPLES", "60")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one good card, `a`, which `change` can spoil."""
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file({"x": torch.ones(2)}, folder / "a.safetensors")
    save_file({"x": torch.ones(2)}, tmp_path / "outside.safetensors")
    write_card(
        Card(
            "a", "embedded", "a.safetensors", {}, "CC0-1.0", {}, Limits(margin=0), {}, folder=folder
        )
    )
    monkeypatch.setenv("SRX_WEIGHTS", str(folder))
    return folder


def change(folder: Path, **values: Any) -> None:
    content = json.loads((folder / "a.json").read_text())
    (folder / "a.json").write_text(json.dumps(content | values))


# ------------------------------------------------------------------------------------------ cards


@pytest.mark.parametrize(
    "values",
    [
        {"file": "../outside.safetensors"},
        {"file": "/etc/shadow"},
        {"file": "sub/../../outside.safetensors"},
        {"file": ".hidden"},
        {"file": "a\x1b[31m.safetensors"},
        {"name": "../../x"},
        {"name": "b"},
        {"shards": {"../outside.safetensors": {"sha256": "0", "bytes": 1}}},
        {"shards": {"/etc/shadow": {"sha256": "0", "bytes": 1}}},
        {"file": 3},
        {"file": ["a"]},
    ],
    ids=str,
)
def test_a_card_names_nothing_outside_of_its_folder(cards: Path, values: dict[str, Any]) -> None:
    assert card("a").path == cards / "a.safetensors"
    change(cards, **values)
    with pytest.raises(ModelError, match="is damaged"):
        card("a")


def test_deep_and_large_cards_are_damaged(cards: Path) -> None:
    for deep in ("[" * 100_000 + "]" * 100_000, "[" * 500 + "]" * 500, '"' + "x" * (2 << 20) + '"'):
        text = json.dumps(json.loads((cards / "a.json").read_text()) | {"scores": 0})
        (cards / "a.json").write_text(text.replace('"scores": 0', f'"scores": {deep}'))
        with pytest.raises(ModelError, match="is damaged"):
            card("a")
        change_back = Card(
            "a", "embedded", "a.safetensors", {}, "", {}, Limits(margin=0), {}, folder=cards
        )
        write_card(change_back)
        card("a")


@settings(FUZZ)
@given(data=st.data())
def test_any_card_is_read_or_damaged(cards: Path, data: st.DataObject) -> None:
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    values = st.recursive(
        leaf, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x)
    )
    known = [field for field in Card.__dataclass_fields__ if field != "folder"]
    content = data.draw(st.dictionaries(st.sampled_from(known) | st.text(max_size=5), values))
    base: dict[str, Any] = {"name": "a", "kind": "embedded", "file": "a.safetensors"}
    base |= {key: {} for key in ("architecture", "training", "scores")} | {"limits": {"margin": 0}}
    base |= {"licence": ""}
    text = json.dumps(base | content) if data.draw(st.booleans()) else json.dumps(content)
    raw = text.encode() if data.draw(st.booleans()) else data.draw(st.binary(max_size=80))
    (cards / "a.json").write_bytes(raw)
    try:
        found = card("a")
    except ModelError:
        return
    assert all(path.parent == cards for path in found.files)


def test_names_of_files() -> None:
    good = ("model.ckpt", "a b-1.0_x.pth", "ünet.safetensors")
    assert all(map(is_file_name, good[:2]))
    bad = ("", ".", "..", ".a", "a/b", "a\\b", "/a", "a\0", "a\nb", "a\x1b[1m", "x" * 300, None, 3)
    assert not any(map(is_file_name, bad))


# ------------------------------------------------------------------------------------ checkpoints


def test_layers_by_the_million_are_not_built(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for index in ("999999999", "9" * 5000, "100000"):
        state = {"body.0.weight": torch.ones(8, 3, 3, 3), "body.0.bias": torch.ones(8)}
        save_file(state | {f"body.{index}.weight": torch.ones(48, 8, 3, 3)}, path)
        with pytest.raises(ModelError, match="and 3 tensors"):
            load_preprocessor(path)
    assert path.stat().st_size < 40_000


def refused(*paths: Path) -> list[str]:
    """What another process says of checkpoints, which take little memory."""
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from sr_cli.errors import ModelError\n"
        "from sr_cli.models.checkpoints import read_state_dict\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: print('read', read_state_dict(Path(path)).keys())\n"
        "    except ModelError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    *said, kilobytes = done.stdout.splitlines()
    assert int(kilobytes) < (SPARE >> 10) + (64 << 10)
    return said


class Zeros:
    """Pickled as a call that is allowed and gives as many zeros as somebody likes."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (self.size,)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_small_pickles_take_little_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{kind}.pth" for kind in ("inflated", "repeated", "called")]
    torch.save({"x": torch.zeros(1 << 24)}, tmp_path / "b.pth")
    with (
        zipfile.ZipFile(tmp_path / "b.pth") as old,
        zipfile.ZipFile(paths[0], "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    torch.save({"x": torch.zeros(1).expand(1 << 31)}, paths[1])
    torch.save({"x": Zeros(1 << 33), "y": torch.zeros(1)}, paths[2])
    for path, said in zip(paths, refused(*paths), strict=True):
        assert path.stat().st_size < 1 << 20
        assert said.startswith(str(path))


def test_weights_that_share_their_values_are_no_attack(tmp_path: Path) -> None:
    table = torch.randn(64, 64)
    torch.save({"a.weight": table, "b.weight": table.T, "c.0.bias": table[0]}, tmp_path / "a.pth")
    assert set(read_state_dict(tmp_path / "a.pth")) == {"a.weight", "b.weight", "c.0.bias"}


# ------------------------------------------------------------------------------------------- URLs


@pytest.mark.parametrize(
    "url",
    ["http://host/..", "http://host/%2e%2e", "http://host/a/..%2f..%2fx", "http://host/.bashrc",
     "http://host/a%0ab.ckpt", "http://host/a%1b[31m.ckpt", "http://host/..%5c..%5cx"],
)  # fmt: skip
def test_a_url_names_a_file_of_its_folder_or_none(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SRX_HOME", str(tmp_path))
    written = []
    monkeypatch.setattr(fetch, "_transfer", lambda _, path, __: written.append(path))
    with suppress(UsageError, ModelError):
        fetch.fetch("mine", lambda *_: None, url=url)
    for path in written:
        assert path.resolve().is_relative_to((tmp_path / "downloads").resolve())
        assert path.parent.parent == tmp_path / "downloads"
        assert path.name not in (".", "..")
        assert path.name.isprintable()
    assert not (tmp_path.parent / "x").exists()


def test_the_registry_looks_for_names_and_not_for_paths(cards: Path) -> None:
    for name in ("../a", "/etc/shadow", "./a", "a.json"):
        with pytest.raises(ModelError, match="no weights named"):
            card(name)
    assert "a" in registry.names()
