"""Installed models: whole or not there, found by name, and damage is named."""

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sr_cli.errors import ModelError
from sr_cli.files import digest, home, require_space
from sr_cli.models import store
from sr_cli.models.limits import Limits
from sr_cli.models.registry import Card, card, check, load_weights, names, write_card
from sr_cli.models.store import Shard, Staging, installed

STATE = {"a": {"a.weight": torch.randn(8, 8)}, "b": {"b.weight": torch.randn(4)}}
ORIGIN = {"file": ["model.ckpt", 123]}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SRX_WEIGHTS", raising=False)
    return tmp_path / "home"


def save(part: str) -> Callable[[Path], None]:
    return lambda path: save_file(STATE[part], path)


def refuse(path: Path) -> None:
    raise AssertionError(f"{path} was written again")


def interrupt(path: Path) -> None:
    path.write_bytes(b"half of it")
    raise KeyboardInterrupt


def stage() -> Staging:
    staging = Staging("two", ORIGIN)
    for part in STATE:
        staging.add(f"{part}.safetensors", save(part))
    return staging


def install() -> Card:
    staging = stage()
    write_card(
        Card(
            "two",
            "dossr",
            "",
            {},
            "CC0-1.0",
            {},
            Limits(margin=0),
            {},
            "",
            staging.shards,
            staging.folder,
        )
    )
    staging.install()
    return card("two")


def test_default_home_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SRX_HOME")
    assert home().name == "srx"
    assert Path.home() in home().parents


def test_nothing_is_seen_before_all_is_there(own_home: Path) -> None:
    assert "two" not in names()
    staging = stage()
    assert staging.folder.is_dir()
    assert installed() == ()
    assert "two" not in names()
    staging.install()
    assert installed() == (own_home / "models" / "two",)
    assert {path.name for path in installed()[0].iterdir()} == {"a.safetensors", "b.safetensors"}


def test_a_card_of_several_files() -> None:
    found = install()
    assert "two" in names()
    weights = load_weights(found)
    assert weights.keys() == {"a.weight", "b.weight"}
    assert torch.equal(weights["b.weight"], STATE["b"]["b.weight"])
    assert [path.name for path in found.files] == ["a.safetensors", "b.safetensors"]
    assert found.path == found.folder
    shown = (found.folder / "two.md").read_text("utf-8")
    assert found.shards["b.safetensors"].sha256 in shown


def test_files_are_for_whom_the_folder_is() -> None:
    found = install()
    card_file = found.folder / "two.json"
    assert {path.stat().st_mode for path in found.files} == {card_file.stat().st_mode}


def test_an_interrupted_model_goes_on() -> None:
    first = Staging("two", ORIGIN)
    first.add("a.safetensors", save("a"))
    with pytest.raises(KeyboardInterrupt):
        first.add("b.safetensors", interrupt)
    assert {path.name for path in first.folder.iterdir()} == {"a.safetensors", store.MANIFEST}
    second = Staging("two", ORIGIN)
    assert second.add("a.safetensors", refuse) == first.shards["a.safetensors"]
    second.add("b.safetensors", save("b"))
    second.install()
    assert installed()


def test_a_killed_process_leaves_nothing_in_the_model() -> None:
    staging = stage()
    (staging.folder / ".cafe.partial").write_bytes(b"half of it")
    assert {path.name for path in Staging("two", ORIGIN).install().iterdir()} == {
        "a.safetensors",
        "b.safetensors",
    }


@pytest.mark.parametrize("change", ["origin", "manifest", "no manifest"])
def test_files_of_another_import_are_not_used(change: str) -> None:
    folder = stage().folder
    if change == "manifest":
        (folder / store.MANIFEST).write_text("{", "utf-8")
    if change == "no manifest":
        (folder / store.MANIFEST).unlink()
    origin = {"file": ["other.ckpt", 123]} if change == "origin" else ORIGIN
    assert Staging("two", origin).shards == {}
    assert not folder.exists()


def test_a_staged_file_that_was_cut_is_written_again() -> None:
    path = stage().folder / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    again = Staging("two", ORIGIN)
    assert again.shards.keys() == {"b.safetensors"}
    again.add("a.safetensors", save("a"))
    assert path.stat().st_size == again.shards["a.safetensors"].bytes


def test_content_that_will_not_do_leaves_nothing(own_home: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise ModelError("no such number")

    staging = Staging("two", ORIGIN)
    staging.add("a.safetensors", save("a"))
    with pytest.raises(ModelError, match="no such number"):
        staging.add("b.safetensors", fail)
    assert list((own_home / "models").iterdir()) == []


def test_a_home_that_cannot_be_written(own_home: Path) -> None:
    own_home.write_text("a file", "utf-8")
    with pytest.raises(ModelError, match=r"cannot be written.*SRX_HOME"):
        stage()


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    require_space(own_home / "models", 10**8)
    with pytest.raises(ModelError, match=r"needs 0\.2 GB.*0\.1 GB free"):
        require_space(own_home / "models", 2 * 10**8)

    def fill(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ModelError, match="No space left on device"):
        Staging("two", ORIGIN).add("a.safetensors", fill)


def test_damage_is_found() -> None:
    found = install()
    path = found.files[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_weights(found)  # sizes only: hashing gigabytes at each start would take too long
    with pytest.raises(ModelError, match=r"a\.safetensors are damaged.*delete .*two and import"):
        check(found, hashing=True)
    path.write_bytes(content[:-1])
    with pytest.raises(ModelError, match=r"a\.safetensors are damaged \(\d+ bytes, not \d+"):
        load_weights(found)
    path.unlink()
    with pytest.raises(ModelError, match=r"a\.safetensors are missing"):
        load_weights(found)


def test_a_card_without_files_is_damaged() -> None:
    found = install()
    (found.folder / "two.json").write_text(
        '{"name": "two", "kind": "dossr", "architecture": {}, "licence": "", "training": {}, '
        '"limits": {"margin": 0}, "scores": {}}',
        "utf-8",
    )
    with pytest.raises(ModelError, match=r"two\.json is damaged"):
        card("two")


def test_shards_are_what_the_files_are() -> None:
    staging = stage()
    for name, shard in staging.shards.items():
        path = staging.folder / name
        assert shard == Shard(digest(path), path.stat().st_size)
