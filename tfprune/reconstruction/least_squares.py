"""Kernels in closed form: ridge regression towards the present weights; pure numpy and scipy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

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
# Numbers in these rows, and in those that are kept beside all rows as they are multiplied; but not
# fewer rows than so many.
FEW, LEAST = 2**22, 512

# A kernel, and a bias where there is one.
Solution = tuple[Array, Array | None]
# A matrix as `scipy.linalg.cho_factor` gives it.
Factor = tuple[Array, bool]


@dataclass(frozen=True, eq=False)
class Problem:
    """Find kernel and bias with ``rows @ kernel + bias ~ goal``, towards the present ones.

    Several of the same number of rows, inputs and outputs stand on an axis in front of all arrays
    but ``held``.

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
        """The mean squared error on the rows held back."""
        return float(np.mean(self._squares(kernel, bias), dtype=np.float64))

    def squared_error(self, kernel: Array, bias: Array | None) -> Array:
        """The sum of the squared errors on the rows held back, of each of several problems."""
        squares = np.sum(self._squares(kernel, bias), axis=(-2, -1), dtype=np.float64)
        return np.asarray(squares)

    def _squares(self, kernel: Array, bias: Array | None) -> Array:
        held = np.flatnonzero(self.held)
        made = self._made(self.rows[..., held, :], kernel, bias, self._added(held))
        goal = self.goal[..., held, :]
        if self.limits is not None:
            made, goal = np.clip(made, *self.limits), np.clip(goal, *self.limits)
        return np.square(made - goal)

    def _added(self, part: npt.NDArray[np.intp] | slice) -> Array | float:
        return self.added[..., part, :] if isinstance(self.added, np.ndarray) else self.added

    def _made(self, rows: Array, kernel: Array, bias: Array | None, added: Array | float) -> Array:
        made = rows @ kernel.astype(rows.dtype)
        if bias is not None:
            made += bias.astype(rows.dtype)[..., None, :]
        made *= self.gain.astype(rows.dtype)[..., None, :]
        made += self.shift.astype(rows.dtype)[..., None, :]
        made += added
        return made

    def wanted(
        self,
        kernel: Array,
        bias: Array | None,
        part: npt.NDArray[np.intp] | slice = slice(None),
    ) -> Array:
        """What the layer should make before normalisation and sum, given what it makes now.

        Where the goal lies beyond a limit, anything beyond it will do: what is there already
        stays, and what is not is to come to the limit. ``part`` of the rows may be asked for.
        """
        goal, added = self.goal[..., part, :], self._added(part)
        gain, shift = (one.astype(goal.dtype)[..., None, :] for one in (self.gain, self.shift))
        if self.limits is None:
            wanted = goal - added
        else:
            low, high = self.limits
            wanted = self._made(self.rows[..., part, :], kernel, bias, added)
            np.copyto(wanted, goal, where=(goal > low) & (goal < high))
            np.minimum(wanted, low, out=wanted, where=goal <= low)
            np.maximum(wanted, high, out=wanted, where=goal >= high)
            wanted -= added
        wanted -= shift
        wanted /= gain
        return wanted


class Equations:
    """Normal equations, divided by the number of rows: about the rows' mean, or about 0.

    Parameters
    ----------
    gram : array of shape (inputs, inputs)
    mean : array of shape (inputs,)
        The point about which they are.
    kernel : array of shape (inputs, outputs)
        The present one, in float64, towards which the ridge draws.
    error : float
        That of the present kernel on the rows held back.
    constant : bool
        Whether there is a bias.
    """

    def __init__(
        self, gram: Array, mean: Array, kernel: Array, error: float, constant: bool
    ) -> None:
        self.kernel, self.error = kernel, error
        self._gram, self._mean, self._constant = gram, mean, constant
        self._cross, self._goal = np.zeros_like(kernel), np.zeros(kernel.shape[1])

    def aim(self, cross: Array, goal: Array) -> None:
        """Sets the goal: products with rows, shape (inputs, outputs), and its mean, (outputs,)."""
        self._cross, self._goal = cross, goal

    def factor(self, ridge: float) -> Factor:
        """Of the matrix, for several goals."""
        damped = self._gram.copy().T  # The same, in the order in which it is not copied again.
        np.fill_diagonal(damped, damped.diagonal() + self._ridge(ridge))
        result: Factor = linalg.cho_factor(damped, overwrite_a=True)
        return result

    def solution(self, ridge: float, factor: Factor | None = None) -> Solution:
        """The kernel, and the bias where there is one."""
        factor = self.factor(ridge) if factor is None else factor
        kernel = linalg.cho_solve(factor, self._cross + self._ridge(ridge) * self.kernel)
        return kernel, self._goal - self._mean @ kernel if self._constant else None

    def _ridge(self, ridge: float) -> float:
        return float(ridge * np.trace(self._gram) / len(self._gram) + 1e-12)


class System(Protocol):
    """Least squares of some rows, one for each part of the outputs, wherever the rows are."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """As of :class:`Problem`."""

    def equations(self) -> Sequence[Equations | None]:
        """One for each part; None where its present kernel is to stay."""

    def errors(self, tried: Sequence[Sequence[Solution]]) -> Sequence[Sequence[float]]:
        """On the rows held back, of several solutions of every part that has equations."""

    def aim(self, found: Sequence[Solution | None]) -> None:
        """Sets the goals of the equations anew, beyond the limits to what solutions make there."""


def solved_parts(system: System) -> list[Solution | None]:
    """The kernels and biases that do best on the rows held back; None where the present ones do.

    The ridge is chosen on the rows held back, which the solution is not fitted to. Behind a
    ReLU (`limits`) values below 0 are only asked to be below 0: the targets are set anew to what
    the solution makes there and solved for again, which never raises the error (majorisation).

    Parameters
    ----------
    system : System

    References
    ----------
    Zhang et al. (2015), "Accelerating very deep convolutional networks for classification and
    detection", for the targets behind a ReLU.
    """
    equations = system.equations()
    known = {place: one for place, one in enumerate(equations) if one is not None}
    found: list[Solution | None] = [None] * len(equations)
    if not known:
        return found
    tried = [[one.solution(ridge) for ridge in RIDGES] for one in known.values()]
    chosen: dict[int, tuple[float, Factor]] = {}
    for (place, one), errors in zip(known.items(), system.errors(tried), strict=True):
        error, ridge = min([(one.error, 0.0), *zip(errors, RIDGES, strict=True)], key=_first)
        if ridge and error < one.error:
            chosen[place] = ridge, one.factor(ridge)
            found[place] = one.solution(*chosen[place])
    for _ in range(ROUNDS if chosen and system.limits is not None else 0):
        system.aim(found)
        for place, choice in chosen.items():
            found[place] = known[place].solution(*choice)
    return found


def _first(pair: tuple[float, float]) -> float:
    return pair[0]


def solved(problem: Problem, threads: bool = False) -> Solution | None:
    """As :func:`solved_parts`, of one problem in memory.

    Parameters
    ----------
    problem : Problem
    threads : bool
        Whether linear algebra may take several threads however few the inputs are.

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
    with nullcontext() if threads else threads_for(len(problem.kernel)):
        return solved_parts(_InMemory(problem))[0]


class _InMemory:
    """A problem whose rows are in memory; products are of their type, sums float64."""

    def __init__(self, problem: Problem) -> None:
        self._problem, self.limits = problem, problem.limits
        self._index = index = np.flatnonzero(~problem.held)
        self._constant = problem.bias is not None
        rows = problem.rows
        self._step = min(CHUNK, max(LEAST, FEW // rows.shape[1]))
        first = index[: self._step]
        self._centre = rows[first].mean(axis=0) if self._constant else np.zeros(1)
        self._equations: Equations | None = None
        self._pieces: list[Array] = []
        self._mean = np.zeros(0)
        self._aim_centre: Array | None = None

    def equations(self) -> Sequence[Equations | None]:
        problem, index, count = self._problem, self._index, len(self._index)
        rows, inputs = problem.rows, problem.rows.shape[1]
        gram, total = np.zeros((inputs, inputs)), np.zeros(inputs)
        for at in range(0, count, self._step):
            piece = self._piece(index[at : at + self._step])
            if rows.size <= FEW:  # Taken once, and not for every goal.
                self._pieces.append(piece)
            gram += piece.T @ piece
            total += piece.sum(axis=0, dtype=np.float64)
        gram /= count
        self._mean = total / count if self._constant else np.zeros(inputs)
        if self._constant:
            gram = linalg.blas.dger(-1.0, self._mean, self._mean, a=gram.T, overwrite_a=True).T
        present = problem.kernel.astype(np.float64)
        start = problem.error(problem.kernel, problem.bias)
        made = Equations(gram, self._centre + self._mean, present, start, self._constant)
        self._equations = made
        self._set(problem.kernel, problem.bias)
        return [made]

    def errors(self, tried: Sequence[Sequence[Solution]]) -> Sequence[Sequence[float]]:
        return [[self._problem.error(*one) for one in tried[0]]]

    def aim(self, found: Sequence[Solution | None]) -> None:
        (one,) = found
        assert one is not None, "only a solution is improved"
        self._set(*one)

    def _piece(self, index: npt.NDArray[np.intp]) -> Array:
        piece = self._problem.rows[index]
        piece -= self._centre.astype(piece.dtype)
        return piece

    def _set(self, kernel: Array, bias: Array | None) -> None:
        """Sets what is aimed at, given what a solution makes; of few rows at a time."""
        problem, count, outputs = self._problem, len(self._index), len(self._problem.gain)
        cross, total = np.zeros((len(self._mean), outputs)), np.zeros(outputs)
        for number, at in enumerate(range(0, count, self._step)):
            index = self._index[at : at + self._step]
            aims = problem.wanted(kernel, bias, index)
            if self._aim_centre is None:
                self._aim_centre = aims.mean(axis=0) if self._constant else np.zeros(outputs)
            aims -= self._aim_centre.astype(aims.dtype)
            piece = self._pieces[number] if self._pieces else self._piece(index)
            cross += piece.T @ aims
            total += aims.sum(axis=0, dtype=np.float64)
        goal = total / count if self._constant else np.zeros(outputs)
        assert self._equations is not None and self._aim_centre is not None, "they come first"
        self._equations.aim(cross / count - np.outer(self._mean, goal), self._aim_centre + goal)
