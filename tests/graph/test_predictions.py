"""Outputs of a model: the same whether it is traced for them or not."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.graph.predictions import outputs_of


class Doubled(keras.Model):
    """A model whose ``predict`` does otherwise than a call."""

    def predict_step(self, data):
        return 2 * self(data, training=False)


class Tripled(keras.Model):
    """Likewise."""

    def predict(self, *args, **kwargs):
        return 3 * super().predict(*args, **kwargs)


class Own(kl.Layer):
    def call(self, x):
        return x + 1


def model_of(kind, rng):
    data = keras.Input((6, 5), name="data")
    x = kl.Dense(8, "relu")(kl.Dropout(0.5)(data))
    if kind == "recurrent":
        x = kl.Bidirectional(kl.GRU(4))(x)
    elif kind == "wrapped":
        x = kl.TimeDistributed(kl.Dense(3))(x)
    elif kind == "own":
        x = Own()(x)
    elif kind == "nested":
        x = keras.Sequential([keras.Input((6, 8)), kl.Conv1D(4, 3), kl.BatchNormalization()])(x)
    out = kl.Dense(3, name="out")(kl.Flatten()(x))
    if kind in ("doubled", "tripled"):
        return fill({"doubled": Doubled, "tripled": Tripled}[kind](data, out), rng)
    return fill(keras.Model(data, {"b": out, "a": x}), rng)


@pytest.fixture
def calls(monkeypatch):
    """How often ``predict`` was called."""
    made, predict = [], keras.Model.predict
    monkeypatch.setattr(
        keras.Model, "predict", lambda *args, **kwargs: made.append(1) or predict(*args, **kwargs)
    )
    return made


@pytest.mark.parametrize(
    "kind", ["plain", "nested", "recurrent", "wrapped", "own", "doubled", "tripled"]
)
@pytest.mark.parametrize("samples", [1, 70])
def test_few_samples_are_computed_as_predict_does(rng, calls, kind, samples):
    model, x = model_of(kind, rng), rng.normal(size=(samples, 6, 5)).astype("float32")
    expected = keras.tree.flatten(model.predict(x, batch_size=32, verbose=0))
    calls.clear()
    received = outputs_of(model, [x])
    assert len(calls) == (kind not in ("plain", "nested"))
    for ours, theirs in zip(received, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_many_samples_are_computed_by_predict(rng, calls):
    x = rng.normal(size=(300, 6, 5)).astype("float32")
    outputs_of(model_of("plain", rng), [x])
    assert calls == [1]
