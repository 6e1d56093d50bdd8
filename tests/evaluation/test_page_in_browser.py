"""The page in headless Chromium: the pixels on both sides, keys, fingers, and that nothing leaves.

Left out where there is no Chromium (Debian: apt-get install chromium) or no playwright.
"""

import io
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from sr_cli.evaluation import page
from sr_cli.evaluation.tables import Column, Table

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext
    from playwright.sync_api import Page as Tab

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    "--force-color-profile=srgb",
)
HOSTILE = "</script><img src=x onerror=alert(1)>'\"<!--" + "long" * 40 + ".png"
SIZE, SCALE = (96, 64), 4
ROWS = ("input", "one", "two", "broken")
HIDDEN_BY_DIVIDER, HIDDEN_BY_BADGES, HIDDEN_BY_CORNERS = 24, 48, 10

Levels = npt.NDArray[np.uint8]


def noise(seed: int, size: tuple[int, int]) -> Levels:
    levels: Levels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return levels


SMALL = (SIZE[0] // SCALE, SIZE[1] // SCALE)
PICTURES = {
    name: (noise(4 * i, SMALL), noise(4 * i + 1, SIZE), noise(4 * i + 2, SIZE))
    for i, name in enumerate(("a.png", HOSTILE))
}


def shown(name: str) -> page.Shown:
    images = [*map(page.data_uri, PICTURES[name]), None]
    rows = tuple((row, float(i), "failed" if row == "broken" else "") for i, row in enumerate(ROWS))
    table = Table((Column("method"), Column("seconds", "lower"), Column("note")), rows)
    small = page.thumbnail(PICTURES[name][0])
    return page.Shown(name, f"of {name}", SIZE, images, small, (0.25, 0.25, 0.5, 0.5), table)


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "compare.html"
    pictures = [shown(name) for name in PICTURES]
    page.write(page.Page("pictures", ROWS, pictures, 1, 2, means=pictures[0].table), path)
    return path


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="there is no playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


class Watched:
    """A tab that notes what is asked for and what goes wrong."""

    def __init__(self, tab: "Tab", path: Path) -> None:
        self.tab = tab
        self.requests: list[str] = []
        self.complaints: list[str] = []
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        tab.goto(path.as_uri())
        self.until("[...document.images].every((image) => image.naturalWidth)")

    def until(self, condition: str) -> None:
        """Wait for it; playwright's own way needs eval, which the page's policy forbids."""
        for _ in range(500):
            if self.tab.evaluate(condition):
                return
            self.tab.wait_for_timeout(20)
        pytest.fail(f"this never came: {condition}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def box(self, selector: str) -> list[float]:
        """left, top, width, height in pixels of CSS."""
        found: list[float] = self.tab.evaluate(
            "(s) => (({x, y, width, height}) => [x, y, width, height])"
            "(document.querySelector(s).getBoundingClientRect())",
            selector,
        )
        return found

    def rect(self, selector: str) -> list[int]:
        """The box in whole pixels, on which pictures lie."""
        found = self.box(selector)
        assert "img" not in selector or np.allclose(found, np.round(found), atol=0.02)
        return [round(value) for value in found]

    def text(self, selector: str) -> str:
        return self.tab.text_content(selector) or ""

    def screen(self) -> Levels:
        return np.asarray(Image.open(io.BytesIO(self.tab.screenshot())).convert("RGB"))


@pytest.fixture
def desk(browser: "Browser", file: Path) -> Iterator[Watched]:
    """A screen with a pixel of its own for each of CSS; without a complaint at the end."""
    with browser.new_context(viewport={"width": 1000, "height": 800}) as context:
        watched = Watched(context.new_page(), file)
        yield watched
        assert not watched.complaints


@pytest.fixture
def hand(browser: "Browser", file: Path) -> Iterator[Watched]:
    """A phone."""
    with phone(browser) as context:
        watched = Watched(context.new_page(), file)
        yield watched
        assert not watched.complaints


def phone(browser: "Browser") -> "BrowserContext":
    return browser.new_context(
        viewport={"width": 360, "height": 740},
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
    )


def sides(watched: Watched, left: Levels, right: Levels) -> list[bool]:
    """Whether the visible pixels left and right of the divider are those of two pictures of equal
    size, wherever they are shown."""
    screen = watched.screen()
    x, y, width, height = watched.rect("#stage")
    place_x, place_y, wide, high = watched.rect(".layer img")
    divider = watched.rect("#divider")[0] + watched.rect("#divider")[2] // 2
    top, bottom = (
        max(y + HIDDEN_BY_BADGES, place_y),
        min(y + height - HIDDEN_BY_CORNERS, place_y + high),
    )
    spans = (
        (max(x, place_x), min(divider - HIDDEN_BY_DIVIDER, place_x + wide)),
        (max(divider + HIDDEN_BY_DIVIDER, place_x), min(x + width, place_x + wide)),
    )
    agree = []
    for levels, (start, end) in zip((left, right), spans, strict=True):
        assert end > start, "nothing of this side is seen"
        rows = (np.arange(top, bottom) - place_y) * levels.shape[0] // high
        columns = (np.arange(start, end) - place_x) * levels.shape[1] // wide
        expected = levels[rows[:, None], columns]
        agree.append(bool((screen[top:bottom, start:end] == expected).all()))
    return agree


INPUT, ONE, TWO = PICTURES["a.png"]


def test_both_sides_have_their_row_s_pixels_wherever_the_divider_is(desk: Watched) -> None:
    assert sides(desk, ONE, TWO) == [True, True]
    assert sides(desk, TWO, ONE) == [False, False]  # the control
    before = desk.rect("#divider")[0]
    desk.press("ArrowRight", "ArrowRight")
    assert desk.rect("#divider")[0] > before
    assert sides(desk, ONE, TWO) == [True, True]
    desk.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert desk.rect("#divider")[0] < before
    assert sides(desk, ONE, TWO) == [True, True]


def test_the_divider_goes_to_both_ends_and_can_be_dragged(desk: Watched) -> None:
    x, y, width, height = desk.rect("#stage")
    for key, place in (("Home", x), ("End", x + width)):
        desk.press(key)
        assert sum(desk.rect("#divider")[::2]) - 22 == place
    desk.press("Home")
    desk.tab.mouse.move(x + 4, y + 10)
    desk.tab.mouse.down()
    desk.tab.mouse.move(x + width // 2 + 30, y + height // 2, steps=3)
    desk.tab.mouse.up()
    assert abs(desk.rect("#divider")[0] + 22 - (x + width // 2 + 30)) <= 1
    assert sides(desk, ONE, TWO) == [True, True]
    desk.tab.mouse.click(x + 100, y + 60)  # where all fits, a click calls the divider
    assert desk.rect("#divider")[0] + 22 == x + 100


def test_the_input_is_shown_by_its_own_pixels(desk: Watched) -> None:
    desk.press("1", "Shift+3")
    assert sides(desk, INPUT, TWO) == [True, True]


def test_zoom_and_pan_are_in_step(desk: Watched) -> None:
    fitting = desk.rect(".layer img")[2]
    for keys in (("+", "+"), ("Shift+ArrowRight", "Shift+ArrowDown"), ("-",), ("+", "+", "+")):
        desk.press(*keys)
        rects = [desk.rect(f"#{side} img") for side in ("left", "right")]
        assert rects[0] == rects[1]
        assert rects[0][2] != fitting
        assert sides(desk, ONE, TWO) == [True, True]
    desk.press("0")
    assert desk.rect(".layer img")[2] == fitting


def test_the_wheel_zooms_about_the_pointer_and_a_drag_moves_both(desk: Watched) -> None:
    x, y, width, height = desk.rect("#stage")
    place = x + width // 4, y + height // 4

    def under_pointer() -> npt.NDArray[np.float64]:
        left, top, wide, high = desk.box("#left img")
        return np.array([(place[0] - left) / wide, (place[1] - top) / high])

    desk.press("+")
    before = under_pointer()
    percent = desk.text("#percent")
    desk.tab.mouse.move(*place)
    desk.tab.mouse.wheel(0, -300)
    desk.until(f"document.getElementById('percent').textContent !== '{percent}'")
    assert np.allclose(under_pointer(), before, atol=2e-3)  # to a device pixel
    desk.press("0", "+", "+", "+")
    start = desk.rect("#left img")
    desk.tab.mouse.move(*place)
    desk.tab.mouse.down()
    desk.tab.mouse.move(place[0] + 31, place[1] + 17, steps=2)
    desk.tab.mouse.up()
    for side in ("left", "right"):
        moved = desk.rect(f"#{side} img")
        assert (moved[0] - start[0], moved[1] - start[1]) == (31, 17)
    assert sides(desk, ONE, TWO) == [True, True]


def test_digits_choose_sides_and_space_swaps_them(desk: Watched) -> None:
    assert [desk.text(f"#{side}-name") for side in ("left", "right")] == ["one", "two"]
    desk.press("Space")
    assert sides(desk, TWO, ONE) == [True, True]
    desk.press("Shift+2", "1")  # the left's row again, and another one for it
    assert [desk.text(f"#{side}-name") for side in ("left", "right")] == ["input", "one"]
    assert sides(desk, INPUT, ONE) == [True, True]
    desk.press("4", "9")  # no picture, and no row
    assert sides(desk, INPUT, ONE) == [True, True]
    desk.press("Shift+1")  # what the left has: they change places
    assert sides(desk, ONE, INPUT) == [True, True]


def test_lists_choose_sides_too_and_lack_what_failed(desk: Watched) -> None:
    desk.tab.select_option("#choose-left", label="1 · input")
    assert sides(desk, INPUT, TWO) == [True, True]
    off = "[...document.querySelectorAll('#choose-left option')].map((one) => one.disabled)"
    assert desk.tab.evaluate(off) == [False, False, False, True]
    desk.tab.focus("#choose-left")
    desk.press("Space", "Escape")  # opens the list and closes it, and swaps nothing
    assert sides(desk, INPUT, TWO) == [True, True]


def test_smooth_pixels_are_others(desk: Watched) -> None:
    desk.press("+", "s")
    assert desk.tab.get_attribute("#smooth", "aria-pressed") == "true"
    assert sides(desk, ONE, TWO) == [False, False]
    desk.press("s")
    assert sides(desk, ONE, TWO) == [True, True]


def test_the_next_picture_comes_with_its_names_and_numbers(desk: Watched) -> None:
    desk.press("n")
    assert desk.text("h1") == HOSTILE
    assert desk.text("#text") == f"2 of 2: of {HOSTILE}"
    assert sides(desk, *PICTURES[HOSTILE][1:]) == [True, True]
    assert desk.tab.get_attribute("#pictures [aria-current=true]", "title") == HOSTILE
    desk.press("n", "p")
    assert sides(desk, ONE, TWO) == [True, True]
    desk.tab.click("#pictures li:nth-child(2) button")
    assert sides(desk, *PICTURES[HOSTILE][1:]) == [True, True]
    desk.press("Space")  # the click has not taken the keys
    assert sides(desk, *PICTURES[HOSTILE][:0:-1]) == [True, True]


def test_the_table_tells_the_best_and_what_is_shown(desk: Watched) -> None:
    assert desk.text("td.best") == "0.00"
    assert desk.text("tr.left td.text") == "one"
    assert desk.text("tr.right td.text") == "two"
    assert desk.tab.locator("table").count() == 2  # of the picture, and of all


def test_a_thumbnail_shows_where_the_part_lies(desk: Watched) -> None:
    x, y, width, height = desk.box(".thumbnail img")
    outline = desk.box(".thumbnail i")
    expected = (x + width / 4, y + height / 4, width / 2, height / 2)
    assert np.allclose(outline, expected, atol=1)


def test_the_divider_is_a_slider_for_those_who_do_not_see_it(desk: Watched) -> None:
    divider = desk.tab.get_by_role("slider", name="Divider")
    divider.focus()
    desk.press("ArrowUp", "ArrowUp")
    assert divider.get_attribute("aria-valuenow") == "54"
    assert divider.get_attribute("aria-valuetext") == "54 %, left one, right two"
    unnamed = desk.tab.evaluate(
        "[...document.querySelectorAll('button, select')].filter((one) => "
        "!(one.ariaLabel || one.textContent.trim() || one.labels?.length)).length"
    )
    assert unnamed == 0
    for label in ("Left", "Right"):
        assert desk.tab.get_by_role("combobox", name=label, exact=True).count() == 1


def test_every_control_is_reached_by_tab(desk: Watched) -> None:
    reached = set()
    for _ in range(20):
        desk.press("Tab")
        reached.add(desk.tab.evaluate("document.activeElement.id"))
    assert reached >= {"help", "choose-left", "swap", "choose-right", "fit", "smooth", "divider"}


def test_help_opens_and_closes(desk: Watched) -> None:
    desk.press("?")
    assert desk.tab.locator("#keys").is_visible()
    desk.press("Space")  # closes it by its button; the sides stay
    assert not desk.tab.locator("#keys").is_visible()
    assert sides(desk, ONE, TWO) == [True, True]


def test_nothing_is_asked_for_but_the_page(desk: Watched, file: Path) -> None:
    desk.press("n", "Space", "+", "?")
    assert desk.requests == [file.as_uri()]


def note(found: list[str], name: str, event: object) -> None:
    """Append a property of the event."""
    found.append(str(getattr(event, name)))


def test_a_page_that_asks_for_more_is_refused_and_noticed(
    browser: "Browser", file: Path, tmp_path: Path
) -> None:
    """What a name would do if it ended an element; and without the policy it would have done it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    evil = f'<img src="http://127.0.0.1:{port}"><script>document.title = "taken"</script></body>'
    for name, policy in (("kept", "Content-Security-Policy"), ("taken", "X-Nothing")):
        text = file.read_text("utf-8").replace("</body>", evil)
        path = tmp_path / f"{name}.html"
        path.write_text(text.replace("Content-Security-Policy", policy), encoding="utf-8")
        with browser.new_context() as context:
            tab = context.new_page()
            asked: list[str] = []
            refused: list[str] = []
            tab.on("requestfailed", partial(note, asked, "failure"))
            tab.on("console", partial(note, refused, "text"))
            tab.goto(path.as_uri())
            assert tab.title() == ("taken" if name == "taken" else "pictures")
            assert any("CONNECTION_REFUSED" in why for why in asked) == (name == "taken")
            assert any("Content Security Policy" in text for text in refused) == (name == "kept")


def test_dark_and_light_are_the_user_s(desk: Watched) -> None:
    corners = []
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        desk.tab.emulate_media(color_scheme=scheme)
        corners.append(int(desk.screen()[2, 2].mean()))
        assert sides(desk, ONE, TWO) == [True, True]
    assert corners[0] > 200
    assert corners[1] < 60


def test_a_phone_needs_no_scrolling_to_the_side(hand: Watched) -> None:
    for key in ("n", "p"):
        hand.press(key)  # a long name, and a short one
        width, room = hand.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width <= room == 360
    assert hand.box("#stage")[3] > 300
    assert all(hand.box(f"#{name}")[3] >= 36 for name in ("in", "out", "swap", "choose-left"))


def touch(watched: Watched, *steps: list[tuple[float, float]]) -> None:
    """Fingers on the screen, then moved, then lifted."""
    session = watched.tab.context.new_cdp_session(watched.tab)

    def send(kind: str, places: list[tuple[float, float]]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", steps[0])
    for places in steps[1:]:
        send("touchMove", places)
    send("touchEnd", [])


def test_a_finger_slides_and_two_zoom(hand: Watched) -> None:
    x, y, width, height = hand.box("#stage")
    middle = (x + width / 2, y + height / 2)
    touch(hand, [middle], [(middle[0] + 40, middle[1])], [(middle[0] + 80, middle[1])])
    assert abs(hand.box("#divider")[0] + 22 - (middle[0] + 80)) < 2
    before, slid = hand.box("#left img"), hand.box("#divider")
    touch(hand, *([(middle[0] - d, middle[1]), (middle[0] + d, middle[1])] for d in (20, 30, 60)))
    left, right = hand.box("#left img"), hand.box("#right img")
    assert left == right
    assert left[2] == pytest.approx(3 * before[2], rel=0.01)
    assert hand.box("#divider") == slid
    touch(hand, [(x + 20, y + 80)], [(x + 40, y + 90)])  # what does not fit is moved
    assert hand.box("#left img")[0] == pytest.approx(left[0] + 20, abs=1)
    assert hand.box("#divider") == slid
