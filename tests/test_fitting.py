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


def one_by_one(batches, epochs):
    """A plain loop over Keras' own step."""
    model = network()
    for _ in range(epochs):
        for inputs, targets in batches():
            model.train_on_batch(inputs, targets)
    return model.get_weights()


@pytest.mark.trains
@pytest.mark.parametrize("epochs", [1, 13])
def test_together_is_one_by_one(epochs):
    """Thirteen times 39 batches are enough for many steps to be taken in one call."""
    batches = feed(np.random.default_rng(0))
    model = network()
    before = model.get_weights()
    fitting.fit(model, batches, epochs, what="fitting", samples=77)
    after = zip(model.get_weights(), one_by_one(batches, epochs), before, strict=True)
    for ours, theirs, start in after:
        moved = np.abs(theirs - start).max()
        assert moved > 0.01
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * moved)


def test_small_steps_of_a_long_training_share_their_calls(monkeypatch):
    """Most of a small step is its call."""
    calls = []
    monkeypatch.setattr(
        keras.Model, "train_on_batch",
        lambda self, *args, train=keras.Model.train_on_batch, **kwargs: (
            calls.append(1) or train(self, *args, **kwargs)
        ),
    )  # fmt: skip
    batches = feed(np.random.default_rng(0))
    fitting.fit(network(), batches, 13, what="fitting", samples=77)
    assert len(calls) < 13 * 39 / 2


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("epochs", [1, 13])
def test_a_loss_that_is_no_number_is_told(epochs):
    rng = np.random.default_rng(0)

    def broken():
        for inputs, targets in feed(rng)():
            yield inputs, [targets[0] * np.float32(np.nan), targets[1]]

    with pytest.raises(TfpruneError, match="fitting: expected a finite loss.* in epoch 1"):
        fitting.fit(network(), broken, epochs, what="fitting", samples=77)
