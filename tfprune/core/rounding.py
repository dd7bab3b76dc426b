"""Widths that are multiples of a number, which kernels of 8 or 16 lanes compute best; pure numpy.

A layer narrower than one multiple is left as a criterion has it, and any other keeps at least one;
where the next multiple is more than a layer has, it stays whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tfprune.core.arrays import Array
from tfprune.core.selection import Selection

Units: TypeAlias = npt.NDArray[np.intp]


def nearest_width(size: int, kept: int, multiple: int) -> int:
    """The multiple nearest to a width, or the layer's whole width; of two as near the larger.

    Parameters
    ----------
    size : int
        The layer's units.
    kept : int
        The width asked for, from 1.
    multiple : int

    Examples
    --------
    >>> nearest_width(32, 11, 8), nearest_width(32, 12, 8), nearest_width(32, 1, 8)
    (8, 16, 8)
    >>> nearest_width(20, 19, 8), nearest_width(6, 3, 8)
    (20, 3)
    """
    if size < multiple:
        return kept
    return min([*range(multiple, size, multiple), size], key=lambda w: (abs(w - kept), -w))


def next_width(size: int, kept: int, multiple: int) -> int:
    """The next multiple that is no less than a width, at least one; at most the whole width.

    Examples
    --------
    >>> next_width(32, 9, 8), next_width(32, 16, 8), next_width(32, 0, 8)
    (16, 16, 8)
    >>> next_width(20, 17, 8), next_width(6, 3, 8)
    (20, 3)
    """
    if size < multiple:
        return kept
    return min(size, multiple * max(1, -(-kept // multiple)))


def parts(units: int, layers: Iterable[Units]) -> list[Units]:
    """Divides the units of a group so that every layer has a part whole, or nothing of it.

    Most groups are one part, the units of a single layer or of layers that meet in an Add. Where
    one of these reads what others concatenate, their units are parts.

    Parameters
    ----------
    units : int
    layers : iterable of arrays of shape (its units,)
        Which units of the group each layer computes.

    Examples
    --------
    >>> parts(4, [np.arange(4), np.array([0, 1]), np.array([2, 3])])
    [array([0, 1]), array([2, 3])]
    """
    members = np.array([np.isin(np.arange(units), of_layer) for of_layer in layers])
    kinds = np.unique(members, axis=1, return_inverse=True)[1].ravel()
    places = [np.flatnonzero(kinds == kind) for kind in range(int(kinds.max()) + 1)]
    return sorted(places, key=lambda place: int(place[0]))


def rounded_up(
    selection: Selection, apart: Sequence[Units], multiple: int, degrees: Array
) -> Selection:
    """Puts units back until every part of a group has a multiple of units.

    Those come back first whose removal was least safe: of units that were chosen one by one the
    last; of pairs those that are farthest from their partner; then those whose partner is gone as
    well, and constant units last.

    Parameters
    ----------
    selection : Selection
    apart : sequence of arrays
        See :func:`parts`.
    multiple : int
    degrees : array of shape (units, units)
        Angles between the units, where pairs were chosen.

    Examples
    --------
    Of three units that unit 3 stands for, unit 1 is the farthest from it, so it comes back:

    >>> degrees = np.full((4, 4), 90.0)
    >>> degrees[:3, 3] = 5, 20, 10
    >>> selection = Selection(np.array([3]), similar={0: 3, 1: 3, 2: 3})
    >>> rounded = rounded_up(selection, [np.arange(4)], 2, degrees)
    >>> rounded.kept, rounded.similar
    (array([1, 3]), {0: 3, 2: 3})
    """
    order = least_safe_first(selection, degrees)
    back: list[int] = []
    for part in apart:
        kept = int(np.isin(part, selection.kept).sum())
        missing = next_width(len(part), kept, multiple) - kept
        back += [unit for unit in order if unit in part][:missing]
    return selection.widened(back) if back else selection


def least_safe_first(selection: Selection, degrees: Array) -> list[int]:
    """The units that go, those first whose removal is least safe: see :func:`rounded_up`."""

    def distance(unit: int, partner: int, complement: bool) -> float:
        angle = float(degrees[unit, partner])
        return 180 - angle if complement else angle

    kept = set(selection.kept.tolist())
    pairs = [
        (complement and partner not in kept, -distance(unit, partner, complement), unit)
        for complement, found in ((False, selection.similar), (True, selection.complementary))
        for unit, partner in found.items()
    ]
    return [
        *reversed(selection.least),
        *(unit for *_, unit in sorted(pairs)),
        *reversed(selection.constant),
    ]
