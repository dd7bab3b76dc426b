"""``inspect(model, x, y)``: what is in a model and what could go, before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from tfprune.calibration import Calibration, calibrate
from tfprune.core.fold import FOLD_RULES
from tfprune.data.scoring import Scorer, make_scorer
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import MOST_HELD_BACK, Samples, input_shapes
from tfprune.graph.predictions import output_names, outputs_of
from tfprune.inspection.advice import Request, Typed, recommend
from tfprune.inspection.records import Measurements
from tfprune.inspection.result import Inspection
from tfprune.inspection.sensitivity import FOLD, Bench, redundancy_of
from tfprune.inspection.structure import structure_of
from tfprune.job.original import by_chance
from tfprune.outputs.decisions import rules_of
from tfprune.utils.arrays import Array
from tfprune.utils.console import during

# What is said where the original does not know the labels.
POOR = (
    "the original scores no better than chance, so that scores with units gone say nothing, and "
    "nothing is recommended"
)
# Of the samples, which share is scored in place of measured, and how many at most.
SCORED, MOST_SCORED = 0.25, 1000


def inspect(
    model: keras.Model,
    x: Any = None,
    y: Any = None,
    *,
    layers: str | Sequence[str] = "all",
    skip: Sequence[str] = (),
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
) -> Inspection:
    """Says what is in a model and what could go; the model stays as it is.

    Without data: layers, output shapes, parameters, multiply-accumulates, bytes, and which units
    go together. With data also how alike the units are, what the model scores when a group of them
    alone is cut and folded, and what to do next.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model.
    x : as of :func:`tfprune.prune`, optional
        Some thousand samples as the model takes them. A quarter of them, at most 1,000, is scored;
        the others are measured. Of a data set that is read in batches 256 at most are scored.
    y : array of shape (samples, ...), or dict or list of them, optional
        Labels of arrays in memory; of several outputs by their names (those that have none may
        lack), or one for each in their order. Without them the score is the agreement with the
        model as it is.
    layers, skip
        Which layers are measured, as of :func:`tfprune.prune`; all that can be by default.
    seed : int
        Of drawing the samples that are scored.
    batch_size : int, optional
    progress : bool
        Whether to draw progress bars on stderr.

    Returns
    -------
    Inspection

    Raises
    ------
    TfpruneError
        If the model has no known shapes, a layer does not exist, the data or the labels do not fit
        the model, or weights, data or activations are NaN or infinite.

    Examples
    --------
    Of eight units the last four repeat the first four:

    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
    >>> found = tfprune.inspect(model, np.random.default_rng(0).normal(size=(200, 4)))
    >>> (group,) = found.measured.redundancy
    >>> group.units, group.constant, group.near
    (8, 0, (4, 4, 4))
    >>> found.measured.sensitivity[0].scores[:2]
    (1.0, 1.0)
    """
    if x is None:
        if y is not None:
            raise TfpruneError("y: expected x with it, received labels alone")
        return Inspection(
            model.name if isinstance(model, keras.Model) else "", *structure_of(model)
        )
    structure = structure_of(model)
    ways: dict[str, Any] = {
        "layers": layers,
        "skip": skip,
        "batch_size": batch_size,
        "progress": progress,
    }
    samples = Samples(model, x)
    if samples.total is None:
        if y is not None:
            raise TfpruneError("y: expected arrays in memory with it, received a data set")
        calibration = calibrated(model, x, **ways)
        scored = calibration.samples.held_back() or samples.head
        given = Split(scored[0])
    else:
        given = _labels(model, samples, y)
        order = np.random.default_rng(seed).permutation(samples.total)
        count = min(max(round(SCORED * samples.total), 1), MOST_SCORED)
        kept, drawn = np.sort(order[count:]), np.sort(order[:count])
        if not len(kept):
            raise TfpruneError("data: expected at least 2 samples to split, received 1")
        scored = samples.at(drawn)
        given = given.take(drawn)
        measured = samples.at(kept)
        calibration = calibrated(
            model, _given(model, measured), _given(model, [one[:MOST_HELD_BACK] for one in scored]),
            **ways,
        )  # fmt: skip
    outputs = outputs_of(model, scored)
    part = replace(given, x=_given(model, scored))
    scorer = make_scorer(outputs, part, rules_of(model, outputs), names=output_names(model))
    return measure(
        Inspection(model.name, *structure), calibration, scored, scorer, _python(layers),
        every=isinstance(layers, str) and not skip, progress=progress,
    )  # fmt: skip


def _labels(model: keras.Model, samples: Samples, y: Any) -> Split:
    """The labels of arrays in memory, beside their numbers in place of samples."""
    total = samples.total or 0
    names = output_names(model)
    several = isinstance(y, (list, tuple)) and len(names) > 1 and len(y) == len(names) != total
    if several:
        y = dict(zip(names, y, strict=True))
    given = dict(y) if isinstance(y, dict) else {}
    if set(given) - set(names):
        raise TfpruneError(
            f"y: expected labels by the names of outputs ({', '.join(names)}), received "
            f"{', '.join(map(str, given))}"
        )
    ys = {str(name): np.asarray(labels) for name, labels in given.items()}
    plain = None if y is None or isinstance(y, dict) else np.asarray(y)
    for labels in (plain, *ys.values()):
        if labels is not None and len(labels) != total:
            raise TfpruneError(
                f"y: expected a label for each of {total} samples, received {len(labels)}"
            )
    return Split(np.arange(total), plain, ys)


def calibrated(
    model: keras.Model,
    x: Any,
    validation: Any = None,
    *,
    layers: str | Sequence[str] = "all",
    skip: Sequence[str] = (),
    batch_size: int | None = None,
    progress: bool = False,
) -> Calibration:
    """A model measured about the point that ``prune`` takes by default."""
    return calibrate(
        model, x, layers=layers, skip=skip, centre=FOLD_RULES[FOLD].centre("auto"),
        batch_size=batch_size, progress=progress, hold_back=validation is None,
        validation=validation,
    )  # fmt: skip


def measure(
    inspection: Inspection,
    calibration: Calibration,
    x: list[Array],
    scorer: Scorer,
    typed: Typed,
    *,
    every: bool,
    progress: bool = False,
) -> Inspection:
    """Adds what data says to what is in a model.

    Parameters
    ----------
    inspection : Inspection
    calibration : Calibration
    x : list of arrays of shape (samples, ...)
        Samples to score, others than those that were measured.
    scorer : Scorer
        Of these samples.
    typed : callable
        Writes a recommended command.
    every : bool
        Whether all layers were asked for that can be pruned.
    progress : bool
    """
    if not calibration.groups:
        return inspection
    bench = Bench(calibration, x, scorer)
    trials = bench.by_share(progress=progress)
    # Of few samples no more can be said than that less than one class of all is right.
    classes = scorer.reference[scorer.output].shape[-1]
    few = bench.score == "accuracy" and bench.original <= 1 / max(classes, 2)
    poor = few or any(by_chance(one) for one in scorer.each)
    measured = Measurements(
        bench.score,
        bench.original,
        max(view.moments.count for stats in calibration.groups for view in stats.views),
        len(x[0]),
        tuple(redundancy_of(stats) for stats in calibration.groups),
        tuple(trial.sensitivity for trial in trials),
        bench.warning or (POOR if poor else ""),
    )
    recommended = None
    with during("recommendation"):
        if not poor:
            recommended = recommend(
                bench, trials, measured, typed, every=every, macs=inspection.macs,
                progress=progress,
            )  # fmt: skip
    return replace(inspection, measured=measured, recommended=recommended)


def enumerate_names(model: keras.Model, arrays: Sequence[Array]) -> list[tuple[str, Array]]:
    """Arrays with the names of the inputs that take them."""
    return list(zip(input_shapes(model), arrays, strict=True))


def _given(model: keras.Model, arrays: list[Array]) -> Any:
    """Arrays as ``prune`` takes them: alone, or by the names of the inputs."""
    return arrays[0] if len(arrays) == 1 else dict(enumerate_names(model, arrays))


def _python(layers: str | Sequence[str]) -> Typed:
    """Writes a request as a line of Python."""

    def typed(request: Request) -> str:
        what: Any = list(request.layers) or layers
        how = f"remove={request.remove:g}" if request.remove else f"threshold={request.threshold:g}"
        call = f"tfprune.prune(model, x, {how}, layers={what!r})"
        if request.heal:
            return f"tfprune.heal({call}.model, model, x, epochs={request.heal})"
        return call

    return typed
