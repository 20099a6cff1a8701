"""A movable figure: every state in the page, the still picture where no script runs, sliders that a keyboard moves."""

import base64
import json
import shutil

import pytest
from bs4 import BeautifulSoup

from support.book import movable
from support.common import paths

WIDTH = movable.Slider("width", "kernel width", (0.5, 1, 2), start=1)
SHIFT = movable.Slider("shift", "shift </script>", (0, 0.25), form=".2f")
PANELS = [
    movable.Panel("distance", "confidence", (0, 2), (0, 1), title="Left"),
    movable.Panel("width", "rate", (0.1, 10), (0, 1), xscale="log"),
]
ALT = "A line falls from one to zero, and a dot moves along a curve."


def draw(width: float, shift: float) -> movable.State:
    falls = movable.Mark("line", [0, 2], [1, shift], "#0072B2", label="falls", style="--")
    box = movable.Mark("area", [0, 1, 1, 0], [0, 0, 1, 1], "#009E73", label="box")
    dot = movable.Mark("dots", [width], [0.5], "#D55E00", label="here")
    away = movable.Mark("arrow", [1, 1 + width], [0.5, 0.5], "#D55E00")
    return movable.State([[falls, box], [dot, away]], f"At width {width:g} and shift {shift:g}.")


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(movable, "display", lambda output, raw: outputs.append(output))

    def show(sliders=(WIDTH, SHIFT), panels=PANELS, draw=draw):
        movable.show(sliders, panels, draw, alt=ALT)
        return outputs[-1]

    return show


def content(output: dict) -> dict:
    return json.loads(BeautifulSoup(output["text/html"], "html.parser").select_one("script[type='application/json']").string)


def test_every_combination_has_its_state_and_every_mark_is_kept_once(shown):
    found = content(shown())
    assert [state["says"] for state in found["states"]] == [
        f"At width {width:g} and shift {shift:g}." for width in (0.5, 1, 2) for shift in (0, 0.25)
    ]
    # two lines, one box, three dots, three arrows
    assert len(found["marks"]) == 9
    assert sorted({place for state in found["states"] for panel in state["marks"] for place in panel}) == list(range(9))


def test_points_are_counted_from_the_upper_left_corner_of_their_panel(shown):
    found = content(shown())
    left, right = found["states"][1]["marks"]  # width 0.5, shift 0.25
    assert found["marks"][left[0]]["points"] == [0, 0, 1000, 750]
    assert found["marks"][right[0]]["points"] == [round(1000 * 0.34949), 500]  # log10(0.5 / 0.1) / 2
    assert found["panels"][1]["xticks"] == [[0, "0.1"], [500, "1"], [1000, "10"]]
    assert found["panels"][0]["yticks"][0] == [0, "0"]


def test_without_a_script_the_still_picture_says_what_it_shows(shown):
    output = shown()
    soup = BeautifulSoup(output["text/html"], "html.parser")
    still = soup.select_one("figure.movable img")
    assert base64.b64decode(still["src"].removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert still["alt"] == ALT
    assert soup.select_one("figure.movable p").get_text() == "At width 1 and shift 0."
    assert output["text/plain"] == f"{ALT} At width 1 and shift 0."
    assert output["text/html"].count("</script>") == 2, "no text of the chapter ends the script that holds it"


def test_a_still_picture_is_the_same_when_it_is_drawn_again(shown):
    assert shown() == shown()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliders": ()}, "at least one slider"),
        ({"sliders": (movable.Slider("width", "w", (1, 2), start=2), SHIFT)}, "a start among its values"),
        ({"sliders": (movable.Slider("width", "w", range(1, 1002)), SHIFT)}, "2002 states are more than 2000"),
        ({"panels": PANELS[:1]}, "marks for 2 panels were given, there are 1"),
        ({"sliders": (movable.Slider("width", "w", (0,)), SHIFT)}, "'here' has a point that a log axis has not"),
        ({"sliders": (WIDTH, movable.Slider("shift", "s", (float("nan"),)))}, "'falls' has a point that a linear axis has not"),
    ],
)
def test_what_cannot_be_drawn_is_refused(shown, change, message):
    with pytest.raises(ValueError, match=message):
        shown(**change)


# --- in a browser -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_page(shown, tmp_path, browser):
    """``open_page()`` is a page with the figure, opened as a file, and what it complained about."""
    page = tmp_path / "book" / "01_tiny" / "lesson.html"
    page.parent.mkdir(parents=True)
    (tmp_path / "_static").mkdir()
    for name in ("movable.js", "book.css"):
        shutil.copy(paths.root() / "book" / "_static" / name, tmp_path / "_static" / name)
    style = "<!doctype html><meta charset='utf-8'><link rel='stylesheet' href='../../_static/book.css'>"
    page.write_text(style + shown()["text/html"] * 2, encoding="utf-8")
    tabs = []

    def at(**options):
        tab, complaints = browser.new_page(**options), []
        tabs.append(tab)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto(page.as_uri())
        return tab, complaints

    yield at
    for tab in tabs:
        tab.close()


def test_the_keyboard_moves_it_and_says_where_it_is(open_page):
    tab, complaints = open_page()
    figure = tab.locator("figure.movable").first
    sliders = figure.get_by_role("slider")
    says = figure.get_by_role("status")
    assert says.inner_text() == "At width 1 and shift 0."
    assert figure.locator("img").count() == 0
    circle = figure.locator("svg circle[cx]").first
    before = float(circle.get_attribute("cx"))
    sliders.first.press("ArrowRight")
    assert says.inner_text() == "At width 2 and shift 0."
    assert float(circle.get_attribute("cx")) > before
    sliders.last.press("End")
    assert says.inner_text() == "At width 2 and shift 0.25."
    assert sliders.last.get_attribute("aria-valuetext") == "0.25"
    assert figure.get_by_label("kernel width").count() == 1
    assert figure.locator(".movable-legend li").all_inner_texts() == ["falls", "box", "here"]
    assert tab.locator("figure.movable").last.get_by_role("status").inner_text() == "At width 1 and shift 0.", "each by itself"
    assert complaints == []


def test_it_fits_a_telephone(open_page):
    tab, _ = open_page(viewport={"width": 390, "height": 844})
    tab.wait_for_function("document.documentElement.scrollWidth <= 390")  # once the sliders stand in the picture's place
    boxes = [panel.bounding_box() for panel in tab.locator(".movable-panels").first.locator("svg").all()]
    assert boxes[1]["y"] > boxes[0]["y"], "panels stand below one another"


def test_without_scripts_the_picture_stays(open_page):
    tab, _ = open_page(java_script_enabled=False)
    figure = tab.locator("figure.movable").first
    assert figure.locator("img").bounding_box()["width"] > 300
    assert figure.get_by_role("slider").count() == 0
