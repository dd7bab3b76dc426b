"""The page of a run: what it says of manifests made by hand, and what it leaves out."""

from __future__ import annotations

import base64
import io
import unicodedata
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import tfprune
from tests.commands.test_compare_hostile import HOSTILE
from tests.support import runs
from tfprune.report import headline
from tfprune.report.charts import HEIGHT, WIDTH, is_picture, scatter
from tfprune.report.run_page import LARGEST, run_page, shown
from tfprune.utils import escapes

SECTIONS = {"findings", "files", "scores", "widths", "angles", "classes", "changed"}
ALWAYS = {"running", "provenance"}


class Read(HTMLParser):
    """What a page consists of, as a browser would take it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sections: set[str] = set()
        self.loads: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "section":
            self.sections.add(values["id"])
        self.loads += [values[name] for name in ("src", "href", "srcset", "data") if name in values]
        self.handlers += [name for name in values if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_a_whole_run_has_all_its_sections(rng):
    page = Read(run_page(runs.whole(), runs.layers(rng), runs.pictures(rng)))
    assert page.sections == SECTIONS | ALWAYS
    head = page.text.split("Warnings")[0]
    assert "4.60 times smaller" in head
    assert "23,336 bytes in place of 107,384; pruning alone: 1.30 times smaller (" in head
    assert "4.12 times faster here" in head
    assert "15.5 µs in place of 63.9 µs of the original's int8 file" in head
    assert "0.65 points of accuracy lost" in head
    assert "98.52 % in place of 99.17 % on 500 test samples; 99.0 % of the answers" in head
    assert "60 of 240 units of the layers that were to be pruned (25%) are gone" in head
    assert page.tags.count("img") == 24
    assert "Class 3 pays most: 18.00 points, 9 of its 50 test samples." in page.text
    assert "Of 10 classes 2 lost and 1 gained." in page.text
    assert "30 of 500 test samples" in page.text
    assert "20 were right and are wrong now, 4 the other way round. 24 of them" in page.text
    assert "python run.py cnn_prune30_int8.tflite --data cnn_test.npz" in page.text
    assert "raspberry-pi-pico" in page.text
    assert "a" * 40 + " (with changes)" in page.text
    assert "python -m tools.export --prune 30" in page.text
    assert "1" * 64 in page.text


def test_sensitivity_is_shown_where_it_was_measured():
    page = Read(run_page(runs.whole(), sensitivity=runs.inspected()))
    assert "sensitivity" in page.sections
    assert "#sensitivity" in page.loads
    cells = page.text.split("99.00 % with all units")[1]
    # By what the most pruned score is: 80, 65, 50 and 35 %.
    names = [f"group{n}" for n in (3, 2, 1, 0)]
    assert [word for word in cells.split() if word.startswith("group")] == ["group", *names]
    assert "25 % gone 50 % gone 75 % gone group3 99.00 87.50 35.00 group2 99.00" in cells
    many = Read(run_page(runs.whole(), sensitivity=runs.inspected(30)))
    assert "10 more" in many.text
    for nothing in (None, {"shares": [], "measured": None}):
        assert "sensitivity" not in Read(run_page(runs.whole(), sensitivity=nothing)).sections


def test_what_inspect_measures_is_what_the_page_takes(rng):
    hidden = keras.layers.Dense(8, "relu", name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(3, "softmax")])
    x = rng.normal(0, 1, (80, 4)).astype("float32")
    inspected = tfprune.inspect(model, x, model.predict(x, verbose=0).argmax(1)).to_dict()
    page = Read(run_page(runs.least(), sensitivity=inspected))
    (group,) = inspected["measured"]["sensitivity"]
    figures = " ".join(f"{100 * score:.2f}" for score in group["scores"])
    assert f"25 % gone 50 % gone 75 % gone hidden {figures}" in page.text


@given(st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 1)), min_size=1, max_size=20))
@example([(100, 1.0)])
@example([(100, 0.0), (10**9, 1.0)])
@settings(deadline=None)
def test_charts_hold_their_points(files):
    """All marks lie within the chart, ticks read as what stands there, and no percents over 100."""
    entries = [{"bytes": b, "accuracy": a, "variant": "pruned"} for b, a in files]
    chart = scatter(entries, "accuracy")
    across = np.array([[point["x"], np.log(e["bytes"])]
                       for point, e in zip(chart["points"], entries, strict=True)])  # fmt: skip
    marks = np.array([[tick["at"], np.log(float(tick["text"]) * 1000)] for tick in chart["xs"]])
    down = [[point["y"], 100 * e["accuracy"]]
            for point, e in zip(chart["points"], entries, strict=True)]  # fmt: skip
    down += [[tick["at"], float(tick["text"])] for tick in chart["ys"]]
    for rows, end in ((np.concatenate([across, marks]), WIDTH), (np.array(down), HEIGHT)):
        assert (rows[:, 0] >= 0).all()
        assert (rows[:, 0] <= end).all()
        # A place is a straight line of the value, to a rounding.
        slope, start = np.polyfit(rows[:, 1], rows[:, 0], 1)
        np.testing.assert_allclose(slope * rows[:, 1] + start, rows[:, 0], atol=0.6)
    texts = [tick["text"] for axis in ("xs", "ys") for tick in chart[axis]]
    assert 1 <= len(chart["xs"]) <= 6
    assert 2 <= len(chart["ys"]) <= 7
    assert len(set(texts[: len(chart["xs"])])) == len(chart["xs"])
    assert max(float(tick["text"]) for tick in chart["ys"]) <= 100


def test_it_loads_nothing_and_runs_nothing(rng):
    page = Read(run_page(runs.whole(), runs.layers(rng), runs.pictures(rng, 24, 96, 3)))
    assert all(what.startswith(("data:", "#")) for what in page.loads)
    drawn = [what for what in page.loads if what.startswith("data:image/png;base64,")]
    images = [Image.open(io.BytesIO(base64.b64decode(what.split(",")[1]))) for what in drawn]
    assert [image.size for image in images] == [(96, 96)] * 24
    assert not {"script", "iframe", "object", "embed", "form", "base"} & set(page.tags)
    assert not page.handlers


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("warnings", {"findings"}),
        ("classes", {"classes"}),
        ("changed", {"changed"}),
        ("artifacts", {"files", "scores", "classes"}),
        ("prune.layers", {"widths"}),
    ],
)
def test_what_is_not_there_is_left_out(rng, key, gone):
    manifest = runs.whole()
    if key == "prune.layers":
        manifest["prune"]["layers"] = []
    elif key == "artifacts":
        manifest[key] = []
    else:
        del manifest[key]
    page = Read(run_page(manifest, runs.layers(rng), runs.pictures(rng)))
    assert page.sections == (SECTIONS | ALWAYS) - gone
    assert not [href for href in page.loads if href[1:] in gone]


def test_the_least_manifest_has_a_page():
    page = Read(run_page(runs.least()))
    assert page.sections == ALWAYS
    assert "No units were removed" in page.text


def test_values_and_unlabelled_outputs_have_their_own_words():
    for score, words in (
        ("mse", "mean squared error"),
        (None, "99.00 % agreement"),
    ):
        manifest = runs.least() | {"artifacts": runs.artifacts(score)}
        page = Read(run_page(manifest))
        assert words in page.text
        assert "accuracy" not in page.text
        assert page.sections == {"files", "scores"} | ALWAYS


def test_a_larger_slower_file_is_not_praised():
    manifest = runs.whole()
    manifest["artifacts"][-1] |= {"bytes": 214_768, "latency_us": {"p10": 127.8}}
    page = Read(run_page(manifest))
    assert "2.00 times larger" in page.text
    assert "2.00 times slower here" in page.text


@pytest.mark.parametrize(
    ("agreement", "error", "good"),
    [(1.0, 0.02, True), (1.0, 0.3, False), (0.99, 0.3, True), (0.97, 0.02, False)],
)
def test_agreement_of_a_model_with_one_answer_is_not_praised(agreement, error, good):
    before, after = ({"agreement": value, "output_error": off}
                     for value, off in ((1.0, 0.0), (agreement, error)))  # fmt: skip
    card = headline._cost(before, after, 500)
    assert card["good"] == good
    assert f"output error {100 * error:.1f} %" in card["text"]


def test_times_within_three_percent_are_the_same():
    def said(new):
        one, other = ({"latency_us": {"p10": time}, "scheme": "int8"} for time in (100.0, new))
        card = headline._speed(one, other)
        return card["head"], card["good"]

    assert said(98.0) == said(102.0) == ("As fast here", True)
    assert said(110.0) == ("1.10 times slower here", False)
    assert said(80.0) == ("1.25 times faster here", True)


def test_without_an_int8_file_the_smallest_pruned_one_is_told_of():
    manifest = runs.whole()
    manifest["artifacts"] = [e for e in manifest["artifacts"] if e["scheme"] != "int8"]
    assert "80,904 bytes in place of 107,384" in Read(run_page(manifest)).text


@pytest.mark.parametrize("kind", ["pictures", "numbers"])
def test_changed_samples_are_shown_as_what_they_are(rng, kind):
    samples = runs.pictures(rng) if kind == "pictures" else list(rng.normal(0, 1, (24, 20)))
    page = Read(run_page(runs.whole(), (), samples))
    assert page.tags.count("img") == (24 if kind == "pictures" else 0)
    if kind == "numbers":
        assert f"{samples[5][2]:.4g}, {samples[5][3]:.4g}" in page.text
        assert "… (20 in all)" in page.text


@pytest.mark.parametrize("kind", ["pictures", "numbers"])
def test_classes_go_by_their_names(rng, kind):
    manifest = runs.whole()
    samples = runs.pictures(rng) if kind == "pictures" else list(rng.normal(0, 1, (24, 20)))
    names = [f"<b>{number}</b>" for number in range(9)] + ["x" * 100]
    manifest["dataset"]["classes"] = names
    page = Read(run_page(manifest, (), samples))
    one = manifest["changed"]["samples"][0]
    said = [f"{n} {name}" for n, name in enumerate(names[:9])] + ["x" * 39 + "…"]
    if kind == "pictures":
        said.append(f"{names[one['before']]} → {names[one['after']]}")
    assert [text for text in said if text not in page.text] == []
    manifest["classes"]["each"] = "unit"
    assert "<b>" not in Read(run_page(manifest, (), samples)).text


def test_the_input_of_pictures_is_chosen():
    numbers, images = np.zeros((5, 3)), np.arange(5 * 64).reshape(5, 8, 8, 1)
    assert [one.shape for one in shown([numbers, images], [4, 1])] == [(8, 8, 1)] * 2
    assert shown([numbers, images], [4, 1])[0][0, 0, 0] == 256
    assert shown([numbers], [0])[0].shape == (3,)
    assert [is_picture(s) for s in ((28, 28), (128, 9), (7, 7, 1), (9, 9, 2), (9,))] == [
        True, False, False, False, False,
    ]  # fmt: skip


def test_it_stays_small(rng):
    noise = [rng.random((224, 224, 3)) for _ in range(24)]
    manifest = runs.whole()
    page = run_page(manifest, runs.layers(rng, (64,) * 40), noise)
    assert len(page.encode()) < LARGEST
    assert "<img" in page
    # Thousands of classes and layers, and names that are books.
    classes = 5000
    manifest["classes"] |= {"samples": [9] * classes, "original": [9] * classes}
    manifest["classes"]["right"] = {entry["file"]: [8] * classes for entry in manifest["artifacts"]}
    manifest["prune"]["layers"] *= 1000
    manifest["prune"]["layers"][0]["name"] = manifest["model"]["name"] = "x" * 10**6
    assert len(run_page(manifest, runs.layers(rng), noise).encode()) < LARGEST


def everywhere(value, text):
    """The same manifest with a text in place of all of its texts but those that are keywords."""
    if isinstance(value, dict):
        keep = ("variant", "scheme", "each")
        return {
            key: one if key in keep or key == "right" else everywhere(one, text)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [everywhere(one, text) for one in value]
    return text if isinstance(value, str) else value


def named(name):
    """The page of a run in which all is called so."""
    rng = np.random.default_rng(0)
    manifest = everywhere(runs.whole(), name)
    right = manifest["classes"]["right"]
    manifest["classes"]["right"] = right | {name: next(iter(right.values()))}
    layers = [replace(layer, name=name) for layer in runs.layers(rng)]
    inspected = everywhere(runs.inspected(), name)
    return run_page(manifest, layers, runs.pictures(rng), inspected)


@pytest.mark.parametrize("name", [*HOSTILE, "</style><script>alert(1)</script>{{ 7 * 7 }}\udcff"])
def test_names_stay_names(name):
    page = named(name)
    read, expected = Read(page), Read(named("calm"))
    assert Counter(read.tags) == Counter(expected.tags)
    assert all(what.startswith(("data:", "#")) for what in read.loads)
    assert not read.handlers
    assert "".join(escapes.visible(name).split()) in "".join(read.text.split())
    hidden = [c for c in page if unicodedata.category(c) in escapes.HIDDEN and c != "\n"]
    assert not hidden
    page.encode()  # No surrogate is left.
