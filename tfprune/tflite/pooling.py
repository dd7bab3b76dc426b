"""Averages over whole pictures, written so that a file of 8-bit activations loses less in them.

TFLite's AVERAGE_POOL_2D gives its output in the steps of its input. What is averaged over a whole
picture varies far less than what it is the average of, so few of the 256 steps are left for it.
MEAN computes the same, in steps of its own.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import layers as kl

from tfprune.graph.clone import clone, walk
from tfprune.graph.tracer import trace

# What averages over a window, and what averages over everything.
WHOLE = {
    kl.AveragePooling1D: kl.GlobalAveragePooling1D,
    kl.AveragePooling2D: kl.GlobalAveragePooling2D,
    kl.AveragePooling3D: kl.GlobalAveragePooling3D,
}


def with_means(model: keras.Model) -> keras.Model | None:
    """A copy of a model whose pools that average over all positions are global ones.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model.

    Returns
    -------
    keras.Model or None
        It computes the same, under the same names; None if there is no such pool, or if a layer
        cannot be copied.

    Examples
    --------
    >>> import keras
    >>> from keras import layers as kl
    >>> layers = [keras.Input((8, 8, 3)), kl.AveragePooling2D(8, name="pool"), kl.Flatten()]
    >>> with_means(keras.Sequential(layers)).get_layer("pool").__class__.__name__
    'GlobalAveragePooling2D'
    """
    if not any(type(layer) in WHOLE for _, layer in walk(model)):
        return None

    def mean(layer: Any) -> Any:
        if id(layer) not in whole:
            return None
        settings = {"data_format": layer.data_format, "name": layer.name}
        return WHOLE[type(layer)](**settings, keepdims=True, dtype=layer.dtype_policy)

    try:
        whole = _whole(model)
        return clone(model, mean) if whole else None
    except Exception:  # Each layer has an error of its own; the model is converted as it is.
        return None


def _whole(model: keras.Model) -> set[int]:
    """The ids of pools that have one window in every call, which holds all positions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The model gave its own when it was built.
        traced = trace(model)
    found = set()
    for path, layer in walk(model):
        if type(layer) not in WHOLE or path not in traced.call_inputs:
            continue
        # Inside a TimeDistributed it takes one step at a time.
        first = 1 + traced.steps.get(path, 0)
        calls = zip(traced.call_inputs[path], traced.call_outputs[path], strict=True)
        if all(
            _holds_all(layer, before.shape[first:], after.shape[first:])
            # A global pool would leave masked steps out, where this one takes them along. Keras
            # has no public way to ask for a mask.
            and getattr(before, "_keras_mask", None) is None
            for (before,), (after,) in calls
        ):
            found.add(id(layer))
    return found


def _holds_all(layer: Any, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """Whether one window of a pool holds all positions; of shapes without the batch."""
    axes = slice(-1) if layer.data_format == "channels_last" else slice(1, None)
    sizes = zip(layer.pool_size, before[axes], after[axes], strict=True)
    return all(size and made == 1 and pool >= size for pool, size, made in sizes)
