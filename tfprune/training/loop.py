"""The training loop that healing and fine-tuning share, on Keras' own training step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.errors import TfpruneError
from tfprune.graph.batches import fixed_batch, reset_states, states_of
from tfprune.graph.safe_gradients import safe_gradients
from tfprune.training.learning_rates import CALMER, STALLED, WarmCosine, best_rate
from tfprune.training.records import TrainingHistory
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter

# Largest and smallest; in between, so many steps in an epoch.
MOST, LEAST, STEPS = 128, 16, 64
Batch = tuple[Sequence[Array], Sequence[Array]]
# Steps that one call takes, and the numbers that it may be handed.
TOGETHER, NUMBERS = 32, 2**24
# Fewer steps than these are over before such a call is compiled.
MANY = 500
# A rate is tried for this share of all steps, within these limits.
TRIAL_SHARE, TRIAL_LEAST, TRIAL_MOST = 1 / 12, 10, 96
# By what a rate that was found is divided if no epoch helped.
CAREFUL = 10


class Trainer:
    """Trains a network in place and keeps the state that does best on held-out samples.

    Use it as a context: ``with Trainer(...) as trainer``.

    Parameters
    ----------
    network : keras.Model
        Compiled with an optimizer whose rate is ``schedule``; takes and returns lists of arrays.
    schedule : WarmCosine
    held_out_loss : callable
        The loss of the network, as it is, on samples that it is not trained on.
    what : str
        What the training is called in progress bars and errors.
    restarted : callable
        Called with the number of steps before each training, a trial too.
    progress : bool
    """

    def __init__(
        self,
        network: keras.Model,
        schedule: WarmCosine,
        held_out_loss: Callable[[], float],
        *,
        what: str,
        restarted: Callable[[int], None] = lambda steps: None,
        progress: bool = False,
    ) -> None:
        self._restarted = restarted
        self._network, self._schedule = network, schedule
        self._held_out_loss, self._what, self._progress = held_out_loss, what, progress
        network.optimizer.build(network.trainable_variables)
        self._fresh = [variable.numpy() for variable in network.optimizer.variables]
        self._step = _step_function(network)
        self._safe = safe_gradients(network)

    def __enter__(self) -> Trainer:
        self._safe.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._safe.__exit__(*error)

    def fit(
        self,
        feed: Callable[[np.random.Generator], Iterable[Batch]],
        cycles: Sequence[int],
        *,
        rate: float | None,
        samples: int,
        steps: int,
        seed: int,
        enough: Callable[[], bool] = lambda: False,
    ) -> TrainingHistory:
        """Trains, and leaves the network in its best state, which may be the start.

        Parameters
        ----------
        feed : callable
            Makes the batches of an epoch: inputs and targets.
        cycles : sequence of int
            The epochs of each fall of the rate. All but the first start from the best state so
            far. One that lowers the least held-out loss by less than 2 % gains nothing: those
            behind it start at a third of the rate, and the next that gains nothing is the last.
        rate : float or None
            The highest. If None it is found by short trainings; if no epoch was better than the
            start with it, there is a second training with a tenth of it.
        samples, steps : int
            In an epoch.
        seed : int
            Of the generators that ``feed`` is called with.
        enough : callable
            Asked after each epoch that did better than all before it; True ends the training.

        Raises
        ------
        TfpruneError
            If the held-out loss is not finite at the start.
        """
        start = self._loss()
        if not math.isfinite(start):
            raise TfpruneError(
                f"{self._what}: expected finite outputs of the model, its loss on held-out samples "
                "is NaN or infinite before any training"
            )
        if rate is not None:
            return self._fit(
                feed, cycles, start, rate=rate, samples=samples, steps=steps, seed=seed,
                enough=enough,
            )  # fmt: skip
        rate = self._find_rate(lambda: feed(trial_generator(seed)), sum(cycles) * steps)
        for highest in (rate, rate / CAREFUL):
            history = self._fit(
                feed, cycles, start, rate=highest, samples=samples, steps=steps, seed=seed,
                enough=enough,
            )  # fmt: skip
            if history.best_epoch:
                break
        return history

    def _find_rate(self, feed: Callable[[], Iterable[Batch]], steps: int) -> float:
        """The rate whose short training reaches the lowest held-out loss.

        A loss that is not finite only rules out a rate.
        """
        trial_steps = min(max(int(TRIAL_SHARE * steps), TRIAL_LEAST), TRIAL_MOST)
        trial_steps = min(
            TOGETHER * -(-trial_steps // TOGETHER) if steps >= MANY else trial_steps, steps
        )
        start = self._network.get_weights()
        with meter(f"{self._what}: learning rates", None, self._progress, "rate") as bar:

            def loss(rate: float) -> float:
                self._restart(start, rate, trial_steps)
                batches = itertools.islice(_endless(feed), trial_steps)
                finite = self._take(batches, steps >= MANY)
                bar.update()
                return self._loss() if finite else math.inf

            rate = best_rate(loss)
        self._network.set_weights(start)
        return rate

    def _fit(
        self,
        feed: Callable[[np.random.Generator], Iterable[Batch]],
        cycles: Sequence[int],
        start: float,
        *,
        rate: float,
        samples: int,
        steps: int,
        seed: int,
        enough: Callable[[], bool],
    ) -> TrainingHistory:
        """One training from the present state, whose loss is known."""
        rng = np.random.default_rng(seed)
        losses, best, diverged, stalled = [start], self._network.get_weights(), None, 0
        ended = False
        with meter(self._what, cycles[0] * samples, self._progress) as bar:
            for number, epochs in enumerate(cycles):
                # It is not certain that there will be more.
                bar.total = sum(cycles[: number + 1]) * samples
                before = min(losses)
                self._restart(best, rate / CALMER**stalled, epochs * steps)
                for _ in range(epochs):
                    if not self._take(feed(rng), sum(cycles) * steps >= MANY, bar.update):
                        diverged = len(losses)
                        break
                    losses.append(self._loss())
                    bar.set_postfix_str(f"held-out loss {losses[-1]:.4g}")
                    if losses[-1] < min(losses[:-1]):
                        best = self._network.get_weights()
                        ended = enough()
                    if ended:
                        break
                gained = min(losses) < (1 - STALLED) * before
                if ended or diverged or (stalled and not gained):
                    break
                stalled += not gained
        self._network.set_weights(best)
        return TrainingHistory(tuple(losses), rate, diverged)

    def pass_through(self, batches: Iterable[Batch], before: Callable[[int], None]) -> bool:
        """Passes batches at a rate of 0, so that only moving statistics change.

        Parameters
        ----------
        batches : iterable of Batch
        before : callable
            Called with the number of each batch, from 0.

        Returns
        -------
        bool
            Whether the loss stayed finite.
        """
        self._restart(self._network.get_weights(), 0.0, 1)
        for number, batch in enumerate(batches):
            before(number)
            if not np.isfinite(self._step([batch])):
                return False
        return True

    def _loss(self) -> float:
        """The held-out loss; infinite if it is NaN."""
        loss = self._held_out_loss()
        return loss if math.isfinite(loss) else math.inf

    def _restart(self, weights: list[Array], rate: float, steps: int) -> None:
        """Sets the weights and resets the optimizer."""
        self._network.set_weights(weights)
        for variable, value in zip(self._network.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        self._network.reset_metrics()  # A mean that was NaN once stays so.
        self._schedule.set(rate, steps)
        self._restarted(steps)

    def _take(
        self,
        batches: Iterable[Batch],
        many: bool,
        report: Callable[[int], Any] = lambda count: None,
    ) -> bool:
        """Takes a step for each batch; returns whether the loss stayed finite."""
        for group in _together(batches, many):
            if not np.isfinite(self._step(group)):
                return False
            report(sum(len(inputs[0]) for inputs, _ in group))
        return True


def trial_generator(seed: int) -> np.random.Generator:
    """The random generator of short trainings' sample order: the same for each of them."""
    return np.random.default_rng([seed, 2])


def _endless(feed: Callable[[], Iterable[Batch]]) -> Iterator[Batch]:
    while True:
        yield from feed()


def _together(feed: Iterable[Batch], many: bool) -> Iterator[list[Batch]]:
    """Groups of batches of one shape, as many as one call takes; the rest one by one."""
    waiting: list[Batch] = []
    for batch in feed:
        if waiting and _shapes(batch) != _shapes(waiting[0]):
            yield from ([one] for one in waiting)
            waiting = []
        waiting.append(batch)
        small = TOGETHER * sum(part.size for parts in batch for part in parts) <= NUMBERS
        if len(waiting) == (TOGETHER if small and many else 1):
            yield waiting
            waiting = []
    yield from ([one] for one in waiting)


def _shapes(batch: Batch) -> list[tuple[int, ...]]:
    return [part.shape for parts in batch for part in parts]


def _step_function(network: keras.Model) -> Callable[[list[Batch]], Any]:
    """A function that takes several small training steps in one call, which saves time."""
    step = tf.autograph.experimental.do_not_convert(network.train_step)

    def steps(inputs: list[Any], targets: list[Any]) -> Any:
        loss = 0.0
        for at in tf.range(TOGETHER):
            loss = step(([x[at] for x in inputs], [y[at] for y in targets]))["loss"]
        return loss

    compiled = tf.function(steps, reduce_retracing=True)

    def take(batches: list[Batch]) -> Any:
        if len(batches) == TOGETHER:
            sides = zip(*batches, strict=True)
            return compiled(*(list(map(np.stack, zip(*side, strict=True))) for side in sides))
        ((inputs, targets),) = batches
        return network.train_on_batch(list(inputs), list(targets), return_dict=True)["loss"]

    return take


def batch_size_for(samples: int) -> int:
    """The batch size for a number of samples: few samples need small batches."""
    return min(MOST, max(LEAST, samples // STEPS))


def shuffled(samples: int, batch_size: int, rng: np.random.Generator) -> Iterable[Any]:
    """The indices of the samples in each batch of an epoch, in random order.

    All are of nearly the same size, at most ``batch_size``: a last batch of few samples would have
    statistics far from the others'.
    """
    for index in np.array_split(rng.permutation(samples), -(-samples // batch_size)):
        # Sorted, as a memory-mapped array is read faster so.
        yield np.sort(index)


def epoch_of(
    models: Sequence[keras.Model], samples: int, batch_size: int, rng: np.random.Generator
) -> Iterable[Any]:
    """The indices of the samples in each batch of an epoch, as the models need them.

    In random order; where a model keeps a state from batch to batch, in their own order and from a
    state of zero. Where one takes batches of a fixed size, what is left over is left out.
    """
    whole = any(fixed_batch(model) is not None for model in models)
    ordered = any(map(states_of, models))
    for model in models:
        reset_states(model)
    if not whole and not ordered:
        yield from shuffled(samples, batch_size, rng)
        return
    order = np.arange(samples) if ordered else rng.permutation(samples)
    for start in range(0, samples, batch_size):
        index = order[start : start + batch_size]
        if len(index) == batch_size or not whole:
            yield np.sort(index)


def check_whole(model: keras.Model, samples: int) -> None:
    """Raises :class:`TfpruneError` if samples do not fill one batch of a fixed size."""
    size = fixed_batch(model)
    if size is not None and samples < size:
        raise TfpruneError(
            f"data: expected at least {size} samples to train on, as model {model.name} takes "
            f"batches of {size}, received {samples}"
        )
