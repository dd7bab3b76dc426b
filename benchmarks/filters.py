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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.mnist import Pictures, pictures, spread, trained
from benchmarks.rows import Row, Rows, add_workers, sharing
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
Made = tuple[keras.Model, Row]


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


def model_of(training: int, folder: str) -> keras.Model:
    """The network trained with a seed; kept in the folder."""
    return trained(network, training, Path(folder) / f"filters-{training}.keras", pictures())


def prepared(training: int, folder: str) -> list[Row]:
    """No rows: the network is in the folder then."""
    model_of(training, folder)
    return []


def timed(task: Callable[[], Any]) -> tuple[Any, Row]:
    """What is made, and the seconds it took by the clock and of all processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    with quiet():
        made = task()
    return made, {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu": round(time.process_time() - cpu, 1),
    }


def rows_of(training: int, folder: str, removed: float, ways: list[str]) -> Iterator[Row]:
    """A row for each scheme, in each way to remove a share; it is removed once for all of them."""
    data, model = pictures(), model_of(training, folder)
    whole: Made = model, {"seconds": 0.0, "cpu": 0.0}
    if removed:
        x = data.x[:CALIBRATION]
        result, spent = timed(partial(tfprune.prune, model, x, remove=removed, layers="all"))
        whole = result.model, spent
    for way in ways:
        made, spent = whole
        if way in HEALED:
            heal = partial(tfprune.heal, made, model, data.x, EPOCHS, seed=training)
            made, spent = timed(partial(heal, **HEALED[way]))
        key = {"training": training, "way": way, "removed": removed}
        for row in files_of(made, data):
            yield {**key, **row, **spent}


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
    add_workers(parser)
    asked = parser.parse_args()
    networks: list[Row] = [
        {"training": int(word), "folder": str(asked.folder.absolute())}
        for word in asked.train.split(",")
    ]
    trainings = [one["training"] for one in networks]
    data = pictures()
    rows = Rows(asked.folder / "filters.jsonl", KEYS)
    tasks: list[Row] = []
    for one in networks:
        for share in (0.0, *SHARES):
            ways = [
                way for way in ((PRUNED, *HEALED) if share else (UNPRUNED,))
                if not rows.has(one["training"], way, share, SCHEMES[-1])
            ]  # fmt: skip
            tasks += [{**one, "removed": share, "ways": ways}] if ways else []
    with sharing(asked.workers) as share_out:
        share_out.add(rows, prepared, networks)
        share_out.add(rows, rows_of, tasks)
    print(f"{len(data.y_test):,} test images in LiteRT, mean and deviation of {len(trainings)}")
    print(f"trainings; healed for {EPOCHS} epochs without labels; CPU s (and by the clock)")
    print(table(rows, trainings))


if __name__ == "__main__":
    main()
