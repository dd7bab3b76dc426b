"""Features that are one unit, and that one reader reads by weights of their own."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed
from tests.graph.test_shrink import check
from tests.support.graphs import fill
from tfprune.calibration import calibrate
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace

GROUPS = 2


def conv(x, name="a", **more):
    return kl.Conv2D(8, 3, activation="relu", name=name, **more)(x)


def dense(x, name="a", units=8):
    return kl.Dense(units, activation="relu", name=name)(x)


def with_second_reader(x, y):
    return [kl.Dense(3, name="out")(x), kl.Dense(2, name="second")(y)]


def heads(x):
    """Heads of an LSTM, whose recurrent kernel reads the units of all heads."""
    y = kl.LSTM(8, return_sequences=True, name="a")(x)
    return with_second_reader(y, kl.Reshape((5, 2, 4))(y))


# In each unit n of the layer a (0 to 3) and its unit n + 4 are one; "out" reads both.
MADE = {
    "groups": ((6, 6, 4), lambda x: [kl.Dense(3, name="out")(conv(x, groups=GROUPS))]),
    "behind groups": (
        (8, 8, 3), lambda x: with_second_reader(y := conv(x), conv(y, "b", groups=GROUPS))
    ),
    "halves": ((6,), lambda x: with_second_reader(y := dense(x), y[:, :4] * y[:, 4:])),
    "reshape": ((6,), lambda x: with_second_reader(y := dense(x), kl.Reshape((2, 4))(y))),
    "pixels": ((6, 6, 3), lambda x: with_second_reader(
        y := conv(x), kl.Reshape((4, 8, 4))(y)
    )),
    "flat": ((6, 6, 4), lambda x: [
        kl.Dense(3, name="out")(kl.Flatten()(conv(x, groups=GROUPS)))
    ]),
    # The layer b is called last.
    "copies added": ((6,), lambda x: [kl.Dense(3, name="out")(
        kl.ReLU()(kl.ReLU()(dense(x))) + kl.Concatenate()([y := dense(x, "b", 4), y])
    )]),
    "heads": ((5, 6), heads),
}  # fmt: skip


def model_of(name, rng):
    keras.backend.clear_session()
    shape, make = MADE[name]
    data = keras.Input(shape, name="data")
    return fill(keras.Model(data, make(data)), rng)


def made_by(model, name, x):
    """What a layer makes, shape (positions, units)."""
    made = keras.Model(model.inputs, model.get_layer(name).output).predict(x, verbose=0)
    return made.reshape(-1, made.shape[-1]).astype(np.float64)


def degrees(rows):
    """Angles between columns about their means, one by one."""
    centred = rows - rows.mean(axis=0)
    size = rows.shape[1]
    result = np.zeros((size, size))
    for one in range(size):
        for other in range(size):
            first, second = centred[:, one], centred[:, other]
            cosine = first @ second / np.sqrt((first @ first) * (second @ second))
            result[one, other] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return result


@pytest.mark.parametrize("name", ["groups", "flat"])
def test_the_angle_is_that_of_the_features_that_are_least_alike(rng, name):
    model = model_of(name, rng)
    layer = model.get_layer("a")
    scale = np.repeat([100, 1], 4)
    layer.set_weights([weight * scale for weight in layer.get_weights()])
    x = rng.normal(size=(80, *model.inputs[0].shape[1:])).astype("float32")
    (seen,) = calibrate(model, x, layers=["a"]).groups
    rows = made_by(model, "a", x)
    stacked = np.stack([degrees(rows[:, :4]), degrees(rows[:, 4:])])
    least = np.abs(stacked - 90).argmin(axis=0)
    expected = np.take_along_axis(stacked, least[None], axis=0)[0]
    np.testing.assert_allclose(seen.angles, expected, atol=1e-2)


@pytest.mark.parametrize("name", ["groups", "reshape", "pixels", "flat", "copies added"])
def test_a_strong_pair_of_copies_hides_no_weak_pair(rng, name):
    """Units 0 and 1 are copies, and strong; 4 and 5, which go with them, are not, and count."""
    model = model_of(name, rng)
    layer = model.get_layer("a")
    weights = layer.get_weights()
    for weight in weights:
        weight[..., 1] = weight[..., 0]
        weight[..., :4] *= 100
    layer.set_weights(weights)
    x = rng.normal(size=(200, *model.inputs[0].shape[1:])).astype("float32")
    rows = made_by(model, "a", x)
    assert degrees(rows[:, :2])[0, 1] < 1
    assert 30 < degrees(rows[:, 4:6])[0, 1] < 150
    result = tfprune.prune(model, x, 5, layers="all")
    assert {one.name: one.units_after for one in result.layers}["a"] == 8


@pytest.mark.parametrize("name", ["groups", "flat"])
def test_each_feature_has_a_factor_of_its_own(rng, name):
    """Unit 1 is twice unit 0, and unit 5, which goes with it, a third of unit 4."""
    model = model_of(name, rng)
    layer = model.get_layer("a")
    weights = layer.get_weights()
    for weight in weights:
        weight[..., 1] = 2 * weight[..., 0]
        weight[..., 5] = weight[..., 4] / 3
    layer.set_weights(weights)
    x = rng.normal(size=(100, *model.inputs[0].shape[1:])).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers=["a"])
    assert result.layers[0].units_after == 6
    assert changed(model, result, x) < 1e-5


def test_a_recurrent_layer_reads_the_units_of_its_heads_apart(rng):
    model = model_of("heads", rng)
    (group,) = (one for one in groups_of(trace(model)) if "a" in one.producers)
    own = [one.index.tolist() for one in group.consumers if one.part == "recurrent"]
    assert own == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]


@pytest.mark.parametrize("name", MADE)
def test_a_smaller_model_is_the_masked_original(rng, name):
    model = model_of(name, rng)
    cuts = [cut for seed in range(3) for cut in check(model, seed)]
    assert any(len(cut.kept) < len(cut.group.unit_ids) for cut in cuts if "a" in cut.group.name)
