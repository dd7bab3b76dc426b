"""Child processes that answer requests, so that a crash of native code stays in them.

``python -m tfprune.utils.child_process MODULE`` answers requests by the functions of a module;
:class:`Child` is
the other side, which starts it, asks, and starts it again if it has ended. A request and its reply
are a line of JSON each; arrays and files go through folders that the requests name.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

# Seconds without a request after which a program ends, to give its memory back.
IDLE = 300.0
# Lines of a native check that fails, as Google's libraries write them before they abort.
_FATAL = ("F0000", "FATAL", "Fatal")
# The last line of a traceback.
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b")


class ChildError(Exception):
    """A request that could not be answered; the text says why."""


class ChildEndedError(ChildError):
    """A program that ended in place of an answer; the text says how."""


class Child:
    """A program that answers requests, one after another.

    It is started by the first request or by :meth:`start`, ends with this process however that
    ends, and is in a session of its own: Ctrl-C is for this process alone, which then stops it.

    Parameters
    ----------
    module : str
        Whose functions answer: see :func:`serve`.
    environment : mapping of str to str, optional
        Variables that it has beside those of this process.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module, self._variables = module, dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._forked: list[subprocess.Popen[bytes]] = []
        self._output: IO[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def start(self) -> None:
        """Starts the program if it does not run, and does not wait for it.

        Raises
        ------
        ChildError
            If no process can be started.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        words = [sys.executable, "-P", "-m", __name__, self._module]
        own_group: dict[str, Any] = {"start_new_session": True}
        if os.name == "nt":
            own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
        try:
            self._process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._output,
                env={**_environment(), **self._variables}, **own_group,
            )  # fmt: skip
        except OSError as error:
            raise ChildError(f"Python ({sys.executable}) cannot be started: {error}") from None

    def ask(self, function: str, **arguments: Any) -> Any:
        """Calls a function of the module in the program.

        Parameters
        ----------
        function : str
        **arguments
            As JSON can hold them.

        Returns
        -------
        object
            What the function returns, as JSON holds it.

        Raises
        ------
        ChildError
            If the function raises; with its message.
        ChildEndedError
            If the program ends.
        """
        request = json.dumps([function, arguments]).encode() + b"\n"
        with self._lock:
            try:
                reply = self._reply(request)
            except BaseException:
                # Interrupted: what it does now nobody waits for.
                self.stop()
                raise
        answer = json.loads(reply)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer["value"]

    def stop(self) -> None:
        """Ends the program, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close(process)
        if self._output is not None:
            self._output.close()
            self._output = None

    def _reply(self, request: bytes) -> bytes:
        # After an idle time it may end just before the request: then a fresh one gets it.
        for attempt in range(2):
            self.start()
            process = self._process
            assert process is not None, "it was started"
            assert process.stdin is not None and process.stdout is not None, "they are pipes"
            reply = b""
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(request)
                process.stdin.flush()
                reply = process.stdout.readline()
            if reply.endswith(b"\n"):
                return reply
            code = process.wait()
            if code != 0 or attempt:
                break
        raise ChildEndedError(ending(code, self._said()))

    def _said(self) -> str:
        if self._output is None:  # Stopped meanwhile.
            return ""
        self._output.seek(0)
        return self._output.read().decode(errors="replace")

    def _forget(self) -> None:
        """After a fork, forgets the program, which belongs to the parent process."""
        self._lock = threading.Lock()
        if self._process is not None:
            _close(self._process)
            # Kept, as Python warns of a running process that is thrown away.
            self._forked.append(self._process)
        self._process = self._output = None


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        # What was written and not read goes with it.
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


def _environment() -> dict[str, str]:
    """This process' environment, with what it can import, and without a GPU.

    TensorFlow takes all of a GPU's memory, which the user's process may have taken already.
    """
    places = [str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]
    path = os.pathsep.join(dict.fromkeys(os.path.abspath(place) for place in places))  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}


def ending(code: int, said: str = "") -> str:
    """How a process ended, in words.

    Parameters
    ----------
    code : int
        Its exit code, negative for a signal.
    said : str
        What it wrote; the line of a failed check is passed on, and that of Python's error.
    """
    how = f"exit code {code}"
    lines = said.strip().splitlines()
    if code > 0 and lines and _ERROR.match(lines[-1]):
        how += f", {lines[-1][:200]}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
    if how == "SIGKILL":
        how += ", perhaps by the system for want of memory"
    checks = [line.strip() for line in said.splitlines() if line.strip("\0 ").startswith(_FATAL)]
    return f"{how} ({checks[0][:200]})" if checks else how


def serve(module: str) -> None:
    """Answers the requests on stdin until there are no more.

    A request is ``[function, arguments]``; the reply ``{"value": ...}``, or ``{"error": text}`` if
    the function raises.

    Parameters
    ----------
    module : str
        Is imported when stdout has been put aside: what native code prints is no reply.
    """
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        functions = importlib.import_module(module)
        while line := _request():
            with _ends_with_parent():
                reply = _answer(functions, line)
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def _answer(functions: Any, line: bytes) -> dict[str, Any]:
    name, arguments = json.loads(line)
    try:
        return {"value": getattr(functions, name)(**arguments)}
    except Exception as error:
        return {"error": str(error) or type(error).__name__}


def _request() -> bytes:
    """The next request, nothing if none has come for a while or there will be none."""
    # Windows waits for sockets alone.
    if os.name != "nt" and not select.select([0], [], [], IDLE)[0]:
        return b""
    with contextlib.suppress(OSError):
        os.ftruncate(2, 0)  # What was said before is of no interest any more.
        os.lseek(2, 0, os.SEEK_SET)
    return sys.stdin.buffer.readline()


@contextlib.contextmanager
def _ends_with_parent() -> Iterator[None]:
    """Lets the system end this process when the other end of stdin is closed.

    Native code may run for long and not let Python do anything, so Python cannot watch for it. The
    signal comes when something arrives as well, but nothing does before the reply.
    """
    try:
        import fcntl

        signal.signal(signal.SIGIO, signal.SIG_DFL)
        flags = fcntl.fcntl(0, fcntl.F_GETFL)
        fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_ASYNC)
    except (ImportError, AttributeError, OSError):  # Windows, which has none of it.
        yield
        return
    if _closed():
        raise SystemExit
    try:
        yield
    finally:
        fcntl.fcntl(0, fcntl.F_SETFL, flags)


def _closed() -> bool:
    """Whether the other end was closed before the signal was asked for."""
    poll = select.poll()
    poll.register(0, select.POLLHUP)
    return bool(poll.poll(0))


if __name__ == "__main__":
    serve(sys.argv[1])
