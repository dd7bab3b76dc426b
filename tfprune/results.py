"""Records of what became of each layer, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from tfprune.utils.escapes import plain

# Why a layer keeps units that could go.
EVEN = "{} has to stay as wide as the other way of its Bidirectional, which keeps its units"


@dataclass(frozen=True)
class LayerResult:
    """What became of one layer.

    Attributes
    ----------
    name : str
    units_before, units_after : int
    similar, complementary, constant : int
        Units removed, by reason.
    kept : array of shape (units_after,)
        Indices of the surviving units; none of attention, whose dimensions are others.
    angles : array of shape (units_before, units_before)
        Degrees between the activation vectors, NaN for units without a direction: those that never
        change have none about the mean.
    group : str
        The layers that go together with it, if there are any.
    note : str
        What else the user should know, or empty.
    evened : int
        Units that stay because the other way of a Bidirectional keeps as many.
    """

    name: str
    units_before: int
    units_after: int
    similar: int
    complementary: int
    constant: int
    kept: npt.NDArray[np.intp] = field(repr=False, compare=False)
    angles: npt.NDArray[np.float32] = field(repr=False, compare=False)
    group: str = ""
    note: str = ""
    evened: int = 0

    @property
    def pair_angles(self) -> npt.NDArray[np.float32]:
        """The angle of each pair of units that have one.

        Many ReLU pairs stand at 90 exactly; they come a little below, so that they belong to the
        range that ends there.
        """
        alive = ~np.isnan(self.angles.diagonal())
        angles = self.angles[np.ix_(alive, alive)]
        pairs = angles[np.triu_indices(len(angles), 1)]
        return np.nextafter(pairs[np.isfinite(pairs)], np.float32(0))


@dataclass(frozen=True)
class Skipped:
    """A layer that was left alone, and why."""

    name: str
    reason: str


# The reason of a layer that is named by ``skip``.
ASKED_TO_SKIP = "asked to skip"


@dataclass(frozen=True)
class Other:
    """A layer with units that was left alone because its kind was not asked for.

    Attributes
    ----------
    name : str
        Its path.
    layer : str
        The name of its class.
    prunable : bool
        Whether another ``layers`` would look at it.
    """

    name: str
    layer: str
    prunable: bool


@dataclass(frozen=True)
class Reached:
    """How far a budget was met.

    Attributes
    ----------
    what : str
        ``params``, ``macs`` or ``bytes``.
    limit, reached, whole : int
        What was allowed, what the smaller model has, and what the original one has.
    why : str
        Why no less, or no more, was taken out.
    tries : int
        How many models were measured.
    blend : float
        The widths that did best: by effect per cost (1), one share for all groups (0), or between.
    larger : int or None
        What the next larger model has; None where it was not measured.
    """

    what: str
    limit: int
    reached: int
    whole: int
    why: str
    tries: int
    blend: float = 1.0
    larger: int | None = None

    @property
    def widths(self) -> str:
        """In words, how widths were chosen."""
        if self.blend in (0, 1):
            return "widths by effect" if self.blend else "one share of every layer"
        return "widths between one share of every layer and those by effect"


@dataclass(frozen=True)
class LayerCost:
    """What a layer has and costs.

    Attributes
    ----------
    layer : str
        The name of its class.
    shape : tuple of int or None
        Of its output for one sample.
    parameters : int
    macs : int or None
        Multiply-accumulates of one sample; None where an axis has no size.
    """

    layer: str
    shape: tuple[int | None, ...]
    parameters: int
    macs: int | None


# Names of layers that a line shows of each class, at most.
NAMED = 3


# What a word for --layers asks for, where there is none and where all were skipped.
_ASKED = {
    "dense": ("Dense layer", "the model has no Dense layer"),
    "conv": ("convolution", "the model has no convolution"),
    "recurrent": ("recurrent layer", "the model has no recurrent layer"),
    "all": ("layer with units", "the model has no layer with units"),
}


def layer_table(
    layers: Sequence[LayerResult],
    skipped: Sequence[Skipped],
    others: Sequence[Other] = (),
    asked: str = "dense",
    notes: Sequence[str] = (),
) -> str:
    """What became of each layer, with a total row.

    Parameters
    ----------
    layers, skipped, others
        As of :class:`tfprune.PruneResult`.
    asked : str
        ``dense``, ``conv``, ``recurrent``, ``all``, or anything else for layers that were named.
    notes : sequence of str
        Lines below the table, such as why these layers were taken; empty ones are left out.
    """
    head = ["layer", "units", "kept", "similar", "complementary", "constant", "note"]
    rows: list[list[Any]] = [
        [
            layer.name, layer.units_before, layer.units_after,
            layer.similar, layer.complementary, layer.constant, layer.note,
        ]
        for layer in layers
    ]  # fmt: skip
    totals = [sum(row[column] for row in rows) for column in range(1, 6)]
    rows += [[skip.name, *[None] * 5, skip.reason] for skip in skipped]
    if layers:
        share = 100 * (totals[0] - totals[1]) / totals[0]
        rows.append(["total", *totals, f"{share:.1f} % of units removed"])
    lines = [tabulate(_shown(rows), head, disable_numparse=False, missingval="-")]
    if not layers:
        what, none = _ASKED.get(asked, ("layer asked for", "no layer was asked for"))
        lines.append(f"nothing to prune: {f'every {what} was skipped' if skipped else none}")
    for prunable, why in ((True, "not asked for"), (False, "never pruned")):
        there = [other for other in others if other.prunable == prunable]
        if there:
            lines.append(f"also there, {why}: {_by_class(there)}")
    return "\n".join([*lines, *filter(None, notes)])


def refit_note(kept: bool | None) -> str:
    """A line that says so where a reconstruction was not kept, else nothing."""
    if kept is not False:
        return ""
    return (
        "reconstruction: not kept, as outputs came no nearer to the original's on samples held "
        "back; units are folded into what reads them"
    )


def cost_rows(
    before: dict[str, LayerCost], after: dict[str, LayerCost]
) -> tuple[list[str], list[list[str]]]:
    """Head and cells of a table of costs before and after, with a total row.

    Parameters
    ----------
    before, after : dict of str to LayerCost
        By the layers' paths, the same ones in both.
    """
    rows = []
    for name, old in before.items():
        new = after[name]
        shapes = _arrow(_shape(old.shape), _shape(new.shape))
        costs = [_arrow(_count(a), _count(b)) for a, b in _pairs(old, new)]
        rows.append([plain(name), plain(old.layer), shapes, *costs])
    sums = [
        (_total(one.parameters for one in costs.values()), _total(c.macs for c in costs.values()))
        for costs in (before, after)
    ]
    totals = [_arrow(_count(a), _count(b)) for a, b in zip(*sums, strict=True)]
    return ["layer", "class", "output", "parameters", "MACs"], [*rows, ["total", "", "", *totals]]


def cost_table(before: dict[str, LayerCost], after: dict[str, LayerCost]) -> str:
    """The table of :func:`cost_rows` as text."""
    head, rows = cost_rows(before, after)
    align = ("left", "left", "left", "right", "right")
    return tabulate(rows, head, disable_numparse=True, colalign=align)


def _pairs(old: LayerCost, new: LayerCost) -> list[tuple[int | None, int | None]]:
    return [(old.parameters, new.parameters), (old.macs, new.macs)]


def _total(counts: Iterable[int | None]) -> int | None:
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _shape(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "-"


def _by_class(others: Sequence[Other]) -> str:
    """How many layers of which class, and the first of their names."""
    classes: dict[str, list[str]] = {}
    for other in others:
        classes.setdefault(plain(other.layer), []).append(plain(other.name))
    return ", ".join(
        f"{len(names)} {kind} ({', '.join([*names[:NAMED], *['...'] * (len(names) > NAMED)])})"
        for kind, names in classes.items()
    )


def _shown(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Table cells with control characters escaped, as layers' names come from files."""
    return [[plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
