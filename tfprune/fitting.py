"""The training loop that healing and fine-tuning share, on Keras' own train_on_batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.inputs import Array
from tfprune.progress import meter

# Largest and smallest; in between, so many steps in an epoch.
MOST, LEAST, STEPS = 128, 16, 64
Batch = tuple[Sequence[Array], Sequence[Array]]


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
    with meter(what, epochs * samples, progress) as drawn:
        for epoch in range(epochs):
            for inputs, targets in feed():
                loss = network.train_on_batch(list(inputs), list(targets), return_dict=True)["loss"]
                if not np.isfinite(loss):
                    raise TfpruneError(
                        f"{what}: expected a finite loss, received {float(loss)} in epoch "
                        f"{epoch + 1}; take a smaller learning rate"
                    )
                drawn.update(len(inputs[0]))


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
