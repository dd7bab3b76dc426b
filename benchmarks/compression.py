"""``python -m benchmarks.compression``: what training for 8 bits, zeros and shared weights add.

The cnn of MNIST (or of the digits), or a model file, is pruned; each row makes an int8 file of it.
Rows with a plus are trained without labels on what the unpruned model computes; the first of them
is the same training in floats, so that the rounding in QAT is seen apart from the epochs.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tabulate import tabulate

from tfprune.utils.console import quiet

with quiet():
    import keras

    from tfprune.data import network_training, sources
    from tfprune.data.networks import load_model
    from tfprune.data.preprocessing import input_specs
    from tfprune.data.scoring import make_scorer
    from tfprune.data.splits import Dataset, prepare
    from tfprune.graph.predictions import outputs_of
    from tfprune.outputs.decisions import rules_of
    from tfprune.pruning import prune
    from tfprune.tflite.converter import convert
    from tfprune.tflite.interpreter import LiteModel
    from tfprune.tfmot.bridge import to_tf_keras, weights_from
    from tfprune.tfmot.compression import compress
    from tfprune.tfmot.distillation import Distillation, tools
    from tfprune.tfmot.qat import RATE, quantisation_aware

HEAD = ["int8 file", "bytes", "gzip", "accuracy %", "agreement %", "seconds"]


def trained_in_floats(model: keras.Model, school: Distillation) -> keras.Model:
    """The model after the training that QAT has, without its rounding."""
    with tools() as (tf_keras, _):
        twin = to_tf_keras(model, school.x)
        school.train(twin, "float", RATE, tf_keras)
        return weights_from(twin, model)


def say(line: str) -> None:
    """Tells what is being done."""
    print(f"benchmarks.compression: {line}", file=sys.stderr, flush=True)


def model_and_data(asked: argparse.Namespace) -> tuple[keras.Model, Dataset]:
    """The unpruned model, the built-in cnn or a file, and data in parts."""
    raw = sources.load("auto", asked.data, asked.seed, say)
    if asked.model:
        model = load_model(Path(asked.model))
        return model, prepare(raw, "auto", input_specs(model), 10_000, asked.seed)
    data = prepare(raw, "auto", None, 10_000, asked.seed)
    model, _ = network_training.trained(
        "cnn", None, data.train, data.validation,
        data_digest=data.sha256, epochs=None, seed=asked.seed, say=say,
    )  # fmt: skip
    return model, data


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression")
    parser.add_argument("--data", metavar="FILE.npz", help="MNIST; else it is looked for")
    parser.add_argument("--model", metavar="FILE.keras", help="in place of the cnn")
    parser.add_argument("--prune", type=float, metavar="DEGREES", default=30.0)
    parser.add_argument("--remove", type=float, metavar="SHARE", help="in place of degrees")
    parser.add_argument("--epochs", type=int, default=3, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    model, data = model_and_data(asked)
    result = prune(model, data.calibration.x, asked.prune, remove=asked.remove)
    pruned = result.model
    for layer in result.layers:
        say(f"{layer.name}: {layer.units_before} -> {layer.units_after} units")
    x, test = data.train.arrays, data.test.arrays
    targets = outputs_of(model, x)
    outputs = outputs_of(model, test)
    measure = make_scorer(outputs, data.test, rules_of(model, outputs))
    school = Distillation(x, targets, asked.epochs, seed=asked.seed)

    def ptq(made: keras.Model) -> bytes:
        return dict(convert(made, ["int8"], x))["int8"]

    def qat(made: keras.Model, sparse: bool = False, clustered: bool = False) -> bytes:
        content, _ = quantisation_aware(
            made,
            targets,
            x,
            epochs=asked.epochs,
            seed=asked.seed,
            sparse=sparse,
            clustered=clustered,
        )
        return content

    def small(sparsity: float | None = None, clusters: int | None = None) -> keras.Model:
        made, _ = compress(
            pruned, targets, x,
            sparsity=sparsity, clusters=clusters, epochs=asked.epochs, seed=asked.seed,
        )  # fmt: skip
        return made

    tasks: dict[str, Callable[[], bytes]] = {
        "unpruned, PTQ": lambda: ptq(model),
        "pruned, PTQ": lambda: ptq(pruned),
        "+ the same epochs in floats, PTQ": lambda: ptq(trained_in_floats(pruned, school)),
        "+ QAT": lambda: qat(pruned),
        "+ 16 clusters, PTQ": lambda: ptq(small(None, 16)),
        "+ 16 clusters, QAT": lambda: qat(small(None, 16), clustered=True),
        "+ sparsity 50 %, PTQ": lambda: ptq(small(0.5)),
        "+ sparsity 50 %, QAT": lambda: qat(small(0.5), sparse=True),
        "+ sparsity 50 %, 16 clusters, PTQ": lambda: ptq(small(0.5, 16)),
        "+ sparsity 50 %, 16 clusters, QAT": lambda: qat(
            small(0.5, 16), sparse=True, clustered=True
        ),
    }
    rows = []
    for name, task in tasks.items():
        say(name)
        start = time.perf_counter()
        content = task()
        seconds = time.perf_counter() - start
        scores = measure.scores(LiteModel(content).predict(test))
        rows.append(
            [name, f"{len(content):,}", f"{len(gzip.compress(content)):,}",
             f"{100 * scores['accuracy']:.2f}", f"{100 * scores['agreement']:.2f}",
             f"{seconds:.0f}"]
        )  # fmt: skip
    print(tabulate(rows, HEAD, "pipe", colalign=("left", *["right"] * 5), disable_numparse=True))


if __name__ == "__main__":
    main()
