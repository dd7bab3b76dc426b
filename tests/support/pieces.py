"""Pieces of work that tests give to workers."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from tfprune.errors import TfpruneError


def scaled(number, marker=None, parent=False, shared=b"\x01"):
    """A table of products; the first process that makes the marker dies of it, or its parent."""
    if marker is not None and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getppid() if parent else os.getpid(), signal.SIGKILL)
        time.sleep(60)
    factor = shared[0]
    return {"number": number, "factor": factor}, {"table": factor * number * np.arange(3.0)}


def slept(seconds):
    """Who did it, after a while."""
    time.sleep(seconds)
    return os.getpid(), {}


def deadly():
    """Ends whoever tries it."""
    os.kill(os.getpid(), signal.SIGKILL)


def refused(path):
    """A file that cannot be read."""
    raise TfpruneError(f"{path}: no such file")


def endless(folder):
    """Work that goes on, by a process that says who it is."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)


def squares(number):
    """The rows of a number, as a benchmark makes them: its square and its cube."""
    if number < 0:
        raise TfpruneError("no such number")
    return [{"number": number, "power": power, "value": number**power} for power in (2, 3)]


def placed():
    """A row of what a variable of the environment names."""
    if "TFPRUNE_TEST_PLACE" not in os.environ:
        sys.exit("set TFPRUNE_TEST_PLACE")
    return [{"place": os.environ["TFPRUNE_TEST_PLACE"]}]


def environment(names):
    """The variables of a worker's environment."""
    return {name: os.environ.get(name) for name in names}, {}
