"""``python -m benchmarks.filters --folder FOLDER``: filters and hidden units removed together.

Conv 32@3x3, pool, Conv 64@3x3, pool, Dense 128, Dense 10 on MNIST (TFPRUNE_MNIST names the .npz),
trained with several seeds; a share of the filters and units of every layer goes, on 2,000
calibration images without labels, and the rest is healed on the 60,000 training images, again
without labels. Accuracy and bytes are those of the files in LiteRT. Models and results are kept in
the folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.mnist import Pictures, Row, Rows, pictures, spread, trained
from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune
    from tfprune.tflite.converter import convert
    from tfprune.tflite.interpreter import LiteModel

SHARES = (0.75, 0.875)
SCHEMES = ("float32", "int8")
CALIBRATION = 2_000
EPOCHS = 4
UNPRUNED, PRUNED = "unpruned", "without training"
HEALED: dict[str, dict[str, Any]] = {"healed": {}, "healed as logits": {"logits": True}}
KEYS = ("training", "way", "removed", "scheme")


def network() -> keras.Model:
    """225,034 parameters, logits."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            kl.Conv2D(32, 3, activation="relu", name="conv1"),
            kl.MaxPooling2D(2),
            kl.Conv2D(64, 3, activation="relu", name="conv2"),
            kl.MaxPooling2D(2),
            kl.Flatten(),
            kl.Dense(128, activation="relu", name="hidden"),
            kl.Dense(10, name="out"),
        ]
    )


def files_of(model: keras.Model, data: Pictures) -> list[Row]:
    """Bytes and accuracy of each scheme's file."""
    made = []
    with quiet():
        contents = dict(convert(model, list(SCHEMES), [data.x[:CALIBRATION]]))
    for scheme, content in contents.items():
        right = LiteModel(content).predict([data.x_test])[0].argmax(axis=1) == data.y_test
        made.append({"scheme": scheme, "bytes": len(content), "accuracy": 100 * right.mean()})
    return made


def measure(rows: Rows, model: keras.Model, training: int, data: Pictures) -> None:
    """Adds what is missing of a training's rows."""

    def missing(way: str, share: float) -> bool:
        return not rows.has(training, way, share, SCHEMES[-1])

    def add(made: keras.Model, way: str, share: float, start: tuple[float, float]) -> None:
        spent = {
            "seconds": round(time.perf_counter() - start[0], 1),
            "cpu": round(time.process_time() - start[1], 1),
        }
        for row in files_of(made, data):
            rows.add({"training": training, "way": way, "removed": share, **row, **spent})

    if missing(UNPRUNED, 0):
        add(model, UNPRUNED, 0, (time.perf_counter(), time.process_time()))
    for share in SHARES:
        ways = [PRUNED, *HEALED]
        if not any(missing(way, share) for way in ways):
            continue
        start = time.perf_counter(), time.process_time()
        with quiet():
            x = data.x[:CALIBRATION]
            smaller = tfprune.prune(model, x, remove=share, layers="all").model
        if missing(PRUNED, share):
            add(smaller, PRUNED, share, start)
        for way, options in HEALED.items():
            if missing(way, share):
                start = time.perf_counter(), time.process_time()
                with quiet():
                    healed = tfprune.heal(smaller, model, data.x, EPOCHS, seed=training, **options)
                add(healed, way, share, start)


def table(rows: Rows, trainings: list[int]) -> str:
    """A line for each way: accuracy and bytes of both files, how much smaller int8 is."""
    lines = []
    found = [row for training in trainings for row in rows.like(training=training)]
    whole = np.mean([r["bytes"] for r in found if (r["way"], r["scheme"]) == (UNPRUNED, "float32")])
    for share in (0, *SHARES):
        for way in (UNPRUNED, PRUNED, *HEALED):
            mine = [row for row in found if (row["way"], row["removed"]) == (way, share)]
            if not mine:
                continue
            line = [f"{100 * share:g} %", way]
            for scheme in SCHEMES:
                files = [row for row in mine if row["scheme"] == scheme]
                size = np.mean([row["bytes"] for row in files])
                line += [spread([row["accuracy"] for row in files]), f"{size:,.0f}"]
            line.append(f"{whole / size:.1f}")
            line.append("{:.0f} ({:.0f})".format(*(mine[0][key] for key in ("cpu", "seconds"))))
            lines.append(line)
    head = ["removed", "", "float32 %", "bytes", "int8 %", "bytes", "times smaller", "s"]
    right = ("left", "left") + ("right",) * 6
    return tabulate(lines, head, disable_numparse=True, tablefmt="pipe", colalign=right)


def main() -> None:
    """Measures what is missing, and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filters")
    parser.add_argument("--folder", type=Path, required=True, help="keeps models and results")
    parser.add_argument("--train", default="0,1,2", help="seeds of training")
    asked = parser.parse_args()
    trainings = [int(word) for word in asked.train.split(",")]
    data = pictures()
    rows = Rows(asked.folder / "filters.jsonl", KEYS)
    for seed in trainings:
        model = trained(network, seed, asked.folder / f"filters-{seed}.keras", data)
        measure(rows, model, seed, data)
    print(f"{len(data.y_test):,} test images in LiteRT, mean and deviation of {len(trainings)}")
    print(f"trainings; healed for {EPOCHS} epochs without labels; CPU s (and by the clock)")
    print(table(rows, trainings))


if __name__ == "__main__":
    main()
