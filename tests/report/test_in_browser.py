"""Pages in headless Chromium: at the width of a phone and of a screen, light and dark.

Skipped without Chromium. ``TFPRUNE_PICTURES`` names a folder for pictures of the pages.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import runs
from tests.support.browser import CLICK, WIDE, Browser
from tfprune.gate.comparison import compare
from tfprune.gate.limits import Config
from tfprune.gate.sizes import Model, Side
from tfprune.report.comparison_page import comparison_page
from tfprune.report.run_page import run_page
from tfprune.sweep.page import sweep_page
from tfprune.sweep.plot import picture

LONG = "a_rather_long_name_of_a_model_" * 4


@pytest.fixture(scope="module")
def browser():
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """One of each kind, by name."""
    import numpy as np

    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    long = runs.whole()
    long["model"]["name"] = LONG
    for entry in long["artifacts"]:
        entry["file"] = LONG + entry["file"]
    long["changed"]["file"] = LONG + long["changed"]["file"]
    side = [
        Side({(name := f"{LONG}{n}.tflite"): Model(name, size * n, 0.9) for n in (1, 2)})
        for size in (1000, 2000)
    ]
    sweep = runs.swept()
    texts = {
        "run": run_page(runs.whole(), runs.layers(rng), runs.pictures(rng), runs.inspected()),
        "colours": run_page(runs.whole(), runs.layers(rng), runs.pictures(rng, 24, 96, 3)),
        "numbers": run_page(runs.whole(), (), list(rng.normal(0, 1, (24, 40)))),
        "least": run_page(runs.least()),
        "long": run_page(long, runs.layers(rng), runs.pictures(rng)),
        "comparison": comparison_page(compare(*side, Config())),
        "sweep": sweep_page(sweep, picture(sweep)),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(
    "name", ["run", "colours", "numbers", "least", "long", "comparison", "sweep"]
)
def test_a_page_opens_and_everything_can_be_clicked(browser, pages, name, width, dark):
    path = pages / f"{name}.html"
    browser.open(path, width, dark)
    folder = os.environ.get("TFPRUNE_PICTURES")
    shot = f"{name}_{width}_{'dark' if dark else 'light'}"
    if folder:
        browser.picture(Path(folder, f"{shot}_first.png"), whole=False)
    clicked = browser.value(CLICK)
    assert clicked["opened"] == clicked["closed"]
    assert clicked["dead"] == 0
    assert name == "comparison" or clicked["clicked"] > 0
    # Tables scroll in a box of their own; the page never does sideways.
    page, window = browser.value(WIDE)
    assert page <= window
    assert not browser.complaints
    assert {url.split(":")[0] for url in browser.requests} <= {"file", "data"}
    assert [url for url in browser.requests if url.startswith("file")] == [path.as_uri()]
    if folder:
        browser.value("scrollTo(0, 0)")
        browser.picture(Path(folder, f"{shot}.png"))


@pytest.mark.parametrize("name", ["run", "sweep", "comparison"])
def test_it_is_the_same_without_scripts(browser, pages, name):
    heights = []
    for script in (True, False):
        browser.open(pages / f"{name}.html", script=script)
        box = browser.call("Page.getLayoutMetrics")["cssContentSize"]
        heights.append(box["height"])
    assert heights[0] == heights[1] > 300


@pytest.mark.parametrize("name", ["run", "numbers", "long", "comparison", "sweep"])
def test_a_phone_shows_tables_without_scrolling_sideways(browser, pages, name):
    browser.open(pages / f"{name}.html", 390)
    browser.value(CLICK)
    script = """
    [...document.querySelectorAll('table')].map(one => one.parentElement)
      .map(box => box.scrollWidth - box.clientWidth)
    """
    over = browser.value(script)
    assert over
    assert max(over) <= 0


def test_a_phone_names_the_column_of_each_figure(browser, pages):
    browser.open(pages / "run.html", 390)
    script = """
    [...document.querySelectorAll('.blocks td:not(:first-child)')].filter(one => one.textContent)
      .map(one => getComputedStyle(one, '::before').content.slice(1, -1))
    """
    named = browser.value(script)
    assert {"bytes", "accuracy %"} <= set(named)
    assert "" not in named


def test_colours_can_be_read(browser, pages):
    """Text stands out from what it stands on, by the ratio that WCAG asks for."""
    script = """
    [...document.querySelectorAll('p, td, th, strong, small, dt, dd, summary, figcaption, code, a')]
      .map(one => {
        const backs = [];
        for (let at = one; at; at = at.parentElement)
          backs.push(getComputedStyle(at).backgroundColor);
        return [getComputedStyle(one).color, ...backs].join(';');
      })
    """
    for dark in (False, True):
        browser.open(pages / "run.html", 1280, dark)
        for pair in set(browser.value(script)):
            colour, *backs = pair.split(";")
            text, back = luminance(parts_of(colour)), luminance(laid(backs))
            ratio = (max(text, back) + 0.05) / (min(text, back) + 0.05)
            assert ratio >= 4.5, (dark, pair, ratio)


def parts_of(colour):
    """Red, green, blue in [0, 1], and how opaque a colour is."""
    numbers = [float(part) for part in colour.split("(")[1].removesuffix(")").split(",")]
    return [part / 255 for part in numbers[:3]] + [numbers[3] if len(numbers) == 4 else 1.0]


def laid(colours):
    """The first of colours over the next and so on, over white."""
    seen = [1.0, 1.0, 1.0]
    for *parts, opaque in map(parts_of, reversed(colours)):
        seen = [opaque * new + (1 - opaque) * old for new, old in zip(parts, seen, strict=True)]
    return seen


def luminance(parts):
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear[:3], strict=True))
