"""Standard streams that were closed, that nobody reads any more, or that know few characters."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

# Handlers of characters that a stream does not know, which do not handle all of them.
FAILING = ("strict", "surrogateescape", "surrogatepass")


@contextmanager
def sound_streams() -> Iterator[None]:
    """Makes stdout and stderr fit to be written to, whatever the command was started with.

    A stream that was closed becomes one that goes nowhere, as else the next file that is opened
    would take its number, and what native code writes would land in that file. Characters that a
    stream does not know are written as escapes. When a reader has gone away (``| head -1``) the
    rest goes nowhere, and the work goes on; the same where stderr cannot be written.

    Raises
    ------
    OSError
        From writing to stdout, for want of space say.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure") and stream.errors in FAILING:
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast(TextIO, _Sound(sys.stdout, needed=True))
    sys.stderr = cast(TextIO, _Sound(sys.stderr, needed=False))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Who needs to know of it has flushed it before.
            sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


class _Sound:
    """A stream that outlives its readers."""

    def __init__(self, stream: TextIO, needed: bool) -> None:
        self._stream, self._needed = stream, needed

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self._discard()
            if self._needed and not isinstance(error, BrokenPipeError):
                raise

    def _discard(self) -> None:
        """Lets all that is still to come, and what Python holds back, go nowhere."""
        with contextlib.suppress(OSError, ValueError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, self._stream.fileno())
            os.close(sink)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_closed() -> None:
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            if os.open(os.devnull, os.O_RDWR) == descriptor:
                os.set_inheritable(descriptor, True)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
