"""The model that pruning starts from: the original, or, with ``--adapt``, adapted to the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from tfprune.adaptation import adapt, adaptable
from tfprune.data.scoring import Scorer
from tfprune.data.splits import Dataset
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.config import CommonConfig
from tfprune.job.original import DEVIATIONS, FEWEST, said, skill
from tfprune.job.records import Finding
from tfprune.utils.arrays import Array

# Samples that statistics are those of, and validation samples that both models are tried on, at
# most; fewer where nobody asked for it.
MEASURED, TRIED = 4_096, 1_000
MEASURED_UNASKED, TRIED_UNASKED = 512, 500
# Points of accuracy, or of the share of the variance, from which on it is worth a line.
MORE = 0.01


@dataclass(frozen=True, eq=False)
class Start:
    """What pruning starts from, and learns from in healing.

    Attributes
    ----------
    model : keras.Model
        The original itself where it is not adapted.
    notes : tuple of str
        What was done to the data's model, and what it gained.
    findings : tuple of Finding
        That ``--adapt`` would help, where it was not asked for.
    """

    model: keras.Model
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def start_of(config: CommonConfig, model: keras.Model, data: Dataset, measure: Scorer) -> Start:
    """Adapts the original with ``--adapt``; without, says so where that would clearly help.

    Both models answer the same validation samples. The adapted one is taken if it does better by
    the labels; without labels nothing tells, so it is taken as asked for, and that is said.

    Parameters
    ----------
    config : CommonConfig
    model : keras.Model
        The original.
    data : Dataset
        Statistics are those of its calibration samples.
    measure : Scorer
        Of other samples; says what labels mean.

    Raises
    ------
    TfpruneError
        If ``--adapt`` was asked for and the model has no BatchNormalization.
    """
    part = data.validation.take(slice(TRIED if config.adapt else TRIED_UNASKED))
    measured = data.calibration.take(slice(MEASURED if config.adapt else MEASURED_UNASKED))
    able = adaptable(model)
    if config.adapt and not able:
        raise TfpruneError(
            "--adapt: it sets the statistics of BatchNormalization, and the model has none"
        )
    told = measure.target is not None and len(part) >= FEWEST and not config.built_in
    if not able or not (config.adapt or told):
        return Start(model)
    x = check_inputs(model, part.x)
    before = outputs_of(model, x)
    adapted = adapt(model, measured.x)
    after = outputs_of(adapted, x)
    judge = measure.like(before, part)
    if judge.target is None or not len(part):
        return Start(adapted, (_unjudged(judge, after),))
    better = skill(judge, after) - skill(judge, before)
    scores = (
        f"with BatchNormalization's means and variances of these data the original scores "
        f"{said(judge, after)} in place of {said(judge, before)} on {len(part):,} validation "
        "samples"
    )
    if config.adapt:
        if better.mean() > 0:
            return Start(adapted, (f"--adapt: {scores}; pruned from there",))
        return Start(model, (f"--adapt: {scores}, so they are left as they were",))
    noise = DEVIATIONS * float(better.std()) / len(part) ** 0.5
    if better.mean() > max(MORE, noise):
        return Start(model, (), (Finding("data", scores, ("add --adapt",)),))
    return Start(model)


def _unjudged(judge: Scorer, after: Sequence[Array]) -> str:
    scores = judge.scores(after)
    said_by = {
        "agreement": f"{100 * (1 - scores['agreement']):.1f} % of the answers change",
        "output_error": f"output error {100 * scores['output_error']:.1f} %",
    }
    changed = ", ".join(
        words
        for name, words in said_by.items()
        if any(one.startswith(name) for one in judge.judged_by)
    )
    return (
        f"--adapt: BatchNormalization has the means and variances of these data ({changed}); "
        "without labels nothing tells whether that is better"
    )
