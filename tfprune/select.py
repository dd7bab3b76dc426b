"""Which units go and why, from their angles and a threshold in degrees; pure numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt


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
        Removed units that matter least to their readers.
    rescued : tuple
        Units that stay only because a layer cannot be empty.
    """

    kept: npt.NDArray[np.intp]
    similar: dict[int, int] = field(default_factory=dict)
    complementary: dict[int, int] = field(default_factory=dict)
    constant: tuple[int, ...] = ()
    least: tuple[int, ...] = ()
    rescued: tuple[int, ...] = ()

    @property
    def units(self) -> int:
        """Units of the layer before the removal."""
        gone = (self.similar, self.complementary, self.constant, self.least)
        return len(self.kept) + sum(map(len, gone))

    def rescue(self, unit: int) -> Selection:
        """The same, but for a unit that stays after all."""
        return Selection(
            kept=np.union1d(self.kept, [unit]),
            similar={key: value for key, value in self.similar.items() if key != unit},
            complementary={k: value for k, value in self.complementary.items() if k != unit},
            constant=tuple(key for key in self.constant if key != unit),
            least=tuple(key for key in self.least if key != unit),
            rescued=(*self.rescued, unit),
        )

    def within(self, units: npt.NDArray[np.intp]) -> Selection:
        """The same for some of the units, which are then numbered from 0."""
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
        Pairwise angles, see :func:`tfprune.moments.angles`.
    constant : array of shape (units,)
        Which units never change; they go in any case.
    threshold : float
        Degrees in (0, 90): similar below it, complementary above 180 minus it.
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
