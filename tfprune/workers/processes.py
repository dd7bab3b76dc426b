"""Workers that are processes of this machine; needs no package beside Python's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

from tfprune.utils.child_process import Child, ChildEndedError, ChildError
from tfprune.workers import answering
from tfprune.workers.answering import THREADS, Answer

# How often a piece is tried whose worker ends.
ATTEMPTS = 3


class LocalWorkers:
    """Processes, each of which does one piece of work at a time with its share of the cores.

    They end with this process, however that ends.

    Parameters
    ----------
    number : int
        How many, at least 1.
    variables : mapping of str to str, optional
        Of their environment; by default their share of the cores, where the user says nothing.
    """

    def __init__(self, number: int, variables: Mapping[str, str] | None = None) -> None:
        self._number = number
        self._folder = Path(tempfile.mkdtemp(prefix="tfprune-"))
        threads = str(max(cores() // number, 1))
        # What a user set stays.
        environment = variables or {name: os.environ.get(name, threads) for name in THREADS}
        self._children = [Child(answering.__name__, environment=environment) for _ in range(number)]
        self._idle = list(self._children)
        self._numbers = count()
        self._known: set[str] = set()
        self._stopped = False
        self._executor = ThreadPoolExecutor(number, "tfprune-worker")
        self._lock = threading.Lock()
        self._waiting: list[tuple[Future[Answer], Mapping[str, Any]]] = []
        # What each process keeps something of, as the requests say.
        self._near: dict[int, set[str]] = {id(child): set() for child in self._children}
        for child in self._children:
            with contextlib.suppress(ChildError):  # Is told by the first piece.
                child.start()

    def prepare(self) -> None:
        """Lets all processes import Keras, without waiting for it."""
        for _ in self._children:
            self._executor.submit(self._prepare)

    def size(self) -> int:
        """How many pieces can be worked on at once."""
        return self._number

    def share(self, contents: Mapping[str, bytes], keep: Iterable[str] = ()) -> None:
        """Makes bytes known by their digests; others that were are forgotten, but for some."""
        for digest in self._known - {*contents, *keep}:
            (self._folder / digest).unlink()
            self._known.discard(digest)
        for digest, content in contents.items():
            if not self.knows(digest):
                (self._folder / digest).write_bytes(content)
                self._known.add(digest)

    def knows(self, digest: str) -> bool:
        """Whether these bytes were shared."""
        return digest in self._known

    def submit(self, request: Mapping[str, Any]) -> Future[Answer]:
        """Has a piece of work done; a piece whose worker ends is done again."""
        made: Future[Answer] = Future()
        with self._lock:
            self._waiting.append((made, request))
        self._executor.submit(self._next)
        return made

    def stop(self) -> None:
        """Ends all workers, whatever they do."""
        self._stopped = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for future, _ in self._waiting:
                future.cancel()
            self._waiting.clear()
        for child in self._children:
            child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self) -> None:
        with self._lock:
            child = self._idle.pop(0)
        with contextlib.suppress(ChildError):
            child.ask("prepare")
        with self._lock:
            self._idle.append(child)

    def _next(self) -> None:
        """Has one of the requests done by a process that has nothing to do."""
        with self._lock:
            if not self._waiting:
                return
            child, place = self._choice()
            self._idle.remove(child)
            future, request = self._waiting.pop(place)
            if "near" in request:
                self._near[id(child)].add(request["near"])
        try:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._answer(child, request))
                except BaseException as error:
                    future.set_exception(error)
        finally:
            with self._lock:
                self._idle.append(child)

    def _choice(self) -> tuple[Child, int]:
        """A process and the first request that it keeps something of, else one that no other does.

        There are as many threads as processes, so one of these has nothing to do.
        """
        near = [request.get("near") for _, request in self._waiting]
        for child in self._idle:
            for place, one in enumerate(near):
                if one in self._near[id(child)]:
                    return child, place
        known = set[str]().union(*self._near.values())
        return self._idle[0], next((n for n, one in enumerate(near) if one not in known), 0)

    def _answer(self, child: Child, request: Mapping[str, Any]) -> Answer:
        try:
            for attempt in range(1, ATTEMPTS + 1):
                number = next(self._numbers)
                try:
                    made: Answer = child.ask(
                        "answer_by_files",
                        request=dict(request), folder=str(self._folder), number=number,
                    )  # fmt: skip
                except ChildEndedError as error:
                    if self._stopped or attempt == ATTEMPTS:
                        return {"refused": f"a worker ended {attempt} times over it: {error}"}
                else:
                    return made
            raise AssertionError("the last attempt returns")
        except ChildError as error:
            return {"failed": str(error)}


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
