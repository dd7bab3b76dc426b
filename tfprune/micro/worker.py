"""Runs one file in one runtime; a program of its own, as native code may end its process.

``python -P probe.py RUNTIME MODEL INPUTS.npz OUTPUTS.npz ARENA`` feeds the samples of the arrays
``0``, ``1``, ... one after another and writes the outputs in arrays of such names. RUNTIME is
``micro`` (TensorFlow Lite Micro, in an arena of so many bytes), or the kernels of LiteRT:
``reference`` or ``default``. What TensorFlow Lite Micro says of its arena goes where it writes: to
the file descriptors 1 or 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[Sequence[Any]], list[Any]]


def main(runtime: str, model: str, given: str, made: str, arena: str) -> None:
    """Runs every sample and lets the interpreter tell its allocations."""
    content = Path(model).read_bytes()
    run, end = _micro(content, int(arena)) if runtime == "micro" else _litert(content, runtime)
    with np.load(given) as archive:
        inputs = [archive[str(place)] for place in range(len(archive.files))]
    columns = zip(*[run(sample) for sample in zip(*inputs, strict=True)], strict=True)
    np.savez(made, **{str(place): np.stack(column) for place, column in enumerate(columns)})  # type: ignore[arg-type]
    end()


def _litert(content: bytes, kernels: str) -> tuple[Run, Callable[[], None]]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kinds = {
        "reference": OpResolverType.BUILTIN_REF,
        "default": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    }
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=kinds[kernels])
    interpreter.allocate_tensors()
    inside, outside = interpreter.get_input_details(), interpreter.get_output_details()

    def run(sample: Sequence[Any]) -> list[Any]:
        for detail, value in zip(inside, sample, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in outside]

    return run, lambda: None


def _micro(content: bytes, arena: int) -> tuple[Run, Callable[[], None]]:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena)

    def run(sample: Sequence[Any]) -> list[Any]:
        for place, value in enumerate(sample):
            interpreter.set_input(value, place)
        interpreter.invoke()
        outputs: list[Any] = []
        while True:
            try:
                outputs.append(interpreter.get_output(len(outputs)))
            except IndexError:  # It has no other way to tell how many there are.
                return outputs

    return run, interpreter.print_allocations


if __name__ == "__main__":
    main(*sys.argv[1:])
