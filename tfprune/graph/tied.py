"""Embeddings whose one table makes words' features and, transposed, reads features in reverse.

A fold for what is read in reverse changes the table, and so what the embedding makes: features of
the words times the fold's transpose. Layers that read these are given the fold that leads back to
the words as they were, by least squares over all rows of the table. So the table stays shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.core.fold import Fold
from tfprune.graph.groups import Consumer
from tfprune.graph.layers import REVERSE, kernel_of
from tfprune.graph.shrink import Cut, read_by
from tfprune.graph.trace import Trace, is_tied
from tfprune.utils.arrays import Array


def with_tied_tables(trace: Trace, cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts, with other folds for what reads the features of words that a shared table makes.

    Parameters
    ----------
    trace : Trace
    cuts : sequence of Cut
        With the folds that fit what the original makes.
    """
    return [_with_tied_table(trace, cut) for cut in cuts]


def tied_errors(trace: Trace, cuts: Sequence[Cut]) -> dict[str, float]:
    """By path how far words are off as they are read, relative to their table (root mean square).

    Parameters
    ----------
    trace : Trace
    cuts : sequence of Cut
        Those of :func:`with_tied_tables`.
    """
    off = {}
    for cut in cuts:
        for path in cut.group.producers:
            if is_tied(trace, path):
                table, folded = _tables(trace, cut, path)
                missed = [
                    float(np.sum((_columns(table, read)[0] - _made(folded, read, fold)) ** 2))
                    for read, fold in _forward(trace, cut, path)
                ]
                size = max(float(np.sum(table**2)), np.finfo(float).tiny)
                off[path] = float(np.sqrt(max(missed, default=0.0) / size))
    return off


def _with_tied_table(trace: Trace, cut: Cut) -> Cut:
    others: dict[int, Fold] = {}
    for path in cut.group.producers:
        if is_tied(trace, path):
            table, folded = _tables(trace, cut, path)
            for read, fold in _forward(trace, cut, path):
                others[id(read)] = _led_back(_columns(table, read), _columns(folded, read), fold)
    return replace(cut, folds=[(read, others.get(id(read), fold)) for read, fold in cut.folds])


def _led_back(wanted: Array, made: Array, fold: Fold) -> Fold:
    """The fold from the new columns to the old ones; as it was where none has changed."""
    kept = fold.kept
    if np.allclose(wanted[..., kept], made[..., kept], 1e-6, 0):
        return fold
    given = made[..., kept].reshape(-1, len(kept))
    goal = wanted.reshape(-1, wanted.shape[-1])
    matrix = np.linalg.lstsq(given.T @ given, given.T @ goal, rcond=None)[0]
    return Fold(kept, matrix, np.zeros(len(fold.offset)))


def _tables(trace: Trace, cut: Cut, path: str) -> tuple[Array, Array]:
    """The table, and the one whose surviving columns have the folds of what is read in reverse."""
    layer: Any = trace.layers[path]
    table = layer.get_weights()[0].astype(np.float64)
    where = kernel_of(layer, REVERSE)
    weights = {where.name: table.copy()}
    mine = [(read, fold) for read, fold in cut.folds if (read.layer, read.part) == (path, REVERSE)]
    read_by(weights, where, mine)
    return table, weights[where.name]


def _forward(trace: Trace, cut: Cut, path: str) -> list[tuple[Consumer, Fold]]:
    """The consumers of what the embedding makes."""
    made = {id(tensor) for tensor in trace.tied[path]}
    return [
        (read, fold) for read, fold in cut.folds
        if any(id(trace.tensors[place]) in made for place in read.tensors)
    ]  # fmt: skip


def _columns(table: Array, read: Consumer) -> npt.NDArray[np.float64]:
    """Columns of units that a consumer sees, shape (positions, words, seen)."""
    return np.moveaxis(table[:, read.index], 1, 0)


def _made(folded: Array, read: Consumer, fold: Fold) -> Array:
    return np.asarray(_columns(folded, read)[0][:, fold.kept] @ fold.matrix + fold.offset)
