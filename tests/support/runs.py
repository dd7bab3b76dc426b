"""Manifests of runs that nobody made, for what is written from them."""

from __future__ import annotations

import numpy as np

from tfprune.results import LayerResult
from tfprune.sweep.results_log import Row
from tfprune.sweep.tables import Sweep

CLASSES = 10
SAMPLES = 500
# Variant, scheme, bytes, accuracy, microseconds.
FILES = (
    ("original", "float32", 107_384, 0.9917, 20.9), ("original", "int8", 30_328, 0.9918, 63.9),
    ("pruned", "float32", 80_904, 0.9877, 21.0), ("pruned", "int8", 23_336, 0.9852, 15.5),
)  # fmt: skip


def artifacts(score="accuracy"):
    made = []
    for variant, scheme, size, value, latency in FILES:
        name = "cnn" if variant == "original" else "cnn_prune30"
        entry = {
            "file": f"{name}_{scheme}.tflite", "variant": variant, "scheme": scheme, "bytes": size,
            "sha256": "0" * 64, "parameters": 1, "weights_bytes": 1, "agreement": 0.99,
            "output_error": 0.01, "latency_us": {"p10": latency, "median": latency + 1},
        }  # fmt: skip
        made.append(entry | ({score: value} if score else {}))
    return made


def least():
    """A manifest without anything that can be left out."""
    return {
        "schema": 1, "command": ["python", "-m", "tools.export", "--prune", "30"],
        "created": "2026-11-26T02:16:08+00:00", "seed": 0, "versions": {"tfprune": "0.1.0"},
        "git": None,
        "dataset": {"name": "digits", "sha256": "1" * 64, "test": SAMPLES, "notes": []},
        "model": {"name": "cnn", "sha256": "2" * 64},
        "prune": {"threshold_degrees": None, "layers": [], "skipped": []},
        "artifacts": [],
    }  # fmt: skip


def whole():
    """A manifest with everything that a page shows."""
    files = artifacts()
    samples = [SAMPLES // CLASSES] * CLASSES
    right = {entry["file"]: [49] * CLASSES for entry in files}
    right["cnn_prune30_int8.tflite"] = [49, 49, 50, 40, 49, 47, 49, 49, 49, 49]
    names = ("conv1", "block/conv2", "block/conv3", "hidden")
    layers = [
        {"name": name, "units_before": 16 * 2**n, "units_after": 12 * 2**n, "note": ""}
        for n, name in enumerate(names)
    ]
    return least() | {
        "artifacts": files,
        "git": {"commit": "a" * 40, "dirty": True},
        "prune": {
            "threshold_degrees": 30.0, "layers": layers, "select": "angle", "centre": "mean",
            "fold": "least-squares", "skipped": [{"name": "output", "reason": "output layer"}],
        },
        "warnings": [
            {"about": "pruning", "message": "pruning lost 0.65 points", "advice": ["--heal 5"]}
        ],
        "classes": {
            "each": "class", "samples": samples, "original": [49] * CLASSES, "right": right,
        },
        "changed": {
            "file": "cnn_prune30_int8.tflite", "count": 30, "worse": 20, "better": 4,
            "samples": [
                {"index": 7 * n, "label": 3, "before": 3, "after": 8 if n % 2 else 5}
                for n in range(24)
            ],
        },
        "test_data": {"file": "cnn_test.npz", "samples": 100, "bytes": 1, "sha256": "3" * 64},
        "microcontrollers": {
            "tflite_micro": "0.1", "files": [],
            "devices": [
                {"name": "raspberry-pi-pico", "files": [
                    {"file": "cnn_prune30_int8.tflite", "fits": True,
                     "verdict": "fits, 260,064 B of RAM and 2,074,160 B of flash left"},
                ]},
            ],
        },
    }  # fmt: skip


def inspected(groups=4):
    """What ``tfprune.inspect`` measures, as plain data; the first group stands a loss least."""
    return {
        "shares": [0.25, 0.5, 0.75],
        "measured": {
            "score": "accuracy", "original": 0.99, "samples": 400, "scored": 100,
            "sensitivity": [
                {"name": f"group{n}", "units": [12, 8, 4], "scores": [0.99, 0.95 - 0.1 * n / groups,
                                                                     0.8 - 0.6 * n / groups]}
                for n in range(groups)
            ],
        },
    }  # fmt: skip


def layers(rng, units=(16, 32, 64)):
    """Layers with angles between random directions."""
    made = []
    for number, count in enumerate(units):
        rows = rng.normal(0, 1, (count, 6))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        angles = np.degrees(np.arccos(np.clip(rows @ rows.T, -1, 1))).astype("float32")
        kept = np.arange(count // 2)
        made.append(LayerResult(f"layer{number}", count, count // 2, 1, 1, 0, kept, angles))
    return made


def pictures(rng, count=24, side=28, channels=1):
    """Samples with something to see."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(rng.uniform(2, 20) * x + rng.uniform(2, 20) * y) for _ in range(count)]
    return [np.repeat(wave[..., None], channels, axis=2).astype("float32") for wave in waves]


def swept():
    """A sweep of some points."""
    rows = [
        Row(
            key=str(n), select=select, amount=None if n == 0 else 0.1 * n, unit="share",
            fold="least-squares" if n else "", refit=0, heal=0, scheme="int8", metric="accuracy",
            bytes=30_000 - 2_000 * n, units=64 - 4 * n, units_before=64,
            validation=0.99 - 0.002 * n, test=0.985 - 0.003 * n, agreement=0.99,
        )
        for n, select in enumerate(("unpruned", "effect", "angle", "effect", "magnitude"))
    ]  # fmt: skip
    about = {"model": "cnn", "data": "digits", "train": 9, "calibration": 8, "validation": 7}
    return Sweep(rows, 5, about | {"test": 6}, ["python", "-m", "tools.sweep"])
