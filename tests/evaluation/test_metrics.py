"""Metrics: closed forms, two independent libraries, and what happens without pyiqa's weights."""

import socket
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from sr_cli.errors import UsageError
from sr_cli.evaluation import iqa, metrics
from sr_cli.evaluation.iqa import SPECS
from sr_cli.evaluation.metrics import BETTER, load, luma, mean, psnr, ssim

CPU = torch.device("cpu")


def photo(seed: int = 0, side: int = 48) -> Tensor:
    """A smooth picture (1, 3, side, side) in 8-bit levels."""
    rough = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(rough, (side, side), mode="bicubic")
    return (smooth.clamp(0, 1) * 255).round() / 255


def noisy(image: Tensor, sigma: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return ((image + sigma * noise).clamp(0, 1) * 255).round() / 255


def test_luma_has_the_range_of_video() -> None:
    ends = torch.tensor([0.0, 1.0])[:, None, None, None].expand(2, 3, 1, 1)
    assert luma(ends).flatten().tolist() == pytest.approx([16, 235])


def test_psnr_of_a_constant_offset() -> None:
    grey = torch.full((1, 3, 8, 8), 0.5)
    offset = 20 / 255
    expected = -20 * np.log10(219 / 255 * offset)  # white minus black is 219 levels of Y
    assert float(psnr(grey + offset, grey)) == pytest.approx(expected, abs=1e-4)
    rgb = -20 * np.log10(offset)
    assert abs(float(psnr(grey + offset, grey)) - rgb) > 1


def test_identical_images_have_the_ends_of_the_scales() -> None:
    assert float(psnr(photo(), photo())) == pytest.approx(80)
    assert float(ssim(photo(), photo())) == pytest.approx(1)
    assert float(ssim(noisy(photo(), 0.1), photo())) < 0.9


def test_a_mean_is_over_what_is_defined() -> None:
    assert mean([1.0, None, 4.0]) == 2.5
    assert mean([None, None]) is None
    assert mean([]) is None


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_the_border_does_not_count(measure: Any) -> None:
    hr, result = photo(), noisy(photo(), 0.02)
    spoilt = result.clone()
    spoilt[..., :4, :] = 1 - spoilt[..., :4, :]
    spoilt[..., -4:] = 1 - spoilt[..., -4:]
    assert float(measure(spoilt, hr, 4)) == float(measure(result, hr, 4))
    assert float(measure(spoilt, hr, 3)) < float(measure(result, hr, 3))
    with pytest.raises(UsageError, match="leaves nothing"):
        measure(result, hr, 24)


def test_ssim_agrees_with_scikit_image() -> None:
    hr, result = photo(), noisy(photo(), 0.03)
    y = [luma(image).round()[0, 0].numpy() for image in (result, hr)]
    expected = structural_similarity(  # type: ignore[no-untyped-call]
        *y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert float(ssim(result, hr)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_the_numbers_are_those_of_pyiqa(name: str) -> None:
    pyiqa = pytest.importorskip("pyiqa")
    theirs = pyiqa.create_metric(name, device=CPU, test_y_channel=True, color_space="ycbcr")
    ours = {"psnr": psnr, "ssim": ssim}[name]
    for sigma in (0.02, 0.5):  # at 0.5 some structure terms are negative
        result = noisy(photo(), sigma)
        assert float(ours(result, photo())) == pytest.approx(float(theirs(result, photo())), 1e-5)


def test_a_batch_scores_as_its_images_do() -> None:
    measures = load(["psnr", "ssim"], CPU, border=2)
    results = torch.cat([noisy(photo(0), 0.05), noisy(photo(1), 0.1)])
    hrs = torch.cat([photo(0), photo(1)])
    alone = [measures.score(r, hr) for r, hr in zip(results, hrs, strict=True)]
    assert measures.scores(results, hrs) == alone
    assert alone[0] != alone[1]
    assert measures.conditions == "PSNR and SSIM on Y (BT.601), 2 pixels cropped at each side"


def test_images_too_small_for_a_metric_have_no_value() -> None:
    measures = load(["psnr", "ssim"], CPU)
    scores = measures.score(photo(side=8)[0], photo(side=8)[0])
    assert scores["ssim"] is None
    assert scores["psnr"] == pytest.approx(80)
    assert measures.undefined == {"ssim": "ssim cannot measure images of 8x8 pixels."}
    measures.score(photo(side=8)[0, ..., :6], photo(side=8)[0, ..., :6])
    assert measures.undefined == {"ssim": "ssim cannot measure images of 6x8 pixels."}


def test_results_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        load(["psnr"], CPU).score(photo(side=8)[0], photo(side=9)[0])


def test_wrong_names_and_borders_are_refused() -> None:
    with pytest.raises(UsageError, match="no metric 'beauty'"):
        load(["beauty"], CPU)
    with pytest.raises(UsageError, match="negative"):
        load(["psnr"], CPU, border=-1)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed pyiqa without a network and without a file; the hub's folder."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(iqa, "find_spec", lambda _: object())
    monkeypatch.setattr(iqa, "_cached", lambda _: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", SPECS)
def test_missing_weights_are_named_and_the_others_go_on(name: str, offline: Path) -> None:
    measures = load(["psnr", name], CPU)
    spec = SPECS[name]
    assert list(measures.missing) == [name]
    assert str(offline / spec.files[0]) in measures.missing[name]
    assert Path(spec.files[0]).name in measures.missing[name].split("put ")[1]
    scores = measures.score(photo()[0], photo()[0])
    assert scores["psnr"] == pytest.approx(80)
    assert scores.get(name) is None


def test_a_backbone_is_looked_for_too(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = offline / SPECS["maniqa"].files[0]
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert "timm/vit_base_patch8_224" in load(["maniqa"], CPU).missing["maniqa"]
    monkeypatch.setattr(iqa, "_cached", lambda _: True)
    assert load(["maniqa"], CPU).missing == {}


def test_weights_that_cannot_be_loaded_are_missing(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(metrics, "create", fail)
    measures = load(["niqe"], CPU, download=True)
    assert measures.missing == {}
    assert measures.score(photo()[0], photo()[0]) == {"niqe": None}
    assert "no route" in measures.missing["niqe"]


def test_without_pyiqa_there_is_a_command_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iqa, "find_spec", lambda _: None)
    assert "srx[iqa]" in load(["lpips"], CPU, download=True).missing["lpips"]


def test_random_crops_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(_: Tensor) -> Tensor:
        return torch.tensor([np.random.rand()]) + torch.rand(1)  # noqa: NPY002

    monkeypatch.setattr(metrics, "create", lambda *_: draw)
    monkeypatch.setattr(iqa, "find_spec", lambda _: object())
    measures = load(["maniqa"], CPU, download=True)
    first = measures.score(photo()[0], photo()[0])
    assert measures.score(photo()[0], photo()[0]) == first
    assert float(draw(photo())) != float(draw(photo()))


@pytest.mark.parametrize("name", SPECS)
def test_pyiqa_knows_the_metrics_and_their_directions(name: str) -> None:
    configs = pytest.importorskip("pyiqa.default_model_configs").DEFAULT_CONFIGS
    config = configs[SPECS[name].name]
    assert config.get("lower_better", False) == (BETTER[name] == "lower")
    if not SPECS[name].of_sets:
        assert (config["metric_mode"] == "FR") == SPECS[name].reference


@pytest.mark.parametrize(
    "name", [name for name, spec in SPECS.items() if "pyiqa/" in str(spec.files)]
)
def test_the_files_are_those_that_pyiqa_asks_for(name: str) -> None:
    archs = Path(pytest.importorskip("pyiqa.archs").__file__).parent
    source = "\n".join(path.read_text("utf-8") for path in archs.glob("*.py"))
    for file in SPECS[name].files:
        if file.startswith("pyiqa/"):
            assert f"'{Path(file).name}'" in source


@pytest.mark.parametrize(("name", "model"), [("dists", "VGG16"), ("lpips", "AlexNet")])
def test_the_backbones_are_those_that_torchvision_asks_for(name: str, model: str) -> None:
    weights = getattr(import_module("torchvision.models"), f"{model}_Weights").IMAGENET1K_V1
    assert f"checkpoints/{Path(weights.url).name}" in SPECS[name].files


def test_dists_is_measured_by_the_weights_that_lie_there(
    offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without them no network is made; with both files it is, and it sees the result and HR."""
    seen: list[int] = []

    def made(name: str, _: torch.device) -> Any:
        assert name == "dists"

        def measure(*images: Tensor) -> Tensor:
            seen.append(len(images))
            return torch.tensor([0.25])

        return measure

    monkeypatch.setattr(metrics, "create", made)
    result, hr = noisy(photo(), 0.1)[0], photo()[0]
    vgg, own = (offline / file for file in SPECS["dists"].files)
    for file, lacking in ((vgg, vgg), (own, own)):
        measures = load(["dists"], CPU)
        assert str(lacking) in measures.missing["dists"]
        assert measures.score(result, hr) == {"dists": None}
        file.parent.mkdir()
        file.touch()
    assert seen == []
    measures = load(["dists"], CPU)
    assert (measures.missing, measures.score(result, hr)) == ({}, {"dists": 0.25})
    assert seen == [2]
