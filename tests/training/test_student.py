"""How layers work while they are trained, held against Keras' own training mode."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.graph.clone import functional
from tfprune.outputs.distance import Match
from tfprune.training.student import Student, parted


def network(dropout, layers="batch", *, trainable=True):
    """Convolution, BatchNormalization and Dropout, here and in a nested model."""
    inputs = keras.Input((8, 8, 2))
    x = kl.Conv2D(3, 3, padding="same")(inputs)
    x = kl.BatchNormalization(name="outer", trainable=trainable)(x)
    x = kl.Dropout(dropout)(x)
    nested = keras.Sequential(
        [keras.Input((8, 8, 3)), kl.Conv2D(4, 3, activation="relu"),
         kl.BatchNormalization(name="inner"), kl.SpatialDropout2D(dropout)], name="nested"
    )  # fmt: skip
    x = kl.GlobalAveragePooling2D()(nested(x, training=False) if layers == "kept" else nested(x))
    x = kl.BatchNormalization(name="narrow")(x)
    return keras.Model(inputs, kl.Dense(2, name="out")(x))


def pair(rng, **settings):
    """The same model with and without Dropout."""
    models = [network(0.5, **settings), network(0.0, **settings)]
    fill(models[0], rng)
    models[0].get_layer("nested").set_weights(
        [np.abs(weight) for weight in models[0].get_layer("nested").get_weights()]
    )
    models[1].set_weights(models[0].get_weights())
    return models


def statistics(model):
    """The moving means by the names of the layers."""
    layers = [*model.layers, *model.get_layer("nested").layers]
    return {
        layer.name: np.array(layer.moving_mean.numpy())
        for layer in layers
        if isinstance(layer, kl.BatchNormalization)
    }


@pytest.mark.parametrize("settings", [{}, {"layers": "kept"}, {"trainable": False}])
def test_batches_have_statistics_and_dropout_is_off(rng, settings):
    model, plain = pair(rng, **settings)
    x = rng.normal(size=(30, 8, 8, 2)).astype("float32")
    student = Student(functional(model), [Match("values")], batch_size=30)
    assert student.has_statistics
    before = statistics(model)
    (outputs,) = student(x, training=True)
    # By Keras: those that should keep their statistics are frozen.
    plain.get_layer("narrow").trainable = False
    if settings.get("layers") == "kept":
        plain.get_layer("nested").get_layer("inner").trainable = False
    np.testing.assert_allclose(outputs, plain(x, training=True), rtol=1e-4, atol=1e-5)
    after = statistics(model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {"outer", "inner"} - {
        "inner" if settings.get("layers") == "kept" else "",
        "outer" if settings.get("trainable") is False else "",
    }


def test_in_use_a_student_computes_what_the_model_does(rng):
    model, _ = pair(rng)
    x = rng.normal(size=(30, 8, 8, 2)).astype("float32")
    expected = model.predict(x, verbose=0)
    before = statistics(model)
    (outputs,) = Student(functional(model), [Match("values")], batch_size=30)(x, training=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    # Batches of few values leave all statistics alone.
    small = Student(functional(model), [Match("values")], batch_size=2)
    assert not small.has_statistics
    (outputs,) = small(x, training=True)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    assert all(np.array_equal(before[name], value) for name, value in statistics(model).items())


def test_averages_are_the_means_over_the_batches(rng):
    model, _ = pair(rng)
    student = Student(functional(model), [Match("values")], batch_size=30)
    batches = [rng.normal(number, 1, (30, 8, 8, 2)).astype("float32") for number in range(3)]
    for number, batch in enumerate(batches):
        student.average(number)
        student(batch, training=True)
    first = keras.Model(model.inputs, model.layers[1].output)
    means = [first.predict(batch, verbose=0).mean(axis=(0, 1, 2)) for batch in batches]
    np.testing.assert_allclose(statistics(model)["outer"], np.mean(means, axis=0), rtol=1e-4)


def test_rounded_kernels_are_what_a_student_computes_with(rng):
    inputs = keras.Input((5,))
    model = fill(keras.Model(inputs, kl.Dense(3, activation="tanh", name="out")(inputs)), rng)
    x = rng.normal(size=(9, 5)).astype("float32")
    student = Student(functional(model), [Match("values")], bits=3)
    kernel, bias = model.get_layer("out").get_weights()
    scale = np.abs(kernel).max(axis=0) / 3
    expected = np.tanh(x @ (np.round(kernel / scale) * scale) + bias)
    for training in (True, False):
        np.testing.assert_allclose(student(x, training=training)[0], expected, atol=1e-5)
    np.testing.assert_array_equal(model.get_layer("out").get_weights()[0], kernel)
    student.round()
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)


def test_regularizers_have_no_part_in_the_loss(rng):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, kl.Dense(3, kernel_regularizer=keras.regularizers.L2(9.0))(inputs))
    x, y = (rng.normal(size=(9, width)).astype("float32") for width in (5, 3))
    student = Student(functional(model), [Match("values", 0.5)])
    student.compile("sgd")
    expected = 0.5 * np.mean((model.predict(x, verbose=0) - y) ** 2)
    loss = student.train_on_batch([x], [y], return_dict=True)["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_mask_stays_with_what_reads_it():
    """A cut behind the Embedding would lose which places are empty."""
    inputs = keras.Input((6,), dtype="int32")
    x = kl.Embedding(9, 4, mask_zero=True, name="embedding")(inputs)
    x = kl.GlobalAveragePooling1D()(x)
    models = []
    for units in (8, 5):
        hidden = kl.Dense(units, activation="relu", name="hidden")(x)
        models.append(keras.Model(inputs, kl.Dense(2, name="out")(hidden)))
    head, tail = parted(models[1], models[0])
    indices = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 7, 8]])
    np.testing.assert_allclose(
        tail.predict(head.predict(indices, verbose=0), verbose=0),
        models[1].predict(indices, verbose=0),
        rtol=1e-5,
    )
    assert isinstance(head.layers[-1], kl.GlobalAveragePooling1D)
