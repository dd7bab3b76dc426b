"""The face of the package: ``prune(model, x, threshold=30)``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.choices import (
    KINDS,
    SHARE_FOLDS,
    check_centre,
    check_choice,
    check_refit,
    check_select,
    check_share,
    check_threshold,
)
from tfprune.copies import walk
from tfprune.errors import TfpruneError
from tfprune.evidence import chosen, evidence, in_span, nowhere_empty, view
from tfprune.fold import FOLDS, intake
from tfprune.groups import Group, groups_of
from tfprune.inputs import Samples, packed
from tfprune.layers import CONVOLUTIONS, SEPARABLE, describe
from tfprune.measure import measure
from tfprune.moments import Array
from tfprune.readings import Trace
from tfprune.records import LayerResult, Skipped
from tfprune.refit import refit as refit_survivors
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
    remove : float or None
        The share of units that was asked for, in place of the threshold.
    refit : int
        Steps of least squares that survivors were given, at most.
    select : str
        By what units were chosen.
    """

    model: keras.Model
    layers: tuple[LayerResult, ...]
    skipped: tuple[Skipped, ...]
    threshold: float
    centre: str
    fold: str
    remove: float | None = None
    refit: int = 0
    select: str = "angle"

    def __str__(self) -> str:
        return layer_table(self.layers, self.skipped)


def prune(
    model: keras.Model,
    x: Any,
    threshold: float = 30,
    *,
    remove: float | None = None,
    select: str | None = None,
    centre: str | float = "auto",
    fold: str = "least-squares",
    layers: str | Sequence[str] | None = None,
    skip: Sequence[str] = (),
    refit: int | None = None,
    seed: int = 0,
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
    remove : float, optional
        In place of a threshold: the share of units, in (0, 1), that goes from every layer.
    select : {"angle", "span", "effect", "magnitude", "random"}, optional
        By what units are chosen. ``angle``, the default with a threshold: pairs that do the same
        work. ``span``: the threshold holds for the angle between a unit and the span of all
        survivors. ``effect``, the default with ``remove``: those go whose loss, with the
        survivors refitted, changes least what their readers receive. ``magnitude`` (length of the
        incoming weights) and ``random`` are there to compare with. The last three need
        ``remove``.
    centre : {"auto", "none", "mean"} or float
        The point about which angles are measured. ``auto``: 0.5 after a sigmoid, else 0.
    fold : {"least-squares", "scaled", "outgoing", "incoming", "drop"}
        What the layers that read a removed unit get in its place.
    layers : {"dense", "conv", "all"} or sequence of str, optional
        Prune only these; all Dense layers that can be by default. Layers that meet in an Add go
        together, or not at all.
    skip : sequence of str
        Leave these alone.
    refit : int, optional
        How many steps of least squares may fit the survivors' incoming weights, together with the
        weights that read them, to what the readers computed in the whole model. 0 leaves the
        survivors as they are. By default 100 with ``remove`` (fewer where over ten groups lose
        units: 1,000 in all), else 0.
    seed : int
        Of ``random``.
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
    share = 0.0 if remove is None else check_share(remove)
    point = check_centre(centre)
    scheme = FOLDS[check_choice("fold", fold, FOLDS)]
    by = check_select(select, remove is not None)
    if by != "angle" or remove is not None:
        check_choice(f"fold, with {by}", fold, SHARE_FOLDS)
    check_refit(refit, wanted=False, groups=0)
    check_weights(model)
    traced = trace(model)
    data = Samples(model, x)
    if batch_size < 1:
        raise TfpruneError(f"batch_size: expected at least 1, received {batch_size}")
    _check_copy(model, traced, data.head)
    groups, skipped = _choose(groups_of(traced), layers, skip)
    reads = [read for group in groups for read in group.reads]
    moments = iter(measure(traced, reads, data, batch_size, progress) if reads else [])

    results: list[LayerResult] = []
    cuts: list[Cut] = []
    for group in groups:
        views = [view(read, next(moments), point) for read in group.reads]
        between, constant = evidence(group, views)
        samples = min(seen.moments.count for seen in views)
        check_enough(samples)
        if remove is not None:
            found = (between, constant)
            selection = chosen(
                group, views, found, traced, select=by, share=share, seed=seed + len(cuts)
            )
        elif by == "span":
            selection = in_span(group, views, constant, degrees)
        else:
            selection = scheme.rule(between, constant, degrees)
        selection = nowhere_empty(group, selection)
        results += _results(group, selection, between, samples, by)
        if len(selection.kept) < selection.units:
            folds = [
                (
                    seen.read,
                    scheme.fold(
                        selection.within(seen.read.units),
                        seen.moments,
                        seen.centre,
                        seen.read.shiftless,
                    ),
                )
                for seen in views
            ]
            taken = intake(selection, scheme.merge_incoming)
            cuts.append(Cut(group, selection.kept, taken, folds))
    if layers is None or isinstance(layers, str):
        skipped += tuple(_nested(model, KINDS[layers or "dense"]))
    smaller = shrink(model, traced, cuts)
    steps = check_refit(refit, remove is not None and fold == "least-squares", len(cuts))
    if steps and cuts:
        kept = {layer.name: layer.kept for layer in results}
        shrunk = [cut.group for cut in cuts]
        refit_survivors(
            smaller, model, shrunk, kept, samples=data, iterations=steps, progress=progress
        )
    return PruneResult(
        smaller, tuple(results), skipped, degrees, str(centre), fold, remove, steps, by
    )


def check_enough(samples: int) -> None:
    """Raises :class:`TfpruneError` if so many samples are too few to measure angles on."""
    if samples < LEAST_SAMPLES:
        raise TfpruneError(
            f"data: expected at least {LEAST_SAMPLES} samples to measure angles on, "
            f"received {samples}"
        )


def check_weights(model: Any) -> None:
    """Raises :class:`TfpruneError` if a weight of the model is NaN or infinite."""
    for path, layer in walk(model) if isinstance(model, keras.Model) else ():
        for weight in layer.get_weights():
            if weight.dtype.kind not in "iub" and not np.isfinite(weight).all():
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


_WHY = {
    "effect": "of least effect",
    "span": "in the span of the others",
    "angle": "of the closest pairs",
    "magnitude": "of least magnitude",
    "random": "at random",
}


def _results(
    group: Group, selection: Selection, between: Array, samples: int, by: str
) -> list[LayerResult]:
    made = []
    shown = between.astype(np.float32)
    together = len(group.makers) > 1
    for name, units in group.makers.items():
        note = ""
        if set(selection.rescued) & set(units.tolist()):
            note = "one unit kept: a layer needs one"
        elif samples <= selection.units:
            note = f"WARNING: only {samples} samples for {selection.units} units"
        elif selection.least:
            note = f"{len(selection.least)} {_WHY[by]}"
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
