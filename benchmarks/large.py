"""``python -m benchmarks.large``: large models on one machine, stage by stage.

Each model of keras.applications (random weights, statistics that fit the pictures) loses a share of
all its layers' units, with the default reconstruction, in a process of its own. Seconds are those
of the stages; memory is what the process held at most in a stage beyond what it held before it
pruned, model, pictures and TensorFlow included. ``--markdown`` prints a table for a document.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from benchmarks.fresh import fresh
from tfprune.utils.console import quiet

MODELS = ("MobileNetV2", "EfficientNetB0", "ResNet50")
SAMPLES, SIZE, REMOVED = 512, 224, 0.3
# Pictures on which statistics of BatchNormalization are measured.
FITTED = 8
STAGES = ("trace", "pass", "selection", "fold and shrink", "reconstruction", "outputs compared")
STATUS = Path("/proc/self/status")


def pictures(count: int, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Noise, smoothed: large shapes of a picture's own colours, with grain."""
    made = np.empty((count, size, size, 3), np.uint8)
    for picture in made:
        values = 12 * rng.standard_normal((size, size, 3))
        for cells in (7, 28):
            coarse = rng.normal(0, 40, (cells, cells, 3))
            values += np.kron(coarse, np.ones((size // cells, size // cells, 1)))
        picture[:] = np.clip(values + rng.normal(128, 20, 3), 0, 255)
    return made


class Memory:
    """What this process holds, and the most it has held since it was asked last, in megabytes."""

    def __init__(self) -> None:
        # What was freed before is given back, or it would be taken again unseen.
        ctypes.CDLL(None).malloc_trim(0)
        self.before = self._read("VmRSS")
        self.reset()

    def reset(self) -> None:
        """Starts a new peak."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> float:
        """The most beyond what was held before."""
        return self._read("VmHWM") - self.before

    @staticmethod
    def _read(field: str) -> float:
        found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text(encoding="ascii"))
        assert found is not None, "Linux alone says so"
        return int(found[1]) * 1024 / 1e6


class Stages:
    """Seconds and memory of stages: functions that are timed where they are called."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.wall = dict.fromkeys(STAGES, 0.0)
        self.cpu = dict.fromkeys(STAGES, 0.0)
        self.peak = dict.fromkeys(STAGES, 0.0)
        self._running = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """What runs within counts for a stage, unless it is within one already."""
        if self._running:
            yield
            return
        self._running = True
        self.memory.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall[stage] += time.perf_counter() - wall
        self.cpu[stage] += time.process_time() - cpu
        self.peak[stage] = max(self.peak[stage], self.memory.peak())
        self._running = False

    def watch(self, module: Any, name: str, stage: str) -> None:
        """Puts a function that is timed in the place of a module's."""
        function = getattr(module, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.timed(stage):
                return function(*args, **kwargs)

        setattr(module, name, timed)


def built(family: str, x: npt.NDArray[np.uint8]) -> Any:
    """A model of random weights whose normalisations fit some pictures."""
    import keras

    model = getattr(keras.applications, family)(weights=None, input_shape=(SIZE, SIZE, 3))
    scales = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    normal = [one for one in model.layers if isinstance(one, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normal]
    for layer in normal:
        layer.momentum = 0.0
    few = x[:FITTED].astype(np.float32)
    model(few if scales else few / 127.5 - 1, training=True)
    for layer, momentum in zip(normal, momenta, strict=True):
        layer.momentum = momentum
    return model, scales


@quiet()
def measured(family: str, samples: int, refit: int | None) -> list[dict[str, float]]:
    """Seconds by the clock and of the processors, and megabytes, by stage; and of all."""
    import keras

    import tfprune
    from tfprune import calibration, pruner

    keras.utils.set_random_seed(0)
    x: npt.NDArray[Any] = pictures(samples, SIZE, np.random.default_rng(0))
    model, scales = built(family, x)
    x = x.astype(np.float32)
    if not scales:
        x /= 127.5
        x -= 1
    # What TensorFlow sets up at its first prediction is no part of pruning.
    model.predict_on_batch(x[:8])
    stages = Stages(Memory())
    for module, name, stage in (
        (calibration, "trace", "trace"),
        (calibration, "groups_of", "trace"),
        (calibration, "measure_samples", "pass"),
        (calibration, "group_stats", "selection"),
        (pruner, "select_all", "selection"),
        (pruner, "cuts_of", "fold and shrink"),
        (pruner, "shrink", "fold and shrink"),
        (pruner, "reconstruct", "reconstruction"),
        (pruner, "change_of", "outputs compared"),
    ):
        stages.watch(module, name, stage)
    wall, cpu = time.perf_counter(), time.process_time()
    tfprune.prune(model, x, remove=REMOVED, layers="all", refit=refit)
    stages.wall["in all"] = time.perf_counter() - wall
    stages.cpu["in all"] = time.process_time() - cpu
    stages.peak["in all"] = max(*stages.peak.values(), stages.memory.peak())
    stages.wall["before"] = stages.cpu["before"] = 0
    stages.peak["before"] = stages.memory.before
    return [stages.wall, stages.cpu, stages.peak]


def main() -> None:
    """Prints a row for each model and stage."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large")
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--refit", type=int, help="0 leaves the reconstruction out")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    asked = parser.parse_args()
    rows = []
    for family in asked.models:
        wall, cpu, peak = fresh(measured, family, asked.samples, asked.refit)
        for stage in (*STAGES, "in all"):
            row = [family, stage, f"{wall[stage]:.1f}", f"{cpu[stage]:.1f}", f"{peak[stage]:,.0f}"]
            rows.append(row)
        rows[-1][1] += f" ({peak['before']:,.0f} MB before)"
    head = ["model", "stage", "seconds", "CPU s", "peak MB beyond"]
    form = "pipe" if asked.markdown else "simple"
    print(f"{asked.samples} pictures of {SIZE} px, {REMOVED:.0%} of the units of all layers")
    align = ("left", "left", "right", "right", "right")
    print(tabulate(rows, head, form, disable_numparse=True, colalign=align))


if __name__ == "__main__":
    main()
