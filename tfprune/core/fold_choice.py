"""Chooses between least-squares folds and steadier ones on samples held back; pure numpy.

A fit on few samples reproduces those and misses others. How far it is to be held back towards
something simpler is read from samples that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfprune.core.arrays import Array
from tfprune.core.blas import threads_for
from tfprune.core.fold import Fold, constants, least_squares, scaled
from tfprune.core.moments import Moments
from tfprune.core.selection import Selection

# By how many times more the weights of the fit are held back.
STEADIER = (30.0, 1000.0)
# A fit that misses samples held back by no more than so many times what it misses of its own is
# not looked at further, and another one has to miss so much less than it to take its place.
TRUSTED, BETTER = 1.5, 0.95
# Share of the units' variance that counts as missed in any case, by rounding.
NOTHING = 1e-9

Candidate = Callable[[Moments], Fold]


def steadiest_fold(
    selection: Selection,
    moments: Moments,
    no_offset: bool,
    fitted: Moments,
    held: Moments,
) -> Fold:
    """The least-squares fold, or a simpler one that misses less of samples held back.

    Candidates are least squares as they are, two that are held back towards the best multiple of a
    unit's partner, these multiples, and constants alone. They are fitted on some of the samples
    and compared on the others, by the squared error of all units that go, summed.

    Parameters
    ----------
    selection : Selection
    moments : Moments
        What the fold is fitted on at last.
    no_offset : bool
        Whether it has no constant.
    fitted, held : Moments
        Of the samples that candidates are fitted on, and of those that they are compared on.

    Returns
    -------
    Fold
    """
    gone = np.setdiff1d(np.arange(selection.units), selection.kept)
    nowhere = np.zeros(selection.units)
    spread = held.lengths(0.0 if no_offset else held.mean)[gone] ** 2 / max(held.count, 1)
    floor = NOTHING * float(spread.sum())

    def usual(of: Moments) -> Fold:
        return least_squares(selection, of, nowhere, no_offset)

    def missed(candidate: Candidate) -> float:
        return float(squared_errors(candidate(fitted), held)[gone].sum())

    with threads_for(selection.units):
        start = usual(fitted)
        ours = float(squared_errors(start, held)[gone].sum())
        own = float(squared_errors(start, fitted)[gone].sum())
        if ours <= TRUSTED * own + floor:
            return usual(moments)
        candidates: list[Candidate] = [
            lambda of, factor=factor: least_squares(  # type: ignore[misc]
                selection, of, nowhere, no_offset, steadier=factor
            )
            for factor in STEADIER
        ]
        if not selection.least:
            candidates.append(lambda of: scaled(selection, of, of.mean, no_offset))
        candidates.append(lambda of: constants(selection, of, no_offset))
        errors = [missed(candidate) for candidate in candidates]
        best = int(np.argmin(errors))
        return (candidates[best] if errors[best] < BETTER * ours else usual)(moments)


def squared_errors(fold: Fold, moments: Moments) -> Array:
    """What a fold misses of each unit: the mean squared error on measured samples.

    Parameters
    ----------
    fold : Fold
    moments : Moments
        Of all units, on the samples to measure on.

    Returns
    -------
    array of shape (units,)
    """
    kept, matrix, mean = fold.kept, fold.matrix, moments.mean
    covariance = moments.covariance()
    told = covariance[np.ix_(kept, kept)] @ matrix
    varying = covariance.diagonal() + np.einsum("ku,ku->u", matrix, told - 2 * covariance[kept])
    return np.maximum(varying, 0) + (mean - mean[kept] @ matrix - fold.offset) ** 2
