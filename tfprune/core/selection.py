"""Selects the units to remove, by their angles and a threshold in degrees; pure numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import lapack


@dataclass(frozen=True)
class Selection:
    """Which units of a layer stay, and why each other one goes.

    Attributes
    ----------
    kept : array of shape (survivors,)
        Indices of the units that stay, ascending, at least one.
    similar : dict
        Removed unit -> the unit it is similar to.
    complementary : dict
        Removed unit -> the unit it is the complement of.
    constant : tuple
        Removed units that never change.
    least : tuple
        Units removed for another reason, such as least effect on their consumers, in the order in
        which they go.
    rescued : tuple
        Units that stay only because a layer cannot be empty.
    rounded : tuple
        Units that stay only because a width is to be a multiple.
    evened : tuple
        Units that stay only because two layers have to be equally wide.
    """

    kept: npt.NDArray[np.intp]
    similar: dict[int, int] = field(default_factory=dict)
    complementary: dict[int, int] = field(default_factory=dict)
    constant: tuple[int, ...] = ()
    least: tuple[int, ...] = ()
    rescued: tuple[int, ...] = ()
    rounded: tuple[int, ...] = ()
    evened: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """How many units the layer had."""
        gone = (self.similar, self.complementary, self.constant, self.least)
        return len(self.kept) + sum(map(len, gone))

    def rescue(self, unit: int) -> Selection:
        """The same selection, except that this unit stays, as a layer cannot be empty."""
        return replace(self._with([unit]), rescued=(*self.rescued, unit))

    def widened(self, units: Sequence[int]) -> Selection:
        """The same selection, except that these units stay for a multiple."""
        return replace(self._with(units), rounded=(*self.rounded, *units))

    def kept_even(self, units: Sequence[int]) -> Selection:
        """The same selection, except that these units stay as another layer is as wide."""
        return replace(self._with(units), evened=(*self.evened, *units))

    def _with(self, units: Sequence[int]) -> Selection:
        back = set(units)
        return replace(
            self,
            kept=np.union1d(self.kept, np.array(units, np.intp)),
            similar={unit: other for unit, other in self.similar.items() if unit not in back},
            complementary={u: other for u, other in self.complementary.items() if u not in back},
            constant=tuple(unit for unit in self.constant if unit not in back),
            least=tuple(unit for unit in self.least if unit not in back),
        )

    def within(self, units: npt.NDArray[np.intp]) -> Selection:
        """The selection among some of the units, numbered from 0."""
        place = {int(unit): number for number, unit in enumerate(units)}
        return Selection(
            kept=np.flatnonzero(np.isin(units, self.kept)),
            similar=_renumbered(self.similar, place),
            complementary=_renumbered(self.complementary, place),
            constant=tuple(place[unit] for unit in self.constant if unit in place),
            least=tuple(place[unit] for unit in self.least if unit in place),
        )


def _renumbered(pairs: dict[int, int], place: dict[int, int]) -> dict[int, int]:
    return {
        place[unit]: place[other]
        for unit, other in pairs.items()
        if unit in place and other in place
    }


Rule = Callable[[npt.NDArray[np.float64], npt.NDArray[np.bool_], float], Selection]


def by_survivors(
    degrees: npt.NDArray[np.float64], constant: npt.NDArray[np.bool_], threshold: float
) -> Selection:
    """Removes a unit where a *surviving* unit does its work, or the opposite of its work.

    Walks from the last unit to the first, so that, as in the studies, the smaller index of a pair
    goes. Every removed unit is within the threshold of a survivor (or of its complement), and of
    a complementary pair one stays, since a fold can carry the other with a negative sign.

    Parameters
    ----------
    degrees : array of shape (units, units)
        Pairwise angles, see :func:`tfprune.core.moments.angles`.
    constant : array of shape (units,)
        Which units never change; they go in any case.
    threshold : float
        Degrees in (0, 90): similar below it, complementary above 180 minus it.

    Examples
    --------
    Unit 1 does nearly what unit 2 does, and unit 0 nearly the opposite:

    >>> degrees = np.array([[0.0, 165.0, 170.0], [165.0, 0.0, 10.0], [170.0, 10.0, 0.0]])
    >>> chosen = by_survivors(degrees, np.zeros(3, bool), threshold=30)
    >>> chosen.kept, chosen.similar, chosen.complementary
    (array([2]), {1: 2}, {0: 2})
    """
    survives = np.zeros(len(degrees), bool)
    similar: dict[int, int] = {}
    complementary: dict[int, int] = {}
    for unit in reversed(range(len(degrees))):
        if constant[unit]:
            continue
        others = np.flatnonzero(survives)
        row = degrees[unit, others]
        if (row < threshold).any():
            similar[unit] = int(others[row.argmin()])
        elif (row > 180 - threshold).any():
            complementary[unit] = int(others[row.argmax()])
        else:
            survives[unit] = True
    return _selection(survives, similar, complementary, constant)


def by_pairs(
    degrees: npt.NDArray[np.float64], constant: npt.NDArray[np.bool_], threshold: float
) -> Selection:
    """The rule of the studies: pairs in index order, as they come.

    Of a similar pair the unit with the smaller index goes, even if the other one goes later;
    a complementary pair loses both. Parameters as :func:`by_survivors`.

    References
    ----------
    Gedeon, Harris (1991), "Network reduction techniques".

    Examples
    --------
    >>> degrees = np.array([[0.0, 90.0, 170.0], [90.0, 0.0, 90.0], [170.0, 90.0, 0.0]])
    >>> chosen = by_pairs(degrees, np.zeros(3, bool), threshold=30)
    >>> chosen.kept, chosen.complementary
    (array([1]), {0: 2, 2: 0})
    """
    alive = ~constant
    similar: dict[int, int] = {}
    complementary: dict[int, int] = {}
    for unit in range(len(degrees)):
        if not alive[unit]:
            continue
        later = unit + 1 + np.flatnonzero(alive[unit + 1 :])
        row = degrees[unit, later]
        hits = np.flatnonzero((row < threshold) | (row > 180 - threshold))
        if not len(hits):
            continue
        other = int(later[hits[0]])
        alive[unit] = False
        if row[hits[0]] < threshold:
            similar[unit] = other
        else:
            alive[other] = False
            complementary[unit], complementary[other] = other, unit
    return _selection(alive, similar, complementary, constant)


def by_span(
    products: npt.NDArray[np.float64],
    constant: npt.NDArray[np.bool_],
    threshold: float = 0.0,
    count: int | None = None,
) -> Selection:
    """Removes units that are nearly a linear function of the survivors, all of them together.

    A pivoted Cholesky decomposition [1]_ adds to the survivors the unit that is farthest from their
    span, until none is farther than the threshold, or enough units stay.

    Parameters
    ----------
    products : array of shape (units, units)
        Inner products of the activation vectors' deviations from their mean, each divided by the
        length of its whole vector: the diagonal is the squared sine of the angle between a unit
        and the constants.
    constant : array of shape (units,)
        Which units never change; they go in any case.
    threshold : float
        Degrees in [0, 90): the angle between a unit that goes and the span of those that stay.
    count : int, optional
        How many go, in place of a threshold; fewer than there are units.

    References
    ----------
    .. [1] Higham (1990), "Analysis of the Cholesky decomposition of a semi-definite matrix".

    Examples
    --------
    The last of three vectors is in the span of the others, at 45 degrees to both:

    >>> vectors = np.array([[1.0, 0.0], [0.0, 0.9], [0.6, 0.6]])
    >>> by_span(vectors @ vectors.T, np.zeros(3, bool), threshold=10).kept
    array([0, 1])
    """
    living = np.flatnonzero(~constant)
    order, rank = np.array([], np.intp), 0
    if len(living):
        least = np.sin(np.radians(threshold)) ** 2 if count is None else 0.0
        # LAPACK reads a tolerance below 0 as its own.
        tolerance = max(least, np.finfo(float).tiny)
        _, order, rank, _ = lapack.dpstrf(products[np.ix_(living, living)], tolerance, lower=1)
    ranked = np.concatenate([living[order - 1], np.flatnonzero(constant)]).astype(np.intp)
    stay = len(ranked) - count if count is not None else max(rank, 1)
    # The nearest to the span first.
    return without(ranked[stay:][::-1], constant)


def by_nearest(
    degrees: npt.NDArray[np.float64], constant: npt.NDArray[np.bool_], count: int
) -> Selection:
    """Removes ``count`` units, one by one: of the closest pair left the one of the smaller index.

    Parameters
    ----------
    degrees, constant
        As :func:`by_survivors`; constant units go first.
    count : int
        Fewer than there are units.
    """
    gone = list(np.flatnonzero(constant)[:count])
    apart = np.minimum(degrees, 180 - degrees)
    apart[np.tril_indices_from(apart)] = np.inf
    apart[np.isnan(apart)] = np.inf
    apart[gone] = apart[:, gone] = np.inf
    while len(gone) < count:
        unit = int(np.unravel_index(apart.argmin(), apart.shape)[0])
        if not np.isfinite(apart.min()):
            unit = next(one for one in range(len(degrees)) if one not in gone)
        gone.append(unit)
        apart[unit] = apart[:, unit] = np.inf
    return without(np.array(gone, np.intp), constant)


def without(gone: npt.NDArray[np.intp], constant: npt.NDArray[np.bool_]) -> Selection:
    """The selection that removes these units, which come in the order in which they go."""
    return Selection(
        kept=np.setdiff1d(np.arange(len(constant)), gone),
        constant=tuple(int(unit) for unit in gone if constant[unit]),
        least=tuple(int(unit) for unit in gone if not constant[unit]),
    )


def _selection(
    survives: npt.NDArray[np.bool_],
    similar: dict[int, int],
    complementary: dict[int, int],
    constant: npt.NDArray[np.bool_],
) -> Selection:
    selection = Selection(
        kept=np.flatnonzero(survives),
        similar=similar,
        complementary=complementary,
        constant=tuple(int(unit) for unit in np.flatnonzero(constant)),
    )
    # The last unit is the one that index order would have kept.
    return selection if survives.any() else selection.rescue(len(survives) - 1)
