"""Numbers for units, joined where layers meet; pure numpy.

Every unit of every layer gets a label. Where an Add lays two units over each other they can only
go together, so their labels are joined; what is joined counts as one unit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.intp]


class Labels:
    """Disjoint sets of labels; 0 is nobody's and joins nothing."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.intp)

    def new(self, count: int) -> Index:
        """So many labels that were not there before."""
        made = np.arange(len(self._parent), len(self._parent) + count)
        self._parent = np.concatenate([self._parent, made])
        return made

    def find(self, labels: Index) -> Index:
        """The label that stands for each one's set."""
        roots = self._parent[labels]
        while (self._parent[roots] != roots).any():
            roots = self._parent[roots]
        return roots

    def join(self, first: Index, second: Index) -> None:
        """Joins labels one by one; both arrays have one shape and no zeros."""
        pairs = np.stack([self.find(first).ravel(), self.find(second).ravel()], axis=1)
        for pair in np.unique(pairs, axis=0):
            low, high = sorted(self.find(pair))
            self._parent[high] = low
