"""The average of two trainings is a model like both, and only of the same network."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, write
from torch import Tensor

from sr_cli.errors import UsageError
from sr_cli.models.limits import Limits
from sr_cli.models.registry import card, load_weights
from sr_cli.training.averaging import average


@pytest.fixture
def trained(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`first` and `second` of one shape, `third` of another."""
    folder = tmp_path / "trained"
    folder.mkdir()
    for seed, (name, width) in enumerate((("first", 4), ("second", 4), ("third", 5))):
        torch.manual_seed(seed)
        net, shape = torch.nn.Conv2d(3, width, 3), {"num_feat": width}
        write(folder, name, net, shape, Limits(scale=4, margin=seed), kind="compact")
    monkeypatch.setenv("SRX_WEIGHTS", str(folder))
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))


def weights(name: str) -> dict[str, Tensor]:
    return load_weights(card(name))


@pytest.mark.usefixtures("trained")
def test_every_weight_lies_between_by_the_share() -> None:
    made = average(card("first"), card("second"), 0.25, "between")
    first, second, found = (weights(name) for name in ("first", "second", made.name))
    assert first.keys() == found.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, 0.75 * first[key] + 0.25 * second[key])
        assert not torch.allclose(value, (first[key] + second[key]) / 2)
    assert made == card("between")
    assert made.training["averaged"] == "0.75 of first and 0.25 of second"
    assert (made.kind, made.limits) == ("compact", card("first").limits)
    assert made.limits != card("second").limits


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    ("other", "share", "name", "words"),
    [
        ("second", 0.0, "between", "--share"),
        ("second", 1.0, "between", "--share"),
        ("second", float("nan"), "between", "--share"),
        ("third", 0.5, "between", "not the same network"),
        ("second", 0.5, "third", "already"),
    ],
)
def test_what_has_no_average_is_refused(other: str, share: float, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        average(card("first"), card(other), share, name)


def test_denoisers_have_an_average_that_stays_in_float16(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are shipped: nothing becomes another dtype by it."""
    monkeypatch.setenv("SRX_HOME", str(tmp_path / "home"))
    folder = tmp_path / "half"
    folder.mkdir()
    net = torch.nn.Conv2d(3, 4, 3).half()
    for name in ("one", "other"):
        write(folder, name, net, {"widths": TINY.widths}, Limits(margin=1), kind="embedded")
    monkeypatch.setenv("SRX_WEIGHTS", str(folder))
    average(card("one"), card("other"), 0.45, "between")
    found, known = weights("between"), weights("one")
    assert all(value.dtype == torch.float16 for value in found.values())
    assert all(torch.equal(value, known[key]) for key, value in found.items())
