"""``python -m benchmarks.real --folder FOLDER``: published networks pruned, refitted and healed.

Of each network in ``--models`` (:mod:`benchmarks.real_models`) a share of every layer's units goes
(``--removes``), or as much as a budget of multiply-accumulates asks for (``--macs``), without
labels. Scores are those of test samples that nothing else was done with: accuracy, or where there
are no labels the share of the outputs' variance that is kept. Rows: the fold alone, the
reconstruction on top, with ``--epochs`` healing on more samples, and the int8 file in LiteRT beside
the original's. ``--adapt`` sets BatchNormalization to the data first. Results are kept in the
folder; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.gradual import numbers
from benchmarks.real_models import CASES, Case, case
from benchmarks.rows import Row, Rows, add_workers, sharing
from tfprune.utils.console import quiet

with quiet():
    import keras

    import tfprune
    from tfprune.graph.costs import macs
    from tfprune.micro.tflm import tried
    from tfprune.tflite.interpreter import LiteModel, latencies

CALIBRATION = 2_000
# What names a row.
KEYS = (
    "model", "removed", "macs_left", "select", "adapt", "epochs", "augment", "seed", "heal_seed",
)  # fmt: skip
HEAD = [
    "model", "removed", "by", "adapted", "original", "fold", "refitted", "seconds", "healed",
    "seconds", "int8", "int8 original", "int8 bytes", "of", "arena", "of", "MACs", "of",
    "time in int8",
]  # fmt: skip


@lru_cache(maxsize=1)
def loaded(name: str, folder: str) -> Case:
    """A model and its data."""
    with quiet():
        return case(name, Path(folder))


def prepared(name: str, folder: str) -> list[Row]:
    """No rows: a model that is trained here is in the folder then."""
    loaded(name, folder)
    return []


def rows_of(key: Row, folder: str, refit: int | None) -> list[Row]:
    """Scores in percent, seconds, bytes, multiply-accumulates and the ratio of int8 latencies."""
    one = loaded(key["model"], folder)
    keras.utils.set_random_seed(key["seed"])
    start = time.perf_counter()
    few = one.x[:CALIBRATION]
    original = tfprune.adapt(one.model, few) if key["adapt"] else one.model
    how: dict[str, Any] = {"seed": key["seed"]}
    if key["removed"] is None:
        how["target_macs"] = key["macs_left"]
    else:
        how |= {"remove": key["removed"], "select": key["select"]}
    pruner = tfprune.Pruner(original, few, layers="all")
    model = pruner.prune(refit=refit, **how).model
    seconds = time.perf_counter() - start
    row = key | {
        "original": score(one, one.model), "adapted": score(one, original),
        "fold": score(one, pruner.prune(refit=0, **how).model), "refitted": score(one, model),
        "seconds": round(seconds), "macs": macs(model), "macs_before": macs(one.model),
        "healed": None, "healing": None,
    }  # fmt: skip
    if key["epochs"]:
        start = time.perf_counter()
        model = tfprune.heal(
            model, original, one.x, key["epochs"], augment=key["augment"], seed=key["heal_seed"]
        )
        row |= {"healed": score(one, model), "healing": round(time.perf_counter() - start)}
    files = [(when, int8(each, few[:200])) for when, each in (("_before", one.model), ("", model))]
    for when, content in files:
        row |= dict.fromkeys([f"{figure}{when}" for figure in ("bytes", "int8", "arena")])
        if content is not None:
            lite = LiteModel(content)
            row[f"bytes{when}"] = len(content)
            row[f"int8{when}"] = one.score(lite.predict([one.x_test])[0])
            row[f"arena{when}"] = arena(content, lite, one.x_test[:1])
    lites = [LiteModel(content) for _, content in files if content is not None]
    row["times"] = None
    if len(lites) == len(files):
        slow, fast = (time["p10"] for time in latencies(lites, [one.x_test[0]]))
        row["times"] = fast / slow
    return [row]


def int8(model: keras.Model, samples: np.ndarray) -> bytes | None:
    """The file, or None where it is too far from the model."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = tfprune.export(model, folder, schemes=["int8"], representative=samples)
        except tfprune.TfpruneError as error:
            print(f"{model.name}: {error}", file=sys.stderr)
            return None
        return made["int8"].read_bytes()


def arena(content: bytes, lite: LiteModel, x: np.ndarray) -> int | None:
    """Bytes that TensorFlow Lite Micro needs beside the file; None where it does not run it."""
    try:
        return tried(content, lite.fed([x]), "the int8 file").arena
    except tfprune.TfpruneError as error:
        print(error, file=sys.stderr)
        return None


def score(one: Case, model: keras.Model) -> float:
    """Of the test samples, in percent."""
    return one.score(np.asarray(model.predict(one.x_test, 500, verbose=0)))


def whole(value: int | None) -> str:
    """A whole number, or nothing."""
    return "" if value is None else f"{value:,}"


def shown(value: float | None) -> str:
    """A figure of two digits, or nothing."""
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real")
    parser.add_argument("--models", type=numbers(str), default=["resnet8"], metavar="NAMES",
        help=", ".join(CASES))  # fmt: skip
    parser.add_argument("--folder", type=Path, default=Path("real"), help="keeps the results")
    parser.add_argument("--removes", type=numbers(float), metavar="SHARES",
        help="of the units of every layer; 0.125,0.25,0.5 by default")  # fmt: skip
    parser.add_argument("--macs", metavar="SHARE", help="in place of shares what is left, as 50%%")
    parser.add_argument("--selects", type=numbers(str), default=["effect"])
    parser.add_argument("--adapt", action="store_true", help="BatchNormalization to the data first")
    parser.add_argument("--epochs", type=int, default=0, help="of healing; none by default")
    parser.add_argument("--augment", action="store_true", help="flips and shifts in healing")
    parser.add_argument("--refit", type=int, help="steps of reconstruction, at most")
    parser.add_argument("--seed", type=int, default=0, help="of what is selected at random")
    parser.add_argument("--heal-seed", type=int, default=0, help="of the order in healing")
    add_workers(parser)
    asked = parser.parse_args()
    unknown = set(asked.models) - set(CASES)
    if unknown:
        parser.error(f"--models: expected some of {', '.join(CASES)}; not {', '.join(unknown)}")
    rows = Rows(asked.folder / "real.jsonl", KEYS)
    shares = [None] if asked.macs else asked.removes or [0.125, 0.25, 0.5]
    selects = ["effect"] if asked.macs else asked.selects
    wanted = [
        dict(zip(KEYS, (name, share, asked.macs, select, asked.adapt, asked.epochs, asked.augment,
                        asked.seed, asked.heal_seed), strict=True))
        for name in asked.models for share in shares for select in selects
    ]  # fmt: skip
    new = [key for key in wanted if not rows.has(*key.values())]
    folder = str(asked.folder.absolute())
    names = dict.fromkeys(key["model"] for key in new)
    with sharing(asked.workers) as share_out:
        if asked.workers is not None:  # Several may need the same one at once.
            share_out.add(rows, prepared, [{"name": name, "folder": folder} for name in names])
        share_out.add(
            rows, rows_of, [{"key": key, "folder": folder, "refit": asked.refit} for key in new]
        )
    table = [
        [row["model"], f"{row['removed']:.1%}" if row["removed"] else f"to {row['macs_left']} MACs",
         row["select"], shown(row["adapted"]) if row["adapt"] else "", shown(row["original"]),
         shown(row["fold"]), shown(row["refitted"]), row["seconds"], shown(row["healed"]),
         row["healing"] or "", shown(row["int8"]), shown(row["int8_before"]),
         *(whole(row[name]) for name in ("bytes", "bytes_before", "arena", "arena_before", "macs",
                                         "macs_before")),
         shown(row["times"])]
        for key in wanted for row in rows.like(**key)
    ]  # fmt: skip
    print(tabulate(table, HEAD, "pipe", disable_numparse=True))


if __name__ == "__main__":
    main()
