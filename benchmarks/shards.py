"""``python -m benchmarks.shards``: pruning on samples in several files, by workers and without.

A convolutional network with random weights loses half of all its layers' units on random pictures
that lie in files. Seconds are those of all of it, measuring and reconstruction; memory is what the
command held before and at most, and the largest of its workers. The weights that come out have to
be the same with workers and without, and whatever kind the files are.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.fresh import fresh
from benchmarks.large import Memory
from tfprune.utils.console import quiet

SIZE, FILTERS, REMOVED = 24, (16, 16, 32, 32, 64, 64), 0.5
FILES = 8


def write(folder: Path, kind: str, samples: int) -> list[str]:
    """Pictures in files of a kind, one float32 a pixel."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(FILES):
        x = rng.normal(size=(samples // FILES, SIZE, SIZE, 3)).astype(np.float32)
        path = folder / f"{number}.{kind}"
        if kind == "npy":
            np.save(path, x)
        elif kind == "npz":
            np.savez(path, x=x)
        elif kind == "parquet":
            import pandas as pd

            table = pd.DataFrame(x.reshape(len(x), -1))
            table.columns = [f"pixel{number}" for number in range(table.shape[1])]
            table.to_parquet(path, index=False)
        else:
            _write_records(path, x)
        paths.append(str(path))
    return paths


def _write_records(path: Path, x: Any) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in x.reshape(len(x), -1):
            values = tf.train.Feature(float_list=tf.train.FloatList(value=row))
            features = tf.train.Features(feature={"sample": values})
            writer.write(tf.train.Example(features=features).SerializeToString())


@quiet()
def pruned(paths: list[str], workers: int | None) -> tuple[float, float, float, float, str]:
    """Seconds; megabytes before, at most, of a worker at most; a digest of the weights."""
    import keras

    import tfprune

    keras.utils.set_random_seed(0)
    layers: list[Any] = [keras.Input((SIZE, SIZE, 3))]
    for place, filters in enumerate(FILTERS):
        stride = 2 if place % 2 else 1
        layers.append(keras.layers.Conv2D(filters, 3, stride, "same", activation="relu"))
    model = keras.Sequential(
        [*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]
    )
    model.predict_on_batch(np.zeros((8, SIZE, SIZE, 3), np.float32))
    memory = Memory()
    begun = time.perf_counter()
    result = tfprune.prune(model, paths, remove=REMOVED, layers="all", workers=workers)
    seconds = time.perf_counter() - begun
    most = memory.before + memory.peak()
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    weights = b"".join(one.tobytes() for one in result.model.get_weights())
    return seconds, memory.before, most, child, hashlib.sha256(weights).hexdigest()


def main() -> None:
    """Prints a row for each kind of file, number of samples and of workers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shards", description=__doc__)
    parser.add_argument("--kinds", default="npy,parquet,tfrecord", help="and npz")
    parser.add_argument("--samples", default="8000,16000")
    parser.add_argument("--workers", default="0,2", help="numbers of workers; 0 is without")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    asked = parser.parse_args()
    rows, first = [], dict[int, str]()
    for kind in asked.kinds.split(","):
        for samples in map(int, asked.samples.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                paths = write(Path(folder), kind, samples)
                for workers in map(int, asked.workers.split(",")):
                    seconds, before, most, child, digest = fresh(pruned, paths, workers or None)
                    rows.append([
                        kind, f"{samples:,}", workers or "none", f"{seconds:.0f}", f"{before:,.0f}",
                        f"{most:,.0f}", f"{child:,.0f}" if workers else "",
                        "yes" if digest == first.setdefault(samples, digest) else "NO",
                    ])  # fmt: skip
    head = ["files", "samples", "workers", "seconds", "MB before", "MB at most",
            "a worker's MB", "same weights"]  # fmt: skip
    form = "pipe" if asked.markdown else "simple"
    print(tabulate(rows, head, form, disable_numparse=True))


if __name__ == "__main__":
    main()
