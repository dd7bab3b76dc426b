"""Heals the smaller model that would be recommended, on trial: what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tfprune.core.selection import Selection
from tfprune.graph.inputs import Samples
from tfprune.inspection.sensitivity import Bench
from tfprune.training.distillation import heal_with_record
from tfprune.utils.arrays import Array

# Samples that are trained on, at most, and multiply-accumulates of the model for all that are seen
# in all epochs: a training takes about three times as many, 10 seconds or so on two cores.
MOST_SAMPLES, MOST_MACS = 1500, 4e10
FEWEST_EPOCHS = 2


@dataclass(frozen=True)
class Healed:
    """What came of healing: the score, and after how many epochs on how many samples."""

    score: float
    epochs: int
    samples: int


def healed_on_trial(
    bench: Bench, selections: Sequence[Selection], macs: int | None, epochs: int, progress: bool
) -> Healed | None:
    """Heals a smaller model, folded and not refitted, and scores it.

    Parameters
    ----------
    bench : Bench
    selections : sequence of Selection
        Which units go, of each group.
    macs : int or None
        Multiply-accumulates of the original for a sample.
    epochs : int
        At most; fewer where the model is large.
    progress : bool

    Returns
    -------
    Healed or None
        None where that would take too long.
    """
    calibration = bench.calibration
    x = first_samples(calibration.samples, MOST_SAMPLES)
    count = len(x[0])
    affordable = epochs if not macs else min(epochs, int(MOST_MACS // (macs * count)))
    if macs is None or affordable < FEWEST_EPOCHS:
        return None
    # From the fold: refitting it first would take longer than it gains in so few epochs.
    smaller = bench.built(selections)
    data = x[0] if len(x) == 1 else x
    record = heal_with_record(smaller, calibration.model, data, affordable, progress=progress)
    return Healed(bench.score_of(record.model), affordable, count)


def first_samples(samples: Samples, most: int) -> list[Array]:
    """So many samples at most, an array of each input."""
    batches: list[list[Array]] = []
    missing = most
    for batch in samples.batches(256):
        batches.append([one[:missing] for one in batch])
        missing -= len(batches[-1][0])
        if missing <= 0:
            break
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]
