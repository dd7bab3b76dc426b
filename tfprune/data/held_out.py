"""Splits off the samples that tell whether a training helps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# Of so many samples one is held out; of few samples a quarter, up to so many; never more than MOST.
EVERY, LITTLE, MOST = 10, 25, 5_000


def held_out_count(samples: int) -> int:
    """How many of so many samples are held out: a tenth, of little data a quarter.

    That is none of 1, one of 2 to 7, a quarter of up to 100, 25 of up to 250, a tenth of more, and
    at most 5,000.
    """
    count = max(samples // EVERY, min(samples // 4, LITTLE), 1)
    return min(count, MOST, samples - 1)


def held_out_split(
    samples: int, seed: int, *, least: int = 1, ordered: bool = False
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The numbers of the samples to train on and of those that are held out, both in order.

    Parameters
    ----------
    samples, seed : int
    least : int
        How many are needed to train on, a batch say.
    ordered : bool
        Whether samples follow on each other, so that the last ones are held out.
    """
    count = max(min(held_out_count(samples), samples - least), 0)
    order: npt.NDArray[Any] = np.arange(samples)
    if not ordered:
        order = np.random.default_rng([seed, 1]).permutation(samples)
    return np.sort(order[: samples - count]), np.sort(order[samples - count :])
