"""Sizes are rounded half up and exactly; values without sense are refused in one sentence."""

from dataclasses import FrozenInstanceError, replace
from fractions import Fraction
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sr_cli.engine.options import OutputOptions, UpscaleOptions
from sr_cli.engine.size import Exact, Measure, Scale, Side
from sr_cli.errors import UsageError

sides = st.integers(1, 20_000)
hundredths = st.integers(1, 3200)


@settings(deadline=None)
@given(sides, sides, hundredths)
def test_scaled_sides_are_the_nearest_pixels_with_halves_up(w: int, h: int, n: int) -> None:
    target = UpscaleOptions(scale=n / 100).size.of(w, h)
    for side, result in zip((w, h), target, strict=True):
        error = Fraction(side * n, 100) - result
        assert -Fraction(1, 2) <= error < Fraction(1, 2) or (result == 1 and error < 0)


def test_halves_go_up_where_python_rounds_to_even() -> None:
    assert UpscaleOptions(scale=0.5).size.of(5, 7) == (3, 4)
    assert round(5 * 0.5) == 2  # the control: what plain round() would give


def test_scales_count_as_the_decimals_that_were_typed() -> None:
    assert UpscaleOptions(scale=1.005).size.of(100, 300) == (101, 302)
    assert int(100 * 1.005 + 0.5) == 100  # the control: in binary, 1.005 is too small


@settings(deadline=None)
@given(sides, sides, st.integers(1, 20_000))
def test_a_side_is_met_exactly_and_the_aspect_kept(w: int, h: int, n: int) -> None:
    wide, high = UpscaleOptions(scale=Side("long_side", n)).size.of(w, h)
    assert max(wide, high) == n
    assert abs(min(wide, high) - min(w, h) * n / max(w, h)) <= 1
    assert min(UpscaleOptions(scale=Side("short_side", n)).size.of(w, h)) == n
    wide, high = UpscaleOptions(scale=Side("width", n)).size.of(w, h)
    assert wide == n
    assert abs(high - h * n / w) <= 1
    assert Side("height", n).of(h, w) == (high, wide)  # of the picture on its side


@settings(deadline=None)
@given(sides, sides)
def test_no_size_means_four_times(w: int, h: int) -> None:
    assert UpscaleOptions().size.of(w, h) == (4 * w, 4 * h)
    assert UpscaleOptions(scale=Exact(7, 9)).size.of(w, h) == (7, 9)


BAD: list[dict[str, Any]] = [
    *({"scale": value} for value in (0, -1, 32.01, float("nan"), float("inf"))),
    *({"steps": value} for value in (0, -1, 1001)),
    *({"steps": 500, "t1": 500}, {"t1": 2}, {"t1": 9}, {"t1": 1001}),
    *({"order": 0}, {"order": 4}, {"variant": "euler"}, {"last_step": "y"}, {"color": "sepia"}),
    *({"seed": -1}, {"seed": 2**64}, {"tile": 1}, {"tile": 15}, {"tile": -16}),
    *({"texture": value} for value in (-0.01, 1.01, float("nan"))),
    *({"overlap": -1}, {"batch": 0}, {"model": ""}, {"preprocess": ""}),
    *(
        {"scale": "2"},
        {"scale": None},
        {"steps": "auto"},
        {"steps": 1.5},
        {"steps": "3"},
        {"order": None},
    ),
    *({"seed": "x"}, {"tile": 64.0}, {"t1": "some"}, {"batch": 2.0}, {"texture": "1"}),
]
GOOD: list[dict[str, Any]] = [
    *({"scale": value} for value in (0.01, 1, 2.7, 32)),
    *(
        {"scale": Exact(1, 1)},
        {"scale": Side("long_side", 1)},
        {"steps": 499, "t1": 500},
        {"t1": 10},
        {"t1": 1000},
    ),
    *({"texture": 0}, {"texture": 1.0}),
    *({"seed": 2**64 - 1}, {"tile": 0}, {"tile": 16}, {"overlap": 0}, {"batch": 99}),
]


def test_sizes_without_sense_are_refused() -> None:
    for values in ((0, 5), (5, -1)):
        with pytest.raises(UsageError, match="must be at least 1x1"):
            Exact(*values)
    for measure in get_args(Measure):
        with pytest.raises(UsageError, match=f"{measure.replace('_', ' ')} must be at least 1"):
            Side(measure, 0)
    with pytest.raises(UsageError, match="one of width, height, long_side, short_side, not 'deep'"):
        Side("deep", 5)  # type: ignore[arg-type]
    assert replace(UpscaleOptions(), scale=Exact(1, 1)).size == Exact(1, 1)
    assert UpscaleOptions(scale=Scale(3)).size == UpscaleOptions(scale=3).size


@pytest.mark.parametrize("values", BAD, ids=str)
def test_values_without_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^[^\n]+\.$"):
        UpscaleOptions(**values)


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_values_on_the_border_are_taken(values: dict[str, Any]) -> None:
    UpscaleOptions(**values)


def test_options_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        UpscaleOptions().steps = 9  # type: ignore[misc]


@pytest.mark.parametrize(
    "template", ["{nope}", "{", "{}", "{0}", "{stem.upper}", "{stem!x}", "{stem", "}"]
)
def test_templates_with_unknown_fields_are_refused(template: str) -> None:
    with pytest.raises(UsageError, match="template"):
        OutputOptions(name=template).file_name({"stem": "a"}, ".png")


@pytest.mark.parametrize("template", ["{stem}/x", "..\\{stem}", "", "{stem:{ext}}", "{stem:d}"])
def test_templates_that_give_no_file_name_are_refused(template: str) -> None:
    with pytest.raises(UsageError, match="template"):
        OutputOptions(name=template).file_name({"stem": "a"}, ".png")


@pytest.mark.parametrize(
    ("template", "seed"),
    [
        ("{seed:c}", 2**63),
        ("{seed:c}", 0xD800),
        ("{stem:>99999999999}", 0),
        ("{stem:>{seed}}", 9),
    ],
)
def test_templates_that_give_no_text_or_too_much_are_refused(template: str, seed: int) -> None:
    with pytest.raises(UsageError, match=r"template .*[^ :]\.$"):
        OutputOptions(name=template).file_name({"stem": "a", "seed": seed}, ".png")


@pytest.mark.parametrize("letters", ["x" * 254, "ü" * 127])
def test_a_template_has_room_for_its_fields(letters: str) -> None:
    """A name has up to 255 bytes."""
    assert OutputOptions(name=f"{letters}{{stem}}")
    with pytest.raises(UsageError, match="255 bytes beside its fields"):
        OutputOptions(name=f"{letters}_{{stem}}")


def test_the_suffix_is_added_once() -> None:
    assert OutputOptions(name="{stem}_x{scale}").file_name({"stem": "a", "scale": 4}, ".png") == (
        "a_x4.png"
    )
    assert OutputOptions(name="{stem}.png").file_name({"stem": "a.b"}, ".png") == "a.b.png"


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_has_bounds(quality: int) -> None:
    with pytest.raises(UsageError, match="quality"):
        OutputOptions(quality=quality)
