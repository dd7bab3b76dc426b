"""Avoids a oneDNN kernel in training that writes past its memory.

On x86 processors TensorFlow computes the gradient of a convolution's kernel with oneDNN. For a
kernel of one position and a stride, with fewer input channels than a vector register holds (16
with AVX-512, 8 with AVX2), oneDNN writes past a buffer: wrong gradients, or the end of the process
(reported there as issue 6035; TensorFlow 2.21 has it). Pruned models have such layers.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfprune.graph.clone import walk

# Layers of Keras 3 and of tf_keras, which are different classes of the same names.
CONVOLUTIONS = ("Conv1D", "Conv2D")
TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose")


@contextmanager
def safe_gradients(*models: Any) -> Iterator[None]:
    """Within the block, 1x1 convolutions with a stride are computed in two steps: slice, convolve.

    The values are first picked by slicing and then convolved with a stride of one, which gives
    the same outputs and gradients. Layers inside wrappers and other layers are looked for as well.

    Parameters
    ----------
    models : keras.Model or tf_keras.Model
        Models whose functions are traced inside the block, as training does.
    """
    changed: list[tuple[Any, Any]] = []
    try:
        for layer in {id(layer): layer for model in models for layer in _layers(model)}.values():
            if not _is_affected(layer):
                continue
            transposed = type(layer).__name__ in TRANSPOSED
            layer.call, strides = (_transposed if transposed else _sliced)(layer), layer.strides
            changed.append((layer, strides))
            if not transposed:
                layer.strides = (1,) * len(strides)
        yield
    finally:
        for layer, strides in changed:
            layer.strides = strides
            del layer.call  # The class has its own.


def has_unsafe_gradient(layer: Any, channels: int = 16) -> bool:
    """Whether training a layer can reach the faulty oneDNN kernel, on AVX-512.

    Parameters
    ----------
    layer : layer
        A built one.
    channels : int
        Fewer than these are affected.
    """
    if not _is_affected(layer):
        return False
    # The kernel's gradient reads the larger of the two pictures, a transposed one's output.
    return int(layer.kernel.shape[-2]) < channels


def newly_unsafe(smaller: keras.Model, model: keras.Model) -> list[str]:
    """Paths of the layers whose training may end the process after pruning, but not before.

    Empty where TensorFlow computes without oneDNN.
    """
    enabled = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() not in ("0", "false")
    if not enabled or platform.machine() not in ("x86_64", "AMD64"):
        return []
    before = dict(walk(model))
    return [
        path
        for path, layer in walk(smaller)
        if has_unsafe_gradient(layer) and not has_unsafe_gradient(before[path])
    ]


def crash_notes(smaller: keras.Model, model: keras.Model) -> list[str]:
    """What to know before the smaller model is trained: a line, if it has such convolutions."""
    unsafe = newly_unsafe(smaller, model)
    if not unsafe:
        return []
    return [
        f"training the pruned model may end the process: {', '.join(unsafe)} now reads fewer than "
        "16 channels with a stride, which TensorFlow's oneDNN kernels get wrong; set "
        "TF_ENABLE_ONEDNN_OPTS=0 before TensorFlow is imported"
    ]


def _layers(model: Any) -> Iterator[Any]:
    # Neither Keras has a public way to the layers that layers hold.
    yield from model._flatten_layers()


def _is_affected(layer: Any) -> bool:
    return (
        type(layer).__name__ in (*CONVOLUTIONS, *TRANSPOSED)
        and set(layer.kernel_size) == {1}
        and max(layer.strides) > 1
        # Both compute grouped ones without oneDNN.
        and getattr(layer, "groups", 1) == 1
    )


def _sliced(layer: Any) -> Callable[..., Any]:
    convolve, first, strides = layer.call, layer.data_format == "channels_first", layer.strides

    def call(inputs: Any) -> Any:
        every = slice(None)
        places = [slice(None, None, stride) for stride in strides]
        return convolve(inputs[(every, every, *places)] if first else inputs[(every, *places)])

    return call


def _transposed(layer: Any) -> Callable[..., Any]:
    def call(inputs: Any) -> Any:
        first = layer.data_format == "channels_first"
        kernel = tf.linalg.matrix_transpose(tf.convert_to_tensor(layer.kernel))
        inputs = tf.convert_to_tensor(inputs)
        outputs = tf.nn.convolution(
            inputs, tf.cast(kernel, inputs.dtype), padding="VALID", data_format=_format(layer)
        )
        for axis, stride in enumerate(layer.strides, start=2 if first else 1):
            outputs = _spaced(outputs, axis, stride)
        if layer.use_bias:
            shape = [1] * len(outputs.shape)
            shape[1 if first else -1] = -1
            outputs += tf.cast(tf.reshape(tf.convert_to_tensor(layer.bias), shape), outputs.dtype)
        return outputs if layer.activation is None else layer.activation(outputs)

    return call


def _spaced(values: Any, axis: int, stride: int) -> Any:
    """Inserts zeros after each position of an axis, for ``stride`` times as many positions."""
    shape = tf.shape(values)
    values = tf.expand_dims(values, axis + 1)
    padding = [[0, 0]] * len(values.shape)
    padding[axis + 1] = [0, stride - 1]
    size = tf.concat([shape[:axis], [shape[axis] * stride], shape[axis + 1 :]], 0)
    return tf.reshape(tf.pad(values, padding), size)


def _format(layer: Any) -> str:
    axes = "HW"[-len(layer.strides) :] if len(layer.strides) == 2 else "W"
    return f"NC{axes}" if layer.data_format == "channels_first" else f"N{axes}C"
