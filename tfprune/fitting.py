"""The training loop that healing and fine-tuning share, on Keras' own training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfprune.batches import fixed_batch, reset_states, states_of
from tfprune.errors import TfpruneError
from tfprune.inputs import Array
from tfprune.progress import meter
from tfprune.safe_gradients import safe_gradients

# Largest and smallest; in between, so many steps in an epoch.
MOST, LEAST, STEPS = 128, 16, 64
Batch = tuple[Sequence[Array], Sequence[Array]]
# Steps that one call takes, and the numbers that it may be handed.
TOGETHER, NUMBERS = 32, 2**24
# Fewer steps than these are over before such a call is compiled.
MANY = 500


def fit(
    network: keras.Model,
    feed: Callable[[], Iterable[Batch]],
    epochs: int,
    *,
    what: str,
    samples: int,
    progress: bool = False,
) -> None:
    """Trains a compiled network in place.

    Parameters
    ----------
    network : keras.Model
        Takes and returns lists of arrays.
    feed : callable
        Makes the batches of an epoch: inputs and targets.
    epochs : int
    what : str
        What the training is called in its progress bar and its error.
    samples : int
        In an epoch.
    progress : bool

    Raises
    ------
    TfpruneError
        If the loss is NaN or infinite.
    """
    taught = _taught(network)
    with safe_gradients(network), meter(what, epochs * samples, progress) as drawn:
        for epoch in range(epochs):
            for batches in _together(feed(), epochs * samples):
                loss = taught(batches)
                if not np.isfinite(loss):
                    raise TfpruneError(
                        f"{what}: expected a finite loss, received {float(loss)} in epoch "
                        f"{epoch + 1}; take a smaller learning rate"
                    )
                drawn.update(sum(len(inputs[0]) for inputs, _ in batches))


def _together(feed: Iterable[Batch], total: int) -> Iterator[list[Batch]]:
    """Batches of one shape, as many as a call takes, and what is left over one by one."""
    waiting: list[Batch] = []
    for batch in feed:
        if waiting and _shapes(batch) != _shapes(waiting[0]):
            yield from ([one] for one in waiting)
            waiting = []
        waiting.append(batch)
        small = TOGETHER * sum(part.size for parts in batch for part in parts) <= NUMBERS
        many = total >= MANY * len(batch[0][0])
        if len(waiting) == (TOGETHER if small and many else 1):
            yield waiting
            waiting = []
    yield from ([one] for one in waiting)


def _shapes(batch: Batch) -> list[tuple[int, ...]]:
    return [part.shape for parts in batch for part in parts]


def _taught(network: keras.Model) -> Callable[[list[Batch]], Any]:
    """Takes a step for each of the batches, in one call: most of a small step is its call."""
    step = tf.autograph.experimental.do_not_convert(network.train_step)

    def steps(inputs: list[Any], targets: list[Any]) -> Any:
        loss = 0.0
        for at in tf.range(TOGETHER):
            loss = step(([x[at] for x in inputs], [y[at] for y in targets]))["loss"]
        return loss

    compiled = tf.function(steps, reduce_retracing=True)

    def taught(batches: list[Batch]) -> Any:
        if len(batches) == TOGETHER:
            sides = zip(*batches, strict=True)
            return compiled(*(list(map(np.stack, zip(*side, strict=True))) for side in sides))
        ((inputs, targets),) = batches
        return network.train_on_batch(list(inputs), list(targets), return_dict=True)["loss"]

    return taught


def batch_size_for(samples: int) -> int:
    """How many of so many samples make a batch: little data needs small ones to take steps."""
    return min(MOST, max(LEAST, samples // STEPS))


def cosine(start: float, steps: int) -> Any:
    """A learning rate that falls from ``start`` to 0 along a cosine.

    References
    ----------
    Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.
    """
    return keras.optimizers.schedules.CosineDecay(start, steps)


def shuffled(samples: int, batch_size: int, rng: np.random.Generator) -> Iterable[Any]:
    """The numbers of the samples in each batch of an epoch, in random order."""
    order = rng.permutation(samples)
    for start in range(0, samples, batch_size):
        # Sorted, as a memory-mapped array is read faster so.
        yield np.sort(order[start : start + batch_size])


def epoch_of(
    models: Sequence[keras.Model], samples: int, batch_size: int, rng: np.random.Generator
) -> Iterable[Any]:
    """The numbers of the samples in each batch of an epoch, as models can take them.

    In random order; where a model keeps a state from batch to batch, in their own order and from a
    state of zero. Where one takes batches of a fixed size, what is left over is left out.
    """
    if any(map(states_of, models)):
        for model in models:
            reset_states(model)
        batches: Iterable[Any] = (
            np.arange(start, min(start + batch_size, samples))
            for start in range(0, samples, batch_size)
        )
    else:
        batches = shuffled(samples, batch_size, rng)
    whole = any(fixed_batch(model) is not None for model in models)
    return (batch for batch in batches if len(batch) == batch_size or not whole)


def check_whole(model: keras.Model, samples: int) -> None:
    """Raises :class:`TfpruneError` if samples do not fill one batch of a fixed size."""
    size = fixed_batch(model)
    if size is not None and samples < size:
        raise TfpruneError(
            f"data: expected at least {size} samples to train on, as model {model.name} takes "
            f"batches of {size}, received {samples}"
        )
