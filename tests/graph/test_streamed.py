"""Models compute of streamed samples what they compute of the same samples in memory."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.utils import streamed
from tfprune.utils.streamed import StreamedArray


@pytest.fixture
def x(rng):
    return rng.normal(size=(230, 6)).astype(np.float32)


@pytest.fixture
def stream(x, monkeypatch):
    """The same samples streamed, of which few are read at once."""
    monkeypatch.setattr(streamed, "AT_ONCE", 70 * 4 * 6)
    asked = []

    def read(index):
        asked.append(len(index))
        return x[index]

    made = StreamedArray(read, x.shape, x.dtype)
    made.asked = asked
    return made


def network(batch=None, units=8):
    keras.utils.set_random_seed(2)
    layers = [kl.Dense(units, "relu", name="hidden"), kl.Dense(3)]
    return keras.Sequential([keras.Input((6,), batch_size=batch), *layers])


@pytest.mark.parametrize("batch", [None, 50])
def test_outputs(x, stream, batch):
    model = network(batch)
    received = outputs_of(model, check_inputs(model, stream))
    np.testing.assert_array_equal(received[0], outputs_of(model, check_inputs(model, x))[0])
    assert max(stream.asked) <= 70


def test_pruning_and_healing(x, stream):
    model = network()
    pairs = [(tfprune.prune(model, one, remove=0.5, refit=3), one) for one in (x, stream)]
    healed = [
        tfprune.heal(one.model, model, samples, epochs=1, learning_rate=0.01)
        for one, samples in pairs
    ]
    for made in ([one.model for one, _ in pairs], healed):
        for ours, theirs in zip(*(one.get_weights() for one in made), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_numbers_that_are_none_are_told_when_they_are_read(x, stream):
    x[200, 3] = np.nan
    model = network()
    with pytest.raises(TfpruneError, match="expected finite numbers, received NaN"):
        outputs_of(model, check_inputs(model, stream))
