"""``PruneResult``, what ``prune`` returns, and its records of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING

import keras
import numpy as np

from tfprune.calibration import Calibration, GroupStats
from tfprune.core.arrays import Array
from tfprune.core.fold import FOLD_RULES
from tfprune.core.selection import Selection
from tfprune.graph.costs import layer_costs
from tfprune.graph.groups import Group, takes
from tfprune.options import PruneOptions
from tfprune.outputs.change import Change
from tfprune.results import (
    EVEN,
    LayerCost,
    LayerResult,
    Other,
    Reached,
    Skipped,
    cost_rows,
    cost_table,
    layer_table,
    refit_note,
)

# The share that is named where degrees find nothing.
QUARTER = 0.25

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PruneResult:
    """A smaller model and what was done to get it; ``str(result)`` is a table.

    Attributes
    ----------
    model : keras.Model
        The smaller model; a copy if nothing was removed.
    layers : tuple of LayerResult
        The layers that were looked at, in the model's order.
    skipped : tuple of Skipped
        The layers of the kinds asked for that were left alone, and why; with ``layers="all"`` every
        layer that has units and is not pruned.
    threshold : float or None
        Degrees, where a threshold chose the units.
    centre : str
        The point about which angles were measured; ``auto`` as what it meant for the fold.
    fold : str
    remove : float or None
        The share of units that was asked for, in place of the threshold.
    round_to : int or None
        Of which widths were to be multiples.
    refit : int
        Steps of the reconstruction, at most.
    refit_kept : bool or None
        Whether the reconstruction was kept, as outputs came nearer to the original's on samples
        held back; None where there was none.
    select : str
        By what units were chosen; of a criterion of the user's own its name.
    reached : Reached or None
        How far a budget was met, where there was one.
    change : Change or None
        What pruning changed in the outputs, on samples held back: ``change.output_error``,
        ``change.agreement``. Beyond 2 % of the classes, or an output error of 5 % where outputs are
        values, it is in ``notes`` and a :class:`PruningWarning`, with what to call instead.
    notes : tuple of str
        What to know of the smaller model, and what to do about it, a line each: compile settings of
        the original that it lacks, say. ``prune`` warns of each by :class:`tfprune.PruningWarning`.
    others : tuple of Other
        Layers with units of kinds that were not asked for, or that are never pruned.
    asked : str
        ``dense``, ``conv``, ``all``, or ``named``.
    layers_note : str
        Where no layers were asked for and filters were taken, a line that says so; else empty.
    original : keras.Model or None
        The model that was pruned.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> result = tfprune.prune(model, x, threshold=30)
    >>> (layer,) = result.layers
    >>> layer.name, layer.units_before, layer.units_after, layer.similar
    ('hidden', 8, 4, 4)
    >>> layer.kept
    array([4, 5, 6, 7])
    >>> result.by_degrees, result.change.output_error < 0.001, result.notes
    (True, True, ())
    """

    model: keras.Model
    layers: tuple[LayerResult, ...]
    skipped: tuple[Skipped, ...]
    threshold: float | None
    centre: str
    fold: str
    remove: float | None = None
    refit: int = 0
    refit_kept: bool | None = None
    select: str = "angle"
    reached: Reached | None = None
    change: Change | None = None
    notes: tuple[str, ...] = ()
    others: tuple[Other, ...] = ()
    asked: str = "dense"
    layers_note: str = ""
    original: keras.Model | None = field(default=None, repr=False, compare=False)
    round_to: int | None = None

    def __str__(self) -> str:
        notes = [self.layers_note, refit_note(self.refit_kept)]
        table = layer_table(self.layers, self.skipped, self.others, self.asked, notes)
        return f"{table}\noutputs: {self.change}" if self.change else table

    def summary(self) -> str:
        """A table of all layers: output, parameters and multiply-accumulates before → after.

        Examples
        --------
        >>> import keras
        >>> import numpy as np
        >>> import tfprune
        >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
        >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2, name="o")])
        >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
        >>> x = np.random.default_rng(0).normal(size=(100, 4))
        >>> print(tfprune.prune(model, x, threshold=30).summary())
        layer    class    output      parameters     MACs
        -------  -------  --------  ------------  -------
        hidden   Dense    8 → 4          40 → 20  32 → 16
        o        Dense    2              18 → 10   16 → 8
        total                            58 → 30  48 → 24
        """
        return cost_table(*self._costs())

    def plot(self) -> Figure:
        """Widths before and after, and angles between units, as a matplotlib figure."""
        from tfprune.result_figure import widths_and_angles

        return widths_and_angles(self.layers, self.threshold)

    def _repr_html_(self) -> str:
        head, rows = cost_rows(*self._costs())
        lines = [_html_row("th", head), *(_html_row("td", row) for row in rows)]
        below = f"<pre>{escape(str(self))}</pre>"
        return f"<table>{''.join(lines)}</table>{below}"

    def _costs(self) -> tuple[dict[str, LayerCost], dict[str, LayerCost]]:
        original = self.model if self.original is None else self.original
        return layer_costs(original), layer_costs(self.model)

    @property
    def by_degrees(self) -> bool:
        """Whether a threshold chose the units."""
        return self.threshold is not None


def _html_row(kind: str, cells: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def layer_results(stats: GroupStats, selection: Selection, words: str) -> list[LayerResult]:
    """Records of what a selection does to each layer of a group.

    Parameters
    ----------
    stats : GroupStats
        The group's measurements.
    selection : Selection
        Which of its units stay.
    words : str
        How a layer's note names units that were chosen one by one, such as ``of least effect``.
    """
    results = []
    group, between, samples = stats.group, stats.angles, stats.samples
    degrees = between.astype(np.float32)
    is_joint = len(group.producers) > 1
    for name, units in group.producers.items():
        note = ""
        if set(selection.rescued) & set(units.tolist()):
            note = "one unit kept: a layer needs one"
        elif samples <= selection.units:
            note = f"WARNING: only {samples} samples for {selection.units} units"
        elif selection.least:
            note = f"{len(selection.least)} {words}"
        elif len(selection.kept) == selection.units > 1 and not selection.evened:
            note = f"closest pair at {_closest(between):.1f} degrees"
        after = int(np.isin(units, selection.kept).sum())
        rounded = int(np.isin(units, selection.rounded).sum())
        if rounded:
            note = "; ".join([*[note] * bool(note), f"{rounded} put back to round the width"])
        evened = int(np.isin(units, selection.evened).sum())
        if evened:
            as_wide = f"{evened} put back: both ways are as wide, and the other keeps {after}"
            note = "; ".join([*[note] * bool(note), as_wide])
        results.append(
            LayerResult(
                name=name,
                units_before=len(units),
                units_after=after,
                similar=int(np.isin(units, list(selection.similar)).sum()),
                complementary=int(np.isin(units, list(selection.complementary)).sum()),
                constant=int(np.isin(units, selection.constant).sum()),
                kept=np.flatnonzero(np.isin(units, selection.kept)),
                angles=degrees,
                group=group.name if is_joint else "",
                note=note,
                evened=evened,
            )
        )
    return results


def surprises(
    options: PruneOptions,
    centre: str | float,
    layers: Sequence[LayerResult],
    others: Sequence[Other],
    change: Change,
) -> list[str]:
    """What the user hardly expects of a result, each with arguments that would do better.

    Parameters
    ----------
    options : PruneOptions
    centre : str or float
        About which angles were measured.
    layers, others
        As of :class:`PruneResult`.
    change : Change
        Of the outputs.
    """
    gone = sum(layer.units_before - layer.units_after for layer in layers)
    notes = []
    if change.beyond:
        notes.append(f"pruning changed the outputs: {change}{_gentler(options, centre)}")
    if not gone and not (layers and options.by_count):
        notes.append(_nothing_removed(options, layers, others))
    return notes


def _gentler(options: PruneOptions, centre: str | float) -> str:
    """Arguments that change the outputs less, as words to add to a warning."""
    advice = []
    if options.target is not None:
        advice.append("a larger budget")
    elif options.share is not None:
        advice.append(f"a smaller share, remove={options.share / 2:.3g}")
    else:
        advice.append(f"fewer degrees, threshold={options.degrees / 2:g}")
        if centre != "mean" and FOLD_RULES[options.fold].shifts:
            advice.append('centre="mean"')
    if options.fold != "least-squares":
        advice.append('fold="least-squares"')
    advice.append("tfprune.heal(result.model, model, x, epochs=10)")
    return f"; instead: {', or '.join(advice)}"


def _nothing_removed(
    options: PruneOptions, layers: Sequence[LayerResult], others: Sequence[Other]
) -> str:
    """Says that degrees found nothing, and which arguments would, as words of a warning."""
    advice = ['filters too, layers="all"'] * any(other.prunable for other in others)
    if not layers:
        what = "nothing was pruned: no layer of those asked for can lose units"
        return f"{what}; instead: {advice[0]}" if advice else what
    what = f"no unit was removed at {options.degrees:g} degrees"
    # A closer pair of a layer whose units were put back removes nothing.
    free = [layer for layer in layers if not layer.evened]
    if not free:
        return f'{what}, as {EVEN.format(layers[0].name)}; instead: both, layers="recurrent"'
    near = min(
        ((_closest(layer.angles.astype(float)), layer.name) for layer in free
         if np.isfinite(layer.angles[~np.eye(len(layer.angles), dtype=bool)]).any()),
        default=(90.0, ""),
    )  # fmt: skip
    if near[1]:
        what += f" (the closest pair, in {near[1]}, is {near[0]:.1f} degrees apart)"
        if near[0] < 89 and options.select == "angle":
            advice.append(f"threshold={int(near[0]) + 1}")
    advice += [f"remove={QUARTER:g}", 'target_params="75%"']
    return f"{what}; instead: {', or '.join(advice)}"


def _closest(between: Array) -> float:
    """Degrees between the pair of units that is nearest to similar or complementary."""
    pairs = np.minimum(between, 180 - between)
    np.fill_diagonal(pairs, np.nan)
    return float(np.nanmin(pairs))


def approximated(
    results: Sequence[LayerResult], calibration: Calibration, group: Group, off: dict[str, float],
    tied: dict[str, float],
) -> list[LayerResult]:  # fmt: skip
    """The rows of a group with what its units' normalisation and shared tables are off by."""
    traced = calibration.trace
    words = []
    for path, error in off.items():
        if takes(traced, group, path):
            words.append(f"approximate: output of {path} off by {100 * error:.2g} %")
    for path, error in tied.items():
        if path in group.producers:
            words.append(f"{path} keeps one table for both ways: words off by {100 * error:.2g} %")
    if not words:
        return list(results)
    return [replace(one, note="; ".join([*[one.note] * bool(one.note), *words])) for one in results]
