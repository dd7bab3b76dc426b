"""Runs TFLite files in the LiteRT interpreter; needs no TensorFlow."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tfprune.errors import TfpruneError
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter, quiet
from tfprune.utils.streamed import parallel_pieces

WARM_UP = 50
ROUNDS = 5
# Invocations per round, fewer for slow models so that a round takes about this long.
RUNS = 200
ROUND_SECONDS = 1.0


class LiteModel:
    """A TFLite file with float inputs and outputs, whatever it computes with.

    Parameters
    ----------
    data : bytes
        The file's content.
    names : sequence of str
        The names of its inputs in the order in which samples will come; not needed for one.
    delegate : bool
        Whether XNNPACK may compute, as LiteRT lets it by default; else LiteRT's own kernels do.

    Attributes
    ----------
    steps : list of float
        Quantisation step of each output, 0 where it is float.

    Raises
    ------
    TfpruneError
        If the file has several inputs and the names are not theirs.
    """

    def __init__(self, data: bytes, names: Sequence[str] = (), delegate: bool = True) -> None:
        with quiet():
            from ai_edge_litert.interpreter import Interpreter, OpResolverType

            kinds = OpResolverType
            self._interpreter = Interpreter(
                model_content=data,
                num_threads=1,
                experimental_op_resolver_type=(
                    kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
            self._interpreter.allocate_tensors()
            # The order of the signature is the model's; the order of the details may not be.
            runner = self._interpreter.get_signature_runner()
            inputs, outputs = runner.get_input_details(), runner.get_output_details()
        if len(inputs) == 1:
            names = list(inputs)
        elif set(names) != set(inputs):
            raise TfpruneError(
                f"file: expected the names of its inputs ({', '.join(inputs)}), "
                f"received {', '.join(names) or 'none'}"
            )
        self._inputs = [inputs[name] for name in names]
        self._outputs = [outputs[name] for name in _in_order(outputs)]
        self._batch = max(int(self._inputs[0]["shape"][0]), 1)
        self.steps = [float(detail["quantization"][0]) for detail in self._outputs]

    def predict(
        self, x: Sequence[Array], count: Callable[[int], object] | None = None
    ) -> list[Array]:
        """The outputs for all samples.

        Parameters
        ----------
        x : sequence of arrays of shape (samples, ...)
            One for each input.
        count : callable, optional
            Called with how many samples were done since it was last called.

        Returns
        -------
        list of arrays of shape (samples, ...)
            One for each output, in real units.
        """
        total = len(x[0])
        rows: list[list[Array]] = [[] for _ in self._outputs]
        for part in parallel_pieces(x, self._batch):
            quantised = self._quantised(part)
            for start in range(0, len(part[0]), self._batch):
                self._set([data[start : start + self._batch] for data in quantised])
                self._interpreter.invoke()
                for row, detail in zip(rows, self._outputs, strict=True):
                    row.append(self._interpreter.get_tensor(detail["index"]))
                if count is not None:
                    count(min(self._batch, len(part[0]) - start))
        return [
            _dequantise(np.concatenate(row)[:total], detail)
            for row, detail in zip(rows, self._outputs, strict=True)
        ]

    def fed(self, x: Sequence[Array]) -> list[Array]:
        """Samples as the file takes them, in the file's order of inputs."""
        places = [detail["index"] for detail in self._inputs]
        quantised = dict(zip(places, self._quantised(x), strict=True))
        return [quantised[detail["index"]] for detail in self._interpreter.get_input_details()]

    def _quantised(self, x: Sequence[Array]) -> list[Array]:
        return [_quantise(data, detail) for data, detail in zip(x, self._inputs, strict=True)]

    def _set(self, samples: Sequence[Array]) -> None:
        """Sets the inputs; a fixed batch is filled up with the last sample."""
        for data, detail in zip(samples, self._inputs, strict=True):
            missing = self._batch - len(data)
            filled = np.concatenate([data, np.repeat(data[-1:], missing, axis=0)])
            self._interpreter.set_tensor(detail["index"], filled)

    def time(self, sample: Sequence[Array], runs: int) -> list[float]:
        """Microseconds of each of several invocations on one sample."""
        self._set(self._quantised([data[None] for data in sample]))
        taken = []
        for _ in range(runs):
            start = time.perf_counter_ns()
            self._interpreter.invoke()
            taken.append((time.perf_counter_ns() - start) / 1000)
        return taken


def latencies(
    models: Sequence[LiteModel], sample: Sequence[Array], progress: bool = False
) -> list[dict[str, float]]:
    """Microseconds of one invocation on one thread: the 10th percentile and the median.

    The sample is an array for each input, without the axis of samples.

    The models take turns over several rounds, so that a slower moment of the machine meets all
    of them; garbage collection is off.
    """
    taken: list[list[float]] = [[] for _ in models]
    collecting = gc.isenabled()
    gc.disable()
    try:
        with meter("latency", ROUNDS * len(models), progress, "round") as drawn:
            runs = []
            for model in models:
                slowest = max(model.time(sample, 3)) / 1e6
                runs.append(int(np.clip(ROUND_SECONDS / max(slowest, 1e-9), 3, RUNS)))
                model.time(sample, min(WARM_UP, runs[-1]))
            for _ in range(ROUNDS):
                for model, times, count in zip(models, taken, runs, strict=True):
                    times.extend(model.time(sample, count))
                    drawn.update()
    finally:
        if collecting:
            gc.enable()
    return [
        {
            "p10": round(float(np.percentile(times, 10)), 2),
            "median": round(float(np.median(times)), 2),
        }
        for times in taken
    ]


def _in_order(names: Iterable[str]) -> list[str]:
    """Output names in Keras' order: output_9 before output_10, a dict's alphabetically."""
    names = list(names)
    numbered = [re.fullmatch(r"output_(\d+)", name) for name in names]
    if all(numbered):
        return sorted(names, key=lambda name: int(name.rpartition("_")[2]))
    return sorted(names)


def _quantise(x: Array, detail: dict[str, Any]) -> Array:
    kind = np.dtype(detail["dtype"])
    scale, zero = detail["quantization"]
    if kind.kind == "f" or not scale:
        return x.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.round(x / scale + zero), limits.min, limits.max).astype(kind)


def _dequantise(values: Array, detail: dict[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    if values.dtype.kind == "f" or not scale:
        return values.astype(np.float32)
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)
