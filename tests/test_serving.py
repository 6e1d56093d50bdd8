"""The service of docs/serving.md: it enlarges, and keeps to its limits of size and queue."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

PAGE = Path(__file__).parents[1] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The names of the page's only block of Python."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(source, str(PAGE), "exec"), names)
    return names


def png(width: int = 32) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def ask(service: dict[str, Any], data: bytes) -> Any:
    from starlette.testclient import TestClient

    with TestClient(service["app"]) as client:
        return client.post("/", content=data)


def test_a_picture_comes_back_larger(service: dict[str, Any]) -> None:
    answer = ask(service, png())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)
    assert service["waiting"] == 0


@pytest.mark.parametrize(
    ("limit", "value", "answered"),
    [
        ("BYTES", 100, (413, "The picture has too many bytes.")),
        ("PIXELS", 100, (422, "The picture ")),
        ("WAITING", 0, (503, "Too many pictures wait: try again.")),
    ],
)
def test_limits_are_kept(
    service: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    answered: tuple[int, str],
) -> None:
    monkeypatch.setitem(service, limit, value)
    answer = ask(service, png())
    assert answer.status_code == answered[0]
    assert answer.text.startswith(answered[1])
    assert "/tmp" not in answer.text
    assert service["waiting"] == 0


def test_what_is_no_picture_is_told(service: dict[str, Any]) -> None:
    answer = ask(service, b"no picture")
    assert answer.status_code == 422
    assert answer.text.startswith("The picture is no image that can be read")
