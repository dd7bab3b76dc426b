"""Rows of results that outlive a stop, made by this process or shared out among several."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.workers.asked import split_asked, workers_or_address
from tfprune.workers.pool import Piece, Workers, open_workers

Row = dict[str, Any]
# Makes the rows of a task, whose arguments JSON can hold; of a module, not of another function.
Maker = Callable[..., Iterable[Row]]


class Rows:
    """Results by their keys, in a file of one JSON object a line where one is named.

    Parameters
    ----------
    file : Path or None
        Read at the start, so that a run which was stopped goes on; appended to.
    keys : sequence of str
        The entries of a row that name it.
    """

    def __init__(self, file: Path | None, keys: Sequence[str]) -> None:
        self._file, self._keys = file, list(keys)
        self._rows: dict[tuple[Any, ...], Row] = {}
        if file is not None and file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                self._keep(json.loads(line))

    def _keep(self, row: Row) -> None:
        self._rows[tuple(row[key] for key in self._keys)] = row

    def has(self, *key: Any) -> bool:
        """Whether there is such a row."""
        return key in self._rows

    def add(self, row: Row) -> None:
        """Takes in a row and tells it."""
        self._keep(row)
        line = json.dumps(row)
        print(line, file=sys.stderr, flush=True)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as log:
                log.write(line + "\n")

    def like(self, **wanted: Any) -> list[Row]:
        """The rows with these entries."""
        rows = self._rows.values()
        return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def add_workers(parser: argparse.ArgumentParser) -> None:
    """``--workers``."""

    def asked(text: str) -> int | str:
        try:
            return workers_or_address(text, "--workers")
        except TfpruneError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix("--workers: ")) from None

    parser.add_argument(
        "--workers", type=asked, metavar="NUMBER|ADDRESS",
        help="processes of this machine that share the rows, or the address of a Dask scheduler; "
        "seconds are then those of a share of the cores, beside other work",
    )  # fmt: skip


class Sharing:
    """Makes rows, here or by workers; see :func:`sharing`."""

    def __init__(self, pool: Workers | None) -> None:
        self._pool = pool

    def add(self, rows: Rows, maker: Maker, tasks: Sequence[dict[str, Any]]) -> None:
        """Adds what is made of tasks that do not depend on each other, as soon as it is made.

        A row is added as soon as it is there, or by workers those of a task when they are.

        Parameters
        ----------
        rows : Rows
        maker : callable
        tasks : sequence of dict
            The maker's arguments.
        """
        for made in self._made(maker, tasks):
            for row in made:
                rows.add(row)

    def _made(self, maker: Maker, tasks: Sequence[dict[str, Any]]) -> Iterator[Iterable[Row]]:
        if self._pool is None:
            yield from (maker(**task) for task in tasks)
            return
        spec = sys.modules[maker.__module__].__spec__
        # A program that runs is called by another name.
        assert spec is not None, "it is run as a module"
        pieces = [
            Piece(
                ", ".join(f"{name} {value}" for name, value in task.items()), f"{__name__}:answer",
                {"module": spec.name, "name": maker.__name__, "arguments": task}, keras=False,
            )
            for task in tasks
        ]  # fmt: skip
        for done in self._pool.results(pieces):
            yield done.value


def answer(module: str, name: str, arguments: dict[str, Any]) -> tuple[list[Row], dict[str, Any]]:
    """The rows of a task; what a worker runs.

    Raises
    ------
    TfpruneError
        Where a benchmark would end by itself, with what it would say.
    """
    try:
        return list(getattr(import_module(module), name)(**arguments)), {}
    except SystemExit as error:
        raise TfpruneError(str(error)) from None


@contextmanager
def sharing(workers: int | str | None) -> Iterator[Sharing]:
    """Makes rows by so many processes, or by those of a scheduler; None is this process.

    The program ends with a line where a task cannot be done.
    """
    try:
        with open_workers(*split_asked(workers), print) as pool:
            yield Sharing(pool)
    except TfpruneError as error:
        sys.exit(str(error))
