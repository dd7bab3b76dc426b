"""What all commands share: interrupts that arrive, mistakes in one line, exit codes.

Until :func:`main` runs, Ctrl-C shows a traceback; so this imports next to nothing, and neither
should a command's module.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tfprune.cli.memory import memory_limit, supervise, too_little
from tfprune.cli.streams import sound_streams
from tfprune.errors import TfpruneError

USAGE = 2
# Some of what was asked for was written, some could not be.
PARTIAL = 3
INTERRUPTED = 130
# Seconds until an interrupt that got lost is raised again.
AGAIN = 0.5
NOTHING = "nothing was changed"


def main(
    work: Callable[[Any, list[str]], int | None],
    table: Callable[[], type],
    argv: Sequence[str] | None,
    name: str,
    left: str = NOTHING,
) -> int:
    """Runs a command.

    Parameters
    ----------
    work : callable
        Takes the options and the command line, for the record; its docstring stands above the
        options in the help.
    table : callable
        Imports the table of the options, see :mod:`tfprune.utils.option_table`: late, as it takes
        time.
    argv : sequence of str or None
        The command line without the program; None for that of this process, which is then this
        command's alone.
    name, left : str
        See :func:`guarded`.

    Returns
    -------
    int
        See :func:`guarded`.
    """

    def call() -> int:
        if argv is None and memory_limit():
            code = supervise(name)
            if code is not None:
                return code
        _hush()
        from tfprune.cli.flags import HELP, help_text, read

        words = sys.argv[1:] if argv is None else argv
        if set(HELP) & set(words):
            print(help_text(table(), work.__doc__ or "", " ".join(program(name))))
            return 0
        return work(read(table(), words, name), command_line(name)) or 0

    return guarded(call, name, left)


def guarded(call: Callable[[], int], name: str, left: str = NOTHING) -> int:
    """Calls a function so that whatever ends it early is told in one line.

    Parameters
    ----------
    call : callable
        Returns an exit code.
    name : str
        The command's, which its messages begin with: see :func:`program`.
    left : str
        What an interrupt leaves behind, in words; by default nothing, or the files that were
        written by then.

    Returns
    -------
    int
        What it returned; 2 for what the user can mend, said in one line on stderr; 130 if
        interrupted.
    """
    with sound_streams():
        code = _guarded(call, name, left)
        try:
            sys.stdout.flush()
        except OSError as error:
            return _fail(name, str(error))
        return code


def _guarded(call: Callable[[], int], name: str, left: str) -> int:
    arrived: list[int] = []
    try:
        with contextlib.suppress(ValueError):  # Only the main thread may set it.
            _interrupt_surely(arrived)
        return call()
    except KeyboardInterrupt:
        return _interrupted(name, left)
    except Exception as error:
        # A native import that is cut short raises something of its own.
        if arrived:
            return _interrupted(name, left)
        cause = error.__cause__ or error
        known = isinstance(error, (TfpruneError, OSError))
        if isinstance(cause, MemoryError) or (
            # Native code that got no memory fails in any way.
            memory_limit() and (not known or isinstance(cause, ImportError))
        ):
            return _fail(name, too_little(f"{type(cause).__name__}: {cause}"))
        if known:
            return _fail(name, str(error) or type(error).__name__)
        if isinstance(error, ImportError):
            return _fail(name, f"{error}; is everything of requirements.txt installed?")
        raise


def _interrupt_surely(arrived: list[int]) -> None:
    """Lets Ctrl-C and a polite kill end the work, whatever code is running.

    An interrupt that is raised inside a destructor, as TensorFlow's often are, is lost; so it is
    raised again every now and then until it has arrived. Its number is kept in the list.
    """

    def interrupt(number: int, frame: Any) -> None:
        arrived.append(number)
        sys.unraisablehook = _unraisable
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGALRM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)


def _unraisable(lost: Any) -> None:
    """Says nothing once interrupted: what got lost comes again, and cut short are destructors."""


def _interrupted(name: str, left: str) -> int:
    if hasattr(signal, "setitimer"):
        # One that is on its way already would end the process at its exit.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
    # Python ends itself with the signal if an eval was interrupted, unless another one was not.
    eval("0")
    # Off the line of a progress bar, if there may be one.
    start = "\n" if "tqdm" in sys.modules else ""
    print(f"{start}{name}: interrupted; {_left(left)}", file=sys.stderr)
    return INTERRUPTED


def _left(left: str) -> str:
    """What an interrupt leaves behind, by what the command had done until then."""
    files = sys.modules.get("tfprune.utils.files")
    written = list(dict.fromkeys(map(str, files.completed))) if files else []
    if left != NOTHING or not written:
        return left
    return f"written by then, and whole: {', '.join(written)}"


def _hush() -> None:
    """TensorFlow and Keras warn whoever calls them; a command's user is not that person."""
    import logging
    import warnings

    for logger in ("tensorflow", "absl", "matplotlib"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def program(name: str) -> list[str]:
    """How a command is started, by its name.

    Examples
    --------
    >>> program("tools.export"), program("tfprune export")
    (['python', '-m', 'tools.export'], ['tfprune', 'export'])
    """
    return ["python", "-m", name] if "." in name else name.split()


def command_line(name: str) -> list[str]:
    """The words that were typed, for the record: as UTF-8, whatever the locale is."""
    words = [os.fsencode(word).decode("utf-8", "backslashreplace") for word in sys.argv[1:]]
    return [*program(name), *words]


def _fail(name: str, text: str) -> int:
    text = " ".join(text.split())
    try:
        from tfprune.utils.escapes import plain

        text = plain(text)
    except Exception:  # In next to no memory.
        text = text.encode("ascii", "backslashreplace").decode("ascii")
    print(f"{name}: {text}", file=sys.stderr)
    return USAGE
