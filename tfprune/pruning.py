"""The face of the package: ``prune(model, x, threshold=30)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.choices import check_centre, check_choice, check_threshold
from tfprune.errors import TfpruneError
from tfprune.fold import FOLDS, Fold, intake
from tfprune.inputs import check_inputs
from tfprune.measure import measure
from tfprune.moments import Array, Moments, angles
from tfprune.records import LayerResult, Skipped
from tfprune.report import layer_table
from tfprune.select import Selection
from tfprune.shrink import shrink
from tfprune.trace import Read, Trace, trace


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
        The Dense layers that were left alone, and why.
    threshold : float
        Degrees.
    centre, fold : str
    """

    model: keras.Model
    layers: tuple[LayerResult, ...]
    skipped: tuple[Skipped, ...]
    threshold: float
    centre: str
    fold: str

    def __str__(self) -> str:
        return layer_table(self.layers, self.skipped)


def prune(
    model: keras.Model,
    x: npt.ArrayLike,
    threshold: float = 30,
    *,
    centre: str | float = "auto",
    fold: str = "least-squares",
    layers: Sequence[str] | None = None,
    skip: Sequence[str] = (),
    batch_size: int = 256,
    progress: bool = False,
) -> PruneResult:
    """Removes hidden units of Dense layers that do the same work as others.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model; it stays as it is.
    x : array of shape (samples, ...)
        Calibration data as the model takes it; labels are not needed.
    threshold : float
        Degrees in (0, 90). Units are similar below it and complementary above 180 minus it.
    centre : {"auto", "none", "mean"} or float
        The point about which angles are measured. ``auto``: 0.5 after a sigmoid, else 0.
    fold : {"least-squares", "scaled", "outgoing", "incoming", "drop"}
        What the layers that read a removed unit get in its place.
    layers : sequence of str, optional
        Prune only these; all Dense layers that can be by default.
    skip : sequence of str
        Leave these alone.
    batch_size : int
    progress : bool
        Whether to draw a progress bar on stderr.

    Returns
    -------
    PruneResult

    Raises
    ------
    TfpruneError
        If an argument is not as above, a layer does not exist, the data does not fit the model,
        or weights, data or activations are NaN or infinite.

    References
    ----------
    Gedeon, Harris (1991), "Network reduction techniques", for the angles.
    """
    degrees = check_threshold(threshold)
    point = check_centre(centre)
    scheme = FOLDS[check_choice("fold", fold, FOLDS)]
    check_weights(model)
    traced = trace(model)
    data = check_inputs(model, x)
    chosen, skipped = _choose(traced, layers, skip)
    reads = [read for name in chosen for read in traced.reads_of(name)]
    moments = measure(traced, reads, data, batch_size, progress) if reads else []

    results: list[LayerResult] = []
    intakes: dict[str, Array] = {}
    folds: list[tuple[Read, Fold]] = []
    for name in chosen:
        seen = [
            (read, moment, _centre(point, read, moment))
            for read, moment in zip(reads, moments, strict=True)
            if read.producer == name
        ]
        between = _least_collinear([angles(moment.gram(at)) for _, moment, at in seen])
        constant = np.logical_and.reduce([moment.constant() for _, moment, _ in seen])
        selection = scheme.rule(between, constant, degrees)
        results.append(_result(name, selection, between))
        if len(selection.kept) < selection.units:
            intakes[name] = intake(selection, scheme.merge_incoming)
            folds += [(read, scheme.fold(selection, moment, at)) for read, moment, at in seen]
    smaller = shrink(model, traced, intakes, folds)
    return PruneResult(smaller, tuple(results), skipped, degrees, str(centre), fold)


def check_weights(model: Any) -> None:
    """Raises :class:`TfpruneError` if a weight of the model is NaN or infinite."""
    for layer in getattr(model, "layers", []):
        for weight in layer.get_weights():
            if np.issubdtype(weight.dtype, np.floating) and not np.isfinite(weight).all():
                raise TfpruneError(
                    f"layer {layer.name}: expected finite weights, received NaN or infinity; "
                    "was the training stable?"
                )


def _choose(
    traced: Trace, layers: Sequence[str] | None, skip: Sequence[str]
) -> tuple[list[str], tuple[Skipped, ...]]:
    """The layers to prune, and the others with the reason."""
    for name in [*(layers or ()), *skip]:
        if name not in traced.producers:
            known = ", ".join(traced.producers) or "none"
            raise TfpruneError(
                f"layer {name!r} is not a Dense layer of the model; its Dense layers: {known}"
            )
    chosen = []
    skipped = []
    for name in traced.producers:
        if name in skip:
            skipped.append(Skipped(name, "asked to skip"))
        elif name in traced.blocked:
            skipped.append(Skipped(name, traced.blocked[name]))
        elif layers is not None and name not in layers:
            skipped.append(Skipped(name, "not among the layers asked for"))
        else:
            chosen.append(name)
    return chosen, tuple(skipped)


def _centre(point: str | float, read: Read, moments: Moments) -> Array:
    if point == "auto":
        return read.centre
    if point == "mean":
        return moments.mean
    value = 0.0 if point == "none" else float(point)
    return np.full(moments.units, value)


def _least_collinear(seen: Sequence[Array]) -> Array:
    """For each pair of units the angle of the reader to whom they look least alike.

    Every reader gets a fold of its own, so a pair may go where it is similar (or opposite) to
    each reader, by whatever factor.
    """
    if len(seen) == 1:
        return seen[0]
    stacked = np.stack(seen)
    dead = np.isnan(stacked).all(axis=0)
    # A unit that one reader sees as nothing, another not, is like no other unit there.
    filled = np.where(np.isnan(stacked), 90.0, stacked)
    worst = np.abs(filled - 90).argmin(axis=0)
    between = np.take_along_axis(filled, worst[None], axis=0)[0]
    between[dead] = np.nan
    alive = ~np.isnan(between.diagonal())
    between[np.diag_indices_from(between)] = np.where(alive, 0.0, np.nan)
    return between


def _result(name: str, selection: Selection, between: Array) -> LayerResult:
    note = ""
    if selection.rescued is not None:
        note = f"unit {selection.rescued} kept: a layer needs one"
    elif len(selection.kept) == selection.units > 1:
        note = f"closest pair at {_closest(between):.1f} degrees"
    return LayerResult(
        name=name,
        units_before=selection.units,
        units_after=len(selection.kept),
        similar=len(selection.similar),
        complementary=len(selection.complementary),
        constant=len(selection.constant),
        kept=selection.kept,
        angles=between.astype(np.float32),
        note=note,
    )


def _closest(between: Array) -> float:
    """Degrees between the pair of units that is nearest to similar or complementary."""
    pairs = between[np.triu_indices(len(between), 1)]
    return float(np.nanmin(np.minimum(pairs, 180 - pairs)))
