"""Fine-tuning: what is learnt from labels, and that it never does harm."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tests.support.graphs import error, several
from tfprune.data.splits import Split
from tfprune.training.finetuning import FineTuner

pytestmark = pytest.mark.trains


def test_fine_tuning_learns_the_labels(digit_pair, digit_parts):
    model, pruned = digit_pair
    tuner, held_out = FineTuner(model, digit_parts.train), FineTuner(model, digit_parts.validation)
    tuned, history = tuner.fine_tuned(pruned, 3, held_out)
    x, y = digit_parts.validation.x, digit_parts.validation.y
    before, after = (m.evaluate(x, y, verbose=0)[0] for m in (pruned, tuned))
    assert after < before
    assert (history.before, history.after) == pytest.approx((before, after), rel=1e-4)
    again, _ = tuner.fine_tuned(pruned, 3, held_out)
    assert all(map(np.array_equal, tuned.get_weights(), again.get_weights()))


@pytest.mark.parametrize("rate", [0.5, 1e30])
def test_fine_tuning_that_does_harm_leaves_the_model_as_it_was(digit_pair, digit_parts, rate):
    """The rate is the user's own."""
    model, pruned = digit_pair
    settings = keras.models.clone_model(model)
    settings.compile(keras.optimizers.SGD(rate, momentum=0.9), model.loss)
    tuner, held_out = (
        FineTuner(model, part, settings) for part in (digit_parts.train, digit_parts.validation)
    )
    tuned, history = tuner.fine_tuned(pruned, 2, held_out)
    assert history.best_epoch == 0
    assert history.learning_rate == pytest.approx(rate)
    assert history.after == history.before
    assert history.problem
    assert all(map(np.array_equal, tuned.get_weights(), pruned.get_weights()))


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "one logit", "values"])
def test_fine_tuning_takes_the_loss_from_output_and_labels(rng, kind):
    x = rng.standard_normal((400, 6)).astype("float32")
    truth = x @ rng.standard_normal((6, 3))
    y = {"values": truth, "softmax": truth.argmax(1)}.get(kind, (truth[:, 0] > 0).astype(int))
    units = 3 if kind in ("softmax", "values") else 1
    activation = kind if kind in ("softmax", "sigmoid") else None
    model = keras.Sequential(
        [keras.Input((6,)), kl.Dense(16, activation="relu"), kl.Dense(units, activation=activation)]
    )

    def score(m):
        out = m.predict(x, verbose=0)
        if kind == "values":
            return -np.mean((out - truth) ** 2)
        decided = out.argmax(1) if units > 1 else out[:, 0] > (0.5 if activation else 0)
        return np.mean(decided == y)

    tuner = FineTuner(model, Split(x, y))
    tuned, _ = tuner.fine_tuned(model, 30, tuner)
    assert score(tuned) > (score(model) * 0.9 if kind == "values" else 0.8)


@pytest.mark.slow
def test_outputs_without_labels_stay_as_the_teachers(rng):
    model = several(rng)
    x = {name: rng.standard_normal((600, n)).astype("float32") for name, n in
         (("one", 6), ("two", 5))}  # fmt: skip
    y = rng.integers(0, 4, 600)
    tuner = FineTuner(model, Split(x, y))
    tuned, _ = tuner.fine_tuned(model, 3, tuner)
    spread = float(np.var(model.predict(x, verbose=0)["values"]))
    assert error(tuned, model, x)[sorted(model.output).index("values")] < 0.2 * spread
