"""``tfprune COMMAND``: all commands under one name; each is imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import tfprune
from tfprune.cli.command import guarded
from tfprune.errors import TfpruneError

COMMANDS = {
    "inspect": "shows what is in a model and what could go, before anything is done",
    "export": "prunes a Keras model, and exports small measured TFLite files",
    "sweep": "prunes a model in many ways, and draws accuracy against bytes",
    "compare": "fails when files became bigger or worse than their limits allow",
    "reproduce": "repeats published experiments, and shows their figures beside ours",
    "run": "scores and times TFLite files on a device, with numpy and a runtime alone",
}
# The modules that are not called as their command: one called inspect would hide Python's own from
# scripts beside it.
MODULES = {"inspect": "inspection"}


def main() -> int:
    """Runs the command that the process was started with; returns its exit code."""
    name, *words = sys.argv[1:] or [""]
    if name in COMMANDS:
        sys.argv = [f"{sys.argv[0]} {name}", *words]
        if name == "run":
            return _run()
        run: int = import_module(f"tfprune.cli.{MODULES.get(name, name)}").main()
        return run
    return guarded(lambda: _about(name), "tfprune")


def _about(word: str) -> int:
    if word in ("--help", "-h"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
        print("\n".join(["Usage: tfprune COMMAND [flags]", "", *lines, ""]))
        print("tfprune COMMAND --help shows the flags of a command, tfprune --version the version.")
    elif word == "--version":
        print(f"tfprune {tfprune.__version__}")
    else:
        raise TfpruneError(_complaint(word))
    return 0


def _complaint(word: str) -> str:
    import difflib

    known = ", ".join(COMMANDS)
    if not word:
        return f"expected a command, one of {known}; tfprune --help says what they do"
    near = difflib.get_close_matches(word, COMMANDS, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {known}"
    return f"unknown command {word!r}; {hint}"


def device_script() -> Path:
    """The script that devices get by itself: in a checkout in ``tools``, else in this package."""
    here = Path(__file__).resolve().parent
    packaged = here / "run.py"
    return packaged if packaged.exists() else here.parent.parent / "tools" / "run.py"


def _run() -> int:
    """Runs the script as ``python run.py`` does; it starts a process of its own by its path."""
    import runpy

    path = str(device_script())
    sys.argv[0] = path
    runpy.run_path(path, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
