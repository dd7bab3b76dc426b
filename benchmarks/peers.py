"""``python -m benchmarks.peers MODEL.keras ...``: what is left after so many hidden units are gone.

Every way to choose units on the same models: no labels, 2,000 calibration images, accuracy of the
float model on the test set of MNIST (TFPRUNE_MNIST names the .npz). Models take (28, 28, 1)
pictures of 0..1. The rows above the healed ones are without training; healing is for 12 epochs on
the 60,000 training images, without labels. With ``--train 0,1,2`` the same three networks are
trained with these seeds, and mean and deviation are told. Models and results are kept in
``--folder``; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.mnist import Pictures, accuracy, pictures, spread, trained
from benchmarks.rows import Row, Rows, add_workers, sharing
from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune
    from tfprune.data.networks import load_model

SHARES = (0.5, 0.75, 0.875)
CALIBRATION = 2_000
EPOCHS = 12
# What is asked of prune, and how its row is called.
WAYS: dict[str, dict[str, Any]] = {
    "random, dropped": {"select": "random", "fold": "drop"},
    "magnitude, dropped": {"select": "magnitude", "fold": "drop"},
    "closest pairs, least squares": {"select": "angle", "refit": 0},
    "span, least squares": {"select": "span", "refit": 0},
    "effect, least squares": {"select": "effect", "refit": 0},
    "effect, survivors refitted (default)": {},
}
# From the default on, what is asked of heal.
HEALED: dict[str, dict[str, Any]] = {
    "default, healed": {},
    "default, healed as logits": {"logits": True},
}
UNPRUNED = "unpruned"
# The training of models that come as files.
GIVEN = "given"
KEYS = ("model", "training", "way", "removed", "seed")


def convolutional(units: int) -> keras.Model:
    """10 and 20 filters of 5x5, so many hidden units."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            kl.Conv2D(10, 5, activation="relu", name="conv1"),
            kl.MaxPooling2D(2),
            kl.Conv2D(20, 5, activation="relu", name="conv2"),
            kl.MaxPooling2D(2),
            kl.Flatten(),
            kl.Dense(units, activation="relu", name="fc1"),
            kl.Dense(10, name="out"),
        ]
    )


def perceptron() -> keras.Model:
    """Two hidden layers of 512 units."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            kl.Flatten(),
            kl.Dense(512, activation="relu", name="fc1"),
            kl.Dense(512, activation="relu", name="fc2"),
            kl.Dense(10, name="out"),
        ]
    )


NETWORKS = {
    "cnn64": lambda: convolutional(64),
    "cnn512": lambda: convolutional(512),
    "mlp": perceptron,
}


@lru_cache(maxsize=1)
def model_of(model: str, training: int | str, file: str) -> keras.Model:
    """A network, trained with a seed if it is not there; ``given`` is what lies there."""
    if isinstance(training, int):
        return trained(NETWORKS[model], training, Path(file), pictures())
    with quiet():
        return load_model(Path(file))


def prepared(**own: Any) -> list[Row]:
    """No rows: the network is there then."""
    model_of(**own)
    return []


def rows_of(ways: list[tuple[str, int]], removed: float, **own: Any) -> Iterator[Row]:
    """The rows of ways, with their seeds, to remove a share of a network's units.

    Those that are healed start from one model.
    """
    data, model = pictures(), model_of(**own)
    less = partial(tfprune.prune, model, data.x[:CALIBRATION], remove=removed)
    start = None
    for way, seed in ways:
        if way == UNPRUNED:
            row: Row = {"accuracy": accuracy(model, data.x_test, data.y_test)}
        elif way in WAYS:
            row = timed(partial(less, **WAYS[way]), data)
        else:
            start = start or less().model
            heal = partial(tfprune.heal, start, model, data.x, EPOCHS, seed=seed)
            row = timed(partial(heal, **HEALED[way]), data)
        key = {"model": own["model"], "training": own["training"], "way": way, "removed": removed}
        yield {**key, "seed": seed, **row}


def timed(task: Callable[[], Any], data: Pictures) -> Row:
    """A made model's accuracy, and the seconds it took by the clock and of all processors."""
    wall, cpu = time.perf_counter(), time.process_time()
    with quiet():
        made = task()
    row = {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu": round(time.process_time() - cpu, 1),
    }
    return {**row, "accuracy": accuracy(getattr(made, "model", made), data.x_test, data.y_test)}


def table(rows: Rows, names: Sequence[str], trainings: Sequence[Any]) -> str:
    """A row for each way, a column for each model; of healing the seconds at most."""
    head = ["removed " + " / ".join(f"{100 * share:g}" for share in SHARES) + " %"]
    lines: list[list[Any]] = [[way] for way in (*WAYS, *HEALED)]
    for name in names:
        found = [row for t in trainings for row in rows.like(model=name, training=t)]
        head += [f"{name} ({spread([r['accuracy'] for r in found if r['way'] == UNPRUNED])})", "s"]
        for line in lines:
            mine = [row for row in found if row["way"] == line[0]]
            cells = [
                spread([row["accuracy"] for row in mine if row["removed"] == share])
                for share in SHARES
            ]
            times = [(row["cpu"], row["seconds"]) for row in mine]
            most = "{:.0f} ({:.0f})".format(*np.median(times, axis=0)) if times else "-"
            line += [" / ".join(cells), most]
    return tabulate(lines, head, disable_numparse=True, tablefmt="pipe")


def numbers(text: str) -> list[int]:
    """Comma-separated seeds."""
    return [int(word) for word in text.split(",")]


def main() -> None:
    """Measures what is missing, and prints a table for given models and one for trained ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--train", type=numbers, default=[], help="seeds, 0,1,2 say")
    parser.add_argument("--folder", type=Path, help="keeps trained models and results")
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], help="of healing given models")
    parser.add_argument("--shares", type=lambda t: list(map(float, t.split(","))), default=SHARES)
    parser.add_argument("--healed-only", action="store_true", help="leave the other rows out")
    add_workers(parser)
    asked = parser.parse_args()
    if not asked.models and not asked.train:
        parser.error("expected model files, or --train with seeds")
    if asked.train and not asked.folder:
        parser.error("expected --folder, where trained models are kept")
    data = pictures()
    rows = Rows(asked.folder / "peers.jsonl" if asked.folder else None, KEYS)
    ways = {} if asked.healed_only else WAYS
    home = (asked.folder or Path()).absolute()
    networks: list[Row] = [
        {"model": name, "training": seed, "file": str(home / f"{name}-{seed}.keras")}
        for seed in asked.train for name in NETWORKS
    ]  # fmt: skip
    given: list[Row] = [
        {"model": file.stem, "training": GIVEN, "file": str(file.absolute())}
        for file in asked.models
    ]
    tasks: list[Row] = []
    for own in (*given, *networks):
        seeds = asked.seeds if own in given else [0]
        wanted = [(0.0, [(UNPRUNED, 0)])]
        for share in asked.shares:
            wanted += [(share, [(way, 0)]) for way in ways]
            wanted.append((share, [(way, seed) for way in HEALED for seed in seeds]))
        for share, some in wanted:
            key = own["model"], own["training"]
            new = [(way, seed) for way, seed in some if not rows.has(*key, way, share, seed)]
            tasks += [{**own, "removed": share, "ways": new}] if new else []
    with sharing(asked.workers) as share_out:
        share_out.add(rows, prepared, networks)
        share_out.add(rows, rows_of, tasks)
    print(f"% of {len(data.y_test):,} test images; CPU seconds (and by the clock), the median")
    if asked.models:
        print(f"given models, healing with seeds {asked.seeds}")
        print(table(rows, [file.stem for file in asked.models], [GIVEN]))
    if asked.train:
        print(f"mean and deviation of trainings with seeds {asked.train}")
        print(table(rows, list(NETWORKS), asked.train))


if __name__ == "__main__":
    main()
