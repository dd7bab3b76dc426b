"""Simulates Dense weights of few bits while a model is trained."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as kl

from tfprune.graph.clone import walk


def rounded(kernel: Any, bits: int) -> Any:
    """The nearest kernel of ``bits`` bits; gradients pass straight through (Bengio et al. 2013).

    Every output's weights are whole multiples of a scale of their own, the largest being
    ``2**(bits - 1) - 1`` of it: symmetric, a scale for each channel.

    Parameters
    ----------
    kernel : tensor of shape (inputs, outputs)
    bits : int
        At least 2.

    References
    ----------
    Bengio et al. (2013), "Estimating or propagating gradients through stochastic neurons for
    conditional computation", for the gradient that passes straight through.
    """
    most = keras.ops.max(keras.ops.abs(kernel), axis=0, keepdims=True)
    scale = keras.ops.maximum(most / (2 ** (bits - 1) - 1), keras.config.epsilon() ** 2)
    return kernel + keras.ops.stop_gradient(keras.ops.round(kernel / scale) * scale - kernel)


def dense_kernels(model: keras.Model) -> list[Any]:
    """The kernels of a model's Dense layers outside of wrappers, which files of few bits round."""
    layers = walk(model, wrappers=False)
    return [layer.kernel for _, layer in layers if type(layer) is kl.Dense]


class RoundedDense(keras.Layer):  # type: ignore[misc]  # Keras is untyped
    """A Dense layer that computes with its kernel rounded; both share their weights."""

    def __init__(self, dense: kl.Dense, bits: int) -> None:
        super().__init__(dtype=dense.dtype_policy)
        self.dense, self._bits = dense, bits

    def call(self, inputs: Any) -> Any:
        kernel = self.dense.kernel
        with keras.StatelessScope(state_mapping=[(kernel, rounded(kernel.value, self._bits))]):
            return self.dense(inputs)
