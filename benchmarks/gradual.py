"""``python -m benchmarks.gradual --folder FOLDER``: the same share in one step and in several.

MLPerf Tiny's ResNet8 on CIFAR-10, or another classifier: in each step all layers lose an equal part
of what goes, then the model is trained, by ``tfprune.heal`` on the unpruned model's outputs or by
``model.fit`` on labels. The number of epochs is the same in all rows, in equal parts behind the
steps. A model that was not pruned gets the same ``fit``, to tell what the training alone gains.
TFPRUNE_MODELS and TFPRUNE_DATA name the folders of ``resnet8_cifar10.h5`` and ``cifar10.npz``.
Results are kept in the folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.mnist import Pictures, accuracy
from benchmarks.rows import Row, Rows, add_workers, sharing
from tfprune.utils.console import quiet

with quiet():
    import keras

    import tfprune
    from tfprune.data.networks import load_model
    from tfprune.graph.safe_gradients import safe_gradients

MODEL, DATA = "resnet8_cifar10.h5", "cifar10.npz"
CALIBRATION = 2_000
HEAD = [
    "removed", "training", "steps", "parameters", "pruned, untrained %", "accuracy %", "seconds",
]  # fmt: skip
KEYS = ("removed", "training", "steps")
# What all rows depend on.
SETTINGS = ("samples", "epochs", "rate", "batch", "refit", "seed")
# By the keys of a row.
Task = tuple[float, str, int]


def shares(remove: float, steps: int) -> list[float]:
    """Of the units that each step finds, the share that goes: equal numbers of units each.

    Examples
    --------
    >>> [round(share, 3) for share in shares(0.5, 2)]
    [0.25, 0.333]
    """
    part = remove / steps if steps else 0.0
    return [part / (1 - part * step) for step in range(steps)]


def train(model: keras.Model, way: str, epochs: int, data: Pictures, **how: Any) -> keras.Model:
    """The model after so many epochs of ``heal`` or ``fit``; ``how``: teacher, rate and batch."""
    if way == "heal":
        return tfprune.heal(model, how["teacher"], data.x, epochs)
    # The rate in a file is often the last, very small one of a schedule.
    model.optimizer.learning_rate = how["rate"]
    labels = data.y
    if not str(model.loss).startswith("sparse"):
        labels = keras.utils.to_categorical(labels, model.output_shape[-1])
    # ResNet8's strided convolutions get fewer channels than oneDNN's gradient is right for.
    with safe_gradients(model):
        model.fit(data.x, labels, how["batch"], epochs, verbose=0)
    return model


def rows_of(removed: float, training: str, steps: int, asked: Row) -> list[Row]:
    """Prunes in so many steps, training after each; a row of results."""
    keras.utils.set_random_seed(asked["seed"])
    data = read(asked["data"], asked["samples"])
    original = load_model(Path(asked["model"]), compiled=True)
    how = {"teacher": original, "rate": asked["rate"], "batch": asked["batch"]}
    start, untrained = time.perf_counter(), []
    model = original
    for share in shares(removed, steps):
        model = tfprune.prune(
            model, data.x[:CALIBRATION], remove=share, layers="all", refit=asked["refit"]
        ).model
        untrained.append(round(accuracy(model, data.x_test, data.y_test), 2))
        model = train(model, training, asked["epochs"] // steps, data, **how)
    if not steps:
        model = train(model, training, asked["epochs"], data, **how)
    return [{
        "removed": removed, "training": training, "steps": steps,
        "parameters": model.count_params(), "untrained": untrained,
        "accuracy": round(accuracy(model, data.x_test, data.y_test), 2),
        "seconds": round(time.perf_counter() - start),
    }]  # fmt: skip


@lru_cache(maxsize=1)
def read(file: str, samples: int) -> Pictures:
    """Values as they are, and labels; so many of the training samples."""
    with np.load(file) as arrays:
        x, x_test = (arrays[name].astype("float32") for name in ("x_train", "x_test"))
        y, y_test = (arrays[name].ravel() for name in ("y_train", "y_test"))
    return Pictures(x[:samples], y[:samples], x_test, y_test)


def named(given: str | None, variable: str, name: str) -> Path:
    """The file that was given, or that of the folder that the environment names."""
    file = Path(given or Path(os.environ.get(variable, "")) / name)
    if not file.is_file():
        sys.exit(f"expected a file, or the environment variable {variable} to name {name}'s folder")
    return file


def numbers(kind: type) -> Any:
    """Reads numbers with commas between them."""
    return lambda words: [kind(word) for word in words.split(",")]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradual")
    parser.add_argument("--model", metavar="FILE", help="a compiled classifier")
    parser.add_argument("--data", metavar="FILE.npz", help="x_train, y_train, x_test, y_test")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keeps the results")
    parser.add_argument("--removes", type=numbers(float), default=[0.5], metavar="SHARES")
    parser.add_argument("--steps", type=numbers(int), default=[1, 2], metavar="NUMBERS")
    parser.add_argument("--epochs", type=int, default=6, help="of all steps together")
    parser.add_argument("--samples", type=int, default=3_000, help="to train on")
    parser.add_argument("--rate", type=float, default=0.001, help="of fit")
    parser.add_argument("--batch", type=int, default=128, help="of fit")
    parser.add_argument("--refit", type=int, default=0, help="steps of reconstruction")
    parser.add_argument("--seed", type=int, default=0)
    add_workers(parser)
    asked = parser.parse_args()
    file = named(asked.model, "TFPRUNE_MODELS", MODEL)
    settings = {name: getattr(asked, name) for name in SETTINGS}
    settings["model"] = str(file.absolute())
    settings["data"] = str(named(asked.data, "TFPRUNE_DATA", DATA).absolute())
    data = read(settings["data"], asked.samples)
    rows = Rows(asked.folder and asked.folder / "gradual.jsonl", KEYS)
    wanted: list[Task] = [(0.0, "fit", 0)]
    wanted += [(r, way, n) for r in asked.removes for way in ("heal", "fit") for n in asked.steps]
    tasks = [
        {**dict(zip(KEYS, task, strict=True)), "asked": settings}
        for task in wanted if not rows.has(*task)
    ]  # fmt: skip
    with sharing(asked.workers) as share_out:
        share_out.add(rows, rows_of, tasks)
    with quiet():
        score = accuracy(load_model(file), data.x_test, data.y_test)
    print(f"unpruned: {score:.2f} %; {asked.epochs} epochs on {len(data.x):,} samples")
    table = [
        [f"{row['removed']:.0%}", row["training"], row["steps"] or "-", f"{row['parameters']:,}",
         ", ".join(f"{score:.2f}" for score in row["untrained"]), f"{row['accuracy']:.2f}",
         row["seconds"]]
        for row in rows.like()
    ]  # fmt: skip
    print(tabulate(table, HEAD, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
