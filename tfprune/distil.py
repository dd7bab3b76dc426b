"""Label-free training in tf_keras, on what another model computes."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.inputs import Array
from tfprune.progress import meter
from tfprune.quiet import quiet
from tfprune.safe_gradients import safe_gradients

BATCH_SIZE = 100
# Variance below which an output counts as constant.
LEAST_VARIANCE = 1e-12


@contextlib.contextmanager
def tools() -> Iterator[tuple[Any, Any]]:
    """``tf_keras`` and ``tensorflow_model_optimization``, loaded late, their warnings hushed."""
    with warnings.catch_warnings():
        # Theirs are about each other and about TensorFlow's future, not about the model.
        warnings.simplefilter("ignore")
        logger = logging.getLogger("tensorflow")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with quiet():
                import tensorflow_model_optimization as tfmot
                import tf_keras
            yield tf_keras, tfmot
        finally:
            logger.setLevel(level)


class Distillation:
    """Trains tf_keras models to compute what a model computed on the same samples.

    The loss is the mean squared error as a share of the output's variance, or the cross entropy
    where the last axis of an output holds probabilities; several outputs add up. No labels.

    Parameters
    ----------
    x : sequence of arrays of shape (samples, ...)
        One for each input.
    targets : sequence of arrays of shape (samples, ...)
        What the other model made of them.
    epochs : int
    seed : int
        The global seeds of Python, numpy and TensorFlow are set to it at each start.
    progress : bool
        Whether to draw progress bars on stderr.

    References
    ----------
    Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".
    """

    def __init__(
        self,
        x: Sequence[Array],
        targets: Sequence[Array],
        epochs: int,
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        self.x = list(x)
        self.steps = epochs * -(-len(x[0]) // BATCH_SIZE)
        self.seed = seed
        self._targets = list(targets)
        self._epochs = epochs
        self._progress = progress

    def train(self, network: Any, what: str, start: float, tf_keras: Any, *callbacks: Any) -> None:
        """Trains a network in place with Adam, from a learning rate down to 0 along a cosine.

        Raises
        ------
        TfpruneError
            If the loss is NaN or infinite.
        """
        tf_keras.utils.set_random_seed(self.seed)
        rate = tf_keras.optimizers.schedules.CosineDecay(start, self.steps)
        losses = [_loss(target, tf_keras) for target in self._targets]
        network.compile(tf_keras.optimizers.Adam(rate), losses)
        with safe_gradients(network), meter(what, self.steps, self._progress, "step") as drawn:
            count = tf_keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: drawn.update()
            )
            history = network.fit(
                self.x, self._targets, batch_size=BATCH_SIZE, epochs=self._epochs, verbose=0,
                callbacks=[*callbacks, count],
            ).history  # fmt: skip
        if not np.isfinite(history["loss"]).all():
            raise TfpruneError(f"{what}: expected a finite loss in training, received NaN")


def _loss(target: Array, tf_keras: Any) -> Any:
    probabilities = target.ndim > 1 and target.shape[-1] > 1 and target.min() >= 0
    if probabilities and np.allclose(target.sum(axis=-1), 1, atol=1e-3):
        return tf_keras.losses.CategoricalCrossentropy()
    variance = max(float(target.var()), LEAST_VARIANCE)
    squares = tf_keras.losses.MeanSquaredError()
    return lambda wanted, received: squares(wanted, received) / variance
