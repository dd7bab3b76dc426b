"""Distances between two models' outputs; pure numpy."""

from __future__ import annotations

import numpy as np

from tfprune.utils.arrays import Array

# Share of their size that outputs count as varying at least.
LEAST_SPREAD = 0.05


def disagreement(received: Array, expected: Array, step: float = 0.0) -> float:
    """Root mean square difference as a share of the expected values' spread over samples.

    Parameters
    ----------
    received, expected : arrays of one shape (samples, ...)
    step : float
        The output's quantisation step, within which a difference does not count.

    Examples
    --------
    >>> expected = np.array([[-1.0], [1.0]])
    >>> disagreement(expected + 0.5, expected), disagreement(expected + 0.5, expected, step=0.5)
    (0.5, 0.0)
    """
    difference = np.abs(received.astype(float) - expected)
    difference = np.maximum(difference - step, 0)
    spread = np.sqrt(np.mean((expected - expected.mean(axis=0)) ** 2))
    # Outputs that hardly vary with the sample are measured by their size.
    size = np.sqrt(np.mean(expected.astype(float) ** 2))
    measure = float(max(spread, LEAST_SPREAD * size))
    rms = float(np.sqrt(np.mean(difference**2)))
    return rms / measure if measure > 0 else rms


# How much may be lost before it is said: accuracy and agreement as shares, and the error of
# outputs as a share of their spread.
LIMITS = {"accuracy": 0.005, "agreement": 0.02, "output_error": 0.05}


def metric_of(score: str) -> tuple[str, str]:
    """What a score is, and of which of several outputs: as ``accuracy_NAME`` or ``accuracy``.

    Examples
    --------
    >>> metric_of("output_error_box"), metric_of("mse")
    (('output_error', 'box'), ('mse', ''))
    """
    for metric in ("mse", *LIMITS):
        if score == metric or score.startswith(f"{metric}_"):
            return metric, score[len(metric) + 1 :]
    return score, ""
