"""Dense weights of few bits, simulated while a model is trained."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers as kl

from tfprune.copies import twin, walk


def rounded(kernel: Any, bits: int) -> Any:
    """The nearest kernel that so many bits can hold, the gradient that of the kernel itself.

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
    """The kernels of a model's Dense layers, which files of few bits round."""
    return [layer.kernel for _, layer in walk(model) if type(layer) is kl.Dense]


def in_bits(model: keras.Model, bits: int) -> keras.Model:
    """A copy whose Dense kernels are the nearest that so many bits can hold."""
    made = twin(model)
    for kernel in dense_kernels(made):
        kernel.assign(rounded(kernel.value, bits))
    return made


def rounded_call(model: keras.Model, inputs: Any, bits: int) -> Any:
    """What a model computes in inference with its Dense kernels rounded."""
    kernels = {id(kernel) for kernel in dense_kernels(model)}
    weights = [
        rounded(weight.value, bits) if id(weight) in kernels else weight.value
        for weight in model.trainable_variables
    ]
    state = [weight.value for weight in model.non_trainable_variables]
    outputs, _ = model.stateless_call(weights, state, inputs, training=False)
    return outputs
