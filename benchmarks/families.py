"""``python -m benchmarks.families``: the families of keras.applications with planted filters.

Every group of layers that can be pruned gets two filters that are the same (in all layers that
make them, and in all that treat them alone on the way) and one that is nothing, so the right
answer is known. ``--markdown`` prints the table for a document; names of families pick some.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tabulate import tabulate

from benchmarks.fresh import fresh, peak_megabytes
from tfprune.utils.console import quiet

FAMILIES = (
    "VGG16", "ResNet50", "ResNet50V2", "DenseNet121", "MobileNet", "MobileNetV2",
    "MobileNetV3Small", "EfficientNetB0", "Xception", "InceptionV3",
)  # fmt: skip
SIZE, CLASSES, SAMPLES, BATCH = 96, 10, 32, 16
# Degrees: far above what float32 sums leave between equal vectors, far below what chance does.
THRESHOLD = 0.2
HEAD = [
    "family", "layers", "prunable", "pruned", "planted filters gone", "others gone",
    "skipped, and why", "output change", "seconds", "MB before", "peak MB",
]  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """Units of a group of layers: two that are the same, and one that is nothing."""

    group: Any
    twins: tuple[int, int]
    dead: int

    def own(self, layer: str, unit: int) -> npt.NDArray[np.intp]:
        """Where a unit of the group is among the layer's own."""
        return np.flatnonzero(self.group.producers[layer] == unit)


def pictures(model: Any, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Smooth random pictures, each with something of its own left after all the pooling."""
    import keras

    coarse = rng.normal(0, 1, (SAMPLES, SIZE // 16, SIZE // 16, 3))
    x = np.kron(coarse, np.ones((1, 16, 16, 1))) + rng.normal(0, 0.5, (SAMPLES, SIZE, SIZE, 3))
    # A family that scales pixels itself takes 0 to 255.
    scales = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    return (127.5 + 50 * x if scales else x).astype(np.float32)


def build(family: str) -> Any:
    """A model of the family, its output before the softmax."""
    import keras

    return getattr(keras.applications, family)(
        weights=None, input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None
    )


def randomise(model: Any, x: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    """Random scales and biases, and statistics that fit them, so that no two filters are alike."""
    import keras

    drawn = {"gamma": (1, 0.2), "beta": (0, 0.3), "bias": (0, 0.1)}
    normalising = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            normalising.append((layer, layer.momentum))
            layer.momentum = 0.0
        for weight in layer.weights:
            if weight.name in drawn:
                weight.assign(rng.normal(*drawn[weight.name], weight.shape))
    if not normalising:
        normalise_chain(model, x)
        return
    # Without momentum one pass makes the statistics those of the data.
    model(x[:BATCH], training=True)
    for layer, momentum in normalising:
        layer.momentum = momentum


def normalise_chain(model: Any, x: npt.NDArray[np.float32]) -> None:
    """What BatchNormalization does, put into the weights of a chain that has none."""
    import keras

    for layer in model.layers[1:]:
        if layer.weights:
            kernel, bias = layer.get_weights()
            activation, layer.activation = layer.activation, keras.activations.linear
            seen = np.asarray(layer(x)).reshape(-1, len(bias)) - bias
            layer.activation = activation
            deviation = seen.std(axis=0)
            layer.set_weights([kernel / deviation, bias - seen.mean(axis=0) / deviation])
        x = layer(x)


def plant(model: Any, rng: np.random.Generator) -> list[Planted]:
    """Plants three units in every group that can be pruned."""
    from tfprune.graph.groups import groups_of
    from tfprune.graph.tracer import trace

    traced = trace(model)
    planted = []
    for group in groups_of(traced):
        if group.blocked is None:
            # Units that the same layers make: where layers meet, some may make only a part.
            inside = [np.isin(np.arange(len(group.unit_ids)), u) for u in group.producers.values()]
            common = np.flatnonzero(np.all(inside, axis=0))
            first, second, dead = (int(unit) for unit in rng.choice(common, 3, replace=False))
            planted.append(Planted(group, (first, second), dead))
    for one in planted:
        for name in one.group.producers:
            _plant_filters(model.get_layer(name), one)
        for name, labels in traced.input_labels.items():
            units = one.group.units_of(traced.labels.find(labels))
            _plant_on_the_way(model.get_layer(name), np.where(labels > 0, units, -1), one)
    return planted


def _plant_filters(layer: Any, planted: Planted) -> None:
    first, second, dead = (planted.own(layer.name, unit) for unit in (*planted.twins, planted.dead))
    for weight in layer.weights:
        if weight.name != "depthwise_kernel":
            values = np.array(weight)
            values[..., second] = values[..., first]
            values[..., dead] = 0
            weight.assign(values)


def _plant_on_the_way(layer: Any, units: npt.NDArray[np.intp], planted: Planted) -> None:
    """Normalisation and depthwise kernels: the same for both twins, and 0 stays 0."""
    first, second, dead = (np.flatnonzero(units == u) for u in (*planted.twins, planted.dead))
    for weight in layer.weights:
        if weight.name in ("gamma", "beta", "moving_mean", "moving_variance"):
            values = np.array(weight)
            values[second] = values[first]
            if weight.name in ("beta", "moving_mean"):
                values[dead] = 0
            weight.assign(values)
        elif "depthwise" in type(layer).__name__.lower() or weight.name == "depthwise_kernel":
            values = np.moveaxis(np.array(weight), -2, 0) if weight.name != "bias" else weight
            values[second] = values[first]
            weight.assign(np.moveaxis(values, 0, -2))


@quiet()
def row_of(family: str) -> list[Any]:
    """One row of the table."""
    import keras

    import tfprune

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    model = build(family)
    x = pictures(model, rng)
    randomise(model, x, rng)
    planted = plant(model, rng)
    wanted = model.predict(x, batch_size=BATCH, verbose=0)
    before = peak_megabytes()
    start = time.perf_counter()
    result = tfprune.prune(model, x, THRESHOLD, layers="all", batch_size=BATCH)
    seconds = time.perf_counter() - start
    peak = peak_megabytes()
    received = result.model.predict(x, batch_size=BATCH, verbose=0)
    change = np.abs(received - wanted).max() / np.abs(wanted).max()

    layers = {layer.name: layer for layer in result.layers}
    gone = expected = 0
    for one in planted:
        for name in one.group.producers:
            kept = layers[name].kept
            first, second, dead = (np.isin(one.own(name, u), kept) for u in (*one.twins, one.dead))
            expected += len(second) + len(dead)
            gone += (~(first & second)).sum() + (~dead).sum()
    removed = sum(layer.units_before - layer.units_after for layer in layers.values())
    # Names of layers say too much: "feeds x (Slice), ..." is "feeds Slice, ...".
    reasons = Counter(re.sub(r"\S+ \((\w+)\)", r"\1", skip.reason) for skip in result.skipped)
    return [
        family,
        len(model.layers),
        len(layers),
        sum(layer.units_after < layer.units_before for layer in layers.values()),
        f"{gone:,} of {expected:,}",
        int(removed - gone),
        "; ".join(f"{count} {reason}" for reason, count in reasons.most_common()),
        f"{change:.0e}",
        f"{seconds:.1f}",
        f"{before:,.0f}",
        f"{peak:,.0f}",
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families")
    parser.add_argument("families", nargs="*", default=FAMILIES, metavar="FAMILY")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    asked = parser.parse_args()
    rows = [fresh(row_of, family) for family in asked.families]
    align = ["left", *["right"] * 5, "left", *["right"] * 4]
    form = "pipe" if asked.markdown else "simple"
    if not asked.markdown:
        print(f"{SIZE} px, {SAMPLES} samples, threshold {THRESHOLD} degrees, layers='all'")
    print(tabulate(rows, HEAD, form, colalign=align, disable_numparse=True))


if __name__ == "__main__":
    main()
