"""Cards: written, found, read back; weights that are not the card's are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sr_cli.diffusion.prf import Thresholds
from sr_cli.errors import ModelError
from sr_cli.models import registry
from sr_cli.models.limits import Limits
from sr_cli.models.registry import Card, card, cards, load_weights, names, write_card

STATE = {"weight": torch.randn(4, 4)}
LARGEST = 16 * 2**20


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setenv("SRX_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    save_file(STATE, tmp_path / "small.safetensors")
    return write_card(
        Card(
            name="small",
            kind="compact",
            file="small.safetensors",
            architecture={"num_feat": 8},
            licence="Apache-2.0",
            training={"data": "noise", "hours": 0.5},
            limits=Limits(scale=4, margin=0, last_step="x0"),
            scores={"Set14 ×4": {"PSNR-Y": 27.5}},
            use="For nothing but tests.",
            folder=tmp_path,
        )
    )


def test_round_trip(written: Card) -> None:
    assert card("small") == written
    assert "small" in names()
    assert torch.equal(load_weights(card("small"))["weight"], STATE["weight"])


def test_scores_can_be_added_later(written: Card) -> None:
    write_card(replace(card("small"), scores={"NIQE": 5}))
    assert card("small") == replace(written, scores={"NIQE": 5})


def test_markdown_shows_everything(written: Card) -> None:
    text = (written.folder / "small.md").read_text("utf-8")
    assert text.startswith("# small\n\nFor nothing but tests.\n\n- **kind**")
    for shown in (written.sha256, "num_feat", "Apache-2.0", "hours", "Set14 ×4", "27.5"):
        assert shown in text


def test_chosen_folder_comes_first(
    written: Card, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("package")
    monkeypatch.setattr(registry, "PACKAGE", other)
    packaged = replace(written, licence="other", folder=other / "_weights")
    packaged.folder.mkdir()
    save_file(STATE, packaged.path)
    write_card(packaged)
    write_card(replace(packaged, name="packaged"))
    assert card("small").licence == "Apache-2.0"
    assert names() == ("packaged", "small")
    monkeypatch.delenv("SRX_WEIGHTS")
    assert card("small").licence == "other"


def test_weights_beside_the_package_are_its_own_in_a_source_tree_alone(
    written: Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In site-packages that folder is somebody else's."""
    place = tmp_path / "site-packages"
    monkeypatch.setattr(registry, "PACKAGE", place / "sr_cli")
    monkeypatch.delenv("SRX_WEIGHTS")
    beside = replace(written, folder=place / "weights")
    beside.folder.mkdir(parents=True)
    save_file(STATE, beside.path)
    write_card(beside)
    assert names() == ()
    (place / "pyproject.toml").touch()
    assert names() == ("small",)


def test_a_card_is_replaced_whole_or_not_at_all(
    written: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path, *_: object) -> int:
        path.write_bytes(b'{"name": ')
        raise KeyboardInterrupt

    files = {file.name: file.read_bytes() for file in written.folder.iterdir()}
    monkeypatch.setattr(Path, "write_text", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_card(replace(written, licence="other"))
    assert {file.name: file.read_bytes() for file in written.folder.iterdir()} == files


def test_weights_of_another_content_are_refused(written: Card) -> None:
    save_file({"weight": STATE["weight"] + 1}, written.path)  # a valid file, but not the card's
    with pytest.raises(ModelError, match="damaged"):
        load_weights(card("small"))


def test_missing_weights(written: Card) -> None:
    written.path.unlink()
    with pytest.raises(ModelError, match=r"small\.safetensors are missing"):
        load_weights(card("small"))
    with pytest.raises(ModelError, match="no weights"):
        write_card(written)


def test_a_chosen_folder_that_is_none_is_refused(
    written: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the shipped weights would stand in for those that were meant."""
    for wrong in (written.folder / "nope", written.path):
        monkeypatch.setenv("SRX_WEIGHTS", str(wrong))
        with pytest.raises(ModelError, match=r"SRX_WEIGHTS names .*no folder"):
            card("embedded")
    monkeypatch.setenv("SRX_WEIGHTS", "")
    assert card("embedded").folder != written.folder


def test_unknown_name_lists_the_known(written: Card) -> None:
    with pytest.raises(ModelError, match=r"'nothing'.*small.*SRX_WEIGHTS"):
        card("nothing")


@pytest.mark.parametrize("damage", ["", "not JSON", "half", "extra", "short"])
def test_damaged_card(written: Card, damage: str) -> None:
    """It is an error where it is asked for, and no obstacle where others are."""
    path = written.folder / "small.json"
    content = json.loads(path.read_text("utf-8"))
    if damage == "half":
        damage = json.dumps(content)[:-20]
    elif damage == "extra":
        damage = json.dumps(content | {"unknown": 1})
    elif damage == "short":
        damage = json.dumps({"kind": "compact", "architecture": {}})
    path.write_text(damage, "utf-8")
    with pytest.raises(ModelError, match=r"card .*small\.json is damaged"):
        card("small")
    assert "small" in names()
    assert "small" not in {other.name for other in cards()}
    with pytest.raises(ModelError, match=r"no weights named 'nothing' .*found: .*embedded"):
        card("nothing")
    assert card("embedded").name == "embedded"


UNRELATED = {
    "an object": '{"images": 14, "rows": [{"kind": "clean", "architecture": "small"}]}',
    "an empty object": "{}",
    "a list": '["kind", "architecture"]',
    "one key": '{"kind": "photograph"}',
    "a large one": json.dumps({"annotations": [0] * 600_000}),
}


@pytest.mark.parametrize("text", UNRELATED.values(), ids=UNRELATED)
def test_other_json_files_are_no_cards(written: Card, text: str) -> None:
    (written.folder / "report.json").write_text(text, "utf-8")
    (written.folder / "embedded.json").write_text(text, "utf-8")
    assert "report" not in names()
    assert {"small", "embedded"} <= {other.name for other in cards()}
    assert card("embedded").folder != written.folder  # that of the next folder
    for name in ("report", "nothing"):
        with pytest.raises(ModelError, match=f"no weights named '{name}' .*found: .*small"):
            card(name)


def test_a_name_that_is_nearly_one_is_asked_for(written: Card) -> None:
    for name, meant in (("embeded", "embedded"), ("RealESRGAN_x4plus", "realesrgan")):
        with pytest.raises(ModelError, match=rf"\)\. Did you mean {meant}\? Fetch"):
            card(name)
    with pytest.raises(ModelError, match=r"\)\. Fetch"):
        card("nothing")


def test_hidden_files_are_no_cards(written: Card) -> None:
    """macOS leaves one beside each file on a disk of another system."""
    (written.folder / "._small.json").write_bytes(b"\0\5\x16\7")
    assert not any(name.startswith(".") for name in names())
    with pytest.raises(ModelError, match="no weights named"):
        card("._small")


def test_cards_are_chosen_by_kind(written: Card) -> None:
    assert written in cards(["compact"])
    assert {other.kind for other in cards(["compact"])} == {"compact"}
    assert {other.name for other in cards()} == set(names())


def test_shipped_weights_are_whole_and_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SRX_WEIGHTS", raising=False)
    monkeypatch.setenv("SRX_HOME", str(tmp_path))
    for shipped in map(card, names()):
        assert load_weights(shipped)
        assert shipped.path.stat().st_size <= LARGEST
        assert shipped.licence


def test_limits_come_back_from_a_card_as_they_went() -> None:
    """With thresholds of their own, of which a card may leave some to the usual ones."""
    limits = Limits(margin=3, log_ratio=(-2.0, 1.5), prf=Thresholds(omega=0.3, fidelity=0.1))
    written = limits.to_json()
    assert written["prf"] == {"omega": 0.3, "signature": 1.0, "fidelity": 0.1}
    assert Limits.from_json(written) == limits
    del written["prf"]["signature"]
    assert Limits.from_json(written) == limits
    del written["prf"]["omega"]
    assert Limits.from_json(written) != limits
