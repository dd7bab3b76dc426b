"""The part of a pruned model that is trained, and how its layers work meanwhile."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers as kl

from tfprune.graph.clone import functional
from tfprune.graph.configs import config_of
from tfprune.graph.wrappers import is_nested
from tfprune.outputs.distance import Match, graph_of
from tfprune.training.fake_quant import RoundedDense, dense_kernels, rounded

# Moving statistics forget within so many steps, or a quarter of the training if that is less.
REMEMBERED = 10
# Fewer values of a channel in a batch than these say too little of it. Unknown sizes count as 16.
LEAST_VALUES, UNKNOWN = 1_000, 16


def parted(student: keras.Model, teacher: keras.Model) -> tuple[Any, Any]:
    """Splits the student into a part that computes what the teacher does and one to train.

    Returns
    -------
    head : keras.Model or None
        None where nothing in front is unchanged.
    tail : keras.Model or None
        None where nothing was changed at all.
    """
    theirs = {layer.name: layer for layer in teacher.layers}
    graph, calls = graph_of(student)
    clean = {id(tensor) for tensor in graph.inputs}
    for call in calls:
        if all(id(t) in clean for t in call.inputs) and _same(call.layer, theirs):
            clean |= {id(tensor) for tensor in call.outputs}
    if all(id(tensor) in clean for tensor in graph.outputs):
        return graph, None
    for call in reversed(calls):
        if len(call.outputs) > 1 or id(call.outputs[0]) not in clean:
            continue
        # A mask would not come along; Keras has no public way to ask for one.
        if getattr(call.outputs[0], "_keras_mask", None) is not None:
            continue
        try:
            tail = keras.Model(call.outputs[0], graph.outputs)
        except ValueError:  # There is a way around this tensor.
            continue
        head = keras.Model(graph.inputs, call.outputs[0])
        # A layer that works on both sides would be trained on one of them alone.
        if not {id(x) for x in head.weights} & {id(x) for x in tail.weights}:
            return head, tail
    return None, graph


def _same(layer: Any, theirs: dict[str, Any]) -> bool:
    """Whether a layer computes what the teacher's layer of that name does."""
    if not isinstance(layer, keras.Layer):
        return True  # An operation, which has nothing that could differ.
    other = theirs.get(layer.name)
    if (
        other is None
        or type(other) is not type(layer)
        or str(config_of(other)) != str(config_of(layer))
    ):
        return False
    ours = layer.get_weights()
    return all(map(np.array_equal, ours, other.get_weights()))


Trained = Callable[[Any, Sequence[int | None]], bool]


def _never(layer: Any, shape: Sequence[int | None]) -> bool:
    return False


class Student(keras.Model):  # type: ignore[misc]  # Keras is untyped
    """A model's layers in training: BatchNormalization uses batches, others work as in inference.

    So Dropout is off: the teacher's outputs are to be met exactly. A Functional model would
    overrule ``training`` for all of its layers alike, so the graph is called layer by layer.

    Parameters
    ----------
    layers : keras.Model
        The Functional model that is trained in place.
    matches : sequence of Match
        How each output is compared with the teacher's. Regularizers of layers have no part in it.
    bits : int or None
        See :func:`tfprune.heal`.
    batch_size : int
        0 for as if nothing were trained.

    Attributes
    ----------
    has_statistics : bool
        Whether there is a BatchNormalization that takes the statistics of its batches while it is
        trained, and whose moving statistics change. It has at least 1,000 values of each channel in
        a batch, is trainable, and was not called with ``training=False``.
    """

    def __init__(
        self,
        layers: keras.Model,
        matches: Sequence[Match],
        *,
        bits: int | None = None,
        batch_size: int = 0,
    ) -> None:
        super().__init__(name="student")
        self.inner, self._matches, self._bits = layers, list(matches), bits
        self._momentum = tf.Variable(0.0, trainable=False)
        self._used = _function(layers, bits, _never)
        normalizations: list[Any] = []

        def has_statistics(layer: Any, shape: Sequence[int | None]) -> bool:
            if not isinstance(layer, kl.BatchNormalization) or not layer.trainable:
                return False
            sizes = [UNKNOWN if size is None else size for size in shape[1:]]
            if batch_size * math.prod(sizes) < LEAST_VALUES * sizes[layer.axis % len(shape) - 1]:
                return False
            normalizations.append(layer)
            return True

        self._trained = _function(layers, bits, has_statistics)
        for layer in normalizations:
            layer.momentum = self._momentum
        self.has_statistics = bool(normalizations)

    def set_momentum(self, steps: int) -> None:
        """Sets the momentum of moving statistics for a training of so many steps."""
        self._momentum.assign(1 - 1 / min(max(steps / 4, 2), REMEMBERED))

    def average(self, number: int) -> None:
        """Sets the momentum so that batches up to this number, from 0, count alike."""
        self._momentum.assign(number / (number + 1))

    def call(self, inputs: Any, training: bool = False) -> list[Any]:
        function = self._trained if training and self.has_statistics else self._used
        arrays = zip(keras.tree.flatten(inputs), self.inner.inputs, strict=True)
        cast = [keras.ops.cast(array, tensor.dtype) for array, tensor in arrays]
        return keras.tree.flatten(function(cast))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None,
        training: bool = True,
    ) -> Any:  # fmt: skip
        targets, outputs = (
            [keras.ops.cast(array, "float32") for array in keras.tree.flatten(side)]
            for side in (y, y_pred)
        )
        return sum(
            match.weight * keras.ops.mean(match.loss(target, output))
            for match, target, output in zip(self._matches, targets, outputs, strict=True)
        )

    def round(self) -> None:
        """Rounds the weights as the model rounded them in training."""
        if self._bits is None:
            return
        for kernel in dense_kernels(self.inner):
            kernel.assign(rounded(kernel.value, self._bits))


def _function(model: keras.Model, bits: int | None, trained: Trained) -> keras.Function:
    """A model as a function that tells each layer by itself whether it is trained.

    Takes and returns lists. ``trained`` says it by the layer and the shape of what it reads.
    """

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        may_train = trained if kwargs.get("training") is not False else _never
        read = keras.tree.flatten((args, kwargs))[0]
        if is_nested(layer):
            inputs = keras.tree.flatten(args[0] if args else kwargs["inputs"])
            outputs = keras.tree.flatten(_function(layer, bits, may_train)(inputs))
            return keras.tree.pack_sequence_as(functional(layer).output, outputs)
        if isinstance(layer, keras.Layer) and _can_train(layer):
            kwargs["training"] = may_train(layer, getattr(read, "shape", ()))
        if bits is not None and type(layer) is kl.Dense:
            layer = RoundedDense(layer, bits)
        return layer(*args, **kwargs)

    graph = keras.models.clone_model(
        functional(model), clone_function=lambda layer: layer, call_function=call
    )
    return keras.Function(list(graph.inputs), list(graph.outputs))


def _can_train(layer: keras.Layer) -> bool:
    """Whether a layer's ``call`` takes ``training``."""
    return "training" in inspect.signature(layer.call).parameters
