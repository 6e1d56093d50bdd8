"""What an answer is worth: LPIPS where texture is wanted, a discriminator with a fixed share."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from sr_cli.errors import UsageError
from sr_cli.training.adversarial import Discriminator
from sr_cli.training.criterion import BETWEEN, LATTICE, SMOOTH, Criterion, any_textures
from sr_cli.training.differences import differences
from sr_cli.training.lattice import lattice
from sr_cli.training.perceptual import BLOCKS, SHIFT, Lpips, any_offset, window

pytestmark = pytest.mark.usefixtures("tiny_vgg")


def images(seed: int, count: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, 3, 40, 40, generator=random) - 1


def gradient(criterion: Criterion, wanted: list[float]) -> Tensor:
    """On the answers, (N, 3, 40, 40), with windows at the same place."""
    texture = np.array(wanted, np.float32)
    truth = criterion.truth(images(0), texture, np.random.default_rng(5))
    answer = images(1).requires_grad_()
    criterion(answer, truth).backward()  # type: ignore[no-untyped-call]
    assert answer.grad is not None
    return answer.grad


def test_lpips_is_the_weighted_distance_of_unit_features() -> None:
    lpips = Lpips()
    one, other = images(0), images(1)
    taps = lpips.features(one)
    assert [tap.shape[-1] for tap in taps] == [40, 20, 10, 5, 2]
    assert len(taps) == len(BLOCKS)
    for tap in taps:
        length = tap.square().sum(1)
        torch.testing.assert_close(
            length[length > 0.5], torch.ones_like(length[length > 0.5]), atol=1e-2, rtol=0
        )
    assert torch.equal(lpips(one, taps), torch.zeros(4))
    distance = lpips(other, taps)
    assert distance.min() > 0
    lpips.get_buffer("head0").mul_(2)
    first = ((lpips.features(other)[0] - taps[0]).square() * lpips.get_buffer("head0")).sum(1)
    torch.testing.assert_close(lpips(other, taps) - distance, first.mean((1, 2)) / 2)


def test_windows_move_over_the_whole_range() -> None:
    """So an answer whose border alone is wrong is told from the truth only at some offsets."""
    image = torch.arange(40 * 40).view(1, 1, 40, 40)
    pick = np.random.default_rng(0)
    offsets = {any_offset(pick) for _ in range(2000)}
    assert offsets == {(i, j) for i in range(SHIFT + 1) for j in range(SHIFT + 1)}
    assert window(image, (3, 8)).shape == (1, 1, 32, 32)
    assert int(window(image, (3, 8))[0, 0, 0, 0]) == 3 * 40 + 8


def test_texture_0_has_no_gradient_of_features() -> None:
    """That of the error and its pattern alone; at 1 it has, and between as much as is wanted."""
    criterion = Criterion(2.0)
    answer = images(1).requires_grad_()
    difference = answer - images(0)
    plain = difference.abs().mean() + LATTICE * lattice(difference)
    error = torch.autograd.grad(plain, answer)[0].double()
    none, half, whole = (gradient(criterion, [t] * 4).double() for t in (0, 0.5, 1))
    torch.testing.assert_close(none, error, atol=1e-9, rtol=1e-4)
    assert float((whole - error).norm()) > 1e-3 * float(error.norm())
    torch.testing.assert_close(half - error, (whole - error) / 2, atol=1e-9, rtol=1e-3)
    mixed = gradient(criterion, [0, 1, 0, 1]).double()
    torch.testing.assert_close(mixed[::2], error[::2], atol=1e-9, rtol=1e-4)
    torch.testing.assert_close(mixed[1::2], whole[1::2], atol=1e-9, rtol=1e-3)


@pytest.mark.parametrize("share", [0.35, 1.0])
def test_the_discriminators_gradient_is_a_share_of_the_others(share: float) -> None:
    torch.manual_seed(0)
    alone, both = Criterion(2.0), Criterion(2.0, adversarial=share)
    wanted = [1.0, 0, 1, 1]
    others = gradient(alone, wanted)
    push = gradient(both, wanted) - others

    def length(values: Tensor) -> float:
        return float(values.flatten(1).norm(dim=1).mean())

    def lengths(gradient: Tensor) -> list[float]:
        return [length(avg_pool2d(gradient, cell)) for cell in (1, 4, 16)]

    shares = [mine / theirs for mine, theirs in zip(lengths(push), lengths(others), strict=True)]
    assert max(shares) == pytest.approx(share, rel=1e-3)
    assert min(shares) > 0.01 * share
    assert not push[1].any()


def test_a_discriminator_looks_at_the_source_too() -> None:
    """So what it says of an image depends on what the image was made of, and of nothing if that is
    not told."""
    torch.manual_seed(0)
    net = Discriminator(8)
    with torch.no_grad():
        said, other = (net(images(0), images(seed)) for seed in (1, 2))
    assert float((said - other).abs().max()) > 1e-3
    criterion, texture = Criterion(1.0, adversarial=0.5), np.ones(4, np.float32)
    truths = [
        criterion.truth(images(0), texture, np.random.default_rng(0), source=source)
        for source in (images(1), None)
    ]
    assert torch.equal(truths[0].source, images(1))
    assert not truths[1].source.any()


def test_the_value_is_of_error_and_features_alone() -> None:
    torch.manual_seed(0)
    texture = np.ones(4, np.float32)
    values = []
    for criterion in (Criterion(2.0), Criterion(2.0, adversarial=0.5)):
        truth = criterion.truth(images(0), texture, np.random.default_rng(5))
        values.append(float(criterion(images(1), truth)))
        difference = images(1) - images(0)
        features = criterion.lpips(window(images(1), truth.offset), truth.features)
        expected = difference.abs().mean() + LATTICE * lattice(difference) + 2 * features.mean()
        assert values[-1] == pytest.approx(float(expected))
    assert values[0] == values[1]


def test_differences_count_in_full_where_a_teacher_is_aimed_at_and_a_quarter_elsewhere() -> None:
    charged, plain = Criterion(2.0, edges=3.0), Criterion(2.0)
    texture, error = np.ones(4, np.float32), images(1) - images(0)
    taught = torch.tensor([0.0, 1, 0.5, 0])
    values = []
    for criterion, where in ((plain, taught), (charged, taught), (charged, None)):
        truth = criterion.truth(images(0), texture, np.random.default_rng(5), taught=where)
        values.append(criterion(images(1), truth))
    weights = torch.tensor([0.25, 1, 0.625, 0.25])
    torch.testing.assert_close(values[1] - values[0], 3 * differences(error, weights))
    torch.testing.assert_close(values[2] - values[0], 0.75 * differences(error, torch.ones(4)))


def test_the_pattern_is_charged_as_much_as_is_said() -> None:
    texture, pattern = np.ones(1, np.float32), lattice(images(1, 1) - images(0, 1))
    values = []
    for weight in (0.0, 1.0, 2.0):
        criterion = Criterion(2.0, lattice=weight)
        truth = criterion.truth(images(0, 1), texture, np.random.default_rng(5))
        values.append(criterion(images(1, 1), truth))
    torch.testing.assert_close(values[1] - values[0], pattern)
    torch.testing.assert_close(values[2] - values[0], 2 * pattern)
    assert pattern > 0.01


def test_a_discriminator_learns_from_gradients_and_never_by_being_asked() -> None:
    """Else an interrupt in the middle of an iteration would leave half a step in the checkpoint."""
    torch.manual_seed(0)
    criterion = Criterion(1.0, adversarial=0.5)
    net = criterion.discriminator
    assert net is not None
    before = {name: value.clone() for name, value in net.state_dict().items()}
    gradient(criterion, [1] * 4)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.renew()
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_a_discriminator_tells_what_is_real() -> None:
    torch.manual_seed(0)
    criterion = Criterion(1.0, adversarial=0.5)
    net = criterion.discriminator
    assert net is not None
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    truth = criterion.truth(images(0) / 2, np.ones(4, np.float32), np.random.default_rng(0))

    def gap() -> float:
        with torch.no_grad():
            known, made = (net(image, truth.source) for image in (truth.image, images(1)))
            return float(known.mean() - made.mean())

    before = gap()
    for _ in range(20):
        optimiser.zero_grad()
        criterion(images(1).requires_grad_(), truth)
        optimiser.step()
        net.renew()
    assert gap() > before + 0.1


def test_textures_are_stratified() -> None:
    drawn = any_textures(400, np.random.default_rng(0))
    assert (drawn == 0).sum() == 400 * SMOOTH
    assert ((drawn > 0) & (drawn < 1)).sum() == 400 * BETWEEN
    assert 0 < np.flatnonzero(drawn == 0).mean() < 399
    counts = [(any_textures(8, np.random.default_rng(i)) == 0).sum() for i in range(20)]
    assert set(counts) == {1}


@pytest.mark.parametrize("wrong", [(-1.0, 0.0), (0.0, 0.0), (1.0, -0.5)])
@pytest.mark.parametrize("other", ["adversarial", "lattice", "edges"])
def test_weights_that_make_no_sense(wrong: tuple[float, float], other: str) -> None:
    with pytest.raises(UsageError, match="--feature-loss"):
        Criterion(wrong[0], **{other: wrong[1]})  # type: ignore[arg-type]
