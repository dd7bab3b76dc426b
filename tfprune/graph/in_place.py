"""Tries cuts in one copy of a model, at its old widths, so that none has to be built for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from tfprune.core.fold import Fold
from tfprune.graph.clone import clone_layer, copy_weights, rebuild
from tfprune.graph.groups import Consumer, Group
from tfprune.graph.layers import SEPARABLE, arrays_of, kernel_of, stored, weights_of
from tfprune.graph.shrink import Cut, kept_features, read_by
from tfprune.graph.trace import Trace, slot
from tfprune.utils.arrays import Array


class InPlace:
    """A copy of a model that computes what the model without some units would.

    Removed units are still computed, but nothing reads them: their consumers have the folds in
    their weights, and zeros for what went. Building a smaller model, and tracing it for its first
    prediction, takes seconds each time; setting weights does not.

    Parameters
    ----------
    model : keras.Model
        The traced model; it stays as it is.
    trace : Trace
    groups : iterable of Group
        Those that are cut.

    Attributes
    ----------
    model : keras.Model
        The copy.
    """

    def __init__(self, model: keras.Model, trace: Trace, groups: Iterable[Group]) -> None:
        self._trace = trace
        readers = [one for group in groups for one in group.consumers]
        offset = {id(trace.layers[one.layer]) for one in readers if not one.no_offset}
        copies: dict[int, Any] = {}

        def copied(layer: Any) -> Any:
            # What has no bias needs one for what a fold adds.
            more = id(layer) in offset and getattr(layer, "use_bias", None) is False
            changes: dict[str, Any] = {"use_bias": True} if more else {}
            copies[id(layer)] = clone_layer(layer, **changes)
            return copies[id(layer)]

        self.model = rebuild(model, copied)
        self._copies = {path: copies[id(layer)] for path, layer in trace.layers.items()}
        for path, layer in trace.layers.items():
            if getattr(layer, "weights", None):
                copy_weights(layer, self._copies[path], self._whole(path))

    @contextmanager
    def without(self, cuts: Sequence[Cut]) -> Iterator[keras.Model]:
        """The model without the units that some cuts remove, until the block is left.

        Parameters
        ----------
        cuts : sequence of Cut
            Survivors that take in weights of others are built by
            :func:`tfprune.graph.shrink.shrink` alone.
        """
        folds: dict[str, list[tuple[Consumer, Fold]]] = {}
        for cut in cuts:
            for read, fold in cut.folds:
                folds.setdefault(read.layer, []).append((read, fold))
        try:
            for path, own in folds.items():
                self._copies[path].set_weights(self._folded(path, own, cuts))
            yield self.model
        finally:
            for path in folds:
                self._copies[path].set_weights(self._whole(path))

    def _weights(self, path: str) -> dict[str, Array]:
        """The original's weights of a layer, with zeros for a bias that it lacks."""
        layer = self._trace.layers[path]
        weights = arrays_of(layer)
        return {
            name: weights[name] if name in weights else np.zeros(variable.shape, variable.dtype)
            for name, variable in weights_of(self._copies[path]).items()
        }

    def _whole(self, path: str) -> list[Array]:
        layer = self._trace.layers[path]
        same = len(layer.weights) == len(self._copies[path].weights)
        return layer.get_weights() if same else stored(self._copies[path], self._weights(path))

    def _folded(
        self, path: str, folds: Sequence[tuple[Consumer, Fold]], cuts: Sequence[Cut]
    ) -> list[Array]:
        """A consumer's weights with the folds in them, and zeros where removed units come in."""
        layer, weights = self._trace.layers[path], self._weights(path)
        for part in {read.part if slot(path, read.part) != path else "" for read, _ in folds}:
            where = kernel_of(layer, part)
            mine = [(r, fold) for r, fold in folds if slot(path, r.part) == slot(path, part)]
            read_by(weights, where, mine)
            stays = kept_features(self._trace, self._trace.input_labels[slot(path, part)], cuts)
            if type(layer) in SEPARABLE:
                stays = np.repeat(stays, layer.depth_multiplier)
            kernel = np.moveaxis(np.array(weights[where.name]), where.axis, 0)
            kernel[~stays, where.columns] = 0  # Others may still read what goes.
            weights[where.name] = np.moveaxis(kernel, 0, where.axis)
        return stored(self._copies[path], weights)
