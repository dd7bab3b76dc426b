"""Finds by labels how samples are to be scaled: ``--scale auto``."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tfprune.calibration import check_weights
from tfprune.data.scales import SCALES, InputSpec
from tfprune.data.splits import Raw, fitting
from tfprune.errors import TfpruneError
from tfprune.graph.inputs import check_inputs
from tfprune.graph.predictions import outputs_of
from tfprune.job.config import CommonConfig
from tfprune.job.original import DEVIATIONS, FEWEST, TRIED, measure_of, said, skill

# Points of accuracy, or of the share of the variance, that another way has to score more.
MORE = 0.01


def scale_for(
    config: CommonConfig, model: keras.Model, raw: Raw, specs: Sequence[InputSpec]
) -> tuple[str, list[str]]:
    """The mode of ``--scale`` that is used for a model of the user's, and what is to be said.

    With ``auto``, labels, and a model that has no scaling of its own, all modes that the data
    allows are tried on some of the training samples, and the one under which the original scores
    best is taken. What ``auto`` takes without labels stays unless another is clearly better: by
    more than two standard deviations of the difference.

    Parameters
    ----------
    config : CommonConfig
    model : keras.Model
    raw : Raw
        As loaded; its test samples are not looked at.
    specs : sequence of InputSpec
        What the model's inputs take.

    Raises
    ------
    TfpruneError
        If labels or samples do not fit the model.
    """
    if config.scale != "auto" or not raw.train.labelled or len(raw.train) < FEWEST:
        return config.scale, []
    if any(spec.scaling is not None for spec in specs):
        return config.scale, []
    check_weights(model)
    index = np.sort(np.random.default_rng(config.seed).permutation(len(raw.train))[:TRIED])
    some = raw.train.take(index)
    ready, first, _ = fitting(raw, "auto", specs)
    part = ready(some)
    outputs = outputs_of(model, check_inputs(model, part.x))
    measure = measure_of(config, model, outputs, part, raw.train)
    if measure.target is None or measure.labels == "input":
        return config.scale, []
    best, start = "auto", skill(measure, outputs)
    called, best_skill, known = "", start, [_kind(first)]
    figures = {}
    for name in [mode for mode in SCALES if mode != "auto"]:
        try:
            ready, scales, _ = fitting(raw, name, specs)
        except TfpruneError:  # Of three channels, or of brightness alone.
            continue
        if _kind(scales) in known:
            if _kind(scales) == known[0]:
                called = name
            continue
        known.append(_kind(scales))
        try:
            outputs = outputs_of(model, check_inputs(model, ready(some).x))
        except TfpruneError:  # Values that the model makes no numbers of.
            continue
        now = skill(measure, outputs)
        figures[name] = said(measure.of(outputs), outputs)
        gain = now - start
        noise = DEVIATIONS * float(gain.std()) / len(now) ** 0.5
        if gain.mean() > max(MORE, noise) and now.mean() > best_skill.mean():
            best, best_skill = name, now
    if not figures:
        return config.scale, []
    called = called or (specs[0].family or ("", "as it is"))[1]
    figures = {called: said(measure, measure.reference), **figures}
    taken = called if best == "auto" else best
    others = ", ".join(f"{name} {score}" for name, score in figures.items() if name != taken)
    return best, [
        f"--scale {taken}, under which the original scores {figures[taken]} of {len(index)} "
        f"training samples ({others})"
    ]


def _kind(scales: Sequence[object]) -> tuple[object, ...]:
    """What two scales that do the same have in common."""
    return tuple(map(str, scales))
