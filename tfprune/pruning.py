"""The face of the package: ``prune(model, x, threshold=30)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.choices import KINDS, check_centre, check_choice, check_threshold
from tfprune.copies import walk
from tfprune.errors import TfpruneError
from tfprune.fold import FOLDS, intake
from tfprune.groups import Group, Read, groups_of
from tfprune.inputs import Samples, packed
from tfprune.layers import CONVOLUTIONS, SEPARABLE, describe
from tfprune.measure import measure
from tfprune.moments import Array, Moments, angles
from tfprune.readings import Trace
from tfprune.records import LayerResult, Skipped
from tfprune.report import layer_table
from tfprune.select import Selection
from tfprune.shrink import Cut, shrink
from tfprune.trace import trace

# Fewer make every two vectors look alike.
LEAST_SAMPLES = 8


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
        The layers of the kinds asked for that were left alone, and why.
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
    x: Any,
    threshold: float = 30,
    *,
    centre: str | float = "auto",
    fold: str = "least-squares",
    layers: str | Sequence[str] | None = None,
    skip: Sequence[str] = (),
    batch_size: int = 256,
    progress: bool = False,
) -> PruneResult:
    """Removes hidden units and filters that do the same work as others.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model; it stays as it is.
    x : array, list or dict of arrays, path of a .npy, tf.data.Dataset or keras.utils.PyDataset
        Calibration data as the model takes it, arrays of shape (samples, ...); labels are not
        needed. A memory-mapped array or a data set is never held whole.
    threshold : float
        Degrees in (0, 90). Units are similar below it and complementary above 180 minus it.
    centre : {"auto", "none", "mean"} or float
        The point about which angles are measured. ``auto``: 0.5 after a sigmoid, else 0.
    fold : {"least-squares", "scaled", "outgoing", "incoming", "drop"}
        What the layers that read a removed unit get in its place.
    layers : {"dense", "conv", "all"} or sequence of str, optional
        Prune only these; all Dense layers that can be by default. Layers that meet in an Add go
        together, or not at all.
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
    data = Samples(model, x)
    if batch_size < 1:
        raise TfpruneError(f"batch_size: expected at least 1, received {batch_size}")
    _check_copy(model, traced, data.head)
    chosen, skipped = _choose(groups_of(traced), layers, skip)
    reads = [read for group in chosen for read in group.reads]
    moments = iter(measure(traced, reads, data, batch_size, progress) if reads else [])

    results: list[LayerResult] = []
    cuts: list[Cut] = []
    for group in chosen:
        seen = [(read, moment, _centre(point, read, moment)) for read, moment in zip(
            group.reads, moments, strict=False
        )]  # fmt: skip
        between, constant = _evidence(group, seen)
        samples = min(moment.count for _, moment, _ in seen)
        if samples < LEAST_SAMPLES:
            raise TfpruneError(
                f"data: expected at least {LEAST_SAMPLES} samples to measure angles on, "
                f"received {samples}"
            )
        selection = _nowhere_empty(group, scheme.rule(between, constant, degrees))
        results += _results(group, selection, between, samples)
        if len(selection.kept) < selection.units:
            folds = [
                (read, scheme.fold(selection.within(read.units), moment, at, read.shiftless))
                for read, moment, at in seen
            ]
            taken = intake(selection, scheme.merge_incoming)
            cuts.append(Cut(group, selection.kept, taken, folds))
    if layers is None or isinstance(layers, str):
        skipped += tuple(_nested(model, KINDS[layers or "dense"]))
    smaller = shrink(model, traced, cuts)
    return PruneResult(smaller, tuple(results), skipped, degrees, str(centre), fold)


def check_weights(model: Any) -> None:
    """Raises :class:`TfpruneError` if a weight of the model is NaN or infinite."""
    for path, layer in walk(model) if isinstance(model, keras.Model) else ():
        for weight in layer.get_weights():
            if np.issubdtype(weight.dtype, np.floating) and not np.isfinite(weight).all():
                raise TfpruneError(
                    f"layer {path}: expected finite weights, received NaN or infinity; "
                    "was the training stable?"
                )


def _check_copy(model: keras.Model, traced: Trace, samples: Sequence[npt.NDArray[Any]]) -> None:
    """Layers may hold state that no weights carry (tables, say); then a copy is another model."""
    pairs = zip(
        keras.tree.flatten(model(packed(model, samples), training=False)),
        keras.tree.flatten(traced.model(packed(traced.model, samples), training=False)),
        strict=True,
    )
    for ours, theirs in pairs:
        wanted, received = (keras.ops.convert_to_numpy(t).astype(float) for t in (ours, theirs))
        finite = np.isfinite(wanted).all()
        if finite and not np.allclose(
            wanted, received, rtol=1e-2, atol=1e-3 * (1 + np.abs(wanted).max())
        ):
            raise TfpruneError(
                f"model {model.name}: a copy of it computes something else; does a layer hold "
                "state beside its weights? Take such layers out and put them in front again"
            )


def _nested(model: keras.Model, kinds: set[str]) -> list[Skipped]:
    """Layers inside wrappers and models of the user's own, which are not looked into."""
    found = []
    for path, layer in walk(model):
        wrapper = not isinstance(layer, keras.Model)
        for inner in [getattr(layer, "layer", None)] if wrapper else layer.layers:
            kind = {keras.layers.Dense: "dense"}.get(type(inner)) or (
                "conv" if type(inner) in (*CONVOLUTIONS, *SEPARABLE) else ""
            )
            if inner is not None and kind in kinds:
                reason = f"inside {describe(layer)}, which is not looked into"
                found.append(Skipped(f"{path}/{inner.name}", reason))
    return found


def _choose(
    groups: Sequence[Group], layers: str | Sequence[str] | None, skip: Sequence[str]
) -> tuple[list[Group], tuple[Skipped, ...]]:
    """The groups to prune, and the layers that stay with the reason."""
    kinds = {name: kind for group in groups for name, kind in group.kinds.items()}
    if layers is None or isinstance(layers, str):
        wanted = KINDS[check_choice("layers", layers or "dense", KINDS)]
        asked = [name for name, kind in kinds.items() if kind in wanted]
    else:
        asked = list(layers)
    for name in [*asked, *skip]:
        if name not in kinds:
            known = ", ".join(kinds) or "none"
            raise TfpruneError(
                f"layer {name!r} is not a Dense or convolution layer of the model; "
                f"these are: {known}"
            )
    chosen = []
    skipped = []
    for group in groups:
        mine = [name for name in group.makers if name in asked and name not in skip]
        if mine == list(group.makers) and group.blocked is None:
            chosen.append(group)
            continue
        others = [name for name in group.makers if name not in mine]
        apart = f"goes together with {', '.join(others)}, which was not asked for"
        for name in group.makers:
            if name in skip:
                skipped.append(Skipped(name, "asked to skip"))
            elif name in asked:
                skipped.append(Skipped(name, group.blocked or apart))
            elif layers is not None and kinds[name] in {kinds[other] for other in asked}:
                skipped.append(Skipped(name, group.blocked or "not among the layers asked for"))
    return chosen, tuple(skipped)


def _nowhere_empty(group: Group, selection: Selection) -> Selection:
    """Keeps a unit in every layer of the group."""
    for units in group.makers.values():
        if not np.isin(units, selection.kept).any():
            selection = selection.rescue(int(units[-1]))
    return selection


def _centre(point: str | float, read: Read, moments: Moments) -> Array:
    if point == "auto":
        return read.centre
    if point == "mean":
        return moments.mean
    value = 0.0 if point == "none" else float(point)
    return np.full(moments.units, value)


def _evidence(
    group: Group, seen: Sequence[tuple[Read, Moments, Array]]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Angles between a group's units, and which of them never change.

    Every reader gets a fold of its own, so a pair may go where it is similar (or opposite) to
    each reader, by whatever factor: the angle that counts is that of the reader to whom the two
    look least alike. Where one reader sees only one of them, or sees one as nothing, they are as
    different as can be.
    """
    size = len(group.roots)
    between = None
    constant = np.ones(size, bool)
    alive = np.zeros(size, bool)
    for read, moments, centre in seen:
        at = np.zeros_like(centre) if read.shiftless else centre
        still = moments.constant()
        if read.shiftless:
            # Only nothing can go where a constant has no bias to go into.
            still &= moments.mean == 0
        constant[read.units] &= still
        whole = angles(moments.gram(at))
        only = np.zeros(size, bool)
        only[read.units] = ~np.isnan(whole.diagonal())
        alive |= only
        if len(read.units) < size:
            mine, whole = whole, np.full((size, size), np.nan)
            whole[np.ix_(read.units, read.units)] = mine
        if not only.all():
            whole[only[:, None] != only] = 90.0
        if between is None:
            between = whole
            continue
        nearer = np.isnan(between) | (np.abs(whole - 90) < np.abs(between - 90))
        np.copyto(between, whole, where=nearer & ~np.isnan(whole))
    assert between is not None, "a group that can be pruned has a reader"
    between[np.diag_indices(size)] = np.where(alive, 0.0, np.nan)
    return between, constant


def _results(group: Group, selection: Selection, between: Array, samples: int) -> list[LayerResult]:
    made = []
    shown = between.astype(np.float32)
    together = len(group.makers) > 1
    for name, units in group.makers.items():
        note = ""
        if set(selection.rescued) & set(units.tolist()):
            note = "one unit kept: a layer needs one"
        elif samples <= selection.units:
            note = f"WARNING: only {samples} samples for {selection.units} units"
        elif len(selection.kept) == selection.units > 1:
            note = f"closest pair at {_closest(between):.1f} degrees"
        made.append(
            LayerResult(
                name=name,
                units_before=len(units),
                units_after=int(np.isin(units, selection.kept).sum()),
                similar=int(np.isin(units, list(selection.similar)).sum()),
                complementary=int(np.isin(units, list(selection.complementary)).sum()),
                constant=int(np.isin(units, selection.constant).sum()),
                kept=np.flatnonzero(np.isin(units, selection.kept)),
                angles=shown,
                group=group.name if together else "",
                note=note,
            )
        )
    return made


def _closest(between: Array) -> float:
    """Degrees between the pair of units that is nearest to similar or complementary."""
    pairs = np.minimum(between, 180 - between)
    np.fill_diagonal(pairs, np.nan)
    return float(np.nanmin(pairs))
