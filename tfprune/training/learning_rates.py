"""A learning-rate schedule, and trials that find the rate for a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

# Half decades, and the one that is tried first.
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
FIRST_TRIED = 3e-3
# Losses of short trainings that are no further apart than this share count alike.
CLOSE = 0.25
# Share of the steps in which the rate rises.
WARMUP = 0.1
# Epochs of each cosine where the training itself finds its end.
CYCLES = (2, 4, 8, 16)
# A cosine that lowers the loss by less than this share gains nothing: those behind it start at a
# rate that is smaller by this factor, and the next that gains nothing is the last one.
STALLED, CALMER = 0.02, 3


def cycles_of(epochs: int | str) -> tuple[int, ...]:
    """The epochs of each cosine along which the rate falls: one, or with ``auto`` some.

    They grow, as in SGDR [1]_, so that every end of one is the end of a whole training, and the
    last takes about as long as all before it.

    References
    ----------
    .. [1] Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts".

    Examples
    --------
    >>> cycles_of(10), cycles_of("auto")
    ((10,), (2, 4, 8, 16))
    """
    return (epochs,) if isinstance(epochs, int) else CYCLES


class WarmCosine(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """A learning rate that rises for a tenth of the steps and falls to 0 along a cosine.

    Rate and number of steps are variables, so one compiled step serves several trainings.

    References
    ----------
    Loshchilov, Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.
    Goyal et al. (2017), "Accurate, large minibatch SGD", section 2.2, for the rise.
    """

    def __init__(self) -> None:
        self._highest = tf.Variable(0.0, trainable=False)
        self._steps = tf.Variable(1.0, trainable=False)

    def set(self, rate: float, steps: int) -> None:
        """Sets the highest rate, and the steps until it is 0."""
        self._highest.assign(rate)
        self._steps.assign(float(steps))

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        step = tf.cast(step, tf.float32)
        rise = tf.minimum(1.0, (step + 1.0) / (WARMUP * self._steps + 1.0))
        fall = 0.5 * (1.0 + tf.cos(tf.constant(3.141592653589793) * step / self._steps))
        return self._highest * rise * fall

    def get_config(self) -> dict[str, Any]:
        """Empty: a schedule is never saved."""
        return {}


def best_rate(
    loss: Callable[[float], float],
    rates: Sequence[float] = RATES,
    first: float = FIRST_TRIED,
) -> float:
    """Chooses a learning rate by the losses after short trainings.

    Rates are tried down or up from the first one as long as the loss falls. Of all that were tried
    the highest is taken whose loss is at most a quarter above the lowest: a short training favours
    low rates, as a high one has less time to settle.

    Parameters
    ----------
    loss : callable
        The loss after a short training with a rate; infinite where it was not finite.
    rates : sequence of float
        From the smallest to the largest.
    first : float
        One of them.
    """
    losses: dict[float, float] = {}

    def improves(at: int, than: int) -> bool:
        losses[rates[at]] = loss(rates[at])
        return losses[rates[at]] < losses[rates[than]] or math.isinf(losses[rates[than]])

    best = rates.index(first)
    losses[first] = loss(first)
    for direction in (-1, 1):
        while 0 <= best + direction < len(rates) and improves(best + direction, best):
            best += direction
        if rates[best] != first:
            break  # On the other side of the first one it is worse.
    least = losses[rates[best]]
    alike = [rate for rate in losses if losses[rate] <= least + CLOSE * abs(least)]
    return max(alike) if math.isfinite(least) else min(losses)
