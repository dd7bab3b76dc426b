"""Measures the statistics of BatchNormalization anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfprune.reconstruction.segments import Segments
from tfprune.reconstruction.sites import Wiring, normalises
from tfprune.utils.arrays import Array


def measure_statistics(ours: Wiring, x: Sequence[Array], share: float) -> None:
    """Moves means and variances of BatchNormalization towards those of what reaches it; in place.

    From the input on, so that each layer sees what those before it make after the change.

    Parameters
    ----------
    ours : Wiring
    x : sequence of arrays of shape (samples, ...)
    share : float
        In (0, 1]; 1 takes the new statistics.
    """
    segments = Segments(ours, ours, x)
    for path in [path for path in ours.order if normalises(ours, path)]:
        segments.go_to(path)
        norm = ours.trace.copies[path]
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        for (values,) in segments.ours([ours.trace.call_inputs[path][0][0]]):
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
