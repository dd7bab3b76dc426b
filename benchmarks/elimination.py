"""``python -m benchmarks.elimination``: what the pruning step costs on given activations.

The step is all there is between activations and folded weights: their moments, the elimination of
half of the units by effect, and the least-squares fold. It stands beside the same elimination
without blocks, which updates the whole matrices at every step, and beside what nobody does without:
one product of the activations and one inverse of it. ``--wide`` compares instead, on wide layers,
units taken out many at a time with units taken out one by one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from tfprune.core.elimination import ConsumerStats, backward_elimination
from tfprune.core.fold import RIDGE, RIDGE_PER_SAMPLE, apply_fold, least_squares
from tfprune.core.moments import Moments
from tfprune.core.selection import without

SAMPLES, REPEATS = 2_000, 9
# Units of each pruned layer and outputs of the layer that reads it.
LAYERS: dict[str, list[tuple[int, int]]] = {
    "64-10 (cnn64)": [(64, 10)],
    "512-10 (cnn512)": [(512, 10)],
    "512-512-10 (mlp)": [(512, 512), (512, 10)],
    "2048-1024": [(2048, 1024)],
}
# Wider ones would keep the plain elimination busy for minutes.
PLAIN = 512
# Units of wide layers, and outputs of what reads them.
WIDE = [(1024, 512), (2048, 1024), (3072, 1024), (4096, 1024)]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Best:
    """Least seconds of several turns: by the clock, and of all processors together."""

    wall: float
    cpu: float


def best(tasks: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, Best]:
    """The tasks take turns, after one round that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            wall, cpu = time.perf_counter(), time.process_time()
            task()
            if turn:
                spent = time.perf_counter() - wall, time.process_time() - cpu
                taken[name].append(spent)
    return {name: Best(*map(min, zip(*turns, strict=True))) for name, turns in taken.items()}


def activations(units: int, rng: np.random.Generator) -> Array:
    """Of ReLU units that have much in common, as after training."""
    causes = rng.standard_normal((SAMPLES, units // 4), np.float32)
    mixed = causes @ rng.standard_normal((units // 4, units), np.float32) / np.sqrt(units / 4)
    return np.maximum(mixed + 0.3 * rng.standard_normal(mixed.shape, np.float32), 0)


def pruned(a: Array, kernel: Array) -> Array:
    """The pruning step: the reader's kernel after half of the units went."""
    moments = Moments(a.shape[1])
    moments.add(a)
    units, constant = np.arange(moments.units), moments.constant()
    consumers = [ConsumerStats(units, moments, kernel)]
    order = backward_elimination(moments.units, consumers, constant, moments.units // 2).order
    selection = without(order, constant)
    fold = least_squares(selection, moments, moments.mean)
    return apply_fold(kernel, units[None], fold)[0][selection.kept]


def plain(a: Array, kernel: Array) -> list[int]:
    """The same elimination, one whole update a step."""
    centred = a.astype(np.float64) - a.mean(axis=0)
    deviation = centred.std(axis=0)
    kernel = kernel * deviation[:, None]
    ridge = RIDGE + RIDGE_PER_SAMPLE * a.shape[1] / len(a)
    correlation = centred.T @ centred / len(a) / np.outer(deviation, deviation)
    inverse = np.linalg.inv(correlation + ridge * np.eye(len(kernel)))
    left = np.ones(len(kernel), bool)
    order: list[int] = []
    while 2 * len(order) < len(kernel):
        with np.errstate(divide="ignore", invalid="ignore"):
            costs = (kernel**2).sum(axis=1) / inverse.diagonal()
        unit = int(np.argmin(np.where(left, costs, np.inf)))
        left[unit] = False
        order.append(unit)
        share = inverse[:, unit] / inverse[unit, unit]
        kernel = kernel - np.outer(share, kernel[unit])
        inverse = inverse - np.outer(share, inverse[unit])
    return order


def bare(a: Array, kernel: Array) -> Array:
    """One product of the activations, and its inverse."""
    products = (a.T @ a).astype(np.float64)
    return np.linalg.inv(products + np.eye(len(products)))


def over(task: Callable[[Array, Array], Any], layers: Sequence[tuple[Array, Array]]) -> Any:
    """A task that does one layer after the other."""
    return lambda: [task(a, kernel) for a, kernel in layers]


def wide_row(units: int, outputs: int, rng: np.random.Generator) -> list[str]:
    """Half of a wide layer gone one by one, and many at a time."""
    moments = Moments(units)
    moments.add(activations(units, rng))
    consumer = ConsumerStats(np.arange(units), moments, rng.standard_normal((units, outputs)))
    row, errors = [f"{units:,}-{outputs:,}"], []
    for wide in (units, 0):
        wall, cpu = time.perf_counter(), time.process_time()
        made = backward_elimination(units, [consumer], moments.constant(), units // 2, wide)
        row += [f"{time.perf_counter() - wall:.1f}", f"{time.process_time() - cpu:.1f}"]
        errors.append(made.errors[-1])
    return [*row, f"{errors[1] / errors[0]:.4f}"]


def main() -> None:
    """Prints a row for each network."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.elimination")
    parser.add_argument("--wide", action="store_true", help="wide layers alone")
    rng = np.random.default_rng(0)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    if parser.parse_args().wide:
        print(f"half of the units gone, {SAMPLES:,} samples; load {load:.1f}")
        heads = ["units-outputs", "one by one s", "CPU s", "many at a time s", "CPU s", "effect"]
        print(tabulate([wide_row(*sizes, rng) for sizes in WIDE], heads, disable_numparse=True))
        return
    rows = []
    for name, sizes in LAYERS.items():
        layers = [
            (activations(units, rng), rng.standard_normal((units, outputs)))
            for units, outputs in sizes
        ]
        tasks = {"step": over(pruned, layers), "bare": over(bare, layers)}
        if sizes[0][0] <= PLAIN:
            tasks["plain"] = over(plain, layers)
        spent = best(tasks)
        step, least = spent["step"], spent["bare"]
        row = [name, f"{step.wall:.3f}", f"{step.cpu:.3f}", f"{step.wall / least.wall:.1f}"]
        if "plain" in spent:
            row += [f"{spent['plain'].wall:.3f}", f"{spent['plain'].wall / step.wall:.1f}"]
        rows.append(row)
    head = ["units-outputs", "step s", "CPU s", "/ product + inverse", "plain s", "plain / step"]
    print(f"{SAMPLES:,} samples, 50 % of the units, best of {REPEATS} turns, load {load:.1f}")
    print(tabulate(rows, head, disable_numparse=True, colalign=("left",) + ("right",) * 5))


if __name__ == "__main__":
    main()
