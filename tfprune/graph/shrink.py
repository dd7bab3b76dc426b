"""Rebuilds a model with fewer units, the folds multiplied into its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.core.fold import Fold, apply_fold
from tfprune.errors import TfpruneError
from tfprune.graph.clone import clone_layer, copy_weights, rebuild
from tfprune.graph.compile_settings import compile_as
from tfprune.graph.configs import config_of
from tfprune.graph.groups import Consumer, Group
from tfprune.graph.layers import (
    DEPTHWISE,
    EMBEDDINGS,
    READERS,
    SEPARABLE,
    Kernel,
    arrays_of,
    describe,
    gates_of,
    groups_in,
    kernel_of,
    makes_with,
    parts_of,
    stored,
    weights_of,
    width_of,
)
from tfprune.graph.sizes import key_of, settings
from tfprune.graph.trace import Trace, is_tied, slot
from tfprune.utils.arrays import Array


@dataclass(frozen=True, eq=False)
class Cut:
    """How a group is cut: which units stay, and what their consumers get.

    Attributes
    ----------
    group : Group
    kept : array of shape (kept,)
        Units of the group that stay.
    intake : array of shape (units, kept)
        Makes the survivors' incoming weights: ``kernel' = kernel @ intake``.
    folds : sequence of (Consumer, Fold)
        The fold of each consumer.
    """

    group: Group
    kept: npt.NDArray[np.intp]
    intake: Array
    folds: Sequence[tuple[Consumer, Fold]]

    def intake_of(self, layer: str) -> Array:
        """The intake of one of the group's layers."""
        units = self.group.producers[layer]
        stays = np.isin(units, self.kept)
        columns = np.searchsorted(self.kept, units[stays])
        # Of units that are one of the group's the first goes into the first, and so on.
        count = np.array([np.sum(units[:place] == unit) for place, unit in enumerate(units)])
        same = count[:, None] == count[None, stays]
        return self.intake[np.ix_(units, columns)] * same

    def units_alone(self) -> Cut:
        """Which units stay, without the weights, which take much memory in a large model."""
        return replace(self, intake=np.empty((0, 0)), folds=())


def shrink(model: keras.Model, trace: Trace, cuts: Sequence[Cut]) -> keras.Model:
    """Rebuilds a model with fewer units.

    Parameters
    ----------
    model : keras.Model
        The traced model; it stays as it is.
    trace : Trace
    cuts : sequence of Cut

    Returns
    -------
    keras.Model
        Of the same kind (Sequential or Functional), with the names, dtype policies, trainable
        flags and compile settings of the original.
    """
    change = _Change(trace, cuts)
    keys: dict[int, Any] = {}
    copies: list[tuple[Any, Any]] = []

    def replace_layer(layer: Any) -> Any:
        copies.append((layer, clone_layer(layer, **change.settings(layer))))
        key = change.key(layer)
        if key is not None:
            keys[id(copies[-1][1])] = key
        return copies[-1][1]

    def arguments(layer: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0], keys[id(layer)]) if id(layer) in keys else args

    smaller = rebuild(model, replace_layer, arguments=arguments)
    for layer, copy in copies:
        if getattr(layer, "weights", None):
            copy_weights(layer, copy, change.weights(layer, copy))
    compile_as(model, smaller)
    return smaller


def kept_features(
    trace: Trace, labels: npt.NDArray[np.intp], cuts: Sequence[Cut]
) -> npt.NDArray[np.bool_]:
    """Which features stay, in an array of the labels' shape."""
    stays = np.ones(labels.shape, bool)
    unit_ids = trace.labels.find(labels)
    for cut in cuts:
        units = cut.group.units_of(unit_ids)
        stays &= (units < 0) | (labels == 0) | np.isin(units, cut.kept)
    return stays


class _Change:
    """The new settings and weights of each layer."""

    def __init__(self, trace: Trace, cuts: Sequence[Cut]) -> None:
        self._paths = {id(layer): path for path, layer in trace.layers.items()}
        self._keep = {
            name: kept_features(trace, labels, cuts) for name, labels in trace.input_labels.items()
        }
        self._intakes = {name: cut.intake_of(name) for cut in cuts for name in cut.group.producers}
        self._trace, self._cuts = trace, cuts
        self._sized = {sized.layer: sized for sized in trace.sized}
        self._folds: dict[str, list[tuple[Consumer, Fold]]] = {}
        for cut in cuts:
            for read, fold in cut.folds:
                self._folds.setdefault(read.layer, []).append((read, fold))

    def settings(self, layer: Any) -> dict[str, Any]:
        """The changes in a layer's configuration."""
        path = self._paths[id(layer)]
        changes: dict[str, Any] = {}
        if path in self._intakes:
            changes[width_of(layer)] = self._intakes[path].shape[1]
        if any(fold.offset.any() for _, fold in self._folds.get(path, [])):
            changes["use_bias"] = True
        if path in self._sized:
            changes |= settings(self._trace, self._sized[path], self._kept)
        if type(layer) is kl.GroupNormalization and path in self._keep:
            each = len(self._keep[path]) // layer.groups
            changes["groups"] = int(self._keep[path].sum()) // each
        if groups_in(layer) > 1 and path not in self._intakes and path in self._keep:
            groups = int(self._keep[path].reshape(layer.groups, -1)[:, 0].sum())
            if path not in self._trace.producers:  # Whole groups go.
                each = layer.filters // layer.groups
                changes |= {"groups": groups, "filters": groups * each}
        if type(layer) is kl.MultiHeadAttention and path in self._folds:
            # By default its output has as many features as the query.
            features = layer.output.shape[-1:] if not config_of(layer)["output_shape"] else None
            changes |= {"output_shape": tuple(features)} if features else {}
        return changes

    def key(self, layer: Any) -> Any:
        """The key of ``x[key]`` where it changes, else None."""
        sized = self._sized.get(self._paths[id(layer)])
        if sized is None or type(layer).__name__ != "GetItem" or self._kept(sized.before).all():
            return None
        return key_of(self._trace, sized, self._kept)

    def _kept(self, labels: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        return kept_features(self._trace, labels, self._cuts)

    def weights(self, layer: Any, copy: Any) -> list[Array] | None:
        """A layer's weights, folded and cut; None if they do not change."""
        path = self._paths[id(layer)]
        parts = parts_of(layer)
        keeps = {part: self._keep.get(slot(path, part)) for part in parts}
        intake = self._intakes.get(path)
        if intake is None and all(keep is None or keep.all() for keep in keeps.values()):
            return None
        if type(layer) not in (*READERS, *EMBEDDINGS):
            return _cut_to_size(layer, copy, keeps[""])
        weights = arrays_of(layer)
        for name, variable in weights_of(copy).items():
            # A new bias starts with all units, as the kernel does.
            width = variable.shape[-1] if intake is None else gates_of(layer) * len(intake)
            weights.setdefault(name, np.zeros((*variable.shape[:-1], width), variable.dtype))
        for part, keep in keeps.items():
            name = slot(path, part)
            folds = [(r, f) for r, f in self._folds.get(path, []) if slot(path, r.part) == name]
            stays = _depthwise(layer, weights, keep)
            if groups_in(layer) > 1 and path not in self._trace.producers and keep is not None:
                _whole_groups(layer, weights, keep)
            where = kernel_of(layer, part)
            if type(layer) not in DEPTHWISE and where.name in weights:
                # The last part of a kernel cuts it, when all of its columns have their folds.
                read_by(weights, where, folds, None if part == "candidate" else stays)
        if intake is not None and not is_tied(self._trace, path):  # That table is cut by now.
            _make(weights, layer, intake)
        return stored(copy, weights)


def _whole_groups(layer: Any, weights: dict[str, Array], keep: Array) -> None:
    """Cuts the filters of groups whose channels go; the channels are cut as of all layers."""
    groups = keep.reshape(layer.groups, -1)[:, 0]
    filters = np.repeat(groups, layer.filters // layer.groups)
    weights["kernel"] = weights["kernel"][..., filters]
    if "bias" in weights:
        weights["bias"] = weights["bias"][filters]


def _cut_to_size(layer: Any, copy: Any, keep: Array | None) -> list[Array]:
    """Weights of a layer with one for each feature, cut; other weights as they are."""
    weights = []
    for weight, variable in zip(layer.get_weights(), copy.weights, strict=True):
        size = tuple(variable.shape)
        if keep is None or weight.shape == size:
            weights.append(weight)
        elif weight.shape[-1:] == keep.shape and (*weight.shape[:-1], keep.sum()) == size:
            weights.append(weight[..., keep])
        else:
            raise TfpruneError(
                f"layer {describe(layer)}: cannot cut a weight of shape {weight.shape} to {size}; "
                "expected the units on its last axis alone"
            )
    return weights


def read_by(
    weights: dict[str, Array],
    where: Kernel,
    folds: Sequence[tuple[Consumer, Fold]],
    keep: Array | None = None,
) -> None:
    """Multiplies folds into the kernel of an input, and cuts the rows of removed units.

    Parameters
    ----------
    weights : dict of str to array
        Of the layer; the kernel, and the bias if there is one, are replaced.
    where : Kernel
        Of the input.
    folds : sequence of (Consumer, Fold)
    keep : array of bool of shape (features,), optional
        Which features of the input stay; all by default.
    """
    kernel = np.moveaxis(weights[where.name], where.axis, 0)
    flat = kernel.reshape(len(kernel), -1)
    if folds:
        flat = flat.astype(np.float64)  # A copy, even of one that is of that type.
    for read, fold in folds:
        flat[:, where.columns], bias_change = apply_fold(flat[:, where.columns], read.index, fold)
        if where.bias in weights:
            bias = weights[where.bias]
            if where.columns == slice(None):  # Taps come first.
                shape = kernel.shape[kernel.ndim - where.outputs :]
                bias_change = bias_change.reshape(-1, *shape).sum(axis=0)
            # A GRU has two biases; the first belongs to the inputs' kernel.
            row = (where.bias_row,) * (bias.ndim - bias_change.ndim)
            bias = bias.astype(np.float64)
            bias[row][where.columns] += bias_change
            weights[where.bias] = bias
    if keep is not None:
        flat = flat[keep]
    folded = flat.reshape(len(flat), *kernel.shape[1:])
    weights[where.name] = np.moveaxis(folded, 0, where.axis)


def _make(weights: dict[str, Array], layer: Any, intake: Array) -> None:
    """Merges or cuts the units that a layer produces."""
    for where in makes_with(layer):
        inputs_first = np.moveaxis(weights[where.name], where.axis, 0)
        made = _of_gates(inputs_first, gates_of(layer), intake)
        weights[where.name] = np.moveaxis(made, 0, where.axis)
    if where.bias in weights:
        weights[where.bias] = _of_gates(weights[where.bias], gates_of(layer), intake)


def _of_gates(weights: Array, gates: int, intake: Array) -> Array:
    """Survivors' incoming weights, in the blocks that gates are."""
    blocks = weights.reshape(*weights.shape[:-1], gates, -1)
    return _taken_in(blocks, intake).reshape(*weights.shape[:-1], -1)


def _taken_in(weights: Array, intake: Array) -> Array:
    """Survivors' incoming weights; without merging a plain selection."""
    if (intake.sum(axis=0) == 1).all():
        return np.asarray(weights[..., intake.argmax(axis=0)])
    return np.asarray(weights.astype(np.float64) @ intake)


def _depthwise(layer: Any, weights: dict[str, Array], keep: Array | None) -> Array | None:
    """Cuts the channels of a depthwise kernel; returns which of its output channels stay."""
    if keep is None or type(layer) not in (*DEPTHWISE, *SEPARABLE):
        return keep
    name = "depthwise_kernel" if type(layer) in SEPARABLE else "kernel"
    weights[name] = weights[name][..., keep, :]
    stays = np.repeat(keep, layer.depth_multiplier)
    if type(layer) in DEPTHWISE and "bias" in weights:
        weights["bias"] = weights["bias"][stays]
    return stays
