"""Runs two models of the same wiring piece by piece, from one narrow place to the next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph.batches import fixed_batch, padded
from tfprune.graph.inputs import packed
from tfprune.reconstruction.sites import Wiring
from tfprune.utils.arrays import Array

# Numbers that are kept at a narrow place, of each model, at most: 256 MiB.
KEPT = 2**26
# Numbers of an input in a batch, at most, and samples.
IN_BATCH, BATCH = 2**22, 256


class Segments:
    """The pruned model and the original, run from the last narrow place on.

    At a narrow place all that is computed later comes from one tensor. What it holds is kept, where
    that is little enough, so that what comes before is not computed for each layer anew.

    Parameters
    ----------
    ours, theirs : Wiring
    x : sequence of arrays of shape (samples, ...)
        As both models take them.
    """

    def __init__(self, ours: Wiring, theirs: Wiring, x: Sequence[Array]) -> None:
        self._ours, self._theirs = ours, theirs
        self._places = [one for one in ours.separators() if one in theirs.order]
        self._starts: tuple[list[Any], list[Any]] = (
            list(ours.trace.model.inputs), list(theirs.trace.model.inputs),
        )  # fmt: skip
        self._data: tuple[Sequence[Array], Sequence[Array]] = (x, x)

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self._data[0][0])

    def go_to(self, path: str) -> None:
        """Moves on to the last narrow place in front of a layer."""
        passed = [one for one in self._places if self._ours.order[one] < self._ours.order[path]]
        self._places = [one for one in self._places if one not in passed]
        for place in reversed(passed):
            tensors = self._ours.output(place), self._theirs.output(place)
            sizes = [math.prod(size or 0 for size in tensor.shape[1:]) for tensor in tensors]
            if not 0 < max(sizes) * self.samples <= KEPT:
                continue
            data = [
                [np.concatenate([batch[0] for batch in self._run(side, [tensor])])]
                for side, tensor in enumerate(tensors)
            ]
            self._data = data[0], data[1]
            self._starts = [tensors[0]], [tensors[1]]
            return

    def ours(self, tensors: Sequence[Any]) -> Iterator[list[Array]]:
        """What the pruned model computes, in batches."""
        return self._run(0, tensors)

    def theirs(self, tensors: Sequence[Any]) -> Iterator[list[Array]]:
        """What the original computes, in the same batches."""
        return self._run(1, tensors)

    def _run(self, side: int, tensors: Sequence[Any]) -> Iterator[list[Array]]:
        starts, data = self._starts[side], self._data[side]
        known = {id(start): place for place, start in enumerate(starts)}
        new = [tensor for tensor in tensors if id(tensor) not in known]
        model = keras.Model(starts, new) if new else None
        largest = max(
            math.prod(size or 1 for size in tensor.shape[1:]) for tensor in (*starts, *tensors)
        )
        size = fixed_batch(self._ours.trace.model)
        step = size or max(1, min(BATCH, IN_BATCH // max(largest, 1)))
        for at in range(0, self.samples, step):
            batch = [np.asarray(one[at : at + step]) for one in data]
            # Called, not predict: models that live for one pass are not worth compiling.
            made: list[Any] = []
            if model is not None:
                made = keras.tree.flatten(model(packed(model, padded(batch, size)), training=False))
            results = iter(keras.ops.convert_to_numpy(one)[: len(batch[0])] for one in made)
            yield [
                batch[known[id(tensor)]] if id(tensor) in known else next(results)
                for tensor in tensors
            ]
