"""The fold: removed units as a linear function of the units that stay; pure numpy.

``old_units ~ kept_units @ matrix + offset``. :func:`apply_fold` multiplies it into the weights of
their consumers, which then compute the same as far as the fold holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from tfprune.core.arrays import Array
from tfprune.core.blas import threads_for
from tfprune.core.moments import Moments
from tfprune.core.selection import Rule, Selection, by_pairs, by_survivors

# Ridge for collinear survivors and those that hardly fire, larger where samples are few; the
# refinement removes its bias in all other directions.
RIDGE = 1e-7
RIDGE_PER_SAMPLE = 1e-3
REFINEMENTS = 2

# Share of a unit's variance that may be rounding, at most.
SAME = 1e-5
TINY = np.finfo(float).tiny


@dataclass(frozen=True)
class Fold:
    """``old_units ~ kept_units @ matrix + offset``.

    Attributes
    ----------
    kept : array of shape (kept,)
        Indices of the survivors among the units.
    matrix : array of shape (kept, units)
    offset : array of shape (units,)
    """

    kept: npt.NDArray[np.intp]
    matrix: Array
    offset: Array


def _identity(selection: Selection, moments: Moments) -> Fold:
    """Survivors stay as they are, constant units become their constant, the others 0."""
    matrix = np.zeros((len(selection.kept), selection.units))
    matrix[np.arange(len(selection.kept)), selection.kept] = 1
    offset = np.zeros(selection.units)
    constant = list(selection.constant)
    offset[constant] = moments.mean[constant]
    return Fold(selection.kept, matrix, offset)


def constants(selection: Selection, moments: Moments, no_offset: bool = False) -> Fold:
    """Every removed unit becomes its mean, or 0 without an offset."""
    fold = _identity(selection, moments)
    gone = np.setdiff1d(np.arange(selection.units), selection.kept)
    if not no_offset:
        fold.offset[gone] = moments.mean[gone]
    return fold


def drop(selection: Selection, moments: Moments, centre: Array, no_offset: bool = False) -> Fold:
    """Similar and complementary units become 0."""
    return _identity(selection, moments)


def outgoing(
    selection: Selection, moments: Moments, centre: Array, no_offset: bool = False
) -> Fold:
    """A similar unit's outgoing weights are added to its partner's (Gedeon & Harris 1991).

    A partner that goes later passes on what it got; complementary pairs are lost.
    """
    fold = _identity(selection, moments)
    row_of = {int(unit): row for row, unit in enumerate(selection.kept)}
    for unit in selection.similar:
        heir = _heir(selection, unit)
        if heir is not None:
            fold.matrix[row_of[heir], unit] = 1
    return fold


def scaled(selection: Selection, moments: Moments, centre: Array, no_offset: bool = False) -> Fold:
    """A removed unit is the best multiple of its partner about the centre, negative for a
    complement: ``a_i - c_i ~ s (a_j - c_j)``."""
    fold = _identity(selection, moments)
    if no_offset:
        centre = np.zeros_like(centre)
    gram = moments.gram(centre)
    still = moments.lengths(0.0 if no_offset else moments.mean) == 0
    row_of = {int(unit): row for row, unit in enumerate(selection.kept)}
    for unit, partner in (selection.similar | selection.complementary).items():
        if still[partner]:
            # A constant partner can only contribute a constant.
            fold.offset[unit] = 0 if no_offset else moments.mean[unit]
            continue
        scale = gram[unit, partner] / gram[partner, partner]
        fold.matrix[row_of[partner], unit] = scale
        fold.offset[unit] = centre[unit] - scale * centre[partner]
    return fold


def least_squares(
    selection: Selection,
    moments: Moments,
    centre: Array,
    no_offset: bool = False,
    steadier: float = 1.0,
) -> Fold:
    """Every removed unit is the linear function of all survivors with the least squared error.

    It minimises ``|A_r - A_k @ matrix - offset|^2`` over the samples of removed units A_r and
    survivors A_k, with a ridge [1]_ towards the best multiple of the unit's partner, which decides
    where samples are few; ``steadier`` multiplies the ridge.

    References
    ----------
    .. [1] Hoerl, Kennard (1970), "Ridge regression: Biased estimation for nonorthogonal problems".

    Examples
    --------
    The last of three units is the sum of the others and 1:

    >>> a = np.random.default_rng(0).normal(size=(500, 3))
    >>> a[:, 2] = a[:, 0] + a[:, 1] + 1
    >>> moments = Moments(3)
    >>> moments.add(a)
    >>> fold = least_squares(Selection(np.array([0, 1]), least=(2,)), moments, np.zeros(3))
    >>> fold.matrix[:, 2].round(3), fold.offset.round(3)
    (array([1., 1.]), array([0., 0., 1.]))
    """
    with threads_for(selection.units):
        return _least_squares(selection, moments, no_offset, steadier)


def _least_squares(
    selection: Selection, moments: Moments, no_offset: bool, steadier: float
) -> Fold:
    fold = _identity(selection, moments)
    kept = selection.kept
    removed = np.setdiff1d(np.arange(selection.units), [*kept, *selection.constant])
    # Without an offset the fit goes through the origin.
    mean = np.zeros(selection.units) if no_offset else moments.mean
    products = moments.gram(mean)
    products /= max(moments.count, 1)
    deviation = np.sqrt(np.maximum(products.diagonal()[kept], 0))
    if not no_offset:
        deviation[moments.constant()[kept]] = 0
    fold.offset[removed] = mean[removed]
    removed = np.setdiff1d(removed, _same(fold, selection, products, mean, moments.rounding))
    informative = deviation > 0
    kept, deviation = kept[informative], deviation[informative]
    if not len(removed) or not len(kept):
        return fold
    correlation = products[np.ix_(kept, kept)]
    correlation /= deviation
    correlation /= deviation[:, None]
    target = products[np.ix_(kept, removed)]
    target /= deviation[:, None]
    del products  # Large; what is needed of it is copied.
    ridge = steadier * (RIDGE + RIDGE_PER_SAMPLE * len(kept) / moments.count)
    # Survivors that hardly ever fire would fit noise of those few samples, with weights too large
    # for any quantised scale: so the ridge is on weights of unscaled activations, too.
    ridges = ridge * (1 + np.mean(deviation**2) / deviation**2)
    start = np.zeros_like(target)
    pairs = selection.similar | selection.complementary
    partners = np.array([pairs.get(int(unit), -1) for unit in removed])
    rows, columns = np.nonzero(kept[:, None] == partners)
    start[rows, columns] = target[rows, columns]
    weights = _steady_solve(correlation, target, ridges, start)
    weights /= deviation[:, None]
    fold.matrix[np.ix_(np.flatnonzero(informative), removed)] = weights
    fold.offset[removed] -= mean[kept] @ weights
    return fold


def _same(
    fold: Fold, selection: Selection, products: Array, mean: Array, rounding: float
) -> list[int]:
    """Folds units that equal a multiple of their partner but for rounding; returns them.

    Solving for them with all survivors would spread the rounding over all of these.
    """
    row_of = {int(unit): row for row, unit in enumerate(selection.kept)}
    folded = []
    for unit, partner in (selection.similar | selection.complementary).items():
        pair = [unit, partner]
        size, cross = products[pair, pair], products[unit, partner]
        # Products about the mean still have the rounding of those about 0.
        noise = rounding * (1 + np.sum(mean[pair] ** 2 / np.maximum(size, TINY)))
        if partner in row_of and cross**2 > (1 - min(noise, SAME)) * size.prod() > 0:
            fold.matrix[row_of[partner], unit] = cross / size[1]
            fold.offset[unit] = mean[unit] - cross / size[1] * mean[partner]
            folded.append(unit)
    return folded


def _steady_solve(correlation: Array, target: Array, ridges: Array, start: Array) -> Array:
    """Ridge regression; refinement undoes the ridge but in near-singular directions."""
    while True:
        try:
            steadied = correlation.copy(order="F")
            steadied[np.diag_indices_from(steadied)] += ridges
            factor = linalg.cho_factor(steadied, overwrite_a=True)
            break
        except linalg.LinAlgError:
            ridges = 10 * ridges
    weights = start
    for _ in range(1 + REFINEMENTS):
        error = correlation @ weights
        np.subtract(target, error, out=error)
        weights += linalg.cho_solve(factor, error)
    return weights


def _heir(selection: Selection, unit: int) -> int | None:
    """The survivor at the end of a chain of similar units; None if it ends in a complement."""
    while unit in selection.similar:
        unit = selection.similar[unit]
    return None if unit in selection.complementary else unit


def merge_matrix(selection: Selection, merge: bool) -> Array:
    """The matrix that makes survivors' incoming weights: ``kernel' = kernel @ matrix``.

    Parameters
    ----------
    merge : bool
        Whether the incoming weights and bias of a removed similar unit are added to its
        partner's (the ``incoming`` rule of the studies) or left out.

    Returns
    -------
    array of shape (units, kept)

    Examples
    --------
    >>> merge_matrix(Selection(np.array([1, 2]), similar={0: 1}), merge=True)
    array([[1., 0.],
           [1., 0.],
           [0., 1.]])
    """
    matrix = np.zeros((selection.units, len(selection.kept)))
    matrix[selection.kept, np.arange(len(selection.kept))] = 1
    if merge:
        column_of = {int(unit): column for column, unit in enumerate(selection.kept)}
        for unit in selection.similar:
            heir = _heir(selection, unit)
            if heir is not None:
                matrix[unit, column_of[heir]] = 1
    return matrix


def apply_fold(kernel: Array, index: npt.NDArray[np.intp], fold: Fold) -> tuple[Array, Array]:
    """Multiplies a fold into the kernel of a consumer of its units.

    Parameters
    ----------
    kernel : array of shape (features, outputs)
        The consumer's kernel, with all its input features.
    index : array of shape (positions, units)
        Which feature holds which unit, once for every position (after Flatten, say).
    fold : Fold

    Returns
    -------
    kernel : array of shape (features, outputs)
        The rows of the survivors hold the folded weights; the rows of the others are to be cut.
    bias : array of shape (outputs,)
        What the offset adds to the consumer's bias.

    Examples
    --------
    Unit 1 is twice unit 0, and 3 more:

    >>> fold = Fold(np.array([0]), np.array([[1.0, 2.0]]), np.array([0.0, 3.0]))
    >>> kernel, bias = apply_fold(np.array([[10.0], [1.0]]), np.array([[0, 1]]), fold)
    >>> kernel[0], bias
    (array([12.]), array([3.]))
    """
    rows = kernel[index]
    folded = kernel.copy()
    folded[index[:, fold.kept]] = fold.matrix @ rows
    return folded, fold.offset @ rows.sum(axis=0)


@dataclass(frozen=True)
class FoldRule:
    """A way to remove units: how they are paired, and what consumers and survivors get.

    Attributes
    ----------
    fold : callable
        ``(selection, moments, centre, no_offset) -> Fold``; without an offset if asked.
    rule : callable
        ``(degrees, constant, threshold) -> Selection``.
    merge_incoming : bool
        Whether survivors take the incoming weights of the units merged into them.
    shifts : bool
        Whether a fold has an offset, which corrects for a removed unit's mean.
    any_units : bool
        Whether it works for units that were not chosen in pairs.

    Examples
    --------
    >>> FOLD_RULES["scaled"].centre("auto"), FOLD_RULES["drop"].centre("auto")
    ('mean', 'activation')
    """

    fold: Callable[[Selection, Moments, Array, bool], Fold]
    rule: Rule
    merge_incoming: bool = False
    shifts: bool = False
    any_units: bool = False

    def centre(self, asked: str | float) -> str | float:
        """The centre about which angles are measured for this fold: what ``auto`` stands for.

        An offset makes up for the means, so only deviations from them have to be alike. The
        studies' folds have none; they measured about the middle of an activation's range.
        """
        if asked != "auto":
            return asked
        return "mean" if self.shifts else "activation"


# By their names, the default first. The options know the names as well, without loading numpy:
# ``tfprune.options.FOLD_NAMES`` and ``SHARE_FOLDS``.
FOLD_RULES = {
    "least-squares": FoldRule(least_squares, by_survivors, shifts=True, any_units=True),
    "scaled": FoldRule(scaled, by_survivors, shifts=True),
    "outgoing": FoldRule(outgoing, by_pairs),
    "incoming": FoldRule(drop, by_pairs, merge_incoming=True),
    "drop": FoldRule(drop, by_pairs, any_units=True),
}
