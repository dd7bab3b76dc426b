"""``python -m benchmarks.peers MODEL.keras ...``: what is left after so many hidden units are gone.

Every way to choose units on the same models: no labels and no training, 2,000 calibration images,
accuracy of the float model on the test set of MNIST (TFPRUNE_MNIST names the .npz). Models take
(28, 28, 1) pictures of 0..1.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.quiet import quiet

with quiet():
    import keras

    import tfprune

SHARES = (0.5, 0.75, 0.875)
CALIBRATION = 2_000
# What is asked of prune, and how its row is called.
WAYS: dict[str, dict[str, Any]] = {
    "random, dropped": {"select": "random", "fold": "drop"},
    "magnitude, dropped": {"select": "magnitude", "fold": "drop"},
    "closest pairs, least squares": {"select": "angle", "refit": 0},
    "span, least squares": {"select": "span", "refit": 0},
    "effect, least squares": {"select": "effect", "refit": 0},
    "effect, survivors refitted (default)": {},
}


def accuracy(model: keras.Model, x: Any, y: Any) -> float:
    """Percent of the samples."""
    return 100 * float(np.mean(model.predict(x, 500, verbose=0).argmax(axis=1) == y))


def main() -> None:
    """Prints a row for each way, a column for each model and share."""
    files = [Path(word) for word in sys.argv[1:]]
    if not files or "TFPRUNE_MNIST" not in os.environ:
        sys.exit("usage: TFPRUNE_MNIST=mnist.npz python -m benchmarks.peers MODEL.keras ...")
    with np.load(os.environ["TFPRUNE_MNIST"]) as data:
        x, x_test = (data[key][..., None].astype("float32") / 255 for key in ("x_train", "x_test"))
        y_test = data["y_test"]
    head = ["no labels, no training"]
    rows: list[list[Any]] = [[name] for name in WAYS]
    for file in files:
        with quiet():
            model = keras.models.load_model(file, compile=False)
            whole = accuracy(model, x_test, y_test)
        head.append(f"{file.stem} ({whole:.2f})")
        for row, (name, asked) in zip(rows, WAYS.items(), strict=True):
            cells, seconds = [], 0.0
            for share in SHARES:
                start = time.perf_counter()
                with quiet():
                    made = tfprune.prune(model, x[:CALIBRATION], remove=share, **asked).model
                    seconds = max(seconds, time.perf_counter() - start)
                    cells.append(f"{accuracy(made, x_test, y_test):.2f}")
            row.append(" / ".join(cells))
            print(f"{file.stem}, {name}: {row[-1]}, {seconds:.1f} s at most", file=sys.stderr)
    print(f"% of {len(y_test):,} test images after {SHARES} of the hidden Dense units are gone")
    print(tabulate(rows, head, disable_numparse=True))


if __name__ == "__main__":
    main()
