"""Dockerfile and action.yml: by their linters, and by the rules that these do not know."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
ACTION = (ROOT / "action.yml").read_text("utf-8")


def linted(program: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    if not (BIN / program).is_file():
        pytest.skip(f"{program} is not installed: pip install '.[dev]'")
    command = [str(BIN / program), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_hadolint_has_nothing_to_say() -> None:
    done = linted("hadolint", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_notice(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.replace("WORKDIR /src", "RUN cd /src"))
    assert "DL3003" in linted("hadolint", tmp_path / "Dockerfile").stdout


def test_the_action_is_of_the_schema() -> None:
    schema = ("--builtin-schema", "vendor.github-actions")
    assert linted("check-jsonschema", *schema, ROOT / "action.yml").returncode == 0


def test_the_schema_would_notice(tmp_path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-actions")
    (tmp_path / "action.yml").write_text(ACTION.replace("using: composite", "using: nothing"))
    assert linted("check-jsonschema", *schema, tmp_path / "action.yml").returncode != 0


def last_stage(text: str) -> list[str]:
    """Its instructions, without comments."""
    stage = re.split(r"^FROM ", text, flags=re.MULTILINE)[-1]
    return [line for line in stage.splitlines() if line and not line.startswith("#")]


def test_the_container_does_not_run_as_root() -> None:
    users = [line.split()[1] for line in last_stage(DOCKERFILE) if line.startswith("USER ")]
    assert users
    assert users[-1] not in ("0", "root")


def copied(text: str) -> set[str]:
    """What the build takes of the repository."""
    lines = [line.split()[1:-1] for line in text.splitlines() if line.startswith("COPY ")]
    return {name for names in lines for name in names}


def test_the_container_s_wheel_is_built_of_what_is_sent_to_docker() -> None:
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    assert copied(DOCKERFILE) == sent
    assert all((ROOT / name).exists() for name in sent)
    assert {"sr_cli", "weights", "docs/share"} <= sent


def scripts(text: str) -> list[str]:
    return [step["run"] for step in yaml.safe_load(text)["runs"]["steps"] if "run" in step]


def test_no_input_of_the_action_is_pasted_into_a_script() -> None:
    assert scripts(ACTION)
    assert not any("${{" in script for script in scripts(ACTION))
    pasted = ACTION.replace('"$INPUT"', '"${{ inputs.input }}"')
    assert any("${{" in script for script in scripts(pasted))
