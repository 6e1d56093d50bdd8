"""DoSSR's fine-tuning: the released loss, what learns, resumption, and a model that runs."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor

from sr_cli.degradation.degrade import Randomness, degrade
from sr_cli.diffusion.path import Path as ShiftedPath
from sr_cli.engine.options import UpscaleOptions
from sr_cli.engine.upscaler import Upscaler
from sr_cli.errors import ModelError, UsageError
from sr_cli.files import home
from sr_cli.models.dossr.importer import ImportOptions, import_model
from sr_cli.models.loading import load_model
from sr_cli.models.registry import Card, card, check, load_weights
from sr_cli.models.resampling import resize
from sr_cli.training.data import Crops
from sr_cli.training.finetune import FinetuneOptions, Finetuner, accelerator, export
from sr_cli.training.objectives_dossr import PREFIX, DossrObjective

GOLDEN = Path(__file__).parents[1] / "golden"
CONTEXT = f"{GOLDEN / 'dossr_net.npz'}:ctx"
CPU = torch.device("cpu")
CLOSE = 1e-5


@pytest.fixture(autouse=True)
def fresh_processes() -> Iterator[None]:
    """accelerate keeps one state for the process, which its runs may not share."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRX_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def base(own_home: None) -> Card:
    """The small model, imported in the precision of the golden arrays."""
    options = ImportOptions(GOLDEN / "tiny_controlldm.ckpt", "tiny", context=CONTEXT)
    return import_model(replace(options, dtype="float32"), lambda *_: None)


@pytest.fixture(scope="module")
def photos(shapes: Path) -> Path:
    return shapes


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "dossr_net.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def objective(base: Card, **options: Any) -> DossrObjective:
    return DossrObjective(base, CPU, options.pop("dtype", torch.float32), **options)


def options(photos: Path, run: Path, **changes: Any) -> FinetuneOptions:
    given = {"iterations": 4, "batch": 2, "micro": 1, "crop": 64, "workers": 0, "save_every": 2}
    return FinetuneOptions(photos, run, **{**given, "lr": 1e-3, **changes})


def tuner(base: Card, settings: FinetuneOptions, **changes: Any) -> Finetuner:
    return Finetuner(objective(base, **changes), settings, accelerator(cpu=True))


def snapshot(run: Finetuner) -> Tensor:
    return torch.cat([value.flatten() for value in run.control.values()]).clone()


# ------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("t", [0, 250, 499, 999])
def test_the_released_training(base: Card, golden: dict[str, Tensor], t: int) -> None:
    given = golden["z"], golden["cond_latent"], torch.tensor([t]), golden[f"train_t{t}_noise"]
    with torch.no_grad():
        x0, loss = objective(base).predict(*given), objective(base).denoising_loss(*given)
    want = golden[f"train_t{t}_predx0"]
    assert float((x0 - want).abs().max() / want.abs().max()) < CLOSE
    assert float(loss) == pytest.approx(float(golden[f"train_t{t}_loss"]), rel=CLOSE)


def test_times_of_one_batch_do_not_mix(base: Card, golden: dict[str, Tensor]) -> None:
    times = (0, 250, 499, 999)
    noise = torch.cat([golden[f"train_t{t}_noise"] for t in times])
    z, y = (golden[name].expand(4, -1, -1, -1) for name in ("z", "cond_latent"))
    with torch.no_grad():
        x0 = objective(base).predict(z, y, torch.tensor(times), noise)
    for row, t in zip(x0, times, strict=True):
        torch.testing.assert_close(row[None], golden[f"train_t{t}_predx0"], rtol=1e-3, atol=1e-3)


def test_the_loss_of_the_output(base: Card, golden: dict[str, Tensor]) -> None:
    """It is of the output itself, whose target holds the shift from x0 to y beside the noise."""
    tuned = objective(base, loss="shifted")
    x0, y, noise, t = golden["z"], golden["cond_latent"], golden["train_t250_noise"], 250
    a, m, sigma, alpha = (float(v[t]) for v in (tuned.a, tuned.m, tuned.sigma, tuned.alpha))
    x = a * x0 + m * y + sigma * noise
    with torch.no_grad():
        loss = float(tuned.denoising_loss(x0, y, torch.tensor([t]), noise))
        out = tuned.denoiser.eps(x, y, torch.tensor([t]))
    target = (x - alpha * x0) / sigma
    torch.testing.assert_close(target, noise + (m / sigma) * (y - x0), rtol=1e-4, atol=1e-4)
    assert loss == pytest.approx(float((out - target).square().mean()), rel=1e-4)
    of_noise = float((out - noise).square().mean())
    assert loss != pytest.approx(of_noise, rel=1e-2)
    printed = objective(base, loss="noise")
    with torch.no_grad():
        loss = float(printed.denoising_loss(x0, y, torch.tensor([t]), noise))
    assert loss == pytest.approx(of_noise, rel=1e-4)


def test_both_conversions_give_x0_back_and_one_magnifies_errors(
    base: Card, golden: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of networks that answer what they were trained for: x0. Off by 1e-6 at the start, Eq. 29
    is off by .65, the released conversion by 1.6e-6."""
    tuned = objective(base)
    x0, y, noise = (golden[name].double() for name in ("z", "cond_latent", "train_t499_noise"))
    path = ShiftedPath.domain_shift(load_model(base.name, CPU, torch.float32).alpha_bar, 500)
    for t in (100, 499):
        alpha, sigma, a, m = (float(v[t]) for v in (path.alpha, path.sigma, path.a, path.m))
        x = a * x0 + m * y + sigma * noise
        answers = {"noise": noise, "shifted": (x - alpha * x0) / sigma}
        for kind, magnified in (("noise", sigma / a), ("shifted", sigma / alpha)):
            denoiser = tuned.denoiser
            denoiser.predicts = kind  # type: ignore[assignment]
            for error in (0.0, 1e-6):
                answer = answers[kind] + error
                monkeypatch.setattr(denoiser, "_graphed", lambda *_, answer=answer: answer)
                found = denoiser.predict_x0(x, alpha=alpha, sigma=sigma, a=a, m=m, y=y, hint=y, t=t)
                off = float((found - x0).abs().max())
                assert off == pytest.approx(error * magnified, rel=1e-3, abs=1e-7)
    assert path.lam[499] == pytest.approx(6.5e5, rel=0.01)


@pytest.mark.parametrize(("times", "bound"), [("all", 1000), ("walk", 500)])
def test_times_are_all_or_those_of_a_walk(
    base: Card, photos: Path, times: str, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = objective(base, times=times)
    seen: list[int] = []

    def loss(x0: Tensor, y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        seen.extend(t.tolist())
        return noise.mean()

    monkeypatch.setattr(tuned, "encode", lambda hr, _: (hr, hr))
    monkeypatch.setattr(tuned, "denoising_loss", loss)
    tuned.loss(torch.zeros(400, 1, 1, 1), Randomness.keyed(CPU, 0))
    assert bound * 0.95 < max(seen) < bound
    assert min(seen) < bound * 0.05
    assert str(bound - 1) in tuned.describe()["times"]


def test_source_and_target_are_of_one_crop(base: Card, photos: Path) -> None:
    """x0 is a sample of HR's posterior; y is the mean of what becomes of the degraded LR."""
    tuned = objective(base, preprocess="none")
    hr = torch.stack([Crops(photos, crop=64, seed=1, length=2)[i] for i in range(2)]).float() / 255
    x0, y = tuned.encode(hr, Randomness.keyed(CPU, 1))
    lr = degrade(hr, (16, 16), "realesrgan", Randomness.keyed(CPU, 1))
    codec = load_model(base.name, CPU, torch.float32).codec
    silence = torch.zeros(2, 4, 8, 8)
    _, hint = codec.encode(resize(lr, (64, 64)).clamp(0, 1), silence)
    assert torch.equal(y, hint)
    mean, clean = codec.encode(hr, silence)
    assert not torch.equal(y, clean)
    assert not torch.equal(x0, mean)
    spread = codec.encode(hr, torch.ones_like(silence))[0] - mean
    assert float(((x0 - mean) / spread).std()) == pytest.approx(1, abs=0.15)  # 512 normal numbers


def test_low_precision_is_near(base: Card, golden: dict[str, Tensor]) -> None:
    """bfloat16 keeps 8 bits; weights that learn and their gradients stay in float32."""
    tuned = objective(base, dtype=torch.bfloat16)
    given = golden["z"], golden["cond_latent"], torch.tensor([250]), golden["train_t250_noise"]
    loss = tuned.denoising_loss(*given)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(float(golden["train_t250_loss"]), rel=0.05)
    assert tuned.denoiser.unet.dtype == torch.bfloat16
    assert {p.grad.dtype for p in tuned.denoiser.control.parameters()} == {torch.float32}


def test_checkpointing_changes_memory_alone(base: Card, golden: dict[str, Tensor]) -> None:
    gradients = []
    given = golden["z"], golden["cond_latent"], torch.tensor([250]), golden["train_t250_noise"]
    for checkpointing in (True, False):
        tuned = objective(base, checkpointing=checkpointing)
        assert tuned.denoiser.control.is_gradient_checkpointing == checkpointing
        tuned.denoising_loss(*given).backward()  # type: ignore[no-untyped-call]
        gradients.append([p.grad for p in tuned.denoiser.control.parameters()])
    torch.testing.assert_close(*gradients)


def test_only_dossr_can_be_fine_tuned(tiny: Path) -> None:
    with pytest.raises(ModelError, match="no DoSSR model"):
        objective(card("embedded"))


# -------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize("loss", ["x0", "shifted", "noise"])
def test_the_loss_falls(base: Card, photos: Path, tmp_path: Path, loss: str) -> None:
    """On fixed crops, degradations, times and noise; and nothing but the ControlNet moves."""
    run = tuner(base, options(photos, tmp_path, iterations=12, save_every=99), loss=loss)
    hr = torch.stack([Crops(photos, crop=64, seed=9, length=4)[i] for i in range(4)]).float() / 255

    def value() -> float:
        with torch.no_grad():
            return float(run.objective.loss(hr, Randomness.keyed(CPU, 5)))

    def frozen() -> list[Tensor]:
        return [p.clone() for p in run.objective.denoiser.unet.parameters()]

    before, unet = value(), frozen()
    assert value() == before
    progress = list(run.run())
    assert value() < 0.97 * before
    assert [p.iteration for p in progress] == list(range(1, 13))
    assert all(torch.equal(*pair) for pair in zip(unet, frozen(), strict=True))
    assert all(p.grad is None for p in run.objective.denoiser.unet.parameters())


def test_a_resumed_run_equals_an_uninterrupted_one(
    base: Card, photos: Path, tmp_path: Path
) -> None:
    whole = tuner(base, options(photos, tmp_path / "whole"))
    list(whole.run())
    cut = tuner(base, options(photos, tmp_path / "cut"))
    for progress in cut.run():
        if progress.iteration == 3:  # one beyond the checkpoint
            break
    assert [p.name for p in (tmp_path / "cut").glob("checkpoint*")] == ["checkpoint-00000002"]
    (tmp_path / "cut" / "checkpoint-00000003.partial").mkdir()  # interrupted while it saved
    resumed = tuner(base, options(photos, tmp_path / "cut"))
    assert resumed.iteration == 2
    list(resumed.run())
    assert torch.equal(snapshot(resumed), snapshot(whole))
    log = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "cut")]
    assert log[0] == log[1]
    assert [p.name for p in (tmp_path / "cut").glob("checkpoint*")] == ["checkpoint-00000004"]
    other = tuner(base, options(photos, tmp_path / "other", seed=1))
    list(other.run())
    assert not torch.equal(snapshot(other), snapshot(whole))


@pytest.mark.parametrize(("part", "complete"), [(1, 0), (5, 2), (6, 3)])
def test_an_interrupted_run_loses_no_iteration(
    base: Card, photos: Path, tmp_path: Path, part: int, complete: int
) -> None:
    """Of two parts each: also where gradients of the next one are there already."""
    whole = tuner(base, options(photos, tmp_path / "whole"))
    list(whole.run())
    settings = options(photos, tmp_path / "cut", save_every=1000)
    cut = tuner(base, settings)
    real, parts = cut._backward, iter(range(1, 9))

    def backward(number: int, batch: Tensor) -> Tensor:
        loss = real(number, batch)
        if next(parts) == part:
            signal.raise_signal(signal.SIGINT)
        return loss

    cut._backward = backward  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        list(cut.run())
    kept = [p.name for p in (tmp_path / "cut").glob("checkpoint*")]
    assert kept == ([f"checkpoint-{complete:08d}"] if complete else [])
    resumed = tuner(base, settings)
    assert resumed.iteration == complete
    list(resumed.run())
    assert torch.equal(snapshot(resumed), snapshot(whole))


def test_an_interrupt_of_another_process_ends_this_one_too(
    base: Card, photos: Path, tmp_path: Path
) -> None:
    """All save, and none goes on to export."""
    run = tuner(base, options(photos, tmp_path, save_every=1000))
    progress = run.run()
    assert next(progress).iteration == 1
    run.accelerator.set_trigger()
    with pytest.raises(KeyboardInterrupt):
        next(progress)
    assert [p.name for p in tmp_path.glob("checkpoint*")] == ["checkpoint-00000001"]


def test_a_resumed_run_may_have_other_batches(base: Card, photos: Path, tmp_path: Path) -> None:
    """Every iteration has all parts of its batch, the first after the checkpoint too."""
    for progress in tuner(base, options(photos, tmp_path, iterations=8)).run():
        if progress.saved:
            break
    resumed = tuner(base, options(photos, tmp_path, iterations=4, batch=3))
    parts: list[int] = []
    real = resumed._backward

    def backward(number: int, batch: Tensor) -> Tensor:
        parts.append(number)
        return real(number, batch)

    resumed._backward = backward  # type: ignore[method-assign]
    ends = [len(parts) for _ in resumed.run()]
    assert ends == [3, 6]
    assert parts == list(range(6, 12))


def test_accumulated_parts_are_one_batch(base: Card, photos: Path, tmp_path: Path) -> None:
    """An iteration of two parts is AdamW's first step on the mean of their gradients."""
    settings = options(photos, tmp_path, iterations=1)
    run, alone = tuner(base, settings), objective(base)
    list(run.run())
    for number in range(2):
        hr = Crops(photos, crop=64, seed=0, length=2)[number][None].float() / 255
        loss = alone.loss(hr, Randomness.keyed(CPU, 0, number, 1)) / 2
        loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.AdamW(alone.denoiser.control.parameters(), settings.lr).step()
    wanted = torch.cat([v.flatten() for v in alone.denoiser.control.state_dict().values()])
    torch.testing.assert_close(snapshot(run), wanted, rtol=1e-6, atol=1e-7)


def test_a_damaged_checkpoint(base: Card, photos: Path, tmp_path: Path) -> None:
    settings = options(photos, tmp_path, iterations=2)
    list(tuner(base, settings).run())
    file = tmp_path / "checkpoint-00000002" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="does not continue"):
        tuner(base, settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro": 0}, "--micro"),
        ({"save_every": 0}, "--save-every"),
        ({"lr": float("nan")}, "--lr"),
        ({"batch": 3, "micro": 2}, "no multiple of 2"),
        ({"crop": 72}, "no multiple of 16"),
    ],
)
def test_wrong_options(base: Card, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        tuner(base, options(tmp_path, tmp_path / "run", **changes))


# ----------------------------------------------------------------------------------- the result


def test_the_result_is_a_model(base: Card, photos: Path, tmp_path: Path) -> None:
    run = tuner(base, options(photos, tmp_path))
    list(run.run())
    made = export(run, "tuned", "shapes, CC0")
    assert made == card("tuned")
    check(made, hashing=True)
    assert (made.training["data"], made.training["iterations"]) == ("shapes, CC0", 4)
    assert made.training["fine-tuned from"] == "tiny"
    assert (made.limits, made.architecture) == (base.limits, base.architecture)
    old, new = load_weights(base), load_weights(made)
    assert old.keys() == new.keys()
    for name, tensor in new.items():
        learned = name.startswith(PREFIX)
        assert torch.equal(tensor, run.control[name.removeprefix(PREFIX)] if learned else old[name])
    assert any(not torch.equal(old[name], new[name]) for name in new if name.startswith(PREFIX))
    lr = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    results = [
        Upscaler(UpscaleOptions(model=m, steps=1), device="cpu")(lr) for m in ("tiny", "tuned")
    ]
    assert results[1].shape == (3, 64, 64)
    assert not torch.equal(*results)


def test_weights_that_the_stored_precision_cannot_hold(
    base: Card, photos: Path, tmp_path: Path
) -> None:
    half = ImportOptions(GOLDEN / "tiny_controlldm.ckpt", "half", context=CONTEXT)
    run = tuner(import_model(half, lambda *_: None), options(photos, tmp_path))
    with torch.no_grad():
        run.control["conv_in.weight"].fill_(1e6)
    with pytest.raises(ModelError, match="float16 cannot hold"):
        export(run, "huge", "")
    assert not list((home() / "models").glob("*huge*"))
