"""Commands as their users start them."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np

from tests.support.paths import ROOT
from tfprune.utils.console import quiet
from tools.export import main


def command(environment, *words, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "tools.export", *map(str, words)],
        capture_output=True, text=True, cwd=cwd, env=environment, timeout=900, check=False,
    )  # fmt: skip


def run_litert(path, x):
    """The outputs of a file for float inputs, by the interpreter alone."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (inside,), (outside,) = interpreter.get_input_details(), interpreter.get_output_details()
    made = []
    for sample in x:
        value = sample[None]
        if inside["dtype"] == np.int8:
            scale, zero = inside["quantization"]
            value = np.clip(np.round(value / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(inside["index"], value.astype(inside["dtype"]))
        interpreter.invoke()
        made.append(interpreter.get_tensor(outside["index"])[0].astype(float))
    return np.array(made)


def run(argv, capfd):
    """The command in this process: exit code, stdout, stderr."""
    with warnings.catch_warnings():  # The command sets its own filters.
        code = main([str(word) for word in argv])
    captured = capfd.readouterr()
    return code, captured.out, captured.err
