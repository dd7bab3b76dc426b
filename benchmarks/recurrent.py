"""``python -m benchmarks.recurrent``: recurrent models with half of their units, healed, in LiteRT.

A tagger, a bidirectional LSTM, on sequences that this program makes: a symbol's tag depends on the
last mark in front of it and the next one behind it. And a GRU that tells spoken digits from 10
coefficients of 49 frames; TFPRUNE_DATA names the folder of its ``fsdd.npz`` (x_train, y_train,
x_test, y_test), or ``--data`` the file. Half of the units of all hidden layers go; accuracy is that
of test samples, of every position for the tagger, and of the int8 file in LiteRT. Loops over the
steps are unrolled, as TensorFlow's calibration for integers ends the process on others.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.utils.console import quiet

with quiet():
    import keras
    from keras import layers as kl

    import tfprune
    from tfprune.graph.costs import macs
    from tfprune.tflite.interpreter import LiteModel

LENGTH, SYMBOLS, MARKS = 16, 20, 3
SCHEMES = ["float32", "int8"]
HEAD = [
    "network", "state", "parameters", "multiply-accumulates", "Keras %", "float32 %", "bytes",
    "int8 %", "bytes",
]  # fmt: skip
Array = np.ndarray[Any, Any]
Split = tuple[Any, Array]


def tagged(samples: int, seed: int) -> Split:
    """Sequences of symbols, and a tag for each: the last mark before it and the next behind it.

    The first 3 symbols are marks; where there is none the tag counts a fourth.
    """
    x = np.random.default_rng(seed).integers(0, SYMBOLS, (samples, LENGTH))
    marks = np.where(x < MARKS, x, MARKS)
    tags = np.zeros_like(x)
    for order, weight in ((range(LENGTH), 1), (reversed(range(LENGTH)), MARKS + 1)):
        last = np.full(samples, MARKS)
        for place in order:
            tags[:, place] += weight * last
            last = np.where(marks[:, place] < MARKS, marks[:, place], last)
    return x.astype("int32"), tags


def tagger() -> keras.Model:
    """A bidirectional LSTM of 2 x 48 units, and a softmax at each position."""
    lstm = kl.LSTM(48, return_sequences=True, unroll=True, name="lstm")
    tags = kl.Dense((MARKS + 1) ** 2, activation="softmax", name="tags")
    return keras.Sequential(
        [keras.Input((LENGTH,), dtype="int32", name="symbols"), kl.Embedding(SYMBOLS, 16),
         kl.Bidirectional(lstm, name="both"), kl.TimeDistributed(tags, name="each")],
        name="tagger",
    )  # fmt: skip


def keywords() -> keras.Model:
    """A GRU of 96 units over 49 frames, and 10 digits."""
    return keras.Sequential(
        [keras.Input((49, 10, 1), name="frames"), kl.Reshape((49, 10)),
         kl.GRU(96, unroll=True, name="gru"), kl.Dense(10, activation="softmax", name="digits")],
        name="keywords",
    )  # fmt: skip


def correct(outputs: Array, y: Array) -> float:
    """Percent of the decisions."""
    return 100 * float(np.mean(outputs.argmax(axis=-1) == y))


def row_of(name: str, state: str, model: keras.Model, few: Any, test: Split) -> list[Any]:
    """What a model and its files get right, and their bytes; x is a list for several inputs."""
    x, y = test
    given = x if isinstance(x, list) else [x]
    row = [name, state, f"{model.count_params():,}", f"{macs(model):,}"]
    row.append(f"{correct(model.predict(x, 256, verbose=0), y):.2f}")
    with tempfile.TemporaryDirectory() as folder:
        files = tfprune.export(model, folder, schemes=SCHEMES, representative=few)
        for scheme in SCHEMES:
            content = files[scheme].read_bytes()
            file = LiteModel(content, [one.name for one in model.inputs])
            row += [f"{correct(file.predict(given)[0], y):.2f}", f"{len(content):,}"]
    return row


def rows_of(
    model: keras.Model, train: Split, test: Split, asked: argparse.Namespace
) -> list[list[Any]]:
    """Trains a model, and takes half of its units."""
    keras.utils.set_random_seed(asked.seed)
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
    model.fit(*train, 64, asked.epochs, verbose=0)
    few = train[0][:1000]
    start = time.perf_counter()
    result = tfprune.prune(model, few, remove=asked.remove, layers="recurrent")
    seconds = time.perf_counter() - start
    print(f"{model.name}: {seconds:.0f} s to prune", file=sys.stderr)
    start = time.perf_counter()
    healed = tfprune.heal(result.model, model, train[0], asked.heal)
    print(f"{model.name}: {time.perf_counter() - start:.0f} s to heal", file=sys.stderr)
    states = {"original": model, "pruned": result.model, "healed": healed}
    return [row_of(model.name, state, one, few[:200], test) for state, one in states.items()]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recurrent")
    parser.add_argument("--data", type=Path, metavar="FILE.npz", help="spoken digits")
    parser.add_argument("--epochs", type=int, default=15, help="of training")
    parser.add_argument("--heal", type=int, default=10, help="epochs of healing")
    parser.add_argument("--remove", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    file = asked.data or Path(os.environ.get("TFPRUNE_DATA", "")) / "fsdd.npz"
    keras.utils.set_random_seed(asked.seed)
    table = rows_of(tagger(), tagged(4000, 0), tagged(1000, 1), asked)
    if file.is_file():
        with np.load(file) as data:
            train, test = ((data[f"x_{part}"], data[f"y_{part}"]) for part in ("train", "test"))
        keras.utils.set_random_seed(asked.seed)
        table += rows_of(keywords(), train, test, asked)
    else:
        print(f"without spoken digits: {file} is no file; see --data", file=sys.stderr)
    print(tabulate(table, HEAD, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
