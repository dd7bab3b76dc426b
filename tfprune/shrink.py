"""A model and its folds, a smaller model: layers are rebuilt with fewer units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.fold import Fold, absorb
from tfprune.layers import copied, weighted
from tfprune.trace import Read, Trace

Array = npt.NDArray[Any]


def shrink(
    model: keras.Model,
    trace: Trace,
    intakes: Mapping[str, Array],
    folds: Sequence[tuple[Read, Fold]],
) -> keras.Model:
    """Rebuilds a model with fewer units.

    Parameters
    ----------
    model : keras.Model
        The traced model; it stays as it is.
    trace : Trace
    intakes : mapping of str to array of shape (units, kept)
        Producer -> how its survivors' incoming weights are made, ``kernel' = kernel @ intake``.
    folds : sequence of (Read, Fold)
        What every reader of those producers is told about the units that go.

    Returns
    -------
    keras.Model
        Of the same kind (Sequential or Functional), with the names, dtype policies, trainable
        flags and compile settings of the original.
    """
    keep = {name: _keep(trace, labels, folds) for name, labels in trace.labels.items()}
    shifted = {read.layer for read, fold in folds if fold.shift.any()}
    weights: dict[str, list[Array]] = {}
    cut = {name for name, stays in keep.items() if not stays.all()}
    for layer in weighted(model):
        if layer.name in cut | set(intakes):
            weights[layer.name] = _weights(layer, keep, intakes, folds, layer.name in shifted)

    def rebuilt(layer: Any) -> Any:
        changes: dict[str, Any] = {}
        if layer.name in intakes:
            changes["units"] = intakes[layer.name].shape[1]
        if layer.name in shifted:
            changes["use_bias"] = True
        if type(layer) is kl.Reshape and layer.name in keep:
            changes["target_shape"] = (*layer.target_shape[:-1], int(keep[layer.name].sum()))
        return copied(layer, **changes)

    smaller = keras.models.clone_model(model, _inputs(model), clone_function=rebuilt)
    for layer in weighted(model):
        smaller.get_layer(layer.name).set_weights(weights.get(layer.name, layer.get_weights()))
    return smaller


def _inputs(model: keras.Model) -> Any:
    """New inputs under the old layers' names, which clone_model would not keep."""
    if isinstance(model, keras.Sequential):
        return None
    names = {id(layer.output): layer.name for layer in model.layers if type(layer) is kl.InputLayer}
    return keras.tree.map_structure(
        lambda tensor: keras.Input(
            batch_shape=tensor.shape, dtype=tensor.dtype, name=names[id(tensor)]
        ),
        model.input,
    )


def _keep(
    trace: Trace, labels: npt.NDArray[np.intp], folds: Sequence[tuple[Read, Fold]]
) -> npt.NDArray[np.bool_]:
    """Which features stay."""
    stays = np.ones(len(labels), bool)
    for name, kept in {read.producer: fold.kept for read, fold in folds}.items():
        units = trace.producers[name].unit_of(labels)
        stays &= (units < 0) | np.isin(units, kept)
    return stays


def _weights(
    layer: Any,
    keep: Mapping[str, npt.NDArray[np.bool_]],
    intakes: Mapping[str, Array],
    folds: Sequence[tuple[Read, Fold]],
    needs_bias: bool,
) -> list[Array]:
    if type(layer) is not kl.Dense:
        return [weight[..., keep[layer.name]] for weight in layer.get_weights()]
    kernel, *rest = layer.get_weights()
    bias = rest[0].astype(np.float64) if rest else np.zeros(kernel.shape[1])
    folded = kernel.astype(np.float64)
    for read, fold in folds:
        if read.layer == layer.name:
            folded, moved = absorb(folded, read.index, fold)
            bias = bias + moved
    if layer.name in keep:
        folded = folded[keep[layer.name]]
    if layer.name in intakes:
        folded, bias = folded @ intakes[layer.name], bias @ intakes[layer.name]
    made = [folded, bias] if rest or needs_bias else [folded]
    return [weight.astype(kernel.dtype) for weight in made]
