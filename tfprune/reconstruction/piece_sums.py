"""What one piece of the samples adds to the least squares of a layer, wherever it is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tfprune.core.blas import threads_for
from tfprune.graph.forward import Forward
from tfprune.reconstruction.layer_rows import NUMBERS, Rows, drawn_rows, layer_bias, parts_of
from tfprune.reconstruction.least_squares import Problem, Solution
from tfprune.reconstruction.rows import Seeds, sample_digests
from tfprune.reconstruction.segments import Segments
from tfprune.reconstruction.sites import Site, Wiring, sites_of
from tfprune.reconstruction.sums import Sums
from tfprune.utils.arrays import Array

# Samples that are read at once to number them.
READ = 1024
# What is asked for: sums at the present kernel, errors of some solutions, or sums of a new goal.
NORMAL, ERRORS, AIM = "normal", "errors", "aim"
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of every piece.

    Attributes
    ----------
    path : str
        Of the layer.
    what : str
        ``normal``, ``errors`` or ``aim``.
    each : int
        Positions of a sample, at most.
    tried : sequence of (kernel, bias)
        Solutions of all problems of the layer: see :class:`tfprune.reconstruction.least_squares`.
        Several for ``errors``, one for ``aim``.
    changed : mapping of str to list of arrays
        The weights of layers of the pruned model that were solved for before, by their paths.
    """

    path: str
    what: str
    each: int
    tried: Sequence[Solution] = ()
    changed: Mapping[str, list[Array]] = field(default_factory=dict)


class Pieces(Protocol):
    """All samples in pieces, whoever reads them."""

    @property
    def samples(self) -> int:
        """How many there are."""

    def sums(self, task: Task) -> Iterator[Mapping[str, Array]]:
        """What each piece adds, in their order: see :meth:`PieceSums.of`."""


class Source(Protocol):
    """Samples of which sums can be made, for whichever models."""

    def begin(
        self, ours: Wiring, theirs: Wiring, kept: Mapping[str, npt.NDArray[np.intp]]
    ) -> Pieces:
        """The samples as the models of :class:`PieceSums` take them."""


class Room(Generic[T]):
    """What is kept to be used again, so many numbers at most: what finds no room is not kept."""

    def __init__(self, most: int) -> None:
        self._most, self._kept = most, dict[int, tuple[T, int]]()

    @property
    def left(self) -> int:
        """For how many numbers there is room."""
        return self._most - sum(numbers for _, numbers in self._kept.values())

    def get(self, key: int) -> T | None:
        """What was kept under a key, if it was."""
        return self._kept[key][0] if key in self._kept else None

    def keep(self, key: int, value: T, numbers: int) -> None:
        """Keeps something, in place of what was kept under the same key."""
        self._kept.pop(key, None)
        if numbers <= self.left:
            self._kept[key] = value, numbers

    def clear(self) -> None:
        """Lets everything go."""
        self._kept.clear()


class PieceSums:
    """Computes what pieces of the samples add to one layer after another.

    What layers read, and what is computed at narrow places, is kept as far as there is room.

    Parameters
    ----------
    ours, theirs : Wiring
        Of the pruned model, whose weights change between the layers, and of the original.
    kept : mapping of str to array
        By layer, which of the original's outputs it makes, where some went.
    """

    def __init__(
        self, ours: Wiring, theirs: Wiring, kept: Mapping[str, npt.NDArray[np.intp]]
    ) -> None:
        self._sides = ours, theirs
        self._sites = {site.path: site for site in sites_of(ours, theirs, kept)}
        self._path = ""
        self._rows: Room[list[Rows]] = Room(2 * NUMBERS)
        self._segments: Room[tuple[Segments, Seeds]] = Room(NUMBERS)
        self._made: dict[Any, Forward] = {}

    def of(self, piece: int, x: Callable[[], Sequence[Any]], task: Task) -> dict[str, Array]:
        """What the samples of a piece add.

        Parameters
        ----------
        piece : int
            Its number.
        x : callable
            Gives its samples, as both models take them; called where nothing was kept.
        task : Task
            Its ``changed`` weights are not looked at.

        Returns
        -------
        dict of str to array
            The state of :class:`tfprune.reconstruction.sums.Sums`, ``held`` and ``squares``, the
            number of rows held back and their squared error, shape (solutions, problems), and
            ``goals`` and ``goal_squares``, sums over all rows; as far as they are asked for.
        """
        if task.path != self._path:
            self._path = task.path
            self._rows.clear()
            self._made.clear()
        site = self._sites[task.path]
        present = parts_of(site, (site.layer.get_weights()[0], layer_bias(site)))
        with threads_for(present[0].shape[1]):
            batches = self._batches(piece, x, site, task.each)
            problems = (part.problem(site) for rows in batches for part in rows.parts())
            if task.what == ERRORS:
                return _errors(problems, task.tried)
            if task.what == AIM:
                return _added(problems, task.tried[0], squares=False)
            return _added(problems, present, squares=True)

    def _batches(
        self, piece: int, x: Callable[[], Sequence[Any]], site: Site, each: int
    ) -> Iterable[Rows]:
        """Rows of a piece, as they were kept or computed anew."""
        known = self._rows.get(piece)
        if known is not None:
            yield from known
            return
        segments, digests = self._segments.get(piece) or self._begun(x())
        segments.go_to(site.path)
        self._segments.keep(piece, (segments, digests), segments.numbers)
        batches, numbers = list[Rows](), 0
        for batch in drawn_rows(site, segments, each, digests):
            numbers += batch.numbers
            if numbers <= self._rows.left:
                batches.append(batch)
            else:
                batches.clear()
            yield batch
        self._rows.keep(piece, batches, numbers)

    def _begun(self, x: Sequence[Any]) -> tuple[Segments, Seeds]:
        parts = range(0, len(x[0]), READ)
        digests = [sample_digests([np.asarray(one[at : at + READ]) for one in x]) for at in parts]
        return Segments(*self._sides, x, self._made), np.concatenate(digests)


def _errors(problems: Iterable[Problem], tried: Sequence[Solution]) -> dict[str, Array]:
    """The squared errors of solutions on the rows held back, shape (solutions, problems)."""
    errors = []
    for problem in problems:
        errors.append(np.stack([problem.squared_error(*one) for one in tried]))
    return {"squares": np.sum(errors, axis=0)}


def _added(problems: Iterable[Problem], solution: Solution, squares: bool) -> dict[str, Array]:
    """Sums with what is wanted given a solution; those of the start too, with ``squares``."""
    total: Sums | None = None
    about = dict[str, Any]()
    for problem in problems:
        fitted = ~problem.held
        wanted = problem.wanted(*solution)
        sums = Sums(problem.rows[:, fitted], wanted[:, fitted], squares)
        if squares:
            more = {
                "squares": problem.squared_error(*solution)[None],
                "held": np.array(np.sum(problem.held)),
                "goals": np.sum(problem.goal, axis=1),
                "goal_squares": np.sum(np.square(problem.goal), axis=1),
            }
            about = {name: about.get(name, 0) + value for name, value in more.items()}
        if total is None:
            total = sums
        else:
            total.add(sums)
    assert total is not None, "a piece has samples"
    return {**total.state(), **about}
