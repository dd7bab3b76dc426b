"""Runs two models of the same wiring piece by piece, from one narrow place to the next."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph.forward import LARGE, Forward, Index, numbers_of, taken
from tfprune.reconstruction.rows import index_of, places_of
from tfprune.reconstruction.sites import Wiring
from tfprune.utils.arrays import Array
from tfprune.utils.streamed import StreamedArray

# Numbers that are kept at a narrow place, of each model, at most: 256 MiB.
KEPT = 2**26
# Numbers of an input in a batch, at most, and samples.
IN_BATCH, BATCH = 2**22, 256


# Where tensors of these shapes are read, first those of the pruned model, then the original's.
Places = Callable[[list[tuple[int, ...]], list[tuple[int, ...]]], tuple[list[Index], list[Index]]]


class Segments:
    """The pruned model and the original, run from the last narrow place on.

    At a narrow place all that is computed later comes from one tensor. What it holds is kept, where
    that is little enough, so that what comes before is not computed for each layer anew.

    Parameters
    ----------
    ours : Wiring
    theirs : Wiring or None
        None where the pruned model is run alone.
    x : sequence of arrays of shape (samples, ...)
        As both models take them.
    made : dict, optional
        Where parts of the models are kept to be run again, as they are then.
    most : int
        Numbers that are kept at a narrow place, of each model, at most.

    Attributes
    ----------
    large : bool
        Whether a model is, so that less of it is looked at.
    """

    def __init__(
        self,
        ours: Wiring,
        theirs: Wiring | None,
        x: Sequence[Array],
        made: dict[Any, Forward] | None = None,
        most: int = KEPT,
    ) -> None:
        self._most = most
        self._sides = (ours,) if theirs is None else (ours, theirs)
        self._places = [p for p in ours.separators() if all(p in one.order for one in self._sides)]
        self._starts: list[list[Any]] = [list(one.trace.model.inputs) for one in self._sides]
        self._data: list[Sequence[Array]] = [x for _ in self._sides]
        self._made = made
        self.large = any(numbers_of(one.trace.model) > LARGE for one in self._sides)

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self._data[0][0])

    @property
    def numbers(self) -> int:
        """How many numbers of samples are kept in memory."""
        kept = {id(one): one for data in self._data for one in data}.values()
        return sum(0 if isinstance(one, StreamedArray) else one.size for one in kept)

    def go_to(self, path: str) -> None:
        """Moves on to the last narrow place in front of a layer."""
        order = self._sides[0].order
        passed = [one for one in self._places if order[one] < order[path]]
        self._places = [one for one in self._places if one not in passed]
        for place in reversed(passed):
            tensors = [one.output(place) for one in self._sides]
            sizes = [math.prod(size or 0 for size in tensor.shape[1:]) for tensor in tensors]
            if not 0 < max(sizes) * self.samples <= self._most:
                continue
            for side, tensor in enumerate(tensors):
                kept: Array | None = None
                at = 0
                for (batch,) in _Run(self, side, [tensor]).batches():
                    if kept is None:
                        kept = self._space(side, batch)
                    kept[at : at + len(batch)] = batch
                    at += len(batch)
                assert kept is not None, "there are samples"
                self._data[side], self._starts[side] = [kept], [tensor]
            return

    def _space(self, side: int, batch: Array) -> Array:
        """For all samples: the place of what was kept before, which batches come from in turn."""
        before, shape = self._data[side][0], (self.samples, *batch.shape[1:])
        # The samples themselves are the caller's.
        own = self._starts[side][0] is not self._sides[side].trace.model.inputs[0]
        if own and (before.shape, before.dtype) == (shape, batch.dtype):
            return before
        return np.empty(shape, batch.dtype)

    def ours(self, tensors: Sequence[Any], each: int) -> Iterator[list[Array]]:
        """What the pruned model computes, in batches; of a large one at random positions.

        Parameters
        ----------
        tensors : sequence of KerasTensor
        each : int
            How many positions of a sample there are at most, in a large model.
        """
        run, rng = _Run(self, 0, tensors), np.random.default_rng(0)
        for at in range(0, self.samples, run.step):
            shapes = run.shapes(at, run.step)
            index = None
            if shapes is not None:
                index = [index_of(shape, places_of(shape, each, rng)) for shape in shapes]
            yield run(at, run.step, index)

    def drawn(
        self, ours: Sequence[Any], theirs: Sequence[Any], places: Places
    ) -> Iterator[tuple[list[Array], list[Array], int]]:
        """What both models compute at some places, in batches, and where a batch starts.

        Parameters
        ----------
        ours, theirs : sequence of KerasTensor
        places : callable
            From the shapes of their arrays for a batch to an index of each: see
            :func:`tfprune.graph.forward.taken`.
        """
        runs = _Run(self, 0, ours), _Run(self, 1, theirs)
        step = min(run.step for run in runs)
        for at in range(0, self.samples, step):
            shapes = [shape for run in runs if (shape := run.shapes(at, step)) is not None]
            if len(shapes) == len(runs):
                index = places(*shapes)
                made = [run(at, step, one) for run, one in zip(runs, index, strict=True)]
            else:
                whole = [run(at, step) for run in runs]
                index = places(*([array.shape for array in arrays] for arrays in whole))
                made = [
                    [taken(*pair) for pair in zip(arrays, one, strict=True)]
                    for arrays, one in zip(whole, index, strict=True)
                ]
            yield made[0], made[1], at


class _Run:
    """What one model computes of some tensors, from where it is kept on."""

    def __init__(self, segments: Segments, side: int, tensors: Sequence[Any]) -> None:
        starts, self._data = segments._starts[side], segments._data[side]
        self._known = {id(start): place for place, start in enumerate(starts)}
        self._tensors = tensors
        new = [tensor for tensor in tensors if id(tensor) not in self._known]
        largest = max(
            math.prod(size or 1 for size in tensor.shape[1:]) for tensor in (*starts, *tensors)
        )
        most = BATCH if segments.large else max(1, min(BATCH, IN_BATCH // max(largest, 1)))
        # What is kept is not computed.
        self._forward = None
        if new:
            made = {} if segments._made is None else segments._made
            key = (side, *map(id, starts), None, *map(id, new))
            if key not in made:
                made[key] = Forward(keras.Model(starts, new), most, segments.large)
            self._forward = made[key]
        self.step = most if self._forward is None else self._forward.step

    def shapes(self, at: int, step: int) -> list[tuple[int, ...]] | None:
        """Those of a batch's arrays, if they are known before it is computed and that helps."""
        count = len(self._data[0][at : at + step])
        shapes = [(count, *tensor.shape[1:]) for tensor in self._tensors]
        large = self._forward is None or self._forward.large
        return shapes if large and None not in sum(shapes, ()) else None

    def __call__(self, at: int, step: int, index: Sequence[Index] | None = None) -> list[Array]:
        """The tensors of a batch, or what they hold at some places."""
        batch = [np.asarray(one[at : at + step]) for one in self._data]
        places = [None] * len(self._tensors) if index is None else index
        new = [
            one for one, t in zip(places, self._tensors, strict=True) if id(t) not in self._known
        ]
        results = iter([] if self._forward is None else self._forward(batch, new))
        made = []
        for tensor, one in zip(self._tensors, places, strict=True):
            if id(tensor) not in self._known:
                made.append(next(results))
                continue
            values = batch[self._known[id(tensor)]]
            made.append(values if one is None else taken(values, one))
        return made

    def batches(self) -> Iterator[list[Array]]:
        """The tensors of all samples."""
        for at in range(0, len(self._data[0]), self.step):
            yield self(at, self.step)
