"""Kernels in closed form: ridge regression towards the present weights; pure numpy and scipy."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg

from tfprune.core.blas import threads_for
from tfprune.utils.arrays import Array

# Ridges that are tried, in parts of the mean variance of what is read.
RIDGES = (1e-4, 1e-2, 1.0)
# How often targets behind a ReLU are set anew.
ROUNDS = 5
# Rows that are multiplied at a time in float32 and added up in float64.
CHUNK = 8192
# Numbers in the rows that are kept beside them as they are multiplied.
FEW = 2**22


@dataclass(frozen=True, eq=False)
class Problem:
    """Find kernel and bias with ``rows @ kernel + bias ~ goal``, towards the present ones.

    Attributes
    ----------
    rows : array of shape (rows, inputs)
    goal : array of shape (rows, outputs)
        Values behind ``gain`` and ``added``.
    kernel : array of shape (inputs, outputs)
        The present one.
    bias : array of shape (outputs,) or None
        None where a constant has no place.
    held : array of shape (rows,)
        Which rows are held back to choose the ridge by.
    gain : array of shape (outputs,)
    shift : array of shape (outputs,)
        A normalisation behind the layer: ``gain * output + shift``.
    added : array of shape (rows, outputs) or 0
        What is added behind that.
    limits : (float, float) or None
        Values beyond count as if they were at the limit.
    """

    rows: Array
    goal: Array
    kernel: Array
    bias: Array | None
    held: npt.NDArray[np.bool_]
    gain: Array
    shift: Array
    added: Array | float = 0.0
    limits: tuple[float, float] | None = None

    def error(self, kernel: Array, bias: Array | None) -> float:
        """The squared error on the rows held back."""
        held = self.held
        made = self._made(self.rows[held], kernel, bias, self._added(held))
        goal = self.goal[held]
        if self.limits is not None:
            made, goal = np.clip(made, *self.limits), np.clip(goal, *self.limits)
        return float(np.mean(np.square(made - goal), dtype=np.float64))

    def _added(self, part: npt.NDArray[np.bool_] | slice) -> Array | float:
        return self.added[part] if isinstance(self.added, np.ndarray) else self.added

    def _made(self, rows: Array, kernel: Array, bias: Array | None, added: Array | float) -> Array:
        made = rows @ kernel.astype(rows.dtype)
        if bias is not None:
            made += bias.astype(rows.dtype)
        made *= self.gain.astype(rows.dtype)
        made += self.shift.astype(rows.dtype)
        made += added
        return made

    def wanted(self, kernel: Array, bias: Array | None) -> Array:
        """What the layer should make before normalisation and sum, given what it makes now.

        Where the goal lies beyond a limit, anything beyond it will do: what is there already
        stays, and what is not is to come to the limit.
        """
        goal = self.goal
        if self.limits is not None:
            made = self._made(self.rows, kernel, bias, self.added)
            low, high = self.limits
            goal = np.where(goal <= low, np.minimum(made, low), goal)
            goal = np.where(goal >= high, np.maximum(made, high), goal) if high < np.inf else goal
        return (goal - self.added - self.shift.astype(goal.dtype)) / self.gain.astype(goal.dtype)


def solved(problem: Problem, threads: bool = False) -> tuple[Array, Array | None] | None:
    """The kernel and the bias that do best on the rows held back; None if the present ones do.

    The ridge is chosen on the rows held back, which the solution is not fitted to. Behind a
    ReLU (`limits`) values below 0 are only asked to be below 0: the targets are set anew to what
    the solution makes there and solved for again, which never raises the error (majorisation).

    Parameters
    ----------
    problem : Problem
    threads : bool
        Whether linear algebra may take several threads however few the inputs are.

    References
    ----------
    Zhang et al. (2015), "Accelerating very deep convolutional networks for classification and
    detection", for the targets behind a ReLU.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows, kernel = rng.normal(size=(500, 4)), rng.normal(size=(4, 2))
    >>> problem = Problem(
    ...     rows, rows @ kernel + 1, np.zeros((4, 2)), np.zeros(2), np.arange(500) % 5 == 0,
    ...     np.ones(2), np.zeros(2),
    ... )
    >>> found, bias = solved(problem)
    >>> bool(np.abs(found - kernel).max() < 0.01), bool(np.abs(bias - 1).max() < 0.01)
    (True, True)
    """
    start = problem.error(problem.kernel, problem.bias)
    present = problem.kernel.astype(np.float64)
    wanted = problem.wanted(problem.kernel, problem.bias)
    fit = _Normal(problem.rows, wanted, ~problem.held, problem.bias is not None)
    best = (start, 0.0)
    with nullcontext() if threads else threads_for(len(present)):
        for ridge in RIDGES:
            error = problem.error(*fit.solution(ridge, present))
            if error < best[0]:
                best = (error, ridge)
        if not best[1]:
            return None
        factor = fit.factor(best[1])
        kernel, bias = fit.solution(best[1], present, factor)
        if problem.limits is not None:
            for _ in range(ROUNDS):
                fit.aim(problem.rows, problem.wanted(kernel, bias))
                kernel, bias = fit.solution(best[1], present, factor)
    return kernel, bias


class _Normal:
    """Normal equations of some rows about their mean, or about 0."""

    def __init__(
        self, rows: Array, goal: Array, part: npt.NDArray[np.bool_], constant: bool
    ) -> None:
        self.count = int(part.sum())
        self.constant = constant
        index = np.flatnonzero(part)
        self.centre = rows[index[:CHUNK]].mean(axis=0) if constant else np.zeros(rows.shape[1])
        self.aim_centre = goal[index[:CHUNK]].mean(axis=0) if constant else np.zeros(goal.shape[1])
        self.gram = np.zeros((rows.shape[1],) * 2)
        self.cross = np.zeros((rows.shape[1], goal.shape[1]))
        self.sum = np.zeros(rows.shape[1])
        self.goal_sum = np.zeros(goal.shape[1])
        self._index = index
        self._pieces: list[Array] = []
        for at in range(0, len(index), CHUNK):
            piece = self._piece(rows, index[at : at + CHUNK])
            if rows.size <= FEW:  # Taken once, and not for every goal.
                self._pieces.append(piece)
            self.gram += piece.T @ piece
            self.sum += piece.sum(axis=0, dtype=np.float64)
        self.aim(rows, goal)

    def _piece(self, rows: Array, index: npt.NDArray[np.intp]) -> Array:
        return rows[index] - self.centre.astype(rows.dtype)

    def aim(self, rows: Array, goal: Array) -> None:
        """Sets the goal anew."""
        self.cross[:] = 0
        self.goal_sum[:] = 0
        for number, at in enumerate(range(0, len(self._index), CHUNK)):
            index = self._index[at : at + CHUNK]
            aims = goal[index] - self.aim_centre.astype(goal.dtype)
            piece = self._pieces[number] if self._pieces else self._piece(rows, index)
            self.cross += piece.T @ aims
            self.goal_sum += aims.sum(axis=0, dtype=np.float64)

    def _about_mean(self) -> tuple[Array, Array, Array, Array]:
        if not self.constant:
            zero = np.zeros_like(self.goal_sum)
            return self.gram / self.count, self.cross / self.count, self.centre, zero
        mean, goal = self.sum / self.count, self.goal_sum / self.count
        gram = self.gram / self.count - np.outer(mean, mean)
        cross = self.cross / self.count - np.outer(mean, goal)
        return gram, cross, self.centre + mean, self.aim_centre + goal

    def _ridge(self, gram: Array, ridge: float) -> float:
        return float(ridge * np.trace(gram) / len(gram) + 1e-12)

    def factor(self, ridge: float) -> tuple[Array, bool]:
        """Of the matrix, for several goals."""
        gram = self._about_mean()[0]
        damped = gram + self._ridge(gram, ridge) * np.eye(len(gram))
        result: tuple[Array, bool] = linalg.cho_factor(damped, overwrite_a=True)
        return result

    def solution(
        self, ridge: float, present: Array, factor: tuple[Array, bool] | None = None
    ) -> tuple[Array, Array | None]:
        """The kernel, and the bias where there is one."""
        gram, cross, mean, goal = self._about_mean()
        factor = self.factor(ridge) if factor is None else factor
        kernel = linalg.cho_solve(factor, cross + self._ridge(gram, ridge) * present)
        return kernel, goal - mean @ kernel if self.constant else None
