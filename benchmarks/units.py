"""``python -m benchmarks.units``: how time and memory grow with units and with samples.

Activations are given: pairs of nearly equal units, so that half of them go at 30 degrees. The
last table prunes the two Dense layers of 4096 units of VGG16 and of all that stands before them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from benchmarks.families import normalise_chain
from benchmarks.fresh import fresh, peak_megabytes
from tfprune.core.fold import least_squares
from tfprune.core.moments import Moments, angles
from tfprune.core.selection import by_survivors
from tfprune.utils.console import quiet

UNITS = (256, 512, 1024, 2048, 4096, 8192)
SAMPLES = (5_000, 20_000, 80_000)
FIXED_UNITS, FIXED_SAMPLES = 1024, 20_000
WIDEST, FEW = 16_384, 512
BATCH, THRESHOLD = 256, 30.0
HEAD = [
    "units", "samples", "pass s", "ratio", "select and fold s", "ratio", "units gone",
    "peak MB", "bytes a unit²",
]  # fmt: skip
Activations = npt.NDArray[np.float32]


def batches(units: int, samples: int) -> Iterator[Activations]:
    """Activations a batch at a time: unit and unit + 1 are about 6 degrees apart."""
    rng = np.random.default_rng(0)
    for start in range(0, samples, BATCH):
        size = min(BATCH, samples - start)
        batch = rng.standard_normal((size, units), np.float32)
        batch[:, 1::2] = batch[:, ::2] + 0.1 * batch[:, 1::2]
        yield batch


def passed(units: int, samples: int) -> tuple[Moments, float]:
    """Moments and the seconds they took, making the activations not counted."""
    moments, seconds = Moments(units), 0.0
    for batch in batches(units, samples):
        start = time.perf_counter()
        moments.add(batch)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    moments.flush()
    return moments, seconds + time.perf_counter() - start


def growth(units: int, samples: int) -> tuple[float, float, int, float]:
    """Seconds of the pass, of selecting and folding, units gone, peak megabytes of both."""
    np.ones((8, 8)) @ np.ones((8, 8))  # The threads of the matrix product are made once.
    before = peak_megabytes()
    moments, passing = passed(units, samples)
    start = time.perf_counter()
    selection = by_survivors(angles(moments.gram()), moments.constant(), THRESHOLD)
    least_squares(selection, moments, np.zeros(units))
    seconds = time.perf_counter() - start
    return passing, seconds, units - len(selection.kept), peak_megabytes() - before


def moments_alone(units: int, samples: int) -> tuple[float, float]:
    """Seconds of the pass and peak megabytes."""
    before = peak_megabytes()
    _, seconds = passed(units, samples)
    return seconds, peak_megabytes() - before


def growth_rows(cases: list[tuple[int, int]]) -> list[list[str]]:
    """One row a case, with ratios to the case before."""
    rows = []
    last: tuple[float, float] | None = None
    for units, samples in cases:
        passing, selecting, gone, peak = fresh(growth, units, samples)
        ratios = ["", ""] if last is None else [
            f"{passing / last[0]:.1f}", f"{selecting / last[1]:.1f}"
        ]  # fmt: skip
        last = passing, selecting
        rows.append(
            [f"{units:,}", f"{samples:,}", f"{passing:.2f}", ratios[0], f"{selecting:.2f}",
             ratios[1], f"{gone:,}", f"{peak:,.0f}", f"{peak * 1e6 / units**2:.0f}"]
        )  # fmt: skip
    return rows


@quiet()
def wide_head(samples: int) -> list[str]:
    """VGG16 whole, random weights, fc1 and fc2 made of pairs: those two pruned."""
    import keras

    import tfprune

    keras.utils.set_random_seed(0)
    model = keras.applications.VGG16(weights=None)
    x = np.random.default_rng(0).standard_normal((samples, 224, 224, 3), np.float32)
    # Without this most units of a random network are dead.
    normalise_chain(model, x[:16])
    for name in ("fc1", "fc2"):
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        kernel[:, 1::2] = kernel[:, ::2] + 0.1 * kernel[:, 1::2]
        bias[1::2] = bias[::2] + 0.1 * bias[1::2]
        layer.set_weights([kernel, bias])
    model.predict(x[:32], verbose=0)  # Compiles.
    start = time.perf_counter()
    model.predict(x, batch_size=32, verbose=0)
    forward = time.perf_counter() - start
    before = peak_megabytes()
    start = time.perf_counter()
    result = tfprune.prune(model, x, THRESHOLD, layers=["fc1", "fc2"], batch_size=32)
    whole = time.perf_counter() - start
    kept = [f"{layer.units_before:,} -> {layer.units_after:,}" for layer in result.layers]
    return [
        f"{samples:,}", *kept, f"{forward:.1f}", f"{whole:.1f}", f"{whole - forward:.1f}",
        f"{before:,.0f}", f"{peak_megabytes():,.0f}",
    ]  # fmt: skip


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.units")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--vgg16", type=int, default=256, metavar="SAMPLES", help="0: without")
    parser.add_argument("--only-vgg16", action="store_true")
    asked = parser.parse_args()
    form = "pipe" if asked.markdown else "simple"

    def show(rows: list[list[str]], head: list[str]) -> None:
        align = ["right"] * len(head)
        print(tabulate(rows, head, form, colalign=align, disable_numparse=True), flush=True)
        print()

    if not asked.only_vgg16:
        show(growth_rows([(units, FIXED_SAMPLES) for units in UNITS]), HEAD)
        show(growth_rows([(FIXED_UNITS, samples) for samples in SAMPLES]), HEAD)
        seconds, peak = fresh(moments_alone, WIDEST, FEW)
        each = f"{peak * 1e6 / WIDEST**2:.1f}"
        row = [f"{WIDEST:,}", f"{FEW:,}", f"{seconds:.2f}", f"{peak:,.0f}", each]
        show([row], ["units", "samples", "pass s", "peak MB", "bytes a unit²"])
    if asked.vgg16:
        head = ["samples", "fc1", "fc2", "predict s", "prune s", "beyond predict s", "MB before",
                "peak MB"]  # fmt: skip
        show([fresh(wide_head, asked.vgg16)], head)


if __name__ == "__main__":
    main()
