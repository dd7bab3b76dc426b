"""Which units matter least to the layers that read them; pure numpy.

Backward elimination as in optimal brain surgeon: of all units that are left, the one goes
without which the others, refitted, reproduce best what the readers receive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from tfprune.fold import RIDGE, RIDGE_PER_SAMPLE
from tfprune.moments import Array, Moments


@dataclass(frozen=True, eq=False)
class Sight:
    """What one reader makes of a group's units.

    Attributes
    ----------
    units : array of shape (seen,)
        Which units of the group it sees.
    moments : Moments
        Of these.
    kernel : array of shape (seen, outputs)
        By what it multiplies each; taps and positions count as outputs of their own.
    shiftless : bool
        Whether the fold has no constant.
    """

    units: npt.NDArray[np.intp]
    moments: Moments
    kernel: Array
    shiftless: bool = False


def least_effect(
    size: int, sights: Sequence[Sight], constant: npt.NDArray[np.bool_], count: int
) -> npt.NDArray[np.intp]:
    """The units to take out, least effect first.

    The effect of a set of units is exact for what the readers receive: the squared error, summed
    over their outputs and averaged over the samples, that the least-squares fold of the set
    onto all units that are left makes [1]_. Sets are grown one unit at a time.

    Parameters
    ----------
    size : int
        Units in the group.
    sights : sequence of Sight
    constant : array of shape (size,)
        Units that never change; they go first, at no cost.
    count : int
        How many to take out, fewer than ``size``.

    Returns
    -------
    array of shape (count,)

    References
    ----------
    .. [1] Hassibi, Stork (1993), "Second order derivatives for network pruning: Optimal brain
       surgeon", for the recurrence.
    """
    states = [_State(size, sight) for sight in sights]
    taken = list(np.flatnonzero(constant)[:count])
    for state in states:
        state.leave_out(np.flatnonzero(constant))
    left = ~constant
    while len(taken) < count:
        costs = sum(state.costs() for state in states)
        unit = int(np.argmin(np.where(left, costs, np.inf)))
        left[unit] = False
        taken.append(unit)
        for state in states:
            state.remove(unit)
    return np.array(taken, np.intp)


class _State:
    """One reader's view of the units that are left: inverse moments, refitted kernel."""

    def __init__(self, size: int, sight: Sight) -> None:
        moments = sight.moments
        mean = np.zeros(moments.units) if sight.shiftless else moments.mean
        products = moments.gram(mean) / max(moments.count, 1)
        deviation = np.sqrt(np.maximum(products.diagonal(), 0))
        alive = deviation > 0
        scale = np.where(alive, deviation, 1)
        ridge = RIDGE + RIDGE_PER_SAMPLE * moments.units / max(moments.count, 1)
        correlation = products / np.outer(scale, scale) + ridge * np.eye(moments.units)
        correlation[~alive, ~alive] = 1
        self._place = np.full(size, -1)
        self._place[sight.units] = np.arange(len(sight.units))
        self._inverse = _inverse(correlation)
        kernel = sight.kernel * deviation[:, None]
        if kernel.shape[1] > kernel.shape[0]:
            # Only lengths and sums of rows count, and these say the same in fewer columns.
            kernel = np.asarray(linalg.qr(kernel.T, mode="r")[0][: len(kernel)].T)
        self._kernel = kernel
        self._size = size

    def leave_out(self, units: npt.NDArray[np.intp]) -> None:
        """Removes units that say nothing."""
        for unit in units:
            self.remove(int(unit))

    def costs(self) -> Array:
        """What each unit's removal costs more, shape (size,)."""
        diagonal = np.maximum(self._inverse.diagonal(), np.finfo(float).tiny)
        own = (self._kernel**2).sum(axis=1) / diagonal
        seen = self._place >= 0
        made = np.zeros(self._size)
        made[seen] = own[self._place[seen]]
        return made

    def remove(self, unit: int) -> None:
        """Hands a unit's work on to those that are left."""
        at = self._place[unit]
        if at < 0:
            return
        column = self._inverse[:, at] / self._inverse[at, at]
        self._kernel -= np.outer(column, self._kernel[at])
        self._inverse -= np.outer(column, self._inverse[at])
        self._inverse[at, :] = self._inverse[:, at] = 0
        self._inverse[at, at] = 1
        self._kernel[at] = 0


def _inverse(matrix: Array) -> Array:
    """The inverse of a positive matrix, steadied where rounding left it otherwise."""
    ridge = 0.0
    while True:
        try:
            factor = linalg.cho_factor(matrix + ridge * np.eye(len(matrix)))
            return np.asarray(linalg.cho_solve(factor, np.eye(len(matrix))))
        except linalg.LinAlgError:
            ridge = max(10 * ridge, RIDGE)
