"""The networks of DoSSR's Table 5: what they are before they learn, and the table they end in."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_cli.diffusion.formulations import FormulationName, formulation
from sr_cli.errors import UsageError
from sr_cli.evaluation.datasets import pairs
from sr_cli.evaluation.metrics import load
from sr_cli.models.loading import load_prior
from sr_cli.training.formulations import NAMES, candidates, measured, table, trainer
from sr_cli.training.objectives_formulation import Begun, FormulationObjective, blurred
from sr_cli.training.train import TrainOptions

CPU = torch.device("cpu")


def picture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.usefixtures("tiny")
def test_before_it_learns_it_is_the_prior() -> None:
    """Of plain states; with y shifted in, the prior is asked about the mixture."""
    objective = FormulationObjective(formulation("plain", 1), "prior")
    prior = load_prior("prior", CPU, torch.float32).denoiser
    x, y, t = picture(1, 3, 32, 48), picture(1, 3, 32, 48).flip(-1), 300
    way = objective.formulation
    alpha, sigma = float(way.x0[t]), float(way.noise[t])
    with torch.no_grad():
        guess, _ = objective._guess(x, y, torch.tensor([t]))
        expected = prior.predict_x0(x, y=y, hint=y, alpha=alpha, sigma=sigma, a=alpha, m=0.0, t=t)
        torch.testing.assert_close(guess, expected)
        torch.nn.init.normal_(objective.model.get_parameter("head.weight"))
        assert not torch.allclose(objective._guess(x, y, torch.tensor([t]))[0], expected)


def test_blur_is_opencvs() -> None:
    image = picture(2, 3, 20, 30)
    deviations = torch.tensor([0.7, 1.9])
    for image_, sigma, found in zip(image, deviations, blurred(image, deviations), strict=True):
        expected = cv2.GaussianBlur(
            image_.permute(1, 2, 0).numpy(),
            (17, 17),
            float(sigma),
            borderType=cv2.BORDER_REPLICATE,
        )
        np.testing.assert_allclose(found.permute(1, 2, 0), expected, atol=1e-5)
    assert blurred(image, torch.zeros(2)) is image
    assert not torch.allclose(blurred(image, deviations), blurred(image, deviations.flip(0)))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("begun", ["scratch", "prior"])
def test_every_formulation_learns_and_is_measured(
    shapes: Path, tmp_path: Path, begun: Begun
) -> None:
    options = TrainOptions(shapes, tmp_path, iterations=12, batch=2, crop=32, lr=3e-3, workers=0)
    found, done = {}, {}
    test = pairs(shapes)[:1]
    for row in candidates(NAMES, [begun], [2]):
        trained = trainer(row, options)
        losses = [progress.loss for progress in trained.run()]
        assert np.isfinite(losses).all()
        assert not list(trainer(row, options).run())  # a run that is complete stays so
        again, other = (
            measured(trained, row, test, load(["psnr"], CPU), seeds=n, notify=lambda _: None)
            for n in (1, 2)
        )
        assert again[0] == other[0]
        noisy = trained.objective.formulation.noisy  # type: ignore[attr-defined]
        assert (other[0] != other[1]) == noisy
        found[row], done[row] = other, trained.iteration
    result = table(found, done, ["psnr"])
    assert [cells[1] for cells in result.rows] == list(NAMES)
    assert all(isinstance(cells[4], float) and cells[3] == 12 for cells in result.rows)


class Says(nn.Module):
    """A network that always says the same."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: Tensor) -> Tensor:
        return self.answer


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("begun", ["scratch", "prior"])
@pytest.mark.parametrize("name", NAMES)
def test_an_output_is_an_error_in_units_of_the_loss(name: FormulationName, begun: Begun) -> None:
    """So the output that the loss asks for makes the guess x0."""
    x0, t = picture(4, 3, 32, 32), torch.tensor([0, 100, 300, 499])
    y, eps = 0.9 * x0, picture(4, 3, 32, 32).flip(0)
    objective = FormulationObjective(formulation(name, 1), begun)
    state = objective.state(x0, y, eps, t)
    objective.model = Says(torch.zeros_like(x0))
    guess, unit = objective._guess(state, y, t)
    objective.model = Says((x0 - guess) / unit)
    torch.testing.assert_close(objective._guess(state, y, t)[0], x0, atol=2e-5, rtol=0)
    other = objective.state(x0, y, eps, t.flip(0))
    wrong, _ = objective._guess(other, y, t)
    assert not torch.allclose(wrong, x0, atol=1e-3)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="--begun is a list of scratch, prior, not 'middle'"):
        candidates(NAMES, ["middle"], [1])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="--steps"):
        candidates(NAMES, ["prior"], [0])
