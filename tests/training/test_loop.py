"""Steps taken together are the steps taken one by one."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.training.learning_rates import RATES, WarmCosine, cycles_of
from tfprune.training.loop import Trainer, shuffled


def network():
    keras.utils.set_random_seed(5)
    one, two = keras.Input((3,)), keras.Input((2,))
    hidden = kl.Dense(4, activation="tanh")(kl.Concatenate()([one, two]))
    model = keras.Model([one, two], [kl.Dense(2)(hidden), kl.Dense(1)(hidden)])
    schedule = WarmCosine()
    model.compile(keras.optimizers.Adam(schedule), ["mse", "mse"], loss_weights=[1.0, 0.5])
    return model, schedule


def data(samples=76):
    rng = np.random.default_rng(0)
    x = [rng.normal(0, 1, (samples, width)).astype("float32") for width in (3, 2)]
    return x, [x[0][:, :2] * x[1], x[0][:, 2:] ** 2]


def feed(rng, size=2):
    """Batches in a random order, the last one of a single sample."""
    x, y = data()
    order = rng.permutation(len(x[0]))
    for at in range(0, len(order) - 1, size):
        rows = order[at : at + size]
        yield [part[rows] for part in x], [part[rows] for part in y]
    yield [part[-1:] for part in x], [part[-1:] for part in y]


def loss_of(model):
    """On other samples."""
    x, y = data(50)
    return float(model.evaluate(x, y, verbose=0)[0])


def fit(model, schedule, *, feed=feed, loss=None, epochs=3, cycles=None, rate=0.01, seed=0):
    losses = loss or (lambda: loss_of(model))
    with Trainer(model, schedule, losses, what="fitting") as trainer:
        return trainer.fit(feed, cycles or (epochs,), rate=rate, samples=77, steps=39, seed=seed)


def one_by_one(batches, epochs):
    """A plain loop over Keras' own step."""
    model, schedule = network()
    schedule.set(0.01, 39 * epochs)
    for _ in range(epochs):
        for inputs, targets in batches:
            model.train_on_batch(inputs, targets)
    return model.get_weights()


@pytest.mark.trains
@pytest.mark.parametrize("epochs", [1, 13])
def test_together_is_one_by_one(epochs):
    """Thirteen times 39 batches are enough for many steps to be taken in one call."""
    batches = list(feed(np.random.default_rng(0)))
    model, schedule = network()
    before = model.get_weights()
    # The loss that is watched says that the last state is the best.
    fit(
        model,
        schedule,
        feed=lambda rng: batches,
        loss=iter(range(99, 0, -1)).__next__,
        epochs=epochs,
    )
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
    model, schedule = network()
    fit(model, schedule, loss=lambda: 1.0, epochs=13)
    assert len(calls) < 13 * 39 / 2


def test_the_best_state_is_kept_wherever_it_was():
    """The loss that is watched is made up; what is in the network then has to come back."""
    for wanted in range(4):
        model, schedule = network()
        states = []

        def loss(model=model, states=states, wanted=wanted):
            states.append(model.get_weights())
            return abs(len(states) - 1 - wanted)

        history = fit(model, schedule, loss=loss)
        assert history.losses == tuple(abs(epoch - wanted) for epoch in range(4))
        assert (history.best_epoch, history.before, history.after) == (wanted, wanted, 0)
        assert bool(history.problem) == (wanted == 0)
        assert all(map(np.array_equal, model.get_weights(), states[wanted]))
        assert not np.array_equal(states[0][0], states[1][0])


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("good_epochs", [0, 2])
@pytest.mark.parametrize("epochs_in_all", [5, 13])
def test_a_loss_that_is_no_number_ends_the_training(good_epochs, epochs_in_all):
    model, schedule = network()
    epochs = []

    def breaking(rng):
        epochs.append(1)
        broken = np.float32(np.nan if len(epochs) > good_epochs else 1)
        for inputs, targets in feed(rng):
            yield inputs, [targets[0] * broken, targets[1]]

    history = fit(model, schedule, feed=breaking, epochs=epochs_in_all)
    assert history.diverged == good_epochs + 1 == len(epochs)
    assert len(history.losses) == good_epochs + 1
    assert f"not finite in epoch {good_epochs + 1}" in history.problem
    assert loss_of(model) == pytest.approx(min(history.losses), rel=1e-5)


def test_a_start_that_is_no_number_is_told():
    model, schedule = network()
    with pytest.raises(
        TfpruneError, match="fitting: expected finite outputs.* infinite before any"
    ):
        fit(model, schedule, loss=lambda: float("nan"))


def test_without_a_rate_one_is_found_and_leaves_no_trace():
    found, chosen = network(), network()
    history = fit(*found, rate=None)
    assert history.learning_rate in RATES
    fit(*chosen, rate=history.learning_rate)
    for ours, theirs in zip(found[0].get_weights(), chosen[0].get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_where_no_epoch_helps_a_tenth_of_the_rate_is_tried():
    model, schedule = network()
    start = model.get_weights()
    losses = []

    def loss():
        """Only the start is good."""
        losses.append(np.array_equal(model.get_weights()[0], start[0]))
        return 0.0 if losses[-1] else 1.0

    history = fit(model, schedule, loss=loss, rate=None)
    assert history.best_epoch == 0
    assert any(history.learning_rate == pytest.approx(rate / 10) for rate in RATES)
    assert all(map(np.array_equal, model.get_weights(), start))


def test_nothing_but_statistics_moves_at_a_rate_of_0():
    model, schedule = network()
    start, numbers = model.get_weights(), []
    with Trainer(model, schedule, lambda: 0.0, what="fitting") as trainer:
        assert trainer.pass_through(list(feed(np.random.default_rng(0)))[:5], numbers.append)
    assert numbers == [0, 1, 2, 3, 4]
    assert all(map(np.array_equal, model.get_weights(), start))


@pytest.mark.parametrize(("samples", "size"), [(1, 16), (16, 16), (17, 16), (130, 128), (1000, 7)])
def test_batches_are_of_nearly_the_same_size(samples, size):
    batches = list(shuffled(samples, size, np.random.default_rng(0)))
    assert sorted(np.concatenate(batches)) == list(range(samples))
    sizes = [len(batch) for batch in batches]
    assert len(sizes) == -(-samples // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("losses", "calmer"),
    [
        # Each cosine ends lower, so all are gone through.
        ([10, 9, 8, 7, 7, 7, 6, *[6] * 7, 5, *[5] * 15, 4], [1, 1, 1, 1]),
        # The second lowers the loss by one percent only, the third by nothing.
        ([10, 9, 8, 8, 8, 8, 7.92, *[7.92] * 8], [1, 1, 3]),
        # By three percent, then by nothing, then by much.
        ([10, 9, 8, 8, 8, 8, 7.76, *[7.76] * 8, *[7] * 15, 4], [1, 1, 1, 3]),
        # It overfits at once: the start is kept.
        ([10, 11, 12, *[13] * 4], [1, 3]),
    ],
)
def test_cosines_follow_each_other_until_two_gain_little(losses, calmer):
    """Behind the first that gains little the rate is a third."""
    model, schedule = network()
    states, cosines, restart = [], [], schedule.set

    def loss():
        states.append(model.get_weights())
        return losses[len(states) - 1]

    def noted(rate, steps):
        cosines.append((rate, steps))
        restart(rate, steps)

    schedule.set = noted
    history = fit(model, schedule, loss=loss, cycles=cycles_of("auto"))
    lengths = (2, 4, 8, 16)[: len(calmer)]
    assert cosines == [(0.01 / by, 39 * epochs) for by, epochs in zip(calmer, lengths, strict=True)]
    assert history.losses == tuple(losses)
    assert len(states) == sum(lengths) + 1
    assert all(map(np.array_equal, model.get_weights(), states[int(np.argmin(losses))]))


def test_a_cosine_starts_from_the_best_state_so_far():
    model, schedule = network()
    before, starts = [], []

    def loss():
        before.append(model.get_weights())
        return [5, 1, 2, 0, 3, 4][len(before) - 1]

    def watched(rng):
        starts.append(model.get_weights())
        yield from feed(rng)

    fit(model, schedule, feed=watched, loss=loss, cycles=(2, 3))
    # The first epoch was the best of the first two.
    assert all(map(np.array_equal, starts[2], before[1]))
    assert not all(map(np.array_equal, starts[2], before[2]))
