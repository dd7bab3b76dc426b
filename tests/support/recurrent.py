"""Recurrent and wrapped layers with planted units, and a plain loop that computes them."""

from __future__ import annotations

import numpy as np
from keras import layers as kl

from tfprune.graph.clone import walk


def filled(model, rng, scale=0.5):
    """Random weights for all layers, those inside others too; variances positive."""
    for _, layer in walk(model):
        layer.set_weights(
            [
                np.abs(w) + 0.5 if "variance" in variable.name else w
                for variable, w in zip(
                    layer.weights,
                    [rng.normal(0, scale, variable.shape) for variable in layer.weights],
                    strict=True,
                )
            ]
        )
    return model


def at(model, path):
    """A layer by its path."""
    return dict(walk(model))[path]


def gates(layer):
    """How many blocks of units lie side by side in a layer's kernels."""
    return {kl.LSTM: 4, kl.GRU: 3}.get(type(layer), 1)


def duplicated(layer, source=1, target=0):
    """Gives a unit the incoming weights of another one."""
    units = getattr(layer, "units", None) or layer.filters
    weights = layer.get_weights()
    for weight in weights:
        if weight.shape[-1] == units * gates(layer):
            blocks = weight.reshape(*weight.shape[:-1], gates(layer), units)
            blocks[..., target] = blocks[..., source]
    layer.set_weights(weights)
    return layer
