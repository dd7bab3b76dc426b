"""``open_workers``: where pieces of work are done, the same for processes and for a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Protocol

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array
from tfprune.utils.checks import whole
from tfprune.utils.versions import versions
from tfprune.workers.answering import THREADS, Answer, loaded
from tfprune.workers.asked import MOST
from tfprune.workers.processes import LocalWorkers, cores

# Seconds between two looks at whether there are more workers.
LOOK = 5.0
# Pieces in hand for every worker where their order counts: those that wait for an earlier one.
AHEAD = 2
# By which TensorFlow chooses its kernels, when it is imported: another choice, other roundings.
KERNELS = ("TF_ENABLE_ONEDNN_OPTS",)


class Engine(Protocol):
    """What does the work."""

    def size(self) -> int: ...
    def share(self, contents: Mapping[str, bytes]) -> None: ...
    def submit(self, request: Mapping[str, Any]) -> Future[Answer]: ...
    def prepare(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Piece:
    """A piece of work.

    Attributes
    ----------
    name : str
        What messages call it.
    function : str
        ``module:name`` of a function that returns a value that JSON can hold, and arrays by name.
        It may be called twice, by two processes.
    arguments : dict
        As JSON can hold them.
    keras : bool
        Whether it needs Keras.
    near : str, optional
        Pieces of which this is the same go to the same worker where that makes nobody wait, as it
        may have kept something of them.
    """

    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    keras: bool = True
    near: str | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """What came of a piece of work."""

    piece: Piece
    value: Any
    arrays: dict[str, Array]


@dataclass(frozen=True, eq=False)
class Begun:
    """A piece of work that was given to workers."""

    piece: Piece
    future: Future[Answer]

    @property
    def ended(self) -> bool:
        """Whether it is done, or refused."""
        return self.future.done()

    def result(self) -> Done:
        """What came of it, which is waited for.

        Raises
        ------
        TfpruneError
            If it is refused.
        """
        return _done(self.piece, self.future.result())


class Workers:
    """Processes that do pieces of work: see :func:`open_workers`."""

    def __init__(
        self,
        engine: Engine,
        say: Callable[[str], None],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._engine, self._say = engine, say
        self._variables = dict(variables or {})
        self._waiting = False

    def prepare(self) -> None:
        """Lets new processes import Keras, without waiting for it: they take seconds."""
        self._engine.prepare()

    def stop(self) -> None:
        """Ends the work on what was begun, which nobody waits for any more."""
        self._engine.stop()

    def begin(self, piece: Piece) -> Begun:
        """Has a piece of work done, and does not wait for it."""
        return Begun(piece, self._engine.submit(_request(piece, {}, self._variables)))

    def wait(self, begun: Sequence[Begun]) -> None:
        """Waits until one of these has ended, or there may be more workers."""
        wait([one.future for one in begun], LOOK, FIRST_COMPLETED)

    def results(
        self,
        pieces: Sequence[Piece],
        *,
        ordered: bool = False,
        shared: bytes | Mapping[str, bytes] | None = None,
    ) -> Iterator[Done]:
        """What came of the pieces: each as soon as it is done, or in their order.

        Only as many as there are workers are in hand at a time, so that one who comes later gets
        its share, and that no more results than that have to be held where their order counts.

        Parameters
        ----------
        pieces : sequence of Piece
        ordered : bool
        shared : bytes or mapping of str to bytes, optional
            What all functions are called with beside their arguments: as ``shared``, or by names. A
            worker is sent those that it did not have for the piece before.

        Raises
        ------
        TfpruneError
            If a piece is refused; the others' results that came before were given.
        """
        named = {"shared": shared} if isinstance(shared, bytes) else dict(shared or {})
        digests = {name: sha256(content).hexdigest() for name, content in named.items()}
        if named:
            self._engine.share({digests[name]: content for name, content in named.items()})
        left = list(enumerate(pieces))[::-1]
        pending: dict[Future[Answer], int] = {}
        finished: dict[int, Done] = {}
        given = 0
        try:
            while given < len(pieces):
                room = self.size() * (AHEAD if ordered else 1)
                while left and len(pending) + len(finished) < room:
                    number, piece = left.pop()
                    pending[self._engine.submit(_request(piece, digests, self._variables))] = number
                done, _ = wait(pending, LOOK, FIRST_COMPLETED)
                for future in done:
                    number = pending.pop(future)
                    finished[number] = _done(pieces[number], future.result())
                for number in sorted(finished):
                    if ordered and number != given:
                        break
                    given += 1
                    yield finished.pop(number)
        finally:
            for future in pending:
                future.cancel()

    def size(self) -> int:
        """How many pieces are worth having in hand: one for each worker, at least one."""
        size = self._engine.size()
        if not size and not self._waiting:
            self._say("the cluster has no worker now, waiting for one: dask worker ADDRESS")
        self._waiting = not size
        return max(size, 1)


@contextmanager
def open_workers(
    number: int | None,
    cluster: str | None,
    say: Callable[[str], None],
    *,
    alike: bool = False,
) -> Iterator[Workers | None]:
    """The workers that were asked for, or None; they end with the block.

    Parameters
    ----------
    number : int or None
        How many processes of this machine.
    cluster : str or None
        The address of a Dask scheduler.
    say : callable
        Is told, in a line each, what the user should know.
    alike : bool
        Whether each takes as many threads as this process, in place of a share of the cores: sums
        that are shared out among other numbers of threads are rounded otherwise.

    Raises
    ------
    TfpruneError
        If both are given, a number is not possible, or a cluster cannot be reached.
    """
    if number is None and cluster is None:
        yield None
        return
    if number is not None:
        if cluster is not None:
            raise TfpruneError("workers and cluster: expected one of them, received 2")
        number = whole(1, MOST + 1)(number, "workers")
    engine: Engine
    variables = {name: os.environ.get(name, str(cores())) for name in THREADS} if alike else None
    if cluster is not None:
        from tfprune.workers.cluster import ClusterWorkers

        engine = ClusterWorkers(cluster)
    else:
        engine = LocalWorkers(number or 1, variables)
    try:
        yield Workers(engine, say, variables)
    finally:
        engine.stop()


def _request(
    piece: Piece, shared: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, Any]:
    kernels = {name: os.environ[name] for name in KERNELS if name in os.environ}
    request = {
        "function": piece.function,
        "arguments": piece.arguments,
        "versions": versions(),
        "keras": piece.keras,
        "variables": {**kernels, **variables},
    }
    request |= {"shared": dict(shared)} if shared else {}
    return request if piece.near is None else {**request, "near": piece.near}


def _done(piece: Piece, answer: Answer) -> Done:
    where = f"worker {answer['where']}: " if answer.get("where") else ""
    if "refused" in answer:
        raise TfpruneError(f"{where}{piece.name}: {answer['refused']}")
    if "failed" in answer:
        raise RuntimeError(f"{where}{piece.name}:\n{answer['failed']}")
    return Done(piece, answer["value"], loaded(answer))
