"""Recurrent and wrapped layers with planted units, and a plain loop that computes them."""

from __future__ import annotations

import keras
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


def steps_of(layer, x, *, start=None, mask=None, read=None, ops=np, weights=None):
    """The states of a recurrent layer after each step, shape (samples, steps, units), by a loop.

    ``read`` maps ``recurrent`` and ``candidate`` to a matrix and an offset, through which the layer
    sees its own units; ``start`` is the state in front, a list of arrays. Units are in the order
    of the layer, steps in that in which it takes them.
    """
    kernel, recurrent, *bias = weights or layer.get_weights()
    size, read = layer.units, read or {}
    bias = bias[0] if bias else np.zeros(recurrent.shape[-1])
    inner, own = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
    act = layer.activation
    gate = getattr(layer, "recurrent_activation", None)
    blocks = [slice(at * size, (at + 1) * size) for at in range(gates(layer))]

    def seen(part, state):
        matrix, offset = read.get(part) or (np.eye(size), np.zeros(size))
        return state @ matrix.astype("float32") + offset.astype("float32")

    h, *c = start or [ops.zeros_like(x[:, 0, :1]) * np.zeros(size, "float32")] * 2
    states = []
    order = range(x.shape[1])
    for at in reversed(order) if layer.go_backwards else order:
        sums = [x[:, at] @ kernel[:, block] + inner[block] for block in blocks]
        back = [seen("recurrent", h) @ recurrent[:, block] + own[block] for block in blocks]
        if type(layer) is kl.SimpleRNN:
            new = act(sums[0] + back[0])
        elif type(layer) is kl.GRU:
            z, r = (gate(a + b) for a, b in zip(sums[:2], back[:2], strict=True))
            if layer.reset_after:
                candidate = act(sums[2] + r * back[2])
            else:
                candidate = act(sums[2] + seen("candidate", r * h) @ recurrent[:, blocks[2]])
            new = z * h + (1 - z) * candidate
        else:
            i, f, o = (gate(sums[k] + back[k]) for k in (0, 1, 3))
            cell = f * c[0] + i * act(sums[2] + back[2])
            new = o * act(cell)
        if mask is None:
            h = new
            c = [cell] if type(layer) is kl.LSTM else []
        else:
            now = mask[:, at, None]
            h = ops.where(now, new, h)
            c = [ops.where(now, cell, c[0])] if type(layer) is kl.LSTM else []
        states.append(h)
    return ops.stack(states, axis=1)


class StepByStep(keras.layers.Layer):
    """A recurrent layer as a plain loop, that sees its own units as it is told."""

    def __init__(self, layer, read):
        super().__init__()
        self.original, self.read, self.values = layer, read, tuple(layer.get_weights())

    def call(self, x):
        states = steps_of(self.original, x, read=self.read, ops=keras.ops, weights=self.values)
        return states if self.original.return_sequences else states[:, -1]
