"""Buckets as inputs and outputs, on a local server of S3: read, written, resumed, never harmed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calls import Nearest, Run, Srx, paint

from sr_cli.engine import ledger
from sr_cli.engine.ledger import Ledger
from sr_cli.engine.store import FOLDER, Address, Store, is_remote, tag_of

pytest_plugins = ["calls"]
pytestmark = pytest.mark.usefixtures("isolated")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server of S3 in this process."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: srx[s3]")
    moto = pytest.importorskip("moto.server", reason="moto is not installed: srx[dev]")
    running = moto.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def fs(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A bucket of three pictures, a text, a picture in a folder and one that is hidden."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    files = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
    if files.exists("pics"):
        files.rm("pics", recursive=True)
    files.mkdir("pics")
    for width, name in enumerate(("a.png", "b.jpg", "c.png", "sub/d.png", ".hidden.png"), 6):
        files.put_file(str(paint(tmp_path / "made" / name, (width, 4))), f"pics/in/{name}")
    files.pipe_file("pics/in/read.me", b"a text")
    return files


def names(fs: Any, folder: str = "pics/out") -> set[str]:
    """Of results."""
    found = {path[len(folder) + 1 :] for path in fs.find(folder)}
    return {name for name in found if not name.startswith(FOLDER)}


def objects(fs: Any) -> set[str]:
    return {path.rpartition(".")[2] for path in fs.find(f"pics/out/{FOLDER}")}


def outcome(run: Run) -> dict[str, list[str]]:
    report = json.loads(run.out)
    kinds = ("results", "failures", "skipped")
    return {kind: [entry["input"] for entry in report[kind]] for kind in kinds}


IN = [f"s3://pics/in/{name}" for name in ("a.png", "b.jpg", "c.png")]
BUCKET = ("upscale", "s3://pics/in/", "s3://pics/out/")


def test_a_bucket_becomes_a_bucket(srx: Srx, fs: Any) -> None:
    run = srx(*BUCKET)
    assert run.code == 0
    assert names(fs) == {"a.png", "b.png", "c.png"}
    assert "s3://pics/in/a.png" in run.err
    assert "results in s3://pics/out" in run.err
    assert "1 other file left out: s3://pics/in/read.me." in run.err
    assert "/tmp" not in run.err
    assert objects(fs) == {"jsonl"}


def test_it_is_what_files_become(srx: Srx, fs: Any) -> None:
    fs.get("pics/in", "here", recursive=True)
    srx("upscale", "here", "out", "-r")
    srx(*BUCKET, "-r")
    assert names(fs) == {"a.png", "b.png", "c.png", "sub/d.png"}
    for name in names(fs):
        assert fs.cat_file(f"pics/out/{name}") == (Path("out") / name).read_bytes()


def test_files_can_go_to_a_bucket(srx: Srx, fs: Any, photos: Path) -> None:
    assert srx("upscale", photos, "s3://pics/out", "-r").code == 0
    assert names(fs) == {"a.png", "b.png", "sub/c.png"}
    found = outcome(srx("upscale", photos, "s3://pics/out", "-r", "--json"))
    assert (found["results"], len(found["skipped"])) == ([], 3)


def test_one_file_becomes_one_file(srx: Srx, fs: Any) -> None:
    assert srx("upscale", "s3://pics/in/a.png", "s3://pics/out/large.webp").code == 0
    assert names(fs) == {"large.webp"}
    assert srx("upscale", "s3://pics/in/a.png", "s3://pics/out").code == 0
    assert names(fs) == {"large.webp", "a.png"}


def test_an_address_that_is_missing_fails_alone(srx: Srx, fs: Any) -> None:
    run = srx("upscale", "s3://pics/none", "s3://pics/in/a.png", "s3://pics/out", "--json")
    (failed,) = json.loads(run.out)["failures"]
    assert (run.code, names(fs), failed["input"]) == (1, {"a.png"}, "s3://pics/none")
    assert "s3://pics/none does not exist" in failed["reason"]
    assert "/tmp" not in run.err + run.out


def test_results_among_the_inputs_are_no_inputs(srx: Srx, fs: Any) -> None:
    for _ in range(2):
        assert srx("upscale", "s3://pics/in", "s3://pics/in/large", "-r").code == 0
    assert names(fs, "pics/in/large") == {"a.png", "b.png", "c.png", "sub/d.png"}


# ------------------------------------------------------------------------ resumed


def test_what_is_done_is_not_done_again(srx: Srx, fs: Any) -> None:
    srx(*BUCKET)
    before = {path: fs.info(path)["LastModified"] for path in fs.find("pics/out")}
    run = srx(*BUCKET, "--json")
    assert outcome(run) == {"results": [], "failures": [], "skipped": IN}
    assert {skipped["reason"] for skipped in json.loads(run.out)["skipped"]} == {"done already"}
    assert {path: fs.info(path)["LastModified"] for path in fs.find("pics/out")} == before


def test_other_options_or_another_input_are_another_result(srx: Srx, fs: Any) -> None:
    srx(*BUCKET)
    assert outcome(srx(*BUCKET, "--scale", 2, "--json"))["results"] == IN
    fs.put_file(str(paint(Path("new.png"), (9, 9))), "pics/in/a.png")
    assert outcome(srx(*BUCKET, "--scale", 2, "--json"))["results"] == IN[:1]
    fs.rm("pics/out/c.png")
    assert outcome(srx(*BUCKET, "--scale", 2, "--json"))["results"] == IN[2:]


def test_a_killed_run_is_continued(srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_gather", lambda self: None)
        srx(*BUCKET)
    assert objects(fs) == {"json"}
    fs.rm("pics/out/b.png")  # whose line was put, and it was not
    assert outcome(srx(*BUCKET, "--json")) == {
        "results": IN[1:2], "failures": [], "skipped": [IN[0], IN[2]],
    }  # fmt: skip


def test_without_its_lines_a_result_is_somebody_s(srx: Srx, fs: Any) -> None:
    srx(*BUCKET)
    fs.rm(f"pics/out/{FOLDER}", recursive=True)
    run = srx(*BUCKET, "--json")
    assert (run.code, outcome(run)["failures"]) == (1, IN)


def test_a_result_that_is_another_s_is_kept_and_named(srx: Srx, fs: Any) -> None:
    fs.pipe_file("pics/out/a.png", b"mine")
    run = srx(*BUCKET)
    assert run.code == 1
    assert "s3://pics/out/a.png exists, and no run of srx" in run.err
    assert fs.cat_file("pics/out/a.png") == b"mine"
    assert srx(*BUCKET, "--overwrite").code == 0
    assert fs.cat_file("pics/out/a.png") != b"mine"


def test_a_retouched_result_is_kept(srx: Srx, fs: Any) -> None:
    srx(*BUCKET)
    fs.pipe_file("pics/out/a.png", b"retouched")
    assert outcome(srx(*BUCKET, "--json"))["failures"] == IN[:1]
    assert fs.cat_file("pics/out/a.png") == b"retouched"


def test_what_appears_meanwhile_is_kept(srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def appearing(self: Nearest, lr: Any, on_step: Any) -> Any:
        fs.pipe_file("pics/out/a.png", b"mine")
        return real(self, lr, on_step)

    real = Nearest.enlarge
    monkeypatch.setattr(Nearest, "enlarge", appearing)
    run = srx("upscale", "s3://pics/in/a.png", "s3://pics/out/")
    assert run.code == 1
    assert "appeared while the run went on" in run.err
    assert fs.cat_file("pics/out/a.png") == b"mine"


def test_shards_and_runs_at_once_share_no_object(
    srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "EVERY", 1)
    for number in (1, 2):
        assert srx(*BUCKET, "-r", "--shard", f"{number}/2").code == 0
    assert len(fs.find(f"pics/out/{FOLDER}")) >= 4
    assert len(names(fs)) == 4
    assert len(outcome(srx(*BUCKET, "-r", "--json"))["skipped"]) == 4


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"status": "done"}', b"\xff", b"[" * 99999])
def test_any_line_is_read(srx: Srx, fs: Any, line: bytes) -> None:
    srx(*BUCKET)
    fs.pipe_file(f"pics/out/{FOLDER}/x.jsonl", line + b"\n")
    assert len(outcome(srx(*BUCKET, "--json"))["skipped"]) == 3


# ------------------------------------------------------------------------ mistakes


def test_bad_pictures_stop_nothing_else(srx: Srx, fs: Any) -> None:
    fs.pipe_file("pics/in/a.png", b"no picture")
    run = srx(*BUCKET, "--json")
    assert (run.code, outcome(run)["failures"]) == (1, IN[:1])
    assert names(fs) == {"b.png", "c.png"}


def test_what_is_gone_before_it_is_fetched_fails_alone(
    srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.list

    def going(self: Store, *, deep: bool) -> Any:
        found = real(self, deep=deep)
        fs.rm("pics/in/a.png") if fs.exists("pics/in/a.png") else None
        return found

    monkeypatch.setattr(Store, "list", going)
    run = srx(*BUCKET, "--json")
    assert (run.code, outcome(run)["failures"], len(outcome(run)["results"])) == (1, IN[:1], 2)


def test_an_interrupted_run_is_continued(srx: Srx, fs: Any, failure: list[BaseException]) -> None:
    failure.append(KeyboardInterrupt())
    run = srx(*BUCKET)
    assert (run.code, names(fs)) == (130, {"a.png"})
    assert "1 of 3 done; the same command does the rest" in run.err
    failure.clear()
    assert len(outcome(srx(*BUCKET, "--json"))["results"]) == 2


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("s3://pics/none", "s3://pics/out"), 2, "s3://pics/none does not exist"),
        (("s3://pics/in", "s3://nowhere/out"), 1, "s3://nowhere/out does not exist"),
        (("s3://pics/in", "out"), 2, "needs a remote OUTPUT"),
        (("s3://pics/in/*.png", "s3://pics/out"), 2, "is a pattern"),
        (("s3://pics/in", "s3://pics/out", "--dry-run"), 2, "cannot be used with --dry-run"),
        (("s3://pics/in", "s3://pics/out", "--cluster", "auto"), 2, "with --cluster"),
        (("s3://pics/in", "s3://pics/out", "--name", "{stem}_{width}"), 2, "--name with a size"),
        (("s3://pics/in", "zz://pics/out"), 2, "zz:// is known to nobody"),
        (("s3://pics/in/read.me", "s3://pics/out"), 1, "s3://pics/in/read.me is no image"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(
    srx: Srx, fs: Any, args: tuple[str, ...], code: int, says: str
) -> None:
    run = srx("upscale", *args)
    assert (run.code, says in run.err) == (code, True), run.err
    assert "/tmp" not in run.err


def test_a_server_that_is_not_there_is_told_of(
    srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    run = srx(*BUCKET)
    assert run.code == 1
    assert "cannot be reached" in run.err
    assert "AWS_ENDPOINT_URL" in run.err


def test_without_credentials_a_sentence_says_where_they_go(
    srx: Srx, fs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "nowhere")
    run = srx(*BUCKET)
    assert run.code == 1
    assert "set AWS_ACCESS_KEY_ID" in run.err


def test_addresses_read_as_they_are_written(tmp_path: Path) -> None:
    address = Address("s3://bucket/in")
    assert str(address / "a.png") == "s3://bucket/in/a.png"
    assert str(Address(str(Path("s3://bucket/in/")))) == "s3://bucket/in"
    assert (address / "a.png").suffix == ".png"
    assert is_remote(Path("s3://bucket"))
    assert not any(map(is_remote, (Path("in"), Path("/in"), Path("C:/in"), Path("a:b"))))


def test_a_folder_of_such_a_name_is_a_folder(srx: Srx) -> None:
    paint(Path("s3:/in/a.png"))
    assert not is_remote(Path("s3://in"))
    assert srx("upscale", "s3:/in", "out").code == 0


def test_a_tag_changes_with_its_file() -> None:
    one = {"size": 3, "ETag": "a"}
    assert tag_of(one) == tag_of(dict(one))
    assert len({tag_of(one), tag_of(one | {"ETag": "b"}), tag_of(one | {"size": 4})}) == 3
