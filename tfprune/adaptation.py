"""Adapts a model's BatchNormalization to data that differ from what it was trained on."""

from __future__ import annotations

from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.graph.clone import clone, copy_weights, walk
from tfprune.graph.inputs import Samples
from tfprune.graph.precision import in_float32
from tfprune.graph.tracer import trace
from tfprune.reconstruction.reconstruct import first_samples
from tfprune.reconstruction.sites import Wiring, normalises
from tfprune.reconstruction.statistics import measure_statistics


def adapt(model: keras.Model, x: Any) -> keras.Model:
    """Sets the statistics of BatchNormalization to those of some data; without labels.

    A model meets data that are not quite those of its training: another camera, another decoder of
    pictures. Then the means and variances that it normalises with are off, and taking those of the
    new data wins accuracy back (Li et al. 2016). Data of one class alone, or a handful of samples,
    do the opposite: compare both models on labelled samples, as ``--adapt`` of the commands does.
    Pruned and healed models come near to the one that they are made of, so adapt that one first.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model; it stays as it is.
    x : as of :func:`tfprune.prune`
        Data as the model takes it, some hundred samples of all classes. At most 4,096 are used,
        fewer of a large model.

    Returns
    -------
    keras.Model
        A copy, compiled as the model is. From the input on, each layer has the mean and variance
        of what reaches it when those before it have theirs.

    Raises
    ------
    TfpruneError
        If there is no BatchNormalization, or the data does not fit the model.

    References
    ----------
    Li, Wang, Shi, Liu, Hou (2016), "Revisiting batch normalization for practical domain
    adaptation".

    Examples
    --------
    A model that was trained on values about 0 gets values about 5:

    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> layers = [keras.Input((2,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    >>> model = keras.Sequential(layers)
    >>> x = np.random.default_rng(0).normal(5, 2, size=(1000, 2))
    >>> adapted = tfprune.adapt(model, x)
    >>> adapted.layers[0].moving_mean.numpy().round()
    array([5., 5.], dtype=float32)
    """
    samples = Samples(model, x)
    adapted = clone(model)
    traced = trace(in_float32(adapted))
    wiring = Wiring(traced)
    if not any(normalises(wiring, path) for path in wiring.order):
        raise TfpruneError(
            "expected a model with BatchNormalization, whose statistics can be those of the data; "
            f"{model.name} has none"
        )
    measure_statistics(wiring, first_samples(samples, model), 1.0)
    for path, layer in dict(walk(adapted)).items():
        copy = traced.copies.get(path)
        if copy is not None and isinstance(layer, keras.layers.BatchNormalization):
            copy_weights(copy, layer, copy.get_weights())
    return adapted


def adaptable(model: keras.Model) -> bool:
    """Whether a model has BatchNormalization that :func:`adapt` can set."""
    return any(isinstance(layer, keras.layers.BatchNormalization) for _, layer in walk(model))
