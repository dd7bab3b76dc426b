"""Settings that count features, and change with the units: those of Reshape, ``split``, ``x[...]``.

The units of what such a layer makes have to lie along one axis, so that it becomes shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tfprune.graph.calls import Sized
from tfprune.graph.features import Index
from tfprune.graph.trace import Trace

Mask = npt.NDArray[np.bool_]
# Which features of labels stay, in an array of their shape.
Kept = Callable[[Index], Mask]


def unit_axis(labels: Index) -> int | None:
    """The axis along which units lie, the last one if several would do; None if there is none.

    Examples
    --------
    >>> unit_axis(np.array([[1, 2, 3], [1, 2, 3]])), unit_axis(np.array([[1, 1], [2, 2]]))
    (1, 0)
    >>> unit_axis(np.array([[1, 2], [3, 4]])) is None
    True
    """
    for axis in reversed(range(labels.ndim)):
        slices = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        if (slices == slices[:, :1]).all():
            return axis
    return None


def check_sizes(trace: Trace) -> None:
    """Blocks units where a setting could not say which of them stay."""
    for sized in trace.sized:
        reason = _trouble(trace, sized)
        if reason:
            layer = trace.layers[sized.layer]
            name = f"{sized.layer} ({type(layer).__name__})"
            # The reason before all others: they follow from it.
            trace.blocked.insert(0, (np.unique(sized.before), f"{name} {reason}"))


def _trouble(trace: Trace, sized: Sized) -> str:
    if not sized.before.any():
        return ""
    find = trace.labels.find
    axes = [unit_axis(find(labels)) for labels in (sized.before, *sized.after)]
    if type(trace.layers[sized.layer]).__name__ == "Reshape":
        return "splits the units over several axes" if axes[1] is None else ""
    if axes[0] is None:
        return "takes units that lie along several axes"
    if type(trace.layers[sized.layer]).__name__ == "GetItem":
        part = _keys(sized)[axes[0]]
        if not isinstance(part, slice):
            return "picks a single unit"
        if part.step not in (None, 1):
            return "picks units that are not next to each other"
    return ""


def settings(trace: Trace, sized: Sized, kept: Kept) -> dict[str, Any]:
    """The changes in the configuration of a layer or operation."""
    layer = trace.layers[sized.layer]
    name = type(layer).__name__
    find = trace.labels.find
    if not sized.before.any() or kept(sized.before).all():
        return {}
    if name == "Reshape":
        axis = unit_axis(find(sized.after[0]))
        assert axis is not None, "it was checked"
        key = "target_shape" if hasattr(layer, "target_shape") else "newshape"
        # An operation's shape has the batch as well.
        place = axis + (key == "newshape")
        shape = list(getattr(layer, key))
        if shape[place] != -1:
            shape[place] = _count(kept(sized.after[0]), axis)
        return {key: tuple(shape)}
    axis = unit_axis(find(sized.before))
    assert axis is not None, "it was checked"
    if name == "Split" and layer.axis % (sized.before.ndim + 1) == axis + 1:
        counts = [_count(kept(labels), axis) for labels in sized.after]
        return {"indices_or_sections": tuple(int(place) for place in np.cumsum(counts[:-1]))}
    return {}


def key_of(trace: Trace, sized: Sized, kept: Kept) -> Any:
    """The key of ``x[key]`` for the units that stay; includes the batch."""
    axis = unit_axis(trace.labels.find(sized.before))
    assert axis is not None, "it was checked"
    along = _along(kept(sized.before), axis)
    start, stop, _ = _keys(sized)[axis].indices(len(along))
    new = slice(int(along[:start].sum()), int(along[:stop].sum()))
    key, places = _written(sized)
    key[places[axis + 1]] = new
    return tuple(key)


def _keys(sized: Sized) -> list[Any]:
    """What a key says of each axis behind the batch."""
    key, places = _written(sized)
    return [key[place] for place in places[1:]]


def _written(sized: Sized) -> tuple[list[Any], list[int]]:
    """A key with a slice for every axis that it does not name, and the place of each axis in it."""
    given = sized.args[1]
    key = list(given) if isinstance(given, (tuple, list)) else [given]
    axes = sized.before.ndim + 1
    rest = axes - sum(part is not None and part is not Ellipsis for part in key)
    if not any(part is Ellipsis for part in key):
        key.append(Ellipsis)
    at = next(place for place, part in enumerate(key) if part is Ellipsis)
    key[at : at + 1] = [slice(None)] * rest
    return key, [place for place, part in enumerate(key) if part is not None]


def _count(stays: Mask, axis: int) -> int:
    return int(_along(stays, axis).sum())


def _along(stays: Mask, axis: int) -> Mask:
    """Which places of an axis stay."""
    return np.asarray(np.moveaxis(stays, axis, 0).reshape(stays.shape[axis], -1).all(axis=1))
