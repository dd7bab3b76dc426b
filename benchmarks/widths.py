"""``python -m benchmarks.widths``: LiteRT's time for layers of any width, beside multiples of 8.

Two convolutions of 3x3 behind each other on pictures of 28x28, of one width each, weights at
random, for time does not depend on them. Files of all widths take turns, on one thread; what is
shown is the 10th percentile as a ratio to that of the file of width 32, and multiply-accumulates
likewise: where a column is above the latter, the width is dearer than its work.
"""

from __future__ import annotations

import argparse

import numpy as np
from tabulate import tabulate

from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    from tfprune.graph.costs import macs
    from tfprune.tflite.converter import convert
    from tfprune.tflite.interpreter import LiteModel, latencies

BASELINE = 32
WIDTHS = (16, 17, 20, 23, 24, 25, 28, 31, BASELINE, 33, 36, 39, 40)
SCHEMES = ("float32", "int8")


def network(width: int) -> keras.Model:
    """Two convolutions of a width."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 8)),
            kl.Conv2D(width, 3, padding="same", activation="relu"),
            kl.Conv2D(width, 3, padding="same", activation="relu"),
            kl.GlobalAveragePooling2D(),
            kl.Dense(10),
        ]
    )


def numbers(text: str) -> list[int]:
    """Numbers that are typed as ``16,24``."""
    return [int(word) for word in text.split(",")]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.widths", description=__doc__)
    parser.add_argument("--widths", type=numbers, default=WIDTHS, help="32 is the baseline")
    asked = parser.parse_args()
    widths = sorted({BASELINE, *asked.widths})
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).random((64, 28, 28, 8)).astype("float32")
    work, files = [], []
    for width in widths:
        model = network(width)
        work.append(macs(model))
        with quiet():
            files += [LiteModel(content) for _, content in convert(model, list(SCHEMES), [x])]
    times = np.array([one["p10"] for one in latencies(files, [x[0]], progress=True)])
    times = times.reshape(len(widths), len(SCHEMES))
    base = widths.index(BASELINE)
    ratios = times / times[base]
    rows = [
        [width, f"{count / work[base]:.2f}", *(f"{ratio:.2f}" for ratio in row)]
        for width, count, row in zip(widths, work, ratios, strict=True)
    ]
    print(tabulate(rows, ["width", "MACs", *SCHEMES], tablefmt="github", disable_numparse=True))
    print(f"ratios to width {BASELINE}, of which a file takes (us): {times[base].tolist()}")


if __name__ == "__main__":
    main()
