"""Data that a model does not fit is told, and what would fit; models of exact weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tfprune.data.preprocessing import input_specs
from tfprune.data.splits import Raw, Split, prepare, split
from tfprune.graph.inputs import check_inputs
from tfprune.job.config import JobConfig
from tfprune.job.original import check_samples, doubts, scorer
from tfprune.job.pipeline import run
from tfprune.sweep.config import SweepConfig
from tfprune.sweep.grid import grid
from tfprune.sweep.runner import run as sweep

SHAPE = (4, 4, 3)
PIXELS = int(np.prod(SHAPE))


def linear(kernel, bias=(0.0,), activation=None, shape=SHAPE):
    """A model of one layer with these weights, (inputs, units)."""
    dense = kl.Dense(len(bias), activation=activation, name="output")
    model = keras.Sequential([keras.Input(shape, name="image"), kl.Flatten(), dense], name="own")
    dense.set_weights([np.broadcast_to(kernel, (int(np.prod(shape)), len(bias))), np.array(bias)])
    return model


def brightness(middle):
    """Says whether a picture is brighter than this, in the middle of its range."""
    return linear(1 / PIXELS, (-middle,))


@pytest.fixture
def pictures(rng):
    """Dark and bright ones, bytes, and which is which."""
    y = rng.integers(0, 2, 400)
    return rng.integers(0, 80, (400, *SHAPE), np.uint8) + (170 * y).astype(np.uint8)[
        :, None, None, None
    ], y


def told(model, x, y, scale="auto", name="own.keras", classes=()):
    """What is said of a model and data, the labels of which may be None."""
    config = JobConfig(model=name, scale=scale)
    train, test = split(Split(x, y), 0.75, 0)
    raw = Raw("own", "", train, test, classes=classes)
    data = prepare(raw, scale, input_specs(model), 10, 0)
    inputs = check_inputs(model, data.test.x)
    measure = scorer(config, model, inputs, data.test, data)
    return [one.message for one in doubts(config, model, inputs, measure, data)]


@pytest.mark.parametrize("names", [("cat", "dog"), ("cat", "dog", "eel")])
def test_fewer_names_than_classes_are_told(rng, names):
    """Three outputs, each one of three inputs; labels are what it answers for two of them."""
    model = linear(np.eye(3), (0.0,) * 3, shape=(3,))
    y = rng.integers(0, 2, 400)
    x = np.eye(3, dtype="float32")[y] + rng.normal(0, 0.01, (400, 3)).astype("float32")
    words = "2 classes (cat, dog), and the model answers with one of 3"
    said = [line for line in told(model, x, y, classes=names) if words in line]
    assert len(said) == (len(names) == 2)


def test_labels_that_fit_no_output_are_named(rng):
    model = linear(np.eye(3), (0.0,) * 3, shape=(3,))
    x = rng.normal(size=(400, 3)).astype("float32")
    with pytest.raises(tfprune.TfpruneError, match=r"fit no output.*4 classes \(a, b, c, weird\)"):
        told(model, x, rng.integers(0, 4, 400), classes=("a", "b", "c", "weird"))


def test_too_few_samples_say_where_the_others_are(rng):
    x = rng.normal(size=(9, 3)).astype("float32")
    data = prepare(Raw("own", "", *split(Split(x, None), 0.75, 0)), "none", None, 10, 0)
    with pytest.raises(tfprune.TfpruneError, match=r"received \d of 9; the others are for valid"):
        check_samples(data)


def test_a_range_that_a_flag_brings_is_named_with_what_it_scores(pictures):
    x, y = pictures
    first, second = told(brightness(127.5), x, y)
    assert first.startswith("data and model do not seem to fit: the original scores ")
    assert "no better than chance" in first
    assert "the model got values from 0 to 0.97" in first
    assert "uint8 times 0.003922" in first
    for what in ("--scale none", "channels", "classes", "range"):
        assert what in first
    assert second.startswith("with --scale none the original scores 100.00 %, as it is ")
    first, second = told(brightness(0.5), x, y, "none")
    assert "the model got values from 0 to 249" in first
    assert second.startswith("with --scale auto the original scores 100.00 %")


def test_what_fits_is_not_doubted(pictures, rng):
    x, y = pictures
    assert told(brightness(0.5), x, y) == []
    assert told(brightness(127.5), x, y, "none") == []
    assert told(brightness(127.5), x, None) == []
    assert told(brightness(0.5), x, rng.normal(0, 1, 400)) != []
    # Too few to say.
    assert told(brightness(127.5), x[:12], y[:12]) == []


def test_a_flag_is_named_where_it_is_better_than_what_is_better_than_chance(pictures):
    """Half of the bright pictures have a mark by which the model knows them in any range."""
    x, y = pictures
    x[:, 0, 0, 0] = np.where(np.arange(400) % 2 == 0, 0, 255 * y)
    kernel = np.full((PIXELS, 1), 1 / PIXELS)
    kernel[0] = 200
    (line,) = told(linear(kernel, (-127.5,)), x, y)
    said = "data and model do not seem to fit: with --scale none the original scores 100.00 %, as"
    assert line.startswith(said)
    assert 60 < float(line.split("as it is ")[1].split()[0]) < 90
    assert told(linear(kernel, (-127.5,)), x, y, "none") == []


def test_ranges_that_no_flag_brings_are_named_too(pictures):
    x, y = pictures
    first, second = told(brightness(0.0), x, y)
    assert "do not seem to fit" in first
    assert second.startswith(
        "with the values that it got times 2, less 1 (in your file, and --scale none) the original "
        "scores 100.00 %"
    )
    first, second = told(brightness(127.5), (x / 255).astype(np.float32), y)
    assert "times 255" in second
    first, second = told(brightness(0.5), x.astype(np.float32), y)
    assert "divided by 255 " in second


def test_channels_in_reverse_order_are_named(rng):
    y = rng.integers(0, 2, 400)
    x = rng.random((400, *SHAPE)).astype(np.float32)
    x[..., 0] += y[:, None, None]
    x[..., 2] += 1 - y[:, None, None]
    kernel = np.tile([-1.0, 0.0, 1.0], PIXELS // 3)[:, None]
    first, second = told(linear(kernel), x, y)
    assert "the original scores 0.00 %" in first
    assert second.startswith("with the channels in reverse order (BGR for RGB) the original scores")
    assert "100.00 %, as it is 0.00 %" in second


def classes(rng, count, order=None, samples=600):
    """Rows whose largest place is their class, and the model that says which it is, in an order."""
    y = rng.integers(0, count, samples)
    x = rng.random((samples, count)).astype(np.float32) + 2 * np.eye(count, dtype=np.float32)[y]
    kernel = np.eye(count)[:, np.arange(count) if order is None else order]
    # With a number more than there are classes it cannot be taken for a copy of the input.
    x, kernel = np.pad(x, ((0, 0), (0, 1))), np.pad(kernel, ((0, 1), (0, 0)))
    return linear(kernel, np.zeros(count), shape=(count + 1,)), x, y


def test_classes_in_another_order_are_named(rng):
    model, x, y = classes(rng, 5, [1, 2, 3, 4, 0])
    first, second = told(model, x, y)
    assert "the original scores 0.00 %" in first
    assert second.startswith("with the classes in another order (label 0 is its class 4, 1 is ")
    assert "the original scores 100.00 %" in second
    assert told(classes(rng, 5)[0], x, y) == []
    first, second = told(model, x, y, classes=("dog", "ant", "bee", "cat", "ape"))
    assert "put the model's numbers before the names, 4_dog say" in second


def test_an_order_of_classes_goes_before_a_change_of_values_that_gains_less(rng):
    """Of lower values the model takes one class for all, and so is right by chance."""
    model, x, y = classes(rng, 4, [1, 0, 3, 2])
    model.set_weights([model.get_weights()[0], np.array([1.0, 0.0, 0.0, 0.0])])
    _, second = told(model, x, y)
    assert second.startswith("with the classes in another order (label 0 is its class 1, ")


def test_of_many_classes_no_order_is_made_up(rng):
    """Some assignment of labels to decisions fits any samples."""
    model, x, y = classes(rng, 150)
    (line,) = told(model, x, rng.permutation(y))
    assert "no better than chance" in line


def test_always_the_same_class_is_chance_however_frequent_it_is(rng):
    y = (rng.random(600) < 0.05).astype(int)
    x = rng.random((600, 6)).astype(np.float32)
    always = linear(0.0, (1.0, 0.0), shape=(6,))
    (line,) = told(always, x, y)
    assert f"{100 * (1 - y.mean()):.0f}"[:1] == "9"
    assert "for always the most frequent class" in line
    # A rare class that is found for the greater part is none.
    x[:, 0] = y + rng.normal(0, 0.2, 600)
    finds = linear(np.eye(6)[:, :1] * [-1.0, 1.0], (0.5, -0.5), shape=(6,))
    assert told(finds, x, y) == []


def test_a_model_below_what_the_most_frequent_class_scores_is_told(rng):
    """It knows something of rare classes, and is wrong of most of the frequent one."""
    y = rng.choice(4, 800, p=[0.7, 0.1, 0.1, 0.1])
    x = np.eye(4, dtype=np.float32)[np.where((y == 0) & (rng.random(800) < 0.7), 1, y)]
    line, *_ = told(linear(np.eye(4), np.zeros(4), shape=(4,)), x, y)
    assert "for always the most frequent class" in line


def test_values_no_better_than_their_mean_are_told(rng):
    x = rng.random((400, 6)).astype(np.float32)
    y = x @ np.arange(6.0) + rng.normal(0, 0.1, 400)
    exact = linear(np.arange(6.0)[:, None], shape=(6,))
    assert told(exact, x, y) == []
    first, *_ = told(linear(0.0, (5.0,), shape=(6,)), x, y)
    assert "the original scores mse" in first
    assert "for always the mean" in first
    # Bytes that the model knows as bytes.
    x = rng.integers(0, 256, (400, 6), dtype=np.uint8)
    first, second = told(exact, x, x @ np.arange(6.0))
    assert second.startswith("with --scale none the original scores mse ")


def test_pictures_of_classes_and_labels_of_several_units_are_doubted_alike(rng):
    image = keras.Input((6, 6, 1), name="image")
    conv = kl.Conv2D(
        1, 1, kernel_initializer="ones", bias_initializer=keras.initializers.Constant(-127.5)
    )
    model = keras.Model(image, conv(image))
    x = rng.integers(0, 256, (200, 6, 6, 1), dtype=np.uint8)
    first, second = told(model, x, (x > 127).astype(np.uint8))
    assert "no better than chance" in first
    assert second.startswith("with --scale none the original scores 100.00 %")
    assert told(model, x, (x > 127).astype(np.uint8), "none") == []
    units = linear(255 * np.eye(8), [-127.5] * 8, "sigmoid", (8,))
    x = rng.integers(0, 256, (300, 8), dtype=np.uint8)
    assert told(units, x, (x > 127).astype(int)) == []
    first, second = told(units, x, (x > 127).astype(int), "none")
    assert "with the labels in another order" in first
    assert second.startswith("with --scale auto the original scores 100.00 %")


def test_a_built_in_model_is_to_be_trained_longer(pictures):
    x, y = pictures
    (line,) = told(brightness(127.5), x, y, name="mlp")
    assert line.endswith("train it longer with --epochs")


@pytest.fixture
def own(tmp_path, pictures):
    """The words of a command for a model of bytes, compiled for probabilities."""
    x, y = pictures
    hidden = kl.Dense(3, activation="relu", name="hidden")
    output = kl.Dense(1, name="output")
    model = keras.Sequential([keras.Input(SHAPE), kl.Flatten(), hidden, output])
    hidden.set_weights([np.full((PIXELS, 3), 1 / PIXELS), np.zeros(3)])
    # From 0 to 0.97: in bytes above 127.5 what is bright.
    output.set_weights([np.full((3, 1), 1 / 765), np.zeros(1)])
    model.compile("sgd", loss="binary_crossentropy")
    model.save(tmp_path / "own.keras")
    np.savez(tmp_path / "own.npz", x=x, y=y)
    return {"model": str(tmp_path / "own.keras"), "data": str(tmp_path / "own.npz")}


def test_the_job_says_it_loudly_and_keeps_it(own, tmp_path):
    said = []
    output = str(tmp_path / "out")
    schemes = ("float32",)
    asked = {"output": output, "schemes": schemes, "remove": "34%"}
    config = JobConfig(**own, **asked, test_data=20, scale="0..1").validate()
    manifest = run(config, [], said.append).manifest
    loud = [line for line in said if line.startswith("WARNING: ")]
    assert len(loud) == 2
    assert "do not seem to fit" in loud[0]
    assert "with --scale none the original scores 100.00 %" in loud[1]
    kept = [one["message"] for one in manifest["warnings"] if one["about"] == "data"]
    assert [line.removeprefix("WARNING: ") for line in loud] == kept
    assert "do not seem to fit" in (tmp_path / "out" / "own.md").read_text()
    rule = "the output decides for class 1 above 0.5, as its loss takes probabilities"
    assert f"data: {rule}" in said
    assert rule in manifest["dataset"]["notes"]
    assert manifest["scoring"] == {
        "metric": "accuracy", "output": 0, "labels": "classes", "thresholds": [0.5],
    }  # fmt: skip
    scale = {"dtype": "uint8", "factor": 1 / 255, "auto": 1 / 255}
    assert list(manifest["dataset"]["scales"].values()) == [scale]
    said.clear()
    manifest = run(JobConfig(**own, **asked).validate(), [], said.append).manifest
    found = [line for line in said if line.startswith("data: --scale none, under which the orig")]
    assert len(found) == 1
    assert "scores 100.00 % of 300 training samples (0..1 " in found[0]
    assert list(manifest["dataset"]["scales"].values()) == [scale | {"factor": 1.0}]
    assert not [one for one in manifest["warnings"] if one["about"] == "data"]
    assert manifest["artifacts"][0]["accuracy"] == 1


def test_the_sweep_says_it_loudly(own, tmp_path):
    said = []
    config = SweepConfig(
        **own, output=str(tmp_path / "sweep"), schemes="float32", selections="magnitude",
        scale="0..1", shares="34%", degrees="none", folds="drop", refit="0",
    )  # fmt: skip
    sweep(grid(config), [], said.append)
    loud = [line for line in said if line.startswith("WARNING: ")]
    assert "do not seem to fit" in loud[0]
    assert "with --scale none the original scores 100.00 %" in loud[1]
    assert "data: the output decides for class 1 above 0.5, as its loss takes probabilities" in said
