"""Trains a tf_keras model on another model's outputs, without labels."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.data.held_out import held_out_split
from tfprune.errors import TfpruneError
from tfprune.graph.safe_gradients import safe_gradients
from tfprune.training.records import TrainingHistory
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter, quiet

BATCH_SIZE = 100
# Variance below which an output counts as constant.
LEAST_VARIANCE = 1e-12
# Held-out samples at a time; the least probability, as Keras has it.
PREDICTED, EPSILON = 512, 1e-7
Sides = tuple[Sequence[Array], Sequence[Array]]


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
    The state that does best on held-out samples is kept.

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
    held_out : pair of sequences of arrays, optional
        Other samples and targets to measure the loss on. Where there are none, a part of the
        samples is held out: see :func:`tfprune.data.held_out.held_out_count`.

    References
    ----------
    Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".
    """

    def __init__(
        self,
        x: Sequence[Array],
        targets: Sequence[Array],
        epochs: int,
        *,
        seed: int = 0,
        progress: bool = False,
        held_out: Sides | None = None,
    ) -> None:
        self.x = list(x)
        self._targets = list(targets)
        if held_out is None and len(x[0]) > 1:
            trained_on, rest = held_out_split(len(x[0]), seed)
            held_out = [data[rest] for data in x], [data[rest] for data in targets]
            self.x, self._targets = (
                [data[trained_on] for data in side] for side in (self.x, self._targets)
            )
        self._held_x, self._held_targets = held_out or (self.x, self._targets)
        self.steps = epochs * -(-len(self.x[0]) // BATCH_SIZE)
        self.seed = seed
        self.epochs = epochs
        self._progress = progress

    def train(
        self,
        network: Any,
        what: str,
        start: float,
        tf_keras: Any,
        *callbacks: Any,
        untrained: Callable[[], None] = lambda: None,
        complete: Callable[[], bool] = lambda: True,
    ) -> TrainingHistory:
        """Trains a network in place with Adam, from a learning rate down to 0 along a cosine.

        Of the untrained state and those after each epoch the one is kept whose loss on the
        held-out samples is lowest among those that hold what was asked for.

        Parameters
        ----------
        network : tf_keras.Model
        what : str
            What it is called in the progress bar and in errors.
        start : float
            The learning rate.
        tf_keras : module
        callbacks : tf_keras.callbacks.Callback
        untrained : callable
            Gives the network what was asked for without training; the training starts without.
        complete : callable
            Whether the network, as it is, holds what was asked for.

        Raises
        ------
        TfpruneError
            If there is no such state whose loss is finite.
        """
        tf_keras.utils.set_random_seed(self.seed)
        rate = tf_keras.optimizers.schedules.CosineDecay(start, self.steps)
        losses = [_loss(target, tf_keras) for target in self._targets]
        network.compile(tf_keras.optimizers.Adam(rate), losses)
        fresh = _state(network)
        untrained()
        reached = [self._held_out_loss(network)]
        best = _state(network)
        _set_state(network, fresh)
        trained: list[float] = []

        def ended(epoch: int, logs: dict[str, float]) -> None:
            nonlocal best
            trained.append(logs["loss"])
            reached.append(self._held_out_loss(network) if complete() else math.inf)
            if reached[-1] < min(reached[:-1]):
                best = _state(network)

        with safe_gradients(network), meter(what, self.steps, self._progress, "step") as drawn:
            count = tf_keras.callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: drawn.update(), on_epoch_end=ended
            )
            network.fit(
                self.x, self._targets, batch_size=BATCH_SIZE, epochs=self.epochs, verbose=0,
                callbacks=[*callbacks, count, tf_keras.callbacks.TerminateOnNaN()],
            )  # fmt: skip
        if not math.isfinite(min(reached)):
            raise TfpruneError(f"{what}: expected a finite loss in training, received NaN")
        _set_state(network, best)
        finite = np.isfinite(trained)
        diverged = None if finite.all() else int(np.argmin(finite)) + 1
        return TrainingHistory(tuple(reached), start, diverged)

    def distance(self, outputs: Sequence[Array]) -> float:
        """:func:`distance` of outputs for the held-out samples from the targets."""
        return distance(outputs, self._held_targets)

    @property
    def held_out_x(self) -> list[Array]:
        """The held-out samples, for each input."""
        return list(self._held_x)

    def _held_out_loss(self, network: Any) -> float:
        """The distance of a network's outputs; infinite where they are not finite."""
        parts = []
        for at in range(0, len(self._held_x[0]), PREDICTED):
            # Keras' predict would take the place of the fit's own history.
            outputs = network.predict_on_batch([data[at : at + PREDICTED] for data in self._held_x])
            parts.append(outputs if isinstance(outputs, list) else [outputs])
        distance = self.distance([np.concatenate(column) for column in zip(*parts, strict=True)])
        return distance if math.isfinite(distance) else math.inf


def as_inputs(model: keras.Model, x: Sequence[Array]) -> list[Array]:
    """Samples in the types of a model's inputs."""
    return [data.astype(tensor.dtype) for data, tensor in zip(x, model.inputs, strict=True)]


def distance(outputs: Sequence[Array], targets: Sequence[Array]) -> float:
    """How far outputs are from targets; 0 where they are equal.

    The loss of the training, of probabilities less the targets' own entropy.
    """
    total = 0.0
    for output, target in zip(outputs, targets, strict=True):
        values, expected = output.astype(float), target.astype(float)
        if _is_probability(target):
            ours, theirs = (np.log(np.clip(side, EPSILON, 1)) for side in (values, expected))
            total += float(np.mean(np.sum(expected * (theirs - ours), axis=-1)))
        else:
            total += float(np.mean((values - expected) ** 2)) / _variance(target)
    return total


def _state(network: Any) -> list[Array]:
    return [variable.numpy() for variable in network.variables]


def _set_state(network: Any, state: Sequence[Array]) -> None:
    for variable, value in zip(network.variables, state, strict=True):
        variable.assign(value)


def _loss(target: Array, tf_keras: Any) -> Any:
    if _is_probability(target):
        return tf_keras.losses.CategoricalCrossentropy()
    squares, variance = tf_keras.losses.MeanSquaredError(), _variance(target)
    return lambda wanted, received: squares(wanted, received) / variance


def _is_probability(target: Array) -> bool:
    """Whether the last axis of an output holds the probabilities of classes."""
    positive = target.ndim > 1 and target.shape[-1] > 1 and target.min() >= 0
    return bool(positive and np.allclose(target.sum(axis=-1), 1, atol=1e-3))


def _variance(target: Array) -> float:
    return max(float(target.var()), LEAST_VARIANCE)
