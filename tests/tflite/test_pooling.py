"""Pools over whole pictures: which are found, and what is won in files of 8 bits."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers as kl

from tests.support.graphs import fill, outputs
from tfprune.core.metrics import disagreement
from tfprune.tflite import converter
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.pooling import with_means
from tfprune.tfmot.qat import quantisation_aware
from tfprune.utils.console import quiet


def pooled(pool, shape=(6, 4, 3)):
    return keras.Sequential([keras.Input(shape), pool])


WHOLE = {
    "the picture": (kl.AveragePooling2D((6, 4)), (6, 4, 3)),
    "of one row": (kl.AveragePooling2D((1, 4)), (1, 4, 3)),
    "more than the picture": (kl.AveragePooling2D((7, 9), padding="same"), (6, 4, 3)),
    "channels first": (kl.AveragePooling2D((4, 3), data_format="channels_first"), (6, 4, 3)),
    "a sequence": (kl.AveragePooling1D(6), (6, 4)),
    "a volume": (kl.AveragePooling3D((2, 3, 4)), (2, 3, 4, 5)),
}
OTHERS = {
    "several windows": (kl.AveragePooling2D(2), (6, 4, 3)),
    "one window that ends before": (kl.AveragePooling2D((4, 4)), (6, 4, 3)),
    "one window of several, padded": (kl.AveragePooling2D(2, 6, padding="same"), (6, 4, 3)),
    "the largest": (kl.MaxPooling2D((6, 4)), (6, 4, 3)),
    "of open size": (kl.AveragePooling2D((6, 4)), (None, 4, 3)),
}


@pytest.mark.parametrize("which", WHOLE)
def test_a_pool_over_everything_becomes_a_mean_that_computes_the_same(which, rng):
    model = pooled(*WHOLE[which])
    x = rng.normal(size=(5, *WHOLE[which][1])).astype("float32")
    axes = (2, 3) if which == "channels first" else tuple(range(1, x.ndim - 1))
    copy = with_means(model)
    assert type(copy.layers[-1]).__name__.startswith("Global")
    assert copy.layers[-1].name == model.layers[-1].name
    received = np.asarray(copy(x))
    assert received.shape[1:] == model.output_shape[1:]
    np.testing.assert_allclose(received, x.mean(axes, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("which", OTHERS)
def test_other_pools_stay(which):
    assert with_means(pooled(*OTHERS[which])) is None


def test_a_pool_with_one_window_in_one_call_alone_stays():
    pool, small, large = kl.AveragePooling2D(4), keras.Input((4, 4, 3)), keras.Input((8, 8, 3))
    assert with_means(keras.Model([small, large], [pool(small), pool(large)])) is None
    assert with_means(keras.Model(small, pool(small))) is not None


def test_a_pool_inside_a_wrapper_is_found(rng):
    x = rng.normal(size=(7, 5, 6, 4, 3)).astype("float32")
    model = pooled(kl.TimeDistributed(kl.AveragePooling2D((6, 4))), x.shape[1:])
    assert "MEAN" in operators(dict(converter.convert(model, ["int8"], [x]))["int8"])
    received = np.asarray(with_means(model)(x))
    np.testing.assert_allclose(received, x.mean((2, 3), keepdims=True), atol=1e-6)
    assert with_means(pooled(kl.TimeDistributed(kl.AveragePooling2D((5, 4))), x.shape[1:])) is None


@pytest.mark.filterwarnings("ignore:.*a mask attached to it")
@pytest.mark.parametrize("wrapped", [False, True])
def test_masked_steps_count_as_they_do_in_the_pool(rng, wrapped):
    """A global pool would leave them out."""
    shape = (20, 3)
    if wrapped:
        inner = [keras.Input(shape), kl.Masking(), kl.AveragePooling1D(20), kl.Flatten()]
        layers = [keras.Input(shape), keras.Sequential(inner)]
    else:
        layers = [keras.Input(shape), kl.Masking(), kl.AveragePooling1D(20), kl.Flatten()]
    model = fill(keras.Sequential([*layers, kl.Dense(2)]), rng)
    assert with_means(model) is None


class Stubborn(kl.Layer):
    def get_config(self):
        raise RuntimeError("no copies")

    def call(self, x):
        return x * 2


def test_a_model_that_cannot_be_copied_is_converted_as_it_is(rng):
    layers = [Stubborn(), kl.AveragePooling2D(4), kl.Flatten(), kl.Dense(3)]
    model = fill(keras.Sequential([keras.Input((4, 4, 3)), *layers]), rng)
    assert with_means(model) is None
    x = rng.normal(size=(20, 4, 4, 3)).astype("float32")
    ((_, content),) = converter.convert(model, ["int8"], [x])
    assert "AVERAGE_POOL_2D" in operators(content)


def classifier(rng, pool):
    """Of pictures of which a few positions are far off, by the means of its channels."""
    inner = keras.Sequential([keras.Input((8, 8, 4)), pool, kl.Flatten()], name="inner")
    inputs = keras.Input((8, 8, 4), name="picture")
    return fill(keras.Model(inputs, kl.Dense(5, name="out")(inner(inputs))), rng)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_few_steps_are_no_longer_left_for_the_mean(rng, scheme):
    if scheme == "int4":
        pytest.importorskip("ai_edge_quantizer")
    x = rng.normal(0, 1, (300, 8, 8, 4)).astype("float32") + rng.normal(0, 0.3, (300, 1, 1, 4))
    x[rng.random(x.shape) < 0.002] *= 8
    pool = classifier(rng, kl.AveragePooling2D(8, name="pool"))
    same = classifier(rng, kl.GlobalAveragePooling2D(keepdims=True, name="pool"))
    same.set_weights(pool.get_weights())
    x = x.astype("float32")
    ((_, ours),) = converter.convert(pool, [scheme], [x])
    ((_, by_mean),) = converter.convert(same, [scheme], [x])
    expected = outputs(pool, x)[0]
    off, least = (
        disagreement(LiteModel(content).predict([x])[0], expected) for content in (ours, by_mean)
    )
    assert off == pytest.approx(least, rel=1e-3)
    assert operators(ours) == operators(by_mean)
    assert "AVERAGE_POOL_2D" not in operators(ours)


def operators(content):
    with quiet():
        interpreter = Interpreter(model_content=content)
    return [one["op_name"] for one in interpreter._get_ops_details()]


def test_quantisation_aware_training_has_the_mean_too(rng):
    pool = classifier(rng, kl.AveragePooling2D(8, name="pool"))
    x = [rng.normal(0, 1, (64, 8, 8, 4)).astype("float32")]
    content, _ = quantisation_aware(pool, outputs(pool, x[0]), x, epochs=1)
    assert "MEAN" in operators(content)
    assert "AVERAGE_POOL_2D" not in operators(content)


def test_the_file_of_the_pool_stays_where_it_is_nearer(rng, monkeypatch):
    pool = classifier(rng, kl.AveragePooling2D(8, name="pool"))
    x = rng.normal(0, 1, (100, 8, 8, 4)).astype("float32")

    def worse(model):
        copy = with_means(model)
        copy.set_weights([weight * 1.3 for weight in model.get_weights()])
        return copy

    monkeypatch.setattr(converter, "with_means", worse)
    ((_, content),) = converter.convert(pool, ["int8"], [x])
    assert "AVERAGE_POOL_2D" in operators(content)


def test_float_files_and_models_of_other_pools_are_made_once(rng, monkeypatch):
    made = []
    monkeypatch.setattr(
        converter,
        "convert_folder",
        lambda *args, **kwargs: made.append(args[1]) or real(*args, **kwargs),
    )
    x = rng.normal(0, 1, (50, 8, 8, 4)).astype("float32")
    list(converter.convert(classifier(rng, kl.AveragePooling2D(8)), ["float32", "int8"], [x]))
    assert made == ["float32", "int8", "int8"]
    made.clear()
    list(converter.convert(classifier(rng, kl.AveragePooling2D(4)), ["float32", "int8"], [x]))
    assert made == ["float32", "int8"]


real = converter.convert_folder
