"""Steps taken together are the steps taken one by one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune import fitting
from tfprune.errors import TfpruneError


def network(rate=0.01):
    keras.utils.set_random_seed(5)
    one, two = keras.Input((3,)), keras.Input((2,))
    hidden = kl.Dense(4, activation="tanh")(kl.Concatenate()([one, two]))
    model = keras.Model([one, two], [kl.Dense(2)(hidden), kl.Dense(1)(hidden)])
    model.compile(keras.optimizers.Adam(rate), ["mse", "mse"], loss_weights=[1.0, 0.5])
    return model


def feed(rng, samples=76, size=2):
    x = [rng.normal(0, 1, (samples, width)).astype("float32") for width in (3, 2)]
    y = [x[0][:, :2] * x[1], x[0][:, 2:] ** 2]

    def batches():
        for at in range(0, samples - 1, size):
            rows = slice(at, at + size)
            yield [part[rows] for part in x], [part[rows] for part in y]
        yield [part[-1:] for part in x], [part[-1:] for part in y]

    return batches


def test_together_is_one_by_one(monkeypatch):
    made, shown = [], []
    for many in (0, 10**9):
        monkeypatch.setattr(fitting, "MANY", many)
        model = network()
        calls = []
        monkeypatch.setattr(
            model,
            "train_on_batch",
            lambda *args, calls=calls, train=model.train_on_batch, **kwargs: (
                calls.append(1) or train(*args, **kwargs)
            ),
        )
        fitting.fit(model, feed(np.random.default_rng(0)), 3, what="fitting", samples=77)
        made.append(model.get_weights())
        shown.append(len(calls))
    # Of 39 batches an epoch the first 32 go together.
    assert shown == [3 * 7, 3 * 39]
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
def test_a_loss_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setattr(fitting, "MANY", 0)
    rng = np.random.default_rng(0)

    def broken():
        for inputs, targets in feed(rng)():
            yield inputs, [targets[0] * np.float32(np.nan), targets[1]]

    with pytest.raises(TfpruneError, match="fitting: expected a finite loss.* in epoch 1"):
        fitting.fit(network(), broken, 1, what="fitting", samples=77)
