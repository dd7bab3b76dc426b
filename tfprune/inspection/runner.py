"""The work of ``inspect``: a model file and perhaps data, and what is found in them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import keras

from tfprune.data.networks import load_model
from tfprune.data.splits import Dataset, Split
from tfprune.graph.inputs import MOST_HELD_BACK, check_inputs
from tfprune.graph.names import check_names
from tfprune.inspection.advice import Request, Typed
from tfprune.inspection.config import InspectConfig
from tfprune.inspection.inspector import MOST_SCORED, SCORED, calibrated, measure
from tfprune.inspection.records import Recommendation
from tfprune.inspection.result import Inspection
from tfprune.inspection.structure import structure_of
from tfprune.job.repeated_command import repeated
from tfprune.job.stages import MODEL_AND_DATA
from tfprune.utils.console import Stages, during
from tfprune.utils.streamed import concatenated

# Options of which a recommended command has others, or none.
NOT_REPEATED = ("layers", "skip", "heal", "schemes", "output", "calibration", "centre")
WITH_DATA = "what of that could go, and at what cost"
AS_IT_IS = "more than one answer, if the model takes data as it is"


def run(config: InspectConfig, command: Sequence[str], say: Callable[[str], None]) -> Inspection:
    """Inspects a model; see :func:`tfprune.inspect`. Test data stays untouched.

    Parameters
    ----------
    config : InspectConfig
    command : sequence of str
        The command line; the recommended one begins likewise.
    say : callable
        Is told, in a line each, what the user should know.

    Raises
    ------
    TfpruneError
        If model or data cannot be read, or do not fit each other.
    """
    if not config.measures:
        path = Path(config.model)
        model = load_model(path, config.unsafe, say=say, imports=config.import_)
        found = Inspection(path.stem, *structure_of(model))
        if not found.prunable:
            return found
        again = shlex.join(
            [*repeated(config, command, "inspect", without=NOT_REPEATED), "--data", "PATH"]
        )
        return replace(found, recommended=Recommendation(again, WITH_DATA))
    with Stages([MODEL_AND_DATA, "activations", "sensitivity", "recommendation"]):
        return _measured(config, command, say)


def _measured(
    config: InspectConfig, command: Sequence[str], say: Callable[[str], None]
) -> Inspection:
    from tfprune.job.adapted_start import start_of
    from tfprune.job.model_and_data import model_and_data
    from tfprune.job.original import doubts, scorer

    keras.utils.set_random_seed(config.seed)
    with during(MODEL_AND_DATA):
        model, data, about = model_and_data(config, say)
        check_names(model)
    found = Inspection(about["name"], *structure_of(model))
    measured, scored = parts(data, config.calibration)
    x = check_inputs(model, scored.x)
    measure_by = scorer(config, model, x, scored, data)
    # That the model nearly always gives one answer is said of the sensitivity.
    for note in (*data.notes, *(() if measure_by.one_sided else measure_by.notes)):
        say(f"data: {note}")
    found_first = start_of(config, model, data, measure_by).findings
    changed = config.scale == "auto" and not all(scale.unchanged for scale in data.scales)
    doubtful = bool(measure_by.one_sided) and changed
    if doubtful:
        say(
            "data: one answer for nearly all samples: does the model take another range? "
            "--scale none leaves data as it is"
        )
    for doubt in (*doubts(config, model, x, measure_by, data), *found_first):
        say(str(doubt))
    layers = config.layers_to_prune
    assert layers is not None, "the option has a default"
    calibration = calibrated(
        model, measured.x, scored.take(slice(MOST_HELD_BACK)).x, layers=layers, skip=config.skip,
        progress=True,
    )  # fmt: skip
    found = measure(
        found, calibration, x, measure_by, typed(config, command),
        every=isinstance(layers, str) and not config.skip, progress=True,
    )  # fmt: skip
    if doubtful and found.recommended is not None:
        again = shlex.join(
            [*repeated(config, command, "inspect", without=NOT_REPEATED), "--scale", "none"]
        )
        return replace(found, recommended=Recommendation(again, AS_IT_IS))
    return found


def parts(data: Dataset, calibration: int) -> tuple[Split, Split]:
    """The samples to measure and those to score, which share none, of training and validation data.

    Parameters
    ----------
    data : Dataset
    calibration : int
        How many to measure, at most.
    """
    train, held = data.train, data.validation
    whole = len(train) + len(held)
    scored = min(max(len(held), round(SCORED * whole)), MOST_SCORED)
    more = max(scored - len(held), 0)
    measured = train.take(slice(min(calibration, len(train) - more)))
    if not more:
        return measured, held.take(slice(scored))
    rest = train.take(slice(len(train) - more, None))
    arrays = [concatenated(pair) for pair in zip(held.arrays, rest.arrays, strict=True)]
    return measured, held.given(arrays).labelled_as([held, rest])


def typed(config: InspectConfig, command: Sequence[str]) -> Typed:
    """Writes a request as a command for a shell, with the model and the data of this one."""
    program = repeated(config, command, "export", without=NOT_REPEATED)

    def line(request: Request) -> str:
        words = [*program, "--layers", ",".join(request.layers or config.layers or ())]
        if request.threshold is not None:
            words += ["--prune", f"{request.threshold:g}"]
        if request.remove is not None:
            words += ["--remove", f"{100 * request.remove:g}%"]
        if request.heal is not None:
            words += ["--heal", str(request.heal)]
        return shlex.join(words)

    return line
