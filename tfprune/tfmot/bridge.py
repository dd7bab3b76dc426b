"""Converts Keras 3 models to tf_keras, which tensorflow-model-optimization takes, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers as kl

from tfprune.core.metrics import disagreement
from tfprune.errors import TfpruneError
from tfprune.graph.clone import clone_layer, copy_weights, functional, rebuild, walk
from tfprune.graph.inputs import input_shapes
from tfprune.graph.layers import IDENTITY
from tfprune.graph.precision import in_float32
from tfprune.graph.predictions import outputs_of
from tfprune.graph.wrappers import is_nested
from tfprune.tfmot.layer_configs import AS_LAYERS, refused, translated
from tfprune.utils.arrays import Array
from tfprune.utils.console import quiet

# How far the tf_keras model's outputs may be from the Keras model's, as a share of their spread.
CLOSE = 1e-4
# Samples on which the two are compared.
COMPARED = 100
# These stay within a layer; others stand after it, so that the range before them can be seen.
WITHIN = ("linear", "relu")


def to_tf_keras(model: keras.Model, x: Sequence[Array]) -> Any:
    """A tf_keras model that computes what a Keras 3 model computes.

    Nested models are taken apart, and layers that do nothing in inference are left out: what is
    trained in tf_keras is to give outputs that another model gives in inference. For the same
    reason BatchNormalization is frozen.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model; one of half precision is carried as float32.
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``; both are compared on the first 100.

    Returns
    -------
    tf_keras.Model
        Its layers bear the paths of the model's, ``/`` as ``_``.

    Raises
    ------
    TfpruneError
        If the model has something that is not on the allow-list, by name, or the two disagree.
    """
    with quiet():
        import tf_keras

    model = in_float32(model)
    names = names_of(model)
    tfk_model = _Twin(tf_keras, names).of(model)
    for _, layer in walk(model):
        _give(layer, tfk_model, names[id(layer)])
    samples = [
        np.asarray(data[:COMPARED]).astype(tensor.dtype)
        for data, tensor in zip(x, model.inputs, strict=True)
    ]
    _compare(model, tfk_model, samples)
    return tfk_model


def weights_from(tfk_model: Any, model: keras.Model) -> keras.Model:
    """A copy of a Keras 3 model with the weights of its tf_keras model.

    Parameters
    ----------
    tfk_model : tf_keras.Model
        Made by :func:`to_tf_keras` of a model of the same architecture.
    model : keras.Model

    Returns
    -------
    keras.Model
        Not compiled; float32 where the model is of half precision.

    Raises
    ------
    TfpruneError
        If a layer cannot be copied.
    """
    model = in_float32(model)
    names = names_of(model)
    pairs: list[tuple[Any, Any]] = []

    def paired(layer: Any) -> Any:
        pairs.append((layer, clone_layer(layer)))
        return pairs[-1][1]

    copy = rebuild(model, paired)
    present = {layer.name: layer for layer in tfk_model.layers}
    for layer, other in pairs:
        if getattr(layer, "weights", None):
            parts = [present[name] for name in names[id(layer)] if name in present]
            copy_weights(layer, other, [w for part in parts for w in part.get_weights()])
    return copy


def names_of(model: keras.Model) -> dict[int, tuple[str, ...]]:
    """The names of a layer's tf_keras layers, by the id of the layer.

    The weights of these one after another are the layer's own.
    """
    names: dict[int, tuple[str, ...]] = {}
    taken: set[str] = set()
    for path, layer in walk(model):
        if id(layer) in names:
            continue
        stem = free = path.replace("/", "_")
        number = 1
        parts = ("_depthwise", "", "_activation")
        while taken & {free + part for part in parts}:
            number += 1
            free = f"{stem}_{number}"
        taken |= {free + part for part in parts}
        halves = (f"{free}_depthwise",) if type(layer) is kl.SeparableConv2D else ()
        names[id(layer)] = (*halves, free)
    return names


class _Twin:
    """The tf_keras layers and tensors of a model that is being converted."""

    def __init__(self, tf_keras: Any, names: Mapping[int, tuple[str, ...]]) -> None:
        self._tfk = tf_keras
        self._names = names
        self._layers: dict[int, list[Any]] = {}

    def of(self, model: keras.Model) -> Any:
        inputs = [
            self._tfk.Input(tensor.shape[1:], name=name, dtype=tensor.dtype)
            for tensor, name in zip(model.inputs, _input_names(model), strict=True)
        ]
        outputs = self._run(model, inputs)
        return self._tfk.Model(inputs, outputs, name=model.name)

    def _run(self, model: keras.Model, inputs: Sequence[Any]) -> list[Any]:
        """Calls a model's layers as tf_keras layers; returns the output tensors."""
        model = functional(model)
        tensors: dict[int, Any] = {}
        origins: dict[int, Any] = {}
        alive = []  # Ids are of living things.

        def copy_of(layer: Any) -> Any:
            # To be called once more in a graph of its own; the model's keeps its calls.
            if not is_nested(layer) and type(layer) not in IDENTITY:
                translated(layer)
            alive.append(clone_layer(layer))
            origins[id(alive[-1])] = layer
            return alive[-1]

        def call(copy: Any, *args: Any, **kwargs: Any) -> Any:
            outputs = copy(*args, **kwargs)
            layer = origins[id(copy)]
            values = [tensors[id(tensor)] for tensor in _read(layer, args, kwargs)]
            several = isinstance(args[0], list | tuple)
            nested = is_nested(layer)
            results = self._run(layer, values) if nested else [self._call(layer, values, several)]
            for tensor, result in zip(keras.tree.flatten(outputs), results, strict=True):
                tensors[id(tensor)] = result
                alive.append(tensor)
            return outputs

        fresh = [
            keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)
            for name, tensor in zip(input_shapes(model), model.inputs, strict=True)
        ]
        tensors |= {id(tensor): value for tensor, value in zip(fresh, inputs, strict=True)}
        structure = keras.tree.pack_sequence_as(model.input, fresh)
        clone = keras.models.clone_model(
            model, structure, clone_function=copy_of, call_function=call
        )
        return [tensors[id(tensor)] for tensor in clone.outputs]

    def _call(self, layer: Any, tensors: list[Any], several: bool) -> Any:
        if type(layer) in IDENTITY:
            return tensors[0]
        if id(layer) not in self._layers:
            self._layers[id(layer)] = self._made(layer)
        result: Any = tensors if several else tensors[0]
        for part in self._layers[id(layer)]:
            result = part(result)
        return result

    def _made(self, layer: Any) -> list[Any]:
        """The tf_keras layers that together do what a layer does."""
        config = translated(layer)
        activation = config.pop("activation", "linear")
        kind = getattr(self._tfk.layers, type(layer).__name__)
        name = self._names[id(layer)][-1]
        if type(layer) is kl.Activation:
            return [self._activation(activation, name)]
        if type(layer) is kl.SeparableConv2D:
            layers = self._separable(config, self._names[id(layer)])
        elif type(layer) is kl.BatchNormalization:
            layers = [kind(name=name, trainable=False, **config)]
        else:
            layers = [kind(name=name, **config)]
        if activation in WITHIN and activation != "linear":
            layers[-1].activation = self._tfk.activations.get(activation)
        elif activation != "linear":
            layers.append(self._activation(activation, f"{name}_activation"))
        return layers

    def _activation(self, activation: str, name: str) -> Any:
        if activation in AS_LAYERS:
            kind, config = AS_LAYERS[activation]
            return getattr(self._tfk.layers, kind)(name=name, **config)
        return self._tfk.layers.Activation(activation, name=name)

    def _separable(self, config: dict[str, Any], names: Sequence[str]) -> list[Any]:
        """Its two halves: tensorflow-model-optimization takes it apart as well, and renames."""
        filters, bias = config.pop("filters"), config.pop("use_bias")
        layers = self._tfk.layers
        return [
            layers.DepthwiseConv2D(name=names[0], use_bias=False, **config),
            layers.Conv2D(
                filters, 1, name=names[1], use_bias=bias, data_format=config["data_format"]
            ),
        ]


def _input_names(model: keras.Model) -> list[str]:
    """Names that a tf_keras graph takes; the files' inputs are named where they are made."""
    taken = {name for names in names_of(model).values() for name in names}
    names = []
    for number in range(len(model.inputs)):
        name = f"input_{number}"
        while name in taken:
            name += "_"
        names.append(name)
    return names


def _read(layer: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The tensors that a layer is called with, and nothing else."""
    said = [key for key, value in kwargs.items() if value is not None and value is not False]
    if len(args) != 1 or said:
        raise refused(layer, f"it is called with more than its input ({', '.join(said) or '...'})")
    return list(keras.tree.flatten(args[0]))


def _give(layer: Any, tfk_model: Any, names: Sequence[str]) -> None:
    """Gives the tf_keras layers of a layer its weights."""
    weights = layer.get_weights() if getattr(layer, "weights", None) else []
    for name in names:
        if not weights:
            return
        part = tfk_model.get_layer(name)
        count = len(part.weights)
        part.set_weights(weights[:count])
        weights = weights[count:]


def _compare(model: keras.Model, tfk_model: Any, x: Sequence[Array]) -> None:
    received = tfk_model.predict(list(x), verbose=0)
    received = received if isinstance(received, list) else [received]
    for number, (ours, theirs) in enumerate(zip(received, outputs_of(model, x), strict=True)):
        same = ours.shape == theirs.shape
        off = disagreement(np.asarray(ours), theirs) if same else np.inf
        if not off <= CLOSE:
            raise TfpruneError(
                f"model {model.name}: its tf_keras twin computes something else: output {number} "
                f"is off by {off:.1%} of its spread; --qat, --cluster and --sparsity cannot be used"
            )
