"""Batches for models of a fixed batch size or with recurrent state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array


@contextmanager
def many_models() -> Iterator[None]:
    """Runs models without TensorFlow's advice on functions that are traced often.

    It is for those made in a loop by mistake; here each model is one of its own.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(_no_advice)
    try:
        yield
    finally:
        logger.removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "triggered tf.function retracing" not in record.getMessage()


def fixed_batch(model: keras.Model) -> int | None:
    """The batch size that a model insists on, or None.

    Raises
    ------
    TfpruneError
        If its inputs disagree.
    """
    sizes = {tensor.shape[0] for tensor in model.inputs} - {None}
    if len(sizes) > 1:
        raise TfpruneError(
            f"model {model.name}: expected inputs of one batch size, received "
            f"{', '.join(map(str, sorted(sizes)))}"
        )
    return int(sizes.pop()) if sizes else None


def padded(arrays: Sequence[Array], size: int | None) -> list[Array]:
    """Arrays with their last sample repeated up to a whole number of batches.

    Parameters
    ----------
    arrays : sequence of arrays of shape (samples, ...)
    size : int or None
        Samples in a batch; None leaves the arrays as they are.
    """
    missing = 0 if size is None else -len(arrays[0]) % size
    if not missing:
        return list(arrays)
    return [np.concatenate([data, np.repeat(data[-1:], missing, axis=0)]) for data in arrays]


def rebatched(batches: Iterable[Sequence[Array]], size: int) -> Iterator[list[Array]]:
    """The same samples in batches of one size; the last batch may be smaller."""
    waiting: list[Array] = []
    for batch in batches:
        parts = [waiting, batch] if waiting else [batch]
        waiting = [np.concatenate(part) for part in zip(*parts, strict=True)]
        while len(waiting[0]) >= size:
            yield [data[:size] for data in waiting]
            waiting = [data[size:] for data in waiting]
    if waiting and len(waiting[0]):
        yield waiting


def states_of(model: Any) -> list[Any]:
    """The variables in which a model's stateful recurrent layers keep their states."""
    if not isinstance(model, keras.Layer):
        return []  # An operation.
    # No public walk reaches the layers inside wrappers and custom layers.
    layers = [layer for layer in model._flatten_layers() if getattr(layer, "stateful", False)]
    states = [keras.tree.flatten(getattr(layer, "states", None) or []) for layer in layers]
    return list({id(state): state for part in states for state in part}.values())


def check_stateless(model: keras.Model) -> None:
    """Raises :class:`TfpruneError` if a file of the model would lose a state that it keeps."""
    for layer in model.layers:
        if states_of(layer):
            raise TfpruneError(
                f"model {model.name}: no file can be made of it, as a .tflite file keeps no state "
                f"between invocations and layer {layer.name} does; build the model with "
                "stateful=False"
            )


def reset_states(model: Any) -> None:
    """Sets the states of a model's recurrent layers to zero."""
    for state in states_of(model):
        state.assign(keras.ops.zeros_like(state))


@contextmanager
def from_zero_state(*models: Any) -> Iterator[None]:
    """Within the block recurrent states start at zero; after it they are as before."""
    kept = [(state, state.numpy()) for model in models for state in states_of(model)]
    for model in models:
        reset_states(model)
    try:
        yield
    finally:
        for state, value in kept:
            state.assign(value)
