"""Puts the weights of an ``.h5`` file in their places in a model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import h5py
import keras
import numpy as np

from tfprune.errors import TfpruneError
from tfprune.loading import keras1
from tfprune.loading.h5_arrays import names_in, text_attribute
from tfprune.loading.keras2_forms import HARD_SIGMOID, Adapted
from tfprune.utils.arrays import Array

# The backend whose kernels are turned round.
THEANO = "theano"


def assign(model: keras.Model, group: h5py.Group, adapted: Adapted, version: str | None) -> None:
    """Gives a model the weights of an ``.h5`` file.

    Layers are found by the names they have in the file, or by their order where names differ.
    Within a layer the order is Keras' (trainable weights, then others), and names decide where they
    tell otherwise. A weight is read only when its shape is the one expected.

    Parameters
    ----------
    model : keras.Model
        Built from the file's configuration.
    group : h5py.Group
        ``model_weights`` of a file that :func:`check_arrays` was called on.
    adapted : Adapted
        What became of the configuration.
    version : str or None
        Of the Keras that wrote the file.

    Raises
    ------
    TfpruneError
        If a weight is missing, has another shape, or is left over.
    """
    layers = [layer for layer in model.layers if layer.weights]
    stored = _stored(group, [adapted.names.get(layer.name, layer.name) for layer in layers])
    old = version is None or version.startswith("1")
    flipped = text_attribute(group.attrs, "backend") == THEANO
    for layer, arrays in zip(layers, stored, strict=True):
        try:
            values = _matched(layer, arrays, old)
            for path, what in ((edit.path, edit.what) for edit in adapted.edits):
                if path and path[0] == layer.name:
                    for part in _parts(layer, path[1:]):
                        _EDITS[what](part, values)
            for variable, value in values.values():
                _set(variable, _flipped(variable, value) if flipped else value)
        except TfpruneError as error:
            raise TfpruneError(f"layer {layer.name!r}: {error}") from None
        for part in [layer, *getattr(layer, "layers", [])]:
            if hasattr(part, "finalize_state"):
                part.finalize_state()  # Normalization computes with values made from its weights.


def _stored(group: h5py.Group, layer_names: list[str]) -> list[list[tuple[str, h5py.Dataset]]]:
    """The names and arrays of each layer that has weights, for layers of these names."""
    stored = {}
    for name in names_in(group, "layer_names"):
        entry = _entry(group, name)
        names = names_in(entry, "weight_names")
        if names:
            stored[name] = [(weight, _entry(entry, weight)) for weight in names]
    if "top_level_model_weights" in group:
        names = names_in(_entry(group, "top_level_model_weights"), "weight_names")
        if names:
            raise TfpruneError(f"expected weights of layers alone, received also {names[0]}")
    if len(stored) != len(layer_names):
        unknown = sorted(set(stored) ^ set(layer_names))
        raise TfpruneError(
            f"expected weights of {len(layer_names)} layers, received {len(stored)} "
            f"({', '.join(unknown[:5])} on one side alone)"
        )
    if set(layer_names) != set(stored):
        layer_names = list(stored)
    return [stored[name] for name in layer_names]


def edit(model: keras.Model, adapted: Adapted) -> None:
    """Edits a model's weights, as its file has them, as its configuration requires."""
    for change in adapted.edits:
        for part in _parts(model, change.path):
            values = {id(weight): (weight, np.array(weight)) for weight in part.weights}
            _EDITS[change.what](part, values)
            for variable, value in values.values():
                variable.assign(value)


Values = dict[int, tuple[Any, Array]]


def _entry(group: h5py.Group, name: str) -> Any:
    try:
        return group[name]
    except (KeyError, ValueError):
        raise TfpruneError(f"expected {name} in the file, which names it") from None


def _matched(layer: Any, stored: list[tuple[str, h5py.Dataset]], old: bool) -> Values:
    """The arrays of a layer beside its variables, by the variables' ids."""
    variables = [*layer.trainable_weights, *layer.non_trainable_weights]
    if not all(isinstance(dataset, h5py.Dataset) for _, dataset in stored):
        raise TfpruneError("expected arrays under its weights' names")
    if len(stored) != len(variables):
        arrays = keras1.gates_joined(type(layer).__name__, [np.asarray(d) for _, d in stored])
        if len(arrays) != len(variables):
            raise TfpruneError(
                f"expected {len(variables)} weights, received {len(stored)} "
                f"({', '.join(name for name, _ in stored)})"
            )
        return {id(v): (v, array) for v, array in zip(variables, arrays, strict=True)}
    order = _by_name([name for name, _ in stored], [v.path for v in variables])
    values: Values = {}
    for variable, at in zip(variables, order, strict=True):
        dataset = stored[at][1]
        shape = tuple(variable.shape)
        same_size = math.prod(dataset.shape) in (math.prod(shape), 2 * math.prod(shape))
        if dataset.shape != shape and not same_size:
            raise TfpruneError(
                f"expected {stored[at][0]} of shape {shape}, received {dataset.shape}"
            )
        array = np.asarray(dataset)
        if old:
            array = keras1.kernel_in_order(array, shape)
        values[id(variable)] = (variable, array)
    return values


def _by_name(stored: list[str], paths: list[str]) -> list[int]:
    """For each variable the place of its array, by the ends of their names; else as they stand."""
    for parts in (2, 1):
        places = {_end(name, parts): place for place, name in enumerate(stored)}
        endings = [_end(path, parts) for path in paths]
        if len(places) == len(stored) and set(places) == set(endings):
            return [places[end] for end in endings]
    return list(range(len(stored)))


def _end(name: str, parts: int = 1) -> str:
    return "/".join(name.partition(":")[0].split("/")[-parts:])


def _set(variable: Any, value: Array) -> None:
    if value.shape != tuple(variable.shape):
        raise TfpruneError(
            f"expected {variable.path} of shape {tuple(variable.shape)}, received {value.shape}"
        )
    variable.assign(value)


def _flipped(variable: Any, value: Array) -> Array:
    """Kernels of Theano, flipped: it computed true convolutions."""
    spatial = value.ndim - 2
    if _end(variable.path) != "kernel" or spatial < 1:
        return value
    return np.flip(value, axis=tuple(range(spatial)))


def _parts(layer: Any, path: tuple[str, ...]) -> list[Any]:
    """What a path inside a layer leads to; a Bidirectional has two of what it wraps."""
    parts = [layer]
    for step in path:
        fresh = []
        for part in parts:
            if isinstance(part, keras.layers.Bidirectional):
                fresh += [part.forward_layer, part.backward_layer]
            elif isinstance(part, keras.Model):
                fresh.append(part.get_layer(step))
            elif step.isdigit():
                fresh.append(part.cells[int(step)])
            elif step != "cells":
                fresh.append(getattr(part, step))
            else:
                fresh.append(part)
        parts = fresh
    return parts


def _scale(names: tuple[str, ...], gates: Callable[[Any, Array], Any]) -> Callable[..., None]:
    """An edit that multiplies some of a layer's weights, or the parts of them that gates read."""

    def edit(part: Any, values: Values) -> None:
        for variable in part.weights:
            if _end(variable.path) in names:
                value = np.array(values[id(variable)][1])
                value[gates(part, value)] *= HARD_SIGMOID
                values[id(variable)] = (variable, value)

    return edit


def _gates(part: Any, value: Array) -> Any:
    """Where the gates lie that a recurrent activation is applied to."""
    if "LSTM" in type(part).__name__:  # Input, forget, cell, output.
        units = value.shape[-1] // 4
        return (..., np.r_[: 2 * units, 3 * units : 4 * units])
    units = value.shape[-1] // 3  # Update, reset, candidate.
    return (..., np.r_[: 2 * units])


def _from_cudnn(part: Any, values: Values) -> None:
    """Weights of CuDNNLSTM and CuDNNGRU as those of LSTM and GRU.

    They hold the transposed kernel of each gate, in the order of its transpose, and the biases of
    input and recurrence apart.
    """
    variables = {_end(variable.path): variable for variable in part.weights}
    gates = 4 if "LSTM" in type(part).__name__ else 3

    def change(name: str, function: Callable[[Array], Array]) -> None:
        variable = variables[name]
        values[id(variable)] = (variable, function(np.asarray(values[id(variable)][1])))

    def kernel(value: Array) -> Array:
        parts = np.hsplit(value, gates)
        return np.hstack([gate.T.reshape(gate.shape, order="F") for gate in parts])

    change("kernel", kernel)
    change("recurrent_kernel", lambda value: np.hstack([g.T for g in np.hsplit(value, gates)]))
    change(
        "bias", lambda value: value.reshape(2, -1).sum(0) if gates == 4 else value.reshape(2, -1)
    )


_EDITS: dict[str, Callable[[Any, Values], None]] = {
    "hard_sigmoid": _scale(("kernel", "pointwise_kernel", "bias"), lambda _, value: ...),
    "recurrent_hard_sigmoid": _scale(("kernel", "recurrent_kernel", "bias"), _gates),
    "cudnn": _from_cudnn,
}
