"""Groups of units that go together: their producers, their consumers, and what blocks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tfprune.graph.features import Index
from tfprune.graph.layers import groups_in
from tfprune.graph.trace import Reading, Trace


@dataclass(frozen=True, eq=False)
class Consumer:
    """A layer that consumes a group's units, in one form (raw or normalised, say).

    Attributes
    ----------
    layer : str
    tensors : tuple of int
        Positions in the trace's tensors: several for a shared layer.
    units : array of shape (seen,)
        Which units of the group it receives.
    index : array of shape (positions, seen)
        Which feature (last axis) holds which of them, once for every position.
    centre : array of shape (seen,)
    no_offset : bool
    part : str
        Which of the layer's inputs, where it has a kernel for each.
    """

    layer: str
    tensors: tuple[int, ...]
    units: Index
    index: Index
    centre: npt.NDArray[np.float64]
    no_offset: bool
    part: str = ""


@dataclass(frozen=True, eq=False)
class Group:
    """Layers whose units can only be removed together; a single layer in the simplest case.

    Attributes
    ----------
    producers : dict of str to array
        Layer -> which unit of the group each of its units is; several that go together are one.
    kinds : dict of str to str
        Layer -> ``dense``, ``conv``, ``recurrent`` or ``embedding``.
    unit_ids : array of shape (units,)
        The label of each unit.
    consumers : tuple of Consumer
    blocked : str or None
        Why its units cannot be removed.
    """

    producers: dict[str, Index]
    kinds: dict[str, str]
    unit_ids: Index
    consumers: tuple[Consumer, ...] = ()
    blocked: str | None = None

    @property
    def name(self) -> str:
        """The names of its layers."""
        return " + ".join(self.producers)

    def units_of(self, unit_ids: Index) -> Index:
        """The unit of the group that each label stands for, or -1."""
        order = np.argsort(self.unit_ids)
        place = np.searchsorted(self.unit_ids, unit_ids, sorter=order).clip(max=len(order) - 1)
        nearest = order[place]
        return np.where(self.unit_ids[nearest] == unit_ids, nearest, -1)


def groups_of(trace: Trace) -> list[Group]:
    """The groups of a traced model, in the order in which their first layers are called."""
    groups = [_read(trace, group) for group in _joined(trace)]
    return [_judged(trace, group) for group in groups]


def takes(trace: Trace, group: Group, path: str) -> bool:
    """Whether a group's units reach a layer whose weights are cut with them."""
    labels = trace.input_labels[path]
    return bool((group.units_of(trace.labels.find(labels[labels > 0])) >= 0).any())


def followers(trace: Trace, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Convolutions that lose whole groups of filters with the units that they read, by path.

    Each with the groups of layers whose units these are.
    """
    found = {}
    for path, layer in trace.layers.items():
        if groups_in(layer) > 1 and path not in trace.producers and path in trace.input_labels:
            found[path] = [group for group in groups if takes(trace, group, path)]
    return {path: together for path, together in found.items() if together}


def _joined(trace: Trace) -> list[Group]:
    """Groups of layers that share a unit, without their consumers."""
    unit_ids = {
        name: trace.labels.find(producer.labels) for name, producer in trace.producers.items()
    }
    remaining = dict(unit_ids)
    groups = []
    while remaining:
        name, ids = next(iter(remaining.items()))
        members, member_ids = [name], set(ids.tolist())
        del remaining[name]
        while True:
            more = [
                other for other, labels in remaining.items() if member_ids & set(labels.tolist())
            ]
            if not more:
                break
            for other in more:
                members.append(other)
                member_ids |= set(remaining.pop(other).tolist())
        order = [member for member in trace.producers if member in members]
        # Units in the order of the layer that has most of them.
        widest = unit_ids[max(order, key=lambda member: len(unit_ids[member]))]
        rest = np.setdiff1d(np.array(sorted(member_ids), np.intp), widest)
        whole = np.concatenate([list(dict.fromkeys(widest.tolist())), rest]).astype(np.intp)
        kinds = {member: trace.producers[member].kind for member in order}
        group = Group({}, kinds, whole)
        producers = {member: group.units_of(unit_ids[member]) for member in order}
        groups.append(replace(group, producers=producers))
    return groups


def _read(trace: Trace, group: Group) -> Group:
    """Adds a group's consumers; a shared layer's several calls become one of them."""
    consumers: dict[tuple[str, str, bytes], Consumer] = {}
    uneven = None
    for reading in trace.readings:
        units = group.units_of(trace.labels.find(reading.labels))
        units[reading.labels == 0] = -1
        for view in np.unique(reading.views[units >= 0]):
            features = np.flatnonzero((units >= 0) & (reading.views == view))
            units_here, times = np.unique(units[features], return_counts=True)
            if (times != times[0]).any():
                uneven = f"{reading.layer} reads its units unevenly"
                break
            for index in _apart(reading, features, units[features], len(group.unit_ids)):
                key = (reading.layer, reading.part, index.tobytes())
                if key in consumers:
                    tensors = (*consumers[key].tensors, reading.tensor)
                    no_offset = consumers[key].no_offset or reading.no_offset
                    consumers[key] = replace(consumers[key], tensors=tensors, no_offset=no_offset)
                    continue
                consumers[key] = Consumer(
                    reading.layer,
                    (reading.tensor,),
                    units_here,
                    index,
                    reading.centre[index[0]],
                    reading.no_offset,
                    reading.part,
                )
    for layer, part in {(read.layer, read.part) for read in consumers.values()}:
        mine = [read for read in consumers.values() if (read.layer, read.part) == (layer, part)]
        places = [read.index.ravel() for read in mine]
        if len(np.unique(np.concatenate(places))) < sum(len(place) for place in places):
            uneven = f"{layer} is shared and sees its units in different ways"
    return replace(group, consumers=tuple(consumers.values()), blocked=uneven)


def _apart(reading: Reading, features: Index, units: Index, size: int) -> list[Index]:
    """Indices of a reading's features that each hold what one feature of every unit made.

    Features that were joined to be one unit (of every group of a convolution, say) are not alike:
    weights of their own read each, so each can have a fold of its own. Positions of one feature,
    after Flatten, stay together.

    Parameters
    ----------
    reading : Reading
    features, units : arrays of shape (features,)
        Those of one view, and the unit of the group that each holds; every unit as often.
    size : int
        Units in the group.
    """
    labels = reading.labels[features]
    order = features[np.lexsort((features, labels, units))]
    index = order.reshape(len(np.unique(units)), -1).T
    if size == 1:  # It stays, whatever is measured.
        return [index]
    others = (np.diff(reading.labels[index], axis=0) != 0).any(axis=1)
    return np.split(index, np.flatnonzero(others) + 1)


def _judged(trace: Trace, group: Group) -> Group:
    """Adds the reason why a group's units cannot be removed, if any; outputs come first."""
    if group.blocked:
        return group
    reasons = [
        reason
        for labels, reason in trace.blocked
        if (group.units_of(trace.labels.find(labels[labels > 0])) >= 0).any()
    ]
    if "output layer" in reasons:
        return replace(group, blocked="output layer")
    if not reasons and not group.consumers:
        reasons = ["nothing reads its units"]
    return replace(group, blocked=reasons[0] if reasons else None)
