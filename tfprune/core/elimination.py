"""Backward elimination: which units matter least to the layers that consume them; pure numpy.

As in optimal brain surgeon (Hassibi, Stork 1993) units go one by one, each time the one without
which the others, refitted, reproduce best what the consumers receive. In wide layers each next one
is chosen among the cheapest few, and the large matrices are brought up to date once for many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.linalg import blas, lapack

from tfprune.core.arrays import Array
from tfprune.core.blas import threads_for
from tfprune.core.fold import RIDGE, RIDGE_PER_SAMPLE
from tfprune.core.moments import Moments

# Removals that are applied to the matrices together, in one product.
BLOCK = 32
# Share of the rows that is left when it pays to cut the others out.
SPARSE = 7 / 8
# Layers of more units are wide: what they all cost is computed once for many removals.
WIDE = 1024
# Of the units that are left one in so many goes in a round, at most so many; each is chosen among
# so many times as many, the cheapest. A round that ends early has a share of them at least.
IN_ROUND, MOST_IN_ROUND, CHOICE, LEAST_IN_ROUND = 32, 128, 4, 1 / 4


@dataclass(frozen=True, eq=False)
class ConsumerStats:
    """What one consumer receives of a group's units, and its weights.

    Attributes
    ----------
    units : array of shape (seen,)
        Which units of the group it receives.
    moments : Moments
        Of these units.
    kernel : array of shape (seen, outputs)
        Its weights for each unit; taps and positions count as outputs of their own.
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
        The squared error of what the consumers receive after 1, 2, ... removals: summed over all
        their outputs, averaged over samples; never less than the one before, 0 for constants. It
        includes the fold's ridge, so it is a little more where samples are few.
    variance : float
        Of all that the consumers receive, in the same unit.
    """

    order: npt.NDArray[np.intp]
    errors: Array
    variance: float


def backward_elimination(
    size: int,
    consumers: Sequence[ConsumerStats],
    constant: npt.NDArray[np.bool_],
    count: int,
    wide: int = WIDE,
) -> Elimination:
    """The units to take out, least effect first.

    The effect of a set of units is the squared error that its least-squares fold onto all units
    that are left makes in what the consumers receive, summed over their outputs and averaged over
    the samples. Sets grow by one unit at a time. With H the inverse of the second moments of the
    units that are left, and w_q a row of the refitted kernel, removing unit q adds
    ``|w_q|^2 / H_qq`` [1]_.

    Parameters
    ----------
    size : int
        Units in the group.
    consumers : sequence of ConsumerStats
    constant : array of shape (size,)
        Units that never change; they go first, at no cost.
    count : int
        How many to take out, fewer than ``size``.
    wide : int
        With more units than this they go in rounds of up to 128. Each is the one of least effect
        among four times as many, the cheapest when the round began; it ends early where all that
        are left of these cost more than the others did. ``errors`` are exact all the same.

    Returns
    -------
    Elimination

    References
    ----------
    .. [1] Hassibi, Stork (1993), "Second order derivatives for network pruning: Optimal brain
       surgeon", for the recurrence.

    Examples
    --------
    Unit 2 is the sum of the others, so one of the three goes at no cost, and another one does not:

    >>> a = np.random.default_rng(0).normal(size=(500, 3))
    >>> a[:, 2] = a[:, 0] + a[:, 1]
    >>> moments = Moments(3)
    >>> moments.add(a)
    >>> consumer = ConsumerStats(np.arange(3), moments, np.array([[1.0], [1.0], [0.2]]))
    >>> result = backward_elimination(3, [consumer], np.zeros(3, bool), count=2)
    >>> (result.errors / result.variance).round(2)
    array([0.  , 0.48])
    """
    with threads_for(size):
        return _eliminated(size, consumers, constant, count, wide)


def _eliminated(
    size: int,
    consumers: Sequence[ConsumerStats],
    constant: npt.NDArray[np.bool_],
    count: int,
    wide: int,
) -> Elimination:
    still = np.flatnonzero(constant)[:count]
    order = np.concatenate([still, np.empty(count - len(still), np.intp)])
    costs = np.zeros(count)
    starts = (_start(consumer, constant) for consumer in consumers)
    states: Sequence[_State] | Sequence[_WideState]
    if size <= wide:
        states = [_State(size, *start) for start in starts]
        steps = _one_by_one(states, constant.copy(), count - len(still))
    else:
        states = [_WideState(size, *start) for start in starts]
        steps = _many_at_once(states, constant.copy(), count - len(still))
    for step, (unit, cost) in enumerate(steps, len(still)):
        order[step], costs[step] = unit, cost
    return Elimination(order, np.cumsum(costs), sum(state.variance for state in states))


def _one_by_one(
    states: Sequence[_State], gone: npt.NDArray[np.bool_], count: int
) -> Iterator[tuple[int, float]]:
    """The units to take out and what each adds to the error; each goes when it is asked for."""
    for _ in range(count):
        total = _total(states, gone)
        unit = int(total.argmin())
        gone[unit] = True
        yield unit, float(total[unit])
        for state in states:
            state.remove(unit)


def _many_at_once(
    states: Sequence[_WideState], gone: npt.NDArray[np.bool_], count: int
) -> Iterator[tuple[int, float]]:
    """The same in rounds: each unit is chosen among those that were cheapest when one began."""
    while count:
        total = _total(states, gone)
        left = int((~gone).sum())
        most = min(max(left // IN_ROUND, 1), MOST_IN_ROUND, count)
        choice = np.argpartition(total, min(CHOICE * most, left - 1))[: CHOICE * most + 1]
        choice = choice[~gone[choice]]
        # The dearest of them stands for all that are not among them.
        limit = total[choice].max()
        choice = np.sort(choice)
        parts = [state.part(choice) for state in states]
        taken: list[int] = []
        with threads_for(len(choice)):
            for place, cost in _one_by_one(parts, np.zeros(len(choice), bool), most):
                if cost > limit and len(taken) >= most * LEAST_IN_ROUND:
                    break
                taken.append(int(choice[place]))
                yield taken[-1], cost
        gone[taken] = True
        count -= len(taken)
        for state in states:
            state.remove(np.array(taken))


def _total(states: Sequence[_Matrices], gone: npt.NDArray[np.bool_]) -> Array:
    """The error that removing each unit would add at all consumers; infinite for those gone."""
    total = np.where(gone, np.inf, 0.0)
    for state in states:
        total[state.units] += state.costs()
    return total


def _start(
    consumer: ConsumerStats, constant: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], Array, Array, float]:
    """What a consumer's state starts with: units that change, both matrices, and the variance."""
    moments, living = consumer.moments, np.flatnonzero(~constant[consumer.units])
    mean = np.zeros(moments.units) if consumer.no_offset else moments.mean
    products = moments.gram(mean)[living[:, None], living] / max(moments.count, 1)
    deviation = np.sqrt(np.maximum(products.diagonal(), 0))
    alive = deviation > 0
    scale = np.where(alive, deviation, 1)
    products /= scale
    products /= scale[:, None]
    ridge = RIDGE + RIDGE_PER_SAMPLE * moments.units / max(moments.count, 1)
    # A unit that is always 0 here is independent of the others.
    products[np.diag_indices_from(products)] = 1
    kernel = consumer.kernel[living] * deviation[:, None]
    gram = np.asfortranarray(kernel @ kernel.T)
    # Without an offset products hold the mean as well, which is no variance.
    still = (moments.mean - mean)[living] @ consumer.kernel[living]
    variance = float(np.vdot(products, gram) - np.vdot(still, still))
    products[np.diag_indices_from(products)] += ridge * alive
    return consumer.units[living], _inverse(products), gram, variance


class _Matrices:
    """One consumer's matrices over the units that are left.

    They are the inverse of the units' moments and the inner products of the refitted kernel's rows.
    Of both the lower triangle is kept.
    """

    def __init__(
        self,
        size: int,
        units: npt.NDArray[np.intp],
        inverse: Array,
        gram: Array,
        variance: float = 0.0,
    ) -> None:
        self._size, self._inverse, self._gram, self.variance = size, inverse, gram, variance
        self._settle(units)

    def _settle(self, units: npt.NDArray[np.intp]) -> None:
        """Starts with matrices of these units."""
        self.units = units
        self._place = np.full(self._size, -1)
        self._place[units] = np.arange(len(units))
        self._left = np.ones(len(units), bool)
        self._diagonal = self._inverse.diagonal().copy()
        self._lengths = self._gram.diagonal().copy()

    def costs(self) -> Array:
        """The error that removing each of ``units`` would add; near 0 for those that are gone."""
        return np.maximum(self._lengths, 0) / np.maximum(self._diagonal, np.finfo(float).tiny)

    def _cut_out(self) -> None:
        """Cuts rows out when many units are gone."""
        if self._left.mean() <= SPARSE:
            left = np.flatnonzero(self._left)
            self._inverse, self._gram = _cut(self._inverse, left), _cut(self._gram, left)
            self._settle(self.units[left])


class _State(_Matrices):
    """Matrices that change by a unit at a time.

    They are kept as they were some removals ago, beside panels of what has to be subtracted: that
    is done in blocks, and single columns are computed when asked for.
    """

    def _settle(self, units: npt.NDArray[np.intp]) -> None:
        super()._settle(units)
        self._shares, self._halves = (np.zeros((len(units), BLOCK), order="F") for _ in "sh")
        self._pivots = np.zeros(BLOCK)
        self._filled = 0

    def remove(self, unit: int) -> None:
        """Removes a unit: the others' kernel rows take over its work."""
        place = int(self._place[unit])
        if place < 0:
            return
        panels = slice(self._filled)
        shares, halves = self._shares[:, panels], self._halves[:, panels]
        column = _column(self._inverse, place) - shares @ (self._pivots[panels] * shares[place])
        share = column / column[place]
        row = _column(self._gram, place) - shares @ halves[place] - halves @ shares[place]
        # Rows lose share * kernel[at], and so their products share * half' + half * share'.
        half = row - row[place] / 2 * share
        self._diagonal -= share * column
        self._lengths -= 2 * share * half
        self._diagonal[place], self._lengths[place], self._left[place] = 1, 0, False
        self._shares[:, self._filled], self._halves[:, self._filled] = share, half
        self._pivots[self._filled] = column[place]
        self._filled += 1
        if self._filled == BLOCK:
            self._flush()

    def _flush(self) -> None:
        """Subtracts the panels."""
        scaled = self._shares * np.sqrt(self._pivots)
        self._inverse = blas.dsyrk(-1, scaled, 1, self._inverse, lower=1, overwrite_c=1)
        self._gram = blas.dsyr2k(
            -1, self._shares, self._halves, 1, self._gram, lower=1, overwrite_c=1
        )
        self._filled = 0
        self._cut_out()


class _WideState(_Matrices):
    """Matrices that change by many units at a time."""

    def part(self, units: npt.NDArray[np.intp]) -> _State:
        """The matrices of some units alone, which are told by their places among these."""
        places = self._place[units]
        seen = np.flatnonzero(places >= 0)
        rows = places[seen]
        at = np.maximum.outer(rows, rows), np.minimum.outer(rows, rows)
        return _State(
            len(units),
            seen,
            np.asfortranarray(self._inverse[at]),
            np.asfortranarray(self._gram[at]),
        )

    def remove(self, units: npt.NDArray[np.intp]) -> None:
        """Removes units, in this order: the others' kernel rows take over their work."""
        places = self._place[units]
        places = places[places >= 0]
        if not len(places):
            return
        columns = _columns(self._inverse, places)
        # As for one unit, with the root of a matrix in place of that of a number.
        root = _root(columns[places])
        scaled = linalg.solve_triangular(root, columns.T, lower=True).T
        shares = linalg.solve_triangular(root, scaled.T, lower=True, trans=1).T
        rows = _columns(self._gram, places)
        halves = rows - shares @ (rows[places] / 2)
        self._inverse = blas.dsyrk(-1, scaled, 1, self._inverse, lower=1, overwrite_c=1)
        self._gram = blas.dsyr2k(-1, shares, halves, 1, self._gram, lower=1, overwrite_c=1)
        self._left[places] = False
        self._diagonal, self._lengths = self._inverse.diagonal(), self._gram.diagonal()
        self._cut_out()


def _column(triangle: Array, at: int) -> Array:
    """A column of a symmetric matrix that is stored as its lower triangle."""
    return np.concatenate([triangle[at, :at], triangle[at:, at]])


def _columns(triangle: Array, at: npt.NDArray[np.intp]) -> Array:
    """Several columns, shape (rows, columns)."""
    below = np.arange(len(triangle))[:, None] >= at
    return np.where(below, triangle[:, at], triangle[at].T)


def _cut(matrix: Array, left: npt.NDArray[np.intp]) -> Array:
    """The rows and columns that are left; whole rows of the transpose are copied fastest."""
    return np.take(matrix.T[left], left, axis=1).T


def _inverse(matrix: Array) -> Array:
    """The lower triangle of a positive matrix's inverse; a ridge mends what rounding broke."""
    if not len(matrix):
        return matrix
    return np.asarray(lapack.dpotri(_root(matrix, RIDGE), lower=1, overwrite_c=1)[0])


def _root(matrix: Array, least: float = 0.0) -> Array:
    """The lower triangle whose product with its transpose a positive matrix is.

    A ridge of ``least``, and ten times as much each time, mends what rounding broke.
    """
    ridge = 0.0
    while True:
        steadied = matrix.copy(order="F")
        steadied[np.diag_indices_from(steadied)] += ridge
        factor, failed = lapack.dpotrf(steadied, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return factor
        ridge = max(10 * ridge, least or RIDGE * float(matrix.diagonal().max()))
