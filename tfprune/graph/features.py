"""Which unit each feature of a tensor holds; pure numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Features:
    """What a tensor's features hold; all arrays have the tensor's shape without the batch."""

    labels: Index
    views: Index
    centre: npt.NDArray[np.float64]

    @classmethod
    def spread(cls, labels: Any, views: Any, centre: Any, shape: tuple[int, ...]) -> Features:
        """Features that are the same everywhere but along the last axis."""
        return cls(*(np.broadcast_to(array, shape) for array in (labels, views, centre)))

    def changed(self, change: Callable[[Any], Any]) -> Features:
        """The same change of labels, views and centre."""
        return Features(change(self.labels), change(self.views), change(self.centre))

    @property
    def row(self) -> Index | None:
        """The labels along the last axis, if they are the same at every position."""
        return row_of(self.labels)

    def rows(self) -> tuple[Index, Index, npt.NDArray[np.float64]]:
        """Labels, views and centre on the last axis."""
        first = (0,) * (self.labels.ndim - 1)
        return self.labels[first], self.views[first], self.centre[first]


def row_of(array: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The values along the last axis, if they are the same at every position."""
    row = array[(0,) * (array.ndim - 1)]
    if not any(array.strides[:-1]) or (array == row).all():
        return row
    return None


def compact(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same array, stored as one row where all rows are alike."""
    row = row_of(array)
    return array if row is None else np.broadcast_to(row.copy(), array.shape)


def shape_of(tensor: Any) -> tuple[int, ...]:
    """A tensor's shape without the batch, with 1 for unknown sizes."""
    return tuple(size or 1 for size in tensor.shape[1:])


Index = npt.NDArray[np.intp]


class Labels:
    """Disjoint sets of labels (union-find); label 0 belongs to no unit and is never joined."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.intp)

    def new(self, count: int) -> Index:
        """New labels, ``count`` of them."""
        labels = np.arange(len(self._parent), len(self._parent) + count)
        self._parent = np.concatenate([self._parent, labels])
        return labels

    def find(self, labels: Index) -> Index:
        """The representative of each label's set."""
        unit_ids = self._parent[labels]
        while (self._parent[unit_ids] != unit_ids).any():
            unit_ids = self._parent[unit_ids]
        return unit_ids

    def join(self, first: Index, second: Index) -> None:
        """Joins the sets of labels pair by pair; the arrays have one shape and no zeros."""
        pairs = np.stack([self.find(first).ravel(), self.find(second).ravel()], axis=1)
        for pair in np.unique(pairs, axis=0):
            low, high = sorted(self.find(pair))
            self._parent[high] = low

    def apart(self, together: Index, rows: list[Index]) -> Index:
        """Labels of features that are laid over each other: another one for each combination.

        Parameters
        ----------
        together : array of shape (features,)
            One label of each combination.
        rows : list of arrays of shape (features,)
            All labels, which are joined; 0 for none.
        """
        own = together[together > 0]
        if len(np.unique(own)) == len(own):
            return together
        kinds, which = np.unique(np.stack(rows), axis=1, return_inverse=True)
        labels = self.new(kinds.shape[1])[which.ravel()]
        self.join(labels[together > 0], own)
        return np.where(together > 0, labels, 0)
