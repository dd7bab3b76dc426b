"""Measures the statistics of BatchNormalization anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.graph.forward import Forward
from tfprune.reconstruction.segments import Segments
from tfprune.reconstruction.sites import Wiring, normalises
from tfprune.utils.arrays import Array

# Values of a channel that are looked at in a large model, of all samples together.
VALUES = 2**15
# Numbers that are kept at a narrow place, at most: 128 MiB. The samples are fewer than elsewhere.
KEPT = 2**25


def measure_statistics(
    ours: Wiring, x: Sequence[Array], share: float, made: dict[Any, Forward] | None = None
) -> None:
    """Moves means and variances of BatchNormalization towards those of what reaches it; in place.

    From the input on, so that each layer sees what those before it make after the change.

    Parameters
    ----------
    ours : Wiring
    x : sequence of arrays of shape (samples, ...)
    share : float
        In (0, 1]; 1 takes the new statistics.
    made : dict, optional
        See :class:`tfprune.reconstruction.segments.Segments`.
    """
    segments = Segments(ours, None, x, made, KEPT)
    each = max(1, VALUES // segments.samples)
    for path in [path for path in ours.order if normalises(ours, path)]:
        segments.go_to(path)
        norm = ours.trace.copies[path]
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        for (values,) in segments.ours([ours.trace.call_inputs[path][0][0]], each):
            flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
            count += len(flat)
            total = total + flat.sum(axis=0)
            squares = squares + np.square(flat).sum(axis=0)
        mean = total / count
        _move(norm.moving_mean, mean, share)
        _move(norm.moving_variance, np.maximum(squares / count - mean**2, 0), share)


def _move(variable: Any, goal: Array, share: float) -> None:
    value = keras.ops.convert_to_numpy(variable)
    variable.assign(value + share * (goal - value))
