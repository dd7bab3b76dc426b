"""Sums over the rows of least squares, which add up whoever made them; pure numpy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfprune.utils.arrays import Array


class Sums:
    """Products of rows with themselves and with goals, about their means.

    Everything is float64, and sums of parts of the rows are those of one pass but for its rounding,
    whatever the order [1]_. Several problems of the same rows stand on the first axis.

    Parameters
    ----------
    rows : array of shape (problems, rows, inputs)
        In float64.
    goals : array of shape (problems, rows, outputs)
    squares : bool
        Whether products of the rows with themselves are summed, too.

    References
    ----------
    .. [1] Chan, Golub, LeVeque (1983), "Algorithms for computing the sample variance",
       The American Statistician 37(3).

    Examples
    --------
    >>> rows = np.random.default_rng(0).normal(3, 1, (1, 50, 4))
    >>> total = Sums(rows[:, :20], rows[:, :20, :2])
    >>> total.add(Sums(rows[:, 20:], rows[:, 20:, :2]))
    >>> whole = Sums(rows, rows[..., :2])
    >>> bool(np.allclose(total.gram, whole.gram, 1e-12, 0)), total.count
    (True, 50)
    """

    def __init__(self, rows: Array, goals: Array, squares: bool = True) -> None:
        self.count = rows.shape[1]
        number = max(self.count, 1)
        self.mean, self.goal = rows.sum(axis=1) / number, goals.sum(axis=1) / number
        centred = np.swapaxes(rows - self.mean[:, None], 1, 2)
        self.cross = centred @ (goals - self.goal[:, None])
        none = np.zeros((len(rows), 0, 0))
        self.gram = centred @ np.swapaxes(centred, 1, 2) if squares else none

    def add(self, other: Sums) -> None:
        """Adds the sums of other rows."""
        count = self.count + other.count
        if not other.count:
            return
        weight = other.count / count
        apart, goal = other.mean - self.mean, other.goal - self.goal
        far = apart * (self.count * weight)
        self.cross += other.cross
        self.cross += far[:, :, None] * goal[:, None]
        if self.gram.size:
            self.gram += other.gram
            self.gram += far[:, :, None] * apart[:, None]
        self.mean = self.mean + apart * weight
        self.goal = self.goal + goal * weight
        self.count = count

    def state(self) -> dict[str, Array]:
        """All sums as arrays, to be sent; :meth:`of` is the way back."""
        return {
            "count": np.array(self.count),
            "mean": self.mean,
            "goal": self.goal,
            "cross": self.cross,
            "gram": self.gram,
        }

    @classmethod
    def of(cls, state: Mapping[str, Array]) -> Sums:
        """The sums that :meth:`state` describes."""
        made = cls.__new__(cls)
        made.count = int(state["count"])
        made.mean, made.goal = state["mean"], state["goal"]
        made.cross, made.gram = state["cross"], state["gram"]
        return made

    def about(self, constant: bool) -> tuple[Array, Array, Array, Array]:
        """Sums divided by the number of rows, as normal equations need them.

        Parameters
        ----------
        constant : bool
            Whether they are about the means; else about 0.

        Returns
        -------
        gram, mean, cross, goal : arrays
        """
        gram, cross = self.gram / self.count, self.cross / self.count
        if constant:
            return gram, self.mean, cross, self.goal
        cross += self.mean[:, :, None] * self.goal[:, None]
        if gram.size:
            gram += self.mean[:, :, None] * self.mean[:, None]
        return gram, np.zeros_like(self.mean), cross, np.zeros_like(self.goal)
