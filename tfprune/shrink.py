"""A model and its folds, a smaller model: layers are rebuilt with fewer units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.fold import Fold, absorb
from tfprune.groups import Group, Read
from tfprune.layers import (
    DEPTHWISE,
    SEPARABLE,
    TRANSPOSED,
    copied,
    copy_weights,
    functional,
    weighted,
)
from tfprune.readings import Trace

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cut:
    """What is taken out of a group.

    Attributes
    ----------
    group : Group
    kept : array of shape (kept,)
        Units of the group that stay.
    intake : array of shape (units, kept)
        How survivors' incoming weights are made, ``kernel' = kernel @ intake``.
    folds : sequence of (Read, Fold)
        What every reader is told about the units that go.
    """

    group: Group
    kept: npt.NDArray[np.intp]
    intake: Array
    folds: Sequence[tuple[Read, Fold]]

    def intake_of(self, layer: str) -> Array:
        """The intake of one of the group's layers."""
        units = self.group.makers[layer]
        columns = np.searchsorted(self.kept, units[np.isin(units, self.kept)])
        return self.intake[np.ix_(units, columns)]


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
    keep = {name: _keep(trace, labels, cuts) for name, labels in trace.slices.items()}
    intakes = {name: cut.intake_of(name) for cut in cuts for name in cut.group.makers}
    folds = [fold for cut in cuts for fold in cut.folds]
    shifted = {read.layer for read, fold in folds if fold.shift.any()}
    touched = {name for name, stays in keep.items() if not stays.all()} | set(intakes)
    weights = {
        layer.name: _weights(
            layer,
            keep.get(layer.name),
            [(read, fold) for read, fold in folds if read.layer == layer.name],
            intakes.get(layer.name),
            layer.name in shifted,
        )
        for layer in weighted(model)
        if layer.name in touched
    }

    def rebuilt(layer: Any) -> Any:
        changes: dict[str, Any] = {}
        if layer.name in intakes:
            width = "units" if type(layer) is kl.Dense else "filters"
            changes[width] = intakes[layer.name].shape[1]
        if layer.name in shifted:
            changes["use_bias"] = True
        if type(layer) is kl.Reshape and layer.name in keep:
            changes["target_shape"] = (*layer.target_shape[:-1], int(keep[layer.name].sum()))
        return copied(layer, **changes)

    smaller = _copy(model, rebuilt)
    for layer in weighted(model):
        copy_weights(layer, smaller.get_layer(layer.name), weights.get(layer.name))
    if model.compiled:
        _compile_as(model, smaller)
    return smaller


def _copy(model: keras.Model, rebuilt: Callable[[Any], Any]) -> keras.Model:
    """The model over new layers, not compiled, its inputs under their old names."""
    names = {id(layer.output): layer.name for layer in model.layers if type(layer) is kl.InputLayer}

    def fresh(tensor: Any) -> Any:
        name = names.get(id(tensor), tensor.name)
        return keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=name)

    if isinstance(model, keras.Sequential):
        layers = [rebuilt(layer) for layer in model.layers]
        return keras.Sequential([fresh(model.inputs[0]), *layers], name=model.name)
    inputs = keras.tree.map_structure(fresh, model.input)
    return keras.models.clone_model(functional(model), inputs, clone_function=rebuilt)


def _compile_as(model: keras.Model, smaller: keras.Model) -> None:
    try:
        smaller.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError):
        # Losses of the user's own do not go through a config; the object itself does.
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        smaller.compile(optimizer, loss=model.loss)


def _keep(trace: Trace, labels: npt.NDArray[np.intp], cuts: Sequence[Cut]) -> npt.NDArray[np.bool_]:
    """Which features stay."""
    stays = np.ones(len(labels), bool)
    roots = trace.labels.find(labels)
    for cut in cuts:
        units = cut.group.units_of(roots)
        stays &= (units < 0) | (labels == 0) | np.isin(units, cut.kept)
    return stays


def _weights(
    layer: Any,
    keep: npt.NDArray[np.bool_] | None,
    folds: Sequence[tuple[Read, Fold]],
    intake: Array | None,
    needs_bias: bool,
) -> list[Array]:
    """A layer's weights: folds taken in, inputs cut, units merged or cut."""
    made = list(layer.get_weights())
    before = []
    if type(layer) in DEPTHWISE:
        return [made[0][..., keep, :], *(bias[keep] for bias in made[1:])]
    if type(layer) in SEPARABLE:
        depthwise = made.pop(0)
        before = [depthwise if keep is None else depthwise[..., keep, :]]
    elif not hasattr(layer, "kernel"):
        return [weight[..., keep] for weight in made]
    inputs = -1 if type(layer) in TRANSPOSED else -2
    kernel = np.moveaxis(made[0], inputs, 0)
    taps, outputs = kernel.shape[1:-1], kernel.shape[-1]
    flat = kernel.reshape(len(kernel), -1).astype(np.float64)
    bias = made[1].astype(np.float64) if len(made) > 1 else np.zeros(outputs)
    for read, fold in folds:
        flat, moved = absorb(flat, read.index, fold)
        bias = bias + moved.reshape(-1, outputs).sum(axis=0)
    if keep is not None:
        flat = flat[keep]
    folded = flat.reshape(len(flat), *taps, outputs)
    if intake is not None:
        folded, bias = folded @ intake, bias @ intake
    folded = np.moveaxis(folded, 0, inputs)
    biases = [bias] if len(made) > 1 or needs_bias else []
    return [*before, *(weight.astype(kernel.dtype) for weight in (folded, *biases))]
