"""``python -m benchmarks.real --folder FOLDER``: a published classifier, cut, refitted and healed.

MLPerf Tiny's ResNet8 on CIFAR-10, or another classifier: a share of every layer's filters goes, by
the package's own selections, on unlabelled training images; accuracy is that of all test images.
Rows: the fold alone, the reconstruction on top, and with ``--epochs`` healing on more images. The
int8 file of the last one runs in LiteRT. TFPRUNE_MODELS and TFPRUNE_DATA name the folders of
``resnet8_cifar10.h5`` and ``cifar10.npz``. Results are kept in the folder; a run that was stopped
goes on from there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from tabulate import tabulate

from benchmarks.gradual import DATA, MODEL, named, numbers, read
from benchmarks.mnist import Pictures, Row, Rows, accuracy
from tfprune.utils.console import quiet

with quiet():
    import keras

    import tfprune
    from tfprune.data.networks import load_model
    from tfprune.graph.costs import macs
    from tfprune.tflite.interpreter import LiteModel

CALIBRATION = 2_000
HEAD = [
    "removed", "by", "fold %", "refitted %", "seconds", "healed %", "seconds", "int8 %",
    "int8 bytes", "multiply-accumulates",
]  # fmt: skip


def row_of(
    file: Path, data: Pictures, remove: float, select: str, asked: argparse.Namespace
) -> Row:
    """One share by one selection: accuracy in percent, seconds, and bytes of the int8 file."""
    keras.utils.set_random_seed(asked.seed)
    original = load_model(file)
    few, test = data.x[:CALIBRATION], (data.x_test, data.y_test)
    how = {"remove": remove, "layers": "all", "select": select, "seed": asked.seed}
    fold = tfprune.prune(original, few, refit=0, **how).model
    start = time.perf_counter()
    model = tfprune.prune(original, few, refit=asked.refit, **how).model
    row = {
        "removed": remove, "select": select, "macs": macs(model), "fold": accuracy(fold, *test),
        "refitted": accuracy(model, *test), "seconds": round(time.perf_counter() - start),
        "healed": None, "healing": None,
    }  # fmt: skip
    if asked.epochs:
        start = time.perf_counter()
        model = tfprune.heal(model, original, data.x, asked.epochs, augment=asked.augment)
        row |= {
            "healed": accuracy(model, *test), "healing": round(time.perf_counter() - start)
        }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = tfprune.export(model, folder, schemes=["int8"], representative=few[:200])["int8"]
        outputs = LiteModel(made.read_bytes()).predict([data.x_test])[0]
        row["int8"] = 100 * float(np.mean(outputs.argmax(axis=1) == data.y_test))
        row["bytes"] = made.stat().st_size
    return row


def shown(value: float | None) -> str:
    """A figure of two digits, or nothing."""
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real")
    parser.add_argument("--model", metavar="FILE", help="a classifier")
    parser.add_argument("--data", metavar="FILE.npz", help="x_train, y_train, x_test, y_test")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="keeps the results")
    parser.add_argument("--removes", type=numbers(float), default=[0.125, 0.25, 0.5])
    parser.add_argument("--selects", type=numbers(str), default=["effect"])
    parser.add_argument("--epochs", type=int, default=0, help="of healing; none by default")
    parser.add_argument("--augment", action="store_true", help="flips and shifts in healing")
    parser.add_argument("--samples", type=int, default=10_000, help="to heal on")
    parser.add_argument("--refit", type=int, help="steps of reconstruction, at most")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    file = named(asked.model, "TFPRUNE_MODELS", MODEL)
    data = read(named(asked.data, "TFPRUNE_DATA", DATA), asked.samples)
    rows = Rows(asked.folder and asked.folder / "real.jsonl", ("removed", "select"))
    for remove in asked.removes:
        for select in asked.selects:
            if not rows.has(remove, select):
                rows.add(row_of(file, data, remove, select, asked))
    with quiet():
        original = load_model(file)
    score = accuracy(original, data.x_test, data.y_test)
    print(f"unpruned: {score:.2f} %, {macs(original):,} multiply-accumulates")
    table = [
        [f"{row['removed']:.1%}", row["select"], shown(row["fold"]), shown(row["refitted"]),
         row["seconds"], shown(row["healed"]), row["healing"] or "", shown(row["int8"]),
         f"{row['bytes']:,}", f"{row['macs']:,}"]
        for row in rows.like()
    ]  # fmt: skip
    print(tabulate(table, HEAD, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
