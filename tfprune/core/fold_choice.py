"""Chooses between least-squares folds and steadier ones on samples held back; pure numpy.

A fit on few samples reproduces those and misses others. Samples that it was not fitted on tell how
far to shrink it towards something simpler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfprune.core.arrays import Array
from tfprune.core.blas import threads_for
from tfprune.core.fold import Fold, constants, least_squares, scaled
from tfprune.core.moments import Moments
from tfprune.core.selection import Selection

# Factors of the ridges that are tried.
STEADIER = (30.0, 1000.0)
# A fit is taken at once if its error on samples held back is at most so many times that on its own;
# otherwise another one replaces it if its error is below so much of it.
TRUSTED, BETTER = 1.5, 0.95
# Share of the units' variance that is rounding.
NOTHING = 1e-9

Candidate = Callable[[Moments], Fold]


def steadiest_fold(
    selection: Selection,
    moments: Moments,
    no_offset: bool,
    fitted: Moments,
    held: Moments,
) -> Fold:
    """The least-squares fold, or a simpler one with a smaller error on samples held back.

    Candidates are the least-squares fold with its usual ridge and with two larger ones, the best
    multiples of the units' partners, and constants alone. They are fitted on some of the samples
    and compared on the others, by the squared error summed over all units that go.

    Parameters
    ----------
    selection : Selection
    moments : Moments
        Of all samples, on which the best candidate is fitted anew.
    no_offset : bool
        Whether it has no constant.
    fitted, held : Moments
        Of the samples that candidates are fitted on, and of those they are compared on.

    Returns
    -------
    Fold
    """
    gone = np.setdiff1d(np.arange(selection.units), selection.kept)
    origin = np.zeros(selection.units)
    spread = held.lengths(0.0 if no_offset else held.mean)[gone] ** 2 / max(held.count, 1)
    floor = NOTHING * float(spread.sum())

    def fit(of: Moments) -> Fold:
        return least_squares(selection, of, origin, no_offset)

    def error_of(candidate: Candidate) -> float:
        return float(squared_errors(candidate(fitted), held)[gone].sum())

    with threads_for(selection.units):
        start = fit(fitted)
        ours = float(squared_errors(start, held)[gone].sum())
        own = float(squared_errors(start, fitted)[gone].sum())
        if ours <= TRUSTED * own + floor:
            return fit(moments)
        candidates: list[Candidate] = [
            lambda of, factor=factor: least_squares(  # type: ignore[misc]
                selection, of, origin, no_offset, steadier=factor
            )
            for factor in STEADIER
        ]
        if not selection.least:
            candidates.append(lambda of: scaled(selection, of, of.mean, no_offset))
        candidates.append(lambda of: constants(selection, of, no_offset))
        errors = [error_of(candidate) for candidate in candidates]
        best = int(np.argmin(errors))
        return (candidates[best] if errors[best] < BETTER * ours else fit)(moments)


def squared_errors(fold: Fold, moments: Moments) -> Array:
    """The mean squared error of each unit under a fold, on measured samples.

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
    predicted = covariance[np.ix_(kept, kept)] @ matrix
    varying = covariance.diagonal() + np.einsum(
        "ku,ku->u", matrix, predicted - 2 * covariance[kept]
    )
    return np.maximum(varying, 0) + (mean - mean[kept] @ matrix - fold.offset) ** 2
