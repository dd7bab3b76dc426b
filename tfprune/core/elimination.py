"""Backward elimination: which units matter least to the layers that consume them; pure numpy.

Backward elimination as in optimal brain surgeon: of all units that are left, the one goes
without which the others, refitted, reproduce best what the readers receive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import blas, lapack

from tfprune.core.arrays import Array
from tfprune.core.blas import threads_for
from tfprune.core.fold import RIDGE, RIDGE_PER_SAMPLE
from tfprune.core.moments import Moments

# Removals that are taken off the matrices together, in one product.
BLOCK = 32
# Share of the rows that is left when the others are worth cutting out.
SPARSE = 7 / 8


@dataclass(frozen=True, eq=False)
class ConsumerStats:
    """What one reader makes of a group's units.

    Attributes
    ----------
    units : array of shape (seen,)
        Which units of the group it sees.
    moments : Moments
        Of these.
    kernel : array of shape (seen, outputs)
        By what it multiplies each; taps and positions count as outputs of their own.
    no_offset : bool
        Whether the fold has no constant.
    """

    units: npt.NDArray[np.intp]
    moments: Moments
    kernel: Array
    no_offset: bool = False


@dataclass(frozen=True, eq=False)
class Elimination:
    """Which units go, and at what cost.

    Attributes
    ----------
    order : array of shape (count,)
        Least effect first.
    errors : array of shape (count,)
        Of the first one, the first two, ...: the squared error of what the readers receive,
        summed over all their outputs, in a sample; never less than the one before, 0 for
        constants. It holds the ridge of the fold: a little more where samples are few.
    variance : float
        Of all that the readers receive, in the same unit.
    """

    order: npt.NDArray[np.intp]
    errors: Array
    variance: float


def backward_elimination(
    size: int, consumers: Sequence[ConsumerStats], constant: npt.NDArray[np.bool_], count: int
) -> Elimination:
    """The units to take out, least effect first.

    The effect of a set of units is exact for what the readers receive: the squared error, summed
    over their outputs and averaged over the samples, that the least-squares fold of the set
    onto all units that are left makes [1]_. Sets are grown one unit at a time.

    Parameters
    ----------
    size : int
        Units in the group.
    sights : sequence of ConsumerStats
    constant : array of shape (size,)
        Units that never change; they go first, at no cost.
    count : int
        How many to take out, fewer than ``size``.

    Returns
    -------
    Elimination

    References
    ----------
    .. [1] Hassibi, Stork (1993), "Second order derivatives for network pruning: Optimal brain
       surgeon", for the recurrence.
    """
    with threads_for(size):
        return _eliminated(size, consumers, constant, count)


def _eliminated(
    size: int, consumers: Sequence[ConsumerStats], constant: npt.NDArray[np.bool_], count: int
) -> Elimination:
    states = [_State(size, consumer, constant) for consumer in consumers]
    still = np.flatnonzero(constant)[:count]
    order = np.concatenate([still, np.empty(count - len(still), np.intp)])
    costs = np.zeros(count)
    gone = constant.copy()
    for step in range(len(still), count):
        total = np.where(gone, np.inf, 0.0)
        for state in states:
            total[state.units] += state.costs()
        unit = int(total.argmin())
        gone[unit] = True
        order[step], costs[step] = unit, total[unit]
        for state in states:
            state.remove(unit)
    return Elimination(order, np.cumsum(costs), sum(state.variance for state in states))


class _State:
    """One reader's view of the units that are left.

    All that counts of them is the inverse of their moments and the inner products of the rows
    of the refitted kernel. Of both the lower triangle is kept as it was some removals ago, beside
    panels of what has to come off: that is taken off in blocks, and columns are made when asked.
    """

    def __init__(self, size: int, consumer: ConsumerStats, constant: npt.NDArray[np.bool_]) -> None:
        moments, living = consumer.moments, np.flatnonzero(~constant[consumer.units])
        mean = np.zeros(moments.units) if consumer.no_offset else moments.mean
        products = moments.gram(mean)[living[:, None], living] / max(moments.count, 1)
        deviation = np.sqrt(np.maximum(products.diagonal(), 0))
        alive = deviation > 0
        scale = np.where(alive, deviation, 1)
        products /= scale
        products /= scale[:, None]
        ridge = RIDGE + RIDGE_PER_SAMPLE * moments.units / max(moments.count, 1)
        # A unit that is nothing here stands alone.
        products[np.diag_indices_from(products)] = 1
        kernel = consumer.kernel[living] * deviation[:, None]
        self._gram = np.asfortranarray(kernel @ kernel.T)
        # Where the fold has no constant, the mean is received as well, but does not vary.
        still = (moments.mean - mean)[living] @ consumer.kernel[living]
        self.variance = float(np.vdot(products, self._gram) - np.vdot(still, still))
        products[np.diag_indices_from(products)] += ridge * alive
        self._inverse = _inverse(products)
        self._size = size
        self._settle(consumer.units[living])

    def _settle(self, units: npt.NDArray[np.intp]) -> None:
        """Starts with the units that the matrices are of, and nothing to take off."""
        self.units = units
        self._place = np.full(self._size, -1)
        self._place[units] = np.arange(len(units))
        self._left = np.ones(len(units), bool)
        self._diagonal = self._inverse.diagonal().copy()
        self._lengths = self._gram.diagonal().copy()
        self._shares, self._halves = (np.zeros((len(units), BLOCK), order="F") for _ in "sh")
        self._pivots = np.zeros(BLOCK)
        self._filled = 0

    def costs(self) -> Array:
        """What the removal of each of ``units`` costs more; near 0 for those that are gone."""
        return np.maximum(self._lengths, 0) / np.maximum(self._diagonal, np.finfo(float).tiny)

    def remove(self, unit: int) -> None:
        """Hands a unit's work on to those that are left."""
        at = int(self._place[unit])
        if at < 0:
            return
        done = slice(self._filled)
        shares, halves = self._shares[:, done], self._halves[:, done]
        column = _column(self._inverse, at) - shares @ (self._pivots[done] * shares[at])
        share = column / column[at]
        row = _column(self._gram, at) - shares @ halves[at] - halves @ shares[at]
        # Rows lose share * kernel[at], and so their products share * half' + half * share'.
        half = row - row[at] / 2 * share
        self._diagonal -= share * column
        self._lengths -= 2 * share * half
        self._diagonal[at], self._lengths[at], self._left[at] = 1, 0, False
        self._shares[:, self._filled], self._halves[:, self._filled] = share, half
        self._pivots[self._filled] = column[at]
        self._filled += 1
        if self._filled == BLOCK:
            self._flush()

    def _flush(self) -> None:
        """Takes off what has come together, and cuts rows out when many are gone."""
        scaled = self._shares * np.sqrt(self._pivots)
        self._inverse = blas.dsyrk(-1, scaled, 1, self._inverse, lower=1, overwrite_c=1)
        self._gram = blas.dsyr2k(
            -1, self._shares, self._halves, 1, self._gram, lower=1, overwrite_c=1
        )
        self._filled = 0
        if self._left.mean() <= SPARSE:
            left = np.flatnonzero(self._left)
            self._inverse, self._gram = _cut(self._inverse, left), _cut(self._gram, left)
            self._settle(self.units[left])


def _column(triangle: Array, at: int) -> Array:
    """A column of a symmetric matrix of which the lower triangle is there."""
    return np.concatenate([triangle[at, :at], triangle[at:, at]])


def _cut(matrix: Array, left: npt.NDArray[np.intp]) -> Array:
    """The rows and columns that are left; whole rows of the transpose are copied fastest."""
    return np.take(matrix.T[left], left, axis=1).T


def _inverse(matrix: Array) -> Array:
    """The lower triangle of a positive matrix's inverse, steadied where rounding left it not so."""
    ridge = 0.0
    while len(matrix):
        steadied = matrix.copy(order="F")
        steadied[np.diag_indices_from(steadied)] += ridge
        factor, failed = lapack.dpotrf(steadied, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return np.asarray(lapack.dpotri(factor, lower=1, overwrite_c=1)[0])
        ridge = max(10 * ridge, RIDGE)
    return matrix
