"""``python -m benchmarks.draws MODEL.keras ...``: how much is the luck of the calibration data.

Hidden units are removed without labels or training, from 2,000 calibration images: the first of
MNIST's, and then other ones, drawn. The default stands beside greedy backward elimination written
down from its definition, in numpy alone (Hassibi, Stork 1993: of all units the one whose loss, the
others refitted, costs least squared error of what reads the layer; then least squares). Models are
Sequential, and end in Dense layers; TFPRUNE_MNIST names the .npz, ``--folder`` keeps results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.mnist import accuracy, pictures, spread
from benchmarks.rows import Row, Rows, add_workers, sharing
from tfprune.utils.console import quiet

with quiet():
    import keras

    import tfprune
    from tfprune.data.networks import load_model

SHARES = (0.5, 0.75, 0.875)
CALIBRATION = 2_000
FIRST = "the first 2,000"
# Keeps the inverse finite where units are dead or double.
RIDGE = 1e-6
BY_THE_BOOK, DEFAULT, UNPRUNED = "backward elimination, by the book", "default", "unpruned"
KEYS = ("model", "draw", "way", "removed")
Array = np.ndarray[Any, Any]


def eliminated(active: Array, goals: Array, keep: int) -> tuple[list[int], Array]:
    """Units that stay, and the least-squares weights of those that read them, the bias last."""
    rows = np.hstack([active, np.ones((len(active), 1))])
    products = rows.T @ rows
    products += RIDGE * np.trace(products) / len(products) * np.eye(len(products))
    inverse = np.linalg.inv(products)
    weights = inverse @ (rows.T @ goals)
    alive = list(range(active.shape[1]))
    while len(alive) > keep:
        cost = (weights[:-1] ** 2).sum(axis=1) / np.diag(inverse)[:-1]
        gone = int(cost.argmin())
        column, size = inverse[:, gone].copy(), inverse[gone, gone]
        weights = np.delete(weights - np.outer(column / size, weights[gone]), gone, axis=0)
        inverse -= np.outer(column / size, column)
        inverse = np.delete(np.delete(inverse, gone, axis=0), gone, axis=1)
        del alive[gone]
    return alive, np.linalg.lstsq(rows[:, [*alive, -1]], goals, rcond=None)[0]


class Tail:
    """The Dense layers that a model ends in, as matrices; all but the last have ReLU."""

    def __init__(self, model: keras.Model) -> None:
        layers = list(model.layers)
        first = len(layers)
        while first and type(layers[first - 1]) is keras.layers.Dense:
            first -= 1
        self._dense = layers[first:]
        if len(self._dense) < 2 or any(
            layer.activation is not keras.activations.relu for layer in self._dense[:-1]
        ):
            raise SystemExit(
                f"{model.name}: expected Dense layers with ReLU and one more at its end"
            )
        self._features = keras.Model(model.inputs, self._dense[0].input)

    def features(self, x: Array) -> Array:
        """What the first of them reads."""
        return self._features.predict(x, 500, verbose=0).astype(float)

    def smaller(self, features: Array, share: float) -> list[Array]:
        """Their matrices, biases last, with a share of all hidden units gone."""
        whole = [np.vstack(list(map(np.asarray, layer.get_weights()))) for layer in self._dense]
        made, read = [whole[0].astype(float)], features
        for mine, following in pairwise(whole):
            read = np.maximum(_affine(read, mine), 0)
            units = read.shape[1]
            goals = _affine(read, following)
            alive, weights = eliminated(read, goals, units - round(share * units))
            made[-1] = made[-1][:, alive]
            made.append(weights)
        return made


def _affine(x: Array, matrix: Array) -> Array:
    return x @ matrix[:-1] + matrix[-1]


def computed(matrices: Sequence[Array], x: Array) -> Array:
    """Outputs of Dense layers with ReLU between them."""
    for matrix in matrices[:-1]:
        x = np.maximum(_affine(x, matrix), 0)
    return _affine(x, matrices[-1])


@lru_cache(maxsize=1)
def loaded(file: str) -> tuple[keras.Model, Tail, Array]:
    """A model, its tail, and what that reads of the test pictures."""
    with quiet():
        model = load_model(Path(file))
    tail = Tail(model)
    return model, tail, tail.features(pictures().x_test)


def rows_of(file: str, draw: int, way: str, removed: float) -> list[Row]:
    """The accuracy of a model from which a share is removed in a way."""
    data = pictures()
    model, tail, test = loaded(file)
    drawn = np.random.default_rng(draw).choice(len(data.x), CALIBRATION, replace=False)
    x = data.x[drawn] if draw else data.x[:CALIBRATION]
    if way == BY_THE_BOOK:
        outputs = computed(tail.smaller(tail.features(x), removed), test)
        right = 100 * float(np.mean(outputs.argmax(axis=1) == data.y_test))
    else:
        if way == DEFAULT:
            with quiet():
                model = tfprune.prune(model, x, remove=removed).model
        right = accuracy(model, data.x_test, data.y_test)
    key = {"model": Path(file).stem, "draw": draw, "way": way, "removed": removed}
    return [{**key, "accuracy": right}]


def main() -> None:
    """Measures what is missing, and prints a table for each model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.draws")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="keeps results")
    add_workers(parser)
    asked = parser.parse_args()
    pictures()
    rows = Rows(asked.folder / "draws.jsonl" if asked.folder else None, KEYS)
    wanted = [(0, UNPRUNED, 0.0)]
    wanted += [
        (draw, way, share)
        for draw in range(asked.draws + 1) for share in SHARES for way in (BY_THE_BOOK, DEFAULT)
    ]  # fmt: skip
    tasks = [
        {"file": str(file.absolute()), "draw": draw, "way": way, "removed": share}
        for file in asked.models for draw, way, share in wanted
        if not rows.has(file.stem, draw, way, share)
    ]  # fmt: skip
    with sharing(asked.workers) as share_out:
        share_out.add(rows, rows_of, tasks)
    for file in asked.models:
        print(table(rows, file.stem, asked.draws))


def table(rows: Rows, name: str, draws: int) -> str:
    """A row for each way and kind of data, a column for each share."""
    (whole,) = rows.like(model=name, way=UNPRUNED)
    head = [f"{name} ({whole['accuracy']:.2f} %)", "calibrated on"]
    head += [f"{100 * share:g} % removed" for share in SHARES]
    others = f"{CALIBRATION:,} drawn, {draws} times"
    lines = []
    for way in (BY_THE_BOOK, DEFAULT):
        for label, wanted in ((FIRST, range(1)), (others, range(1, draws + 1))):
            found = [row for row in rows.like(model=name, way=way) if row["draw"] in wanted]
            cells = [
                spread([row["accuracy"] for row in found if row["removed"] == share])
                for share in SHARES
            ]
            lines.append([way, label, *cells])
    return tabulate(lines, head, disable_numparse=True, tablefmt="pipe")


if __name__ == "__main__":
    main()
