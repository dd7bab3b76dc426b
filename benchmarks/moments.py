"""``python -m benchmarks.moments``: what the second-moment pass costs, in time and memory.

Prints ratios against baselines measured in the same run, in turn: a bare float32 matrix product
of the same activations, scikit-learn's ``cosine_similarity``, and ``model.predict`` on the same
batches.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.core.moments import Moments, angles
from tfprune.utils.console import quiet

SAMPLES, UNITS, BATCH = 60_000, 512, 256
REPEATS = 9


def medians(tasks: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each task; the tasks take turns, after one round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if turn:
                taken[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in taken.items()}


def moments_of(activations: np.ndarray[Any, Any], batch: int = SAMPLES) -> Moments:
    """The pass on given activations."""
    moments = Moments(activations.shape[1])
    for start in range(0, len(activations), batch):
        moments.add(activations[start : start + batch])
    moments.flush()
    return moments


def given_activations() -> list[list[Any]]:
    """The pass on given activations against a bare product and scikit-learn."""
    from sklearn.metrics.pairwise import cosine_similarity

    rng = np.random.default_rng(0)
    activations = np.maximum(rng.standard_normal((SAMPLES, UNITS), np.float32), 0)
    seconds = medians(
        {
            "bare float32 product": lambda: activations.T @ activations,
            "moments": lambda: moments_of(activations),
            "in batches": lambda: moments_of(activations, BATCH),
            "moments and angles": lambda: angles(moments_of(activations).gram()),
            "cosine_similarity": lambda: cosine_similarity(activations.T),
        }
    )
    bare, ours = seconds["bare float32 product"], seconds["moments"]
    return [
        ["moments / bare float32 product", ours / bare, "<= 1.2"],
        [f"the same in batches of {BATCH} / bare product", seconds["in batches"] / bare, ""],
        ["moments and angles / bare product", seconds["moments and angles"] / bare, ""],
        ["cosine_similarity / bare product", seconds["cosine_similarity"] / bare, ""],
        ["cosine_similarity / moments", seconds["cosine_similarity"] / ours, ">= 3"],
    ]


def calibration() -> list[list[Any]]:
    """Forward pass and moments against predict on the same batches."""
    with quiet():
        import keras

        from tfprune.data.built_in import cnn
        from tfprune.graph.activations import measure
        from tfprune.graph.groups import groups_of
        from tfprune.graph.inputs import Samples
        from tfprune.graph.tracer import trace

    keras.utils.set_random_seed(0)
    model = cnn((28, 28, 1), 10, UNITS)
    x = np.random.default_rng(0).random((10_000, 28, 28, 1), np.float32)
    samples = Samples(model, x)
    traced = trace(model)
    (group,) = (group for group in groups_of(traced) if "hidden" in group.producers)
    seconds = medians(
        {
            "predict": lambda: model.predict(x, batch_size=BATCH, verbose=0),
            "calibration": lambda: measure(traced, group.consumers, samples, BATCH),
        },
        repeats=5,
    )
    return [["calibration / model.predict", seconds["calibration"] / seconds["predict"], "<= 1.2"]]


def peak_megabytes(samples: int) -> float:
    """Peak of numpy's memory while so many samples are measured, made one batch at a time."""
    rng = np.random.default_rng(0)
    tracemalloc.start()
    moments = Moments(UNITS)
    for _ in range(samples // BATCH):
        moments.add(rng.standard_normal((BATCH, UNITS), np.float32))
    moments.flush()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def main() -> None:
    """Prints the table."""
    rows = given_activations() + calibration()
    small, large = peak_megabytes(10_000), peak_megabytes(60_000)
    rows.append([f"peak memory, 60,000 / 10,000 samples ({small:.0f} MB)", large / small, "1.0"])
    print(f"{SAMPLES:,} x {UNITS} activations, median of {REPEATS} turns")
    print(tabulate(rows, ["ratio", "measured", "target"], floatfmt=".2f"))


if __name__ == "__main__":
    main()
