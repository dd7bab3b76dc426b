"""Runs files in TensorFlow Lite Micro, by the optional package ``tflite-micro``.

The package holds the portable kernels that microcontrollers without kernels of their own run. Each
file has a process of its own: what these kernels do not like may end it.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.micro import worker
from tfprune.micro.c_source import Port, methods
from tfprune.tflite.reader import last_operators
from tfprune.utils.arrays import Array
from tfprune.utils.child_process import ending
from tfprune.utils.console import quiet

# Steps of an output's scale by which kernels may differ: some functions (softmax, tanh) are
# computed from tables in LiteRT and without in TensorFlow Lite Micro.
STEPS = 3
# The most that an output of these operators changes, for a scale of what they read, where that is a
# step apart (of a softmax all its inputs, up and down): Dense kernels are, here and there.
AMPLIFIED: dict[str, Callable[[float], float]] = {
    "SOFTMAX": lambda scale: math.tanh(scale / 2),
    "LOGISTIC": lambda scale: math.tanh(scale / 4),
    "TANH": lambda scale: 2 * math.tanh(scale / 2),
}
# Share of the values that may differ by more than STEPS for that reason.
FEW = 0.1
# Bytes of arena to start with, beside ten times the file's.
ROOMY = 1 << 20
# What it says of its arena leaves out what setting up takes; that is found to so many bytes.
STEP = 64
SECONDS = 300
MODEL, GIVEN, MADE = "model.tflite", "given.npz", "made.npz"
_USED = re.compile(r"Arena allocation total (\d+) bytes")


@dataclass(frozen=True)
class Trial:
    """The result of running a file in TensorFlow Lite Micro.

    Attributes
    ----------
    arena : int
        Bytes in which it ran.
    inputs, outputs : tuple of Port
    samples, values : int
        How many samples it was given, and how many values came out.
    different : int
        How many of the values were not those of LiteRT.
    steps : float
        The largest difference, in steps of an integer output; of float outputs a difference.
    kernels : str
        LiteRT's kernels that it was compared with: ``reference``, or ``default`` where these lack
        an operator.
    """

    arena: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    samples: int
    values: int
    different: int
    steps: float
    kernels: str


def tflm_version() -> str:
    """The version of the package, or ``unknown``."""
    try:
        return version("tflite-micro")
    except PackageNotFoundError:
        return "unknown"


def tried(data: bytes, samples: Sequence[Array], what: str) -> Trial:
    """Runs a file in TensorFlow Lite Micro and in LiteRT, and measures its arena.

    Parameters
    ----------
    data : bytes
        The file's content; LiteRT runs it.
    samples : sequence of arrays of shape (samples, ...)
        One for each input, in the file's own order and types; a fixed batch gets each sample as
        often as it has places.
    what : str
        What to call the file.

    Raises
    ------
    TfpruneError
        If TensorFlow Lite Micro lacks an operator, cannot run the file, or computes something
        else: by more than 3 steps, or, where a softmax, sigmoid or tanh comes last, by more than a
        step in front of it makes.
    """
    methods(data, what)
    inside, outside = _details(data)
    with _folder(data, samples, inside) as folder:
        received, used = _received(folder, len(data), what)
        arena = _enough(folder, received, used, what)
        expected, kernels = _in_litert(folder, what)
    different, steps, values = 0, 0.0, 0
    for place, (ours, theirs) in enumerate(zip(received, expected, strict=True)):
        apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        # Of floats, a step is what it would be if they were integers.
        unit = 1.0 if theirs.dtype.kind in "iub" else max(float(np.abs(theirs).max()), 1e-9) / 255
        apart /= unit
        _check_near(apart, *_accepted(data, outside, place), f"{what}: ", kernels)
        different += int(np.count_nonzero(apart))
        values += apart.size
        steps = max(steps, float(apart.max(initial=0)))
    return Trial(
        arena, _ports(inside), _ports(outside), len(samples[0]), values, different, steps, kernels
    )


def _accepted(data: bytes, outside: Sequence[dict[str, Any]], place: int) -> tuple[float, str]:
    """By how many steps values of an output may differ, and why, in words."""
    operator, scale = last_operators(data)[place]
    own = float(outside[place]["quantization"][0])
    if operator not in AMPLIFIED or not scale or not own:
        return STEPS, ""
    steps = STEPS + AMPLIFIED[operator](scale) / own
    return steps, f" ({STEPS}, and what a step of {scale:.3g} in front of {operator} makes)"


def _check_near(apart: Array, accepted: float, why: str, lead: str, kernels: str) -> None:
    """Refuses outputs that are too many steps apart, or a few steps for too many values."""
    most, far = float(apart.max(initial=0)), np.count_nonzero(apart > STEPS)
    if most <= accepted and far <= max(FEW * apart.size, apart[0].size):
        return
    raise TfpruneError(
        f"{lead}TensorFlow Lite Micro computes something else than LiteRT's {kernels} kernels, "
        f"{np.count_nonzero(apart)} of {apart.size} values differ, by up to {most:.3g} steps, "
        f"{far} by more than {STEPS}; at most {accepted:.3g} are accepted{why}, of "
        f"{100 * FEW:g} % of the values; leave --c-array and --device out, and "
        "score the file on the device (--test-data)"
    )


def check_runs(data: bytes, samples: Sequence[Array], what: str) -> None:
    """Refuses a file that TensorFlow Lite Micro cannot run.

    Takes and raises what :func:`tried` does, but compares nothing.
    """
    methods(data, what)
    with _folder(data, samples, _details(data)[0]) as folder:
        _received(folder, len(data), what)


@contextmanager
def _folder(
    data: bytes, samples: Sequence[Array], inside: Sequence[dict[str, Any]]
) -> Iterator[Path]:
    """A folder with the file and what it is to be fed."""
    fed = {
        str(place): np.stack([np.broadcast_to(one, detail["shape"]) for one in values])
        for place, (values, detail) in enumerate(zip(samples, inside, strict=True))
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / MODEL).write_bytes(data)
        np.savez(folder / GIVEN, **fed)  # type: ignore[arg-type]
        yield folder


def _details(data: bytes) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What LiteRT says of the inputs and outputs, in the file's order."""
    with quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=data)
    return interpreter.get_input_details(), interpreter.get_output_details()


def _ports(details: Sequence[dict[str, Any]]) -> tuple[Port, ...]:
    return tuple(
        Port(
            np.dtype(detail["dtype"]).name,
            tuple(map(int, detail["shape"])),
            float(detail["quantization"][0]),
            int(detail["quantization"][1]),
        )
        for detail in details
    )


def _in_litert(folder: Path, what: str) -> tuple[list[Array], str]:
    """The outputs in LiteRT, on reference kernels if they can run the file."""
    for kernels in ("reference", "default"):
        outputs, said, failed = _run(folder, kernels)
        if not failed:
            return outputs, kernels
    raise TfpruneError(f"{what}: LiteRT cannot run it: {_reason(failed, said)}")


def _received(folder: Path, size: int, what: str) -> tuple[list[Array], int]:
    """The outputs of all samples, and the bytes of arena that are said to be used."""
    received, said, failed = _run(folder, "micro", 10 * size + ROOMY)
    used = _USED.search(said)
    if failed or used is None:
        raise TfpruneError(f"{what}: TensorFlow Lite Micro cannot run it: {_reason(failed, said)}")
    return received, int(used[1])


def _enough(folder: Path, received: Sequence[Array], least: int, what: str) -> int:
    """The arena in bytes with which the outputs are still the same."""

    def enough(arena: int) -> bool:
        outputs, _, failed = _run(folder, "micro", arena)
        return not failed and all(map(np.array_equal, outputs, received))

    if enough(least):
        return least
    # Between one that is too little and one that is enough.
    reach = STEP
    while not enough(least + reach):
        least, reach = least + reach, 2 * reach
        if reach > ROOMY:
            raise TfpruneError(
                f"{what}: TensorFlow Lite Micro does not run in what it uses and {reach} bytes more"
            )
    while reach > STEP:
        reach //= 2
        least += 0 if enough(least + reach) else reach
    return least + reach


def _run(folder: Path, runtime: str, arena: int = 0) -> tuple[list[Array], str, int | None]:
    """The outputs, what was said, and how it failed: an exit code, negative for a signal."""
    files = (folder / name for name in (MODEL, GIVEN, MADE))
    words = [sys.executable, "-P", worker.__file__, runtime, *files, arena]
    try:
        done = subprocess.run(
            [*map(str, words)], capture_output=True, text=True, timeout=SECONDS, check=False,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [], f"it took more than {SECONDS} s", 1
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode:
        return [], said, done.returncode
    with np.load(folder / MADE) as archive:
        return [archive[str(place)] for place in range(len(archive.files))], said, None


def _reason(failed: int | None, said: str) -> str:
    """Why a run failed, in a line: what the kernels said, else what Python or the system did."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    at = next((n for n, line in enumerate(lines) if line.startswith("Traceback")), len(lines))
    messages = [line for line in lines[:at] if "Allocator]" not in line]
    if messages:
        return messages[0]
    if failed is not None and failed < 0:
        return f"it ends with {ending(failed)}"
    return lines[-1] if lines else "it says nothing"
