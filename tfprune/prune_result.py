"""``PruneResult``, what ``prune`` returns, and its records of each layer."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from tfprune.calibration import GroupStats
from tfprune.core.arrays import Array
from tfprune.core.fold import FOLD_RULES
from tfprune.core.selection import Selection
from tfprune.options import PruneOptions
from tfprune.outputs.change import Change
from tfprune.results import LayerResult, Other, Reached, Skipped, layer_table


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
    refit : int
        Steps of the reconstruction, at most.
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
    select: str = "angle"
    reached: Reached | None = None
    change: Change | None = None
    notes: tuple[str, ...] = ()
    others: tuple[Other, ...] = ()
    asked: str = "dense"

    def __str__(self) -> str:
        table = layer_table(self.layers, self.skipped, self.others, self.asked)
        return f"{table}\noutputs: {self.change}" if self.change else table

    @property
    def by_degrees(self) -> bool:
        """Whether a threshold chose the units."""
        return self.threshold is not None


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
        elif len(selection.kept) == selection.units > 1:
            note = f"closest pair at {_closest(between):.1f} degrees"
        results.append(
            LayerResult(
                name=name,
                units_before=len(units),
                units_after=int(np.isin(units, selection.kept).sum()),
                similar=int(np.isin(units, list(selection.similar)).sum()),
                complementary=int(np.isin(units, list(selection.complementary)).sum()),
                constant=int(np.isin(units, selection.constant).sum()),
                kept=np.flatnonzero(np.isin(units, selection.kept)),
                angles=degrees,
                group=group.name if is_joint else "",
                note=note,
            )
        )
    return results


def gentler(options: PruneOptions, centre: str | float) -> str:
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


def _closest(between: Array) -> float:
    """Degrees between the pair of units that is nearest to similar or complementary."""
    pairs = np.minimum(between, 180 - between)
    np.fill_diagonal(pairs, np.nan)
    return float(np.nanmin(pairs))
