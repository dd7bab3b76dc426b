"""BatchNormalization set to the statistics of other data than a model was trained on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs


def normalised(model, x):
    """A plain loop: from the input on, each layer gets what its moving statistics should be."""
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            before = keras.Model(model.inputs, layer.input).predict(x, verbose=0)
            flat = before.reshape(-1, before.shape[-1]).astype(float)
            layer.moving_mean.assign(flat.mean(axis=0))
            layer.moving_variance.assign(flat.var(axis=0))
    return model


def residual(inner=kl.BatchNormalization):
    data = keras.Input((6, 6, 2))
    x = kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(data))
    y = kl.ReLU()(inner()(kl.Conv2D(4, 3, padding="same")(x)))
    x = kl.GlobalAveragePooling2D()(kl.Add()([x, y]))
    return keras.Model(data, kl.Dense(3)(kl.BatchNormalization()(x)))


def test_statistics_are_those_of_a_plain_loop(rng):
    model = fill(residual(), rng)
    before = [weight.copy() for weight in model.get_weights()]
    x = rng.normal(3, 2, (90, 6, 6, 2)).astype("float32")
    adapted = tfprune.adapt(model, x)
    assert all(map(np.array_equal, model.get_weights(), before))
    loop = normalised(keras.models.clone_model(model), x)
    loop.set_weights(before)
    for ours, theirs in zip(adapted.get_weights(), normalised(loop, x).get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_change_of_scale_and_offset_is_undone(rng):
    """Whatever is linear before the first normalisation is normalised away."""
    model = fill(
        keras.Sequential([keras.Input((5,)), kl.Dense(8), kl.BatchNormalization(epsilon=1e-9),
                          kl.Dense(6, "relu"), kl.BatchNormalization(), kl.Dense(3)]), rng
    )  # fmt: skip
    x = rng.normal(size=(400, 5)).astype("float32")
    trained = tfprune.adapt(model, x)
    other = tfprune.adapt(trained, 7 * x - 3)
    np.testing.assert_allclose(outputs(other, 7 * x - 3), outputs(trained, x), atol=1e-3)
    changed = trained.predict(7 * x - 3, verbose=0) - trained.predict(x, verbose=0)
    assert np.abs(changed).max() > 1


def test_a_nested_model_is_adapted_and_compiled_as_before(rng):
    data = keras.Input((6, 6, 2))
    model = keras.Model(data, residual()(data))
    model.compile("adam", "mse")
    fill(model, rng)
    x = rng.normal(3, 2, (90, 6, 6, 2)).astype("float32")
    adapted = tfprune.adapt(model, x)
    alone = tfprune.adapt(model.layers[1], x)
    np.testing.assert_allclose(outputs(adapted, x), outputs(alone, x), atol=1e-4)
    assert adapted.loss == "mse"


def test_half_precision_keeps_its_type(rng):
    model = fill(residual(lambda: kl.BatchNormalization(dtype="mixed_float16")), rng)
    x = rng.normal(3, 2, (90, 6, 6, 2)).astype("float32")
    adapted = tfprune.adapt(model, x)
    assert [v.dtype for v in adapted.weights] == [v.dtype for v in model.weights]
    assert not np.array_equal(adapted.layers[2].moving_mean, model.layers[2].moving_mean)


def test_without_batch_normalization_it_says_so(rng):
    model = keras.Sequential([keras.Input((3,)), kl.Dense(2)], name="net")
    with pytest.raises(tfprune.TfpruneError, match=r"expected a model with BatchNorm.*net has no"):
        tfprune.adapt(model, rng.normal(size=(9, 3)))
