"""Which layers are taken where none were asked for, and what helps where degrees find nothing."""

from __future__ import annotations

import re
import warnings

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, fill, largest_change, plant
from tfprune.errors import PruningWarning

LINE = "layers: all, so filters too, as the model has no hidden Dense layer that can lose units"


def filters(rng, *tail):
    model = keras.Sequential(
        [keras.Input((8, 8, 2)), kl.Conv2D(6, 3, activation="relu", name="conv"),
         *tail, kl.Flatten(), kl.Dense(3, name="out")],
        name="filters",
    )  # fmt: skip
    model = fill(model, rng)
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 4], bias[4] = kernel[..., 1], bias[1]
    model.get_layer("conv").set_weights([kernel, bias])
    return model


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (40, 8, 8, 2)).astype("float32")


def said(model, x, *arguments, **named):
    """A result, and the warnings that its call issued."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = tfprune.prune(model, x, *arguments, **named)
    texts = [str(one.message) for one in caught if one.category is PruningWarning]
    assert texts == list(result.notes)
    return result, texts


def test_filters_are_taken_where_no_hidden_dense_layer_is(rng, pictures):
    model = filters(rng)
    result, texts = said(model, pictures, 5)
    assert [(one.name, one.units_after) for one in result.layers] == [("conv", 5)]
    assert largest_change(model, result, pictures) < 1e-4
    assert (result.asked, result.layers_note, texts) == ("all", LINE, [])
    assert str(result).split("\n").count(LINE) == 1
    same = tfprune.prune(model, pictures, 5, layers="all")
    assert [one.units_after for one in same.layers] == [5]
    assert LINE not in str(same)


def test_dense_layers_stay_the_default_where_there_are_both(rng, pictures):
    model = filters(rng, kl.Flatten(), kl.Dense(7, "relu", name="hidden"))
    for skip in ((), ("hidden",)):
        result, _ = said(model, pictures, 5, skip=skip)
        assert (result.asked, result.layers_note) == ("dense", "")
        assert "conv" not in [one.name for one in result.layers]


def test_layers_that_were_asked_for_stay_as_asked(rng, pictures):
    result, texts = said(filters(rng), pictures, 5, layers="dense")
    assert not result.layers
    assert texts == [
        "nothing was pruned: no layer of those asked for can lose units; instead: filters too, "
        'layers="all"'
    ]


def test_what_was_recommended_where_degrees_find_nothing_helps(rng):
    # Units of separate inputs are at right angles, but for one pair 20 degrees apart.
    model = keras.Sequential([keras.Input((6,)), kl.Dense(6, name="hidden"), kl.Dense(3)])
    kernel = np.eye(6)
    kernel[:2, 1] = np.sin(np.radians(20)) * np.array([1 / np.tan(np.radians(20)), 1])
    model.layers[0].set_weights([kernel, np.zeros(6)])
    x = np.concatenate([np.eye(6), -np.eye(6)] * 4)
    result, texts = said(model, x, 10)
    assert result.model.count_params() == model.count_params()
    (text,) = texts
    assert re.match(
        r"no unit was removed at 10 degrees \(the closest pair, in hidden, is (19.9|20.0) degrees "
        r"apart\); instead: threshold=2[01], or remove=0.25, or target_params=\"75%\"$",
        text,
    )
    # Each of them taken at its word.
    for words in re.findall(r"(\w+=\S+?)(?:,|$)", text.split("instead: ")[1]):
        smaller = tfprune.prune(model, x, **eval(f"dict({words})")).model
        assert smaller.count_params() < model.count_params(), words


def test_what_was_removed_or_asked_for_by_count_is_no_surprise(rng):
    model = chain(rng)
    plant(model, "hidden", 3, 0)
    x = rng.normal(0, 1, (200, 6)).astype("float32")
    for arguments in ({"threshold": 1}, {"remove": 0.01}):
        _, texts = said(model, x, **arguments)
        assert not [text for text in texts if "no unit was removed" in text]
