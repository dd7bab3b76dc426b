"""Keeps TensorFlow's chatter off a user's terminal, and says there how far a run is."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any, Self

from tqdm import tqdm

from tfprune.utils.escapes import plain


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Discards what native code writes to stdout and stderr, within the block.

    Wrap the import of TensorFlow and conversions in it: they write past Python to the file
    descriptors, so nothing less helps. If the code inside fails with something other than an
    ordinary exception (a crash), nothing can be shown of it.
    """
    # Read by TensorFlow at its import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _flush()
    saved = {number: _copy(number) for number in (1, 2)}
    # Where a stream is closed the sink may get its number.
    sink = os.open(os.devnull, os.O_WRONLY)
    for number in saved:
        os.dup2(sink, number)
    try:
        yield
    finally:
        _flush()
        if sink not in saved:
            os.close(sink)
        for number, original in saved.items():
            if original is None:
                os.close(number)
            else:
                os.dup2(original, number)
                os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # None if it was closed. What cannot be written is told when its owner writes.
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()


def _copy(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


# Seconds between two lines of a stage where nothing can be redrawn.
AGAIN = 60.0
# The stages of the run in progress.
_running: Stages | None = None


class Stages:
    """The stages of a run, numbered, a line each on stderr: ``3 of 6: reconstruction``.

    On a terminal the line of a stage moves, with the time left where that is known, and in the end
    says how long it took. Elsewhere it is written once, when the stage begins, and in a long stage
    once a minute with the time left. The first one's is held back until something else is written,
    so that a mistake found in it is told alone. A stage with nothing to do says so.

    Parameters
    ----------
    names : sequence of str
        All stages, in their order.

    Examples
    --------
    >>> import contextlib, sys
    >>> with contextlib.redirect_stderr(sys.stdout), Stages(["activations", "healing"]):
    ...     with during("activations"):
    ...         pass
    ...     with meter("healing", 10) as bar:
    ...         bar.update(10)
    1 of 2: activations
    2 of 2: healing
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._begun = self._place = 0
        self._waiting = ""
        self._bar: tqdm[Any] | None = None
        self._lent = False

    def __enter__(self) -> Self:
        global _running
        self._outer, _running = _running, self
        return self

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        global _running  # noqa: PLW0603
        _running = self._outer
        if kind is None:
            self._pass_over(len(self._names))

    @contextlib.contextmanager
    def during(self, name: str) -> Iterator[None]:
        """See the function of that name."""
        if self._bar is not None or name not in self._names:
            yield
            return
        place = self._place = self._names.index(name)
        is_new, moves = place >= self._begun, sys.stderr.isatty()
        if is_new:
            self._pass_over(place)
            self._begun = place + 1
            self._waiting = "" if moves else self._title(place)
            if place:
                self.tell()
        start = time.monotonic()
        kind = tqdm if moves else _Lines
        self._bar = kind(
            desc=self._title(place), bar_format=_WITHOUT_COUNT, leave=False, mininterval=interval(),
            file=sys.stderr if moves else StringIO(),
        )  # fmt: skip
        try:
            yield
        finally:
            self._bar.close()
            self._bar = None
        self.tell()
        if is_new and moves:
            taken = tqdm.format_interval(time.monotonic() - start)
            _write(f"{self._title(place)}, {taken}")

    @contextlib.contextmanager
    def meter(self, what: str, total: int | None, unit: str) -> Iterator[tqdm[Any]]:
        """The bar of the stage with a count; one of its own where that counts something else."""
        with self.during(what):
            bar = self._bar
            if bar is None or self._lent:
                moves = sys.stderr.isatty()
                with tqdm(total=total, desc=what, unit=unit, disable=not moves, leave=False) as own:
                    yield own
                return
            self.tell()
            title = self._title(self._place)
            more = what.removeprefix(self._names[self._place]).removeprefix(": ")
            bar.desc = f"{title}, {more}" if more else title
            bar.unit, bar.total, bar.initial, bar.smoothing = unit, total, 0, 0.3
            bar.bar_format, self._lent = None, True
            bar.set_postfix_str("", refresh=False)
            bar.reset()
            try:
                yield bar
            finally:
                bar.desc, bar.bar_format, self._lent = title, _WITHOUT_COUNT, False

    def tell(self) -> None:
        """Writes the line that was held back, if there is one."""
        if self._waiting:
            line, self._waiting = self._waiting, ""
            _write(line)

    def _title(self, place: int) -> str:
        return f"{place + 1} of {len(self._names)}: {self._names[place]}"

    def _pass_over(self, place: int) -> None:
        """Says of stages that were not needed that there was nothing to do."""
        for missed in range(self._begun, place):
            _write(f"{self._title(missed)}: nothing to do")


_WITHOUT_COUNT = "{desc}"


class _Lines(tqdm):  # type: ignore[type-arg]
    """A progress bar for a log: a line now and then, whoever asks for one."""

    told: float | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        now = time.monotonic()
        if self.told is None:
            self.told = now
        elif msg is None and now - self.told >= AGAIN and self.total and 0 < self.n < self.total:
            self.told = now
            about = self.format_dict
            rate = about["rate"] or (self.n - self.initial) / max(about["elapsed"], 1e-9)
            left = tqdm.format_interval((self.total - self.n) / rate) if rate > 0 else "?"
            _write(f"{self.desc}, {self.n / self.total:.0%}, {left} left")


def during(name: str) -> contextlib.AbstractContextManager[None]:
    """A stage of the run in progress, if it has one of that name and is not within another."""
    return _running.during(name) if _running else contextlib.nullcontext()


def meter(
    what: str, total: int | None, shown: bool = True, unit: str = "sample"
) -> contextlib.AbstractContextManager[tqdm[Any]]:
    """A progress bar that its owner moves; within a run of :class:`Stages` it is a stage's line.

    Parameters
    ----------
    what : str
        Also the name of the stage, where the run has one of that name.
    total : int or None
    shown : bool
    unit : str
        What is counted.
    """
    if _running and shown:
        return _running.meter(what, total, unit)
    return tqdm(
        total=total, desc=what, unit=unit, disable=not shown, mininterval=interval(), leave=True
    )


def interval() -> float:
    """Seconds between two drawings: a log file gets one now and then, a terminal a moving bar."""
    if sys.stderr.isatty():
        return 0.1
    return AGAIN if _running else 5.0


def say(line: str) -> None:
    """A line of a command on stderr, above the progress that is drawn there."""
    if _running:
        _running.tell()
    lead = "" if line.startswith("WARNING") else "tfprune: "
    _write(f"{lead}{plain(line)}")


def _write(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
