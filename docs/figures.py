"""Draws the figures of the concepts page from computed data: ``python -m docs.figures``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from tfprune.core.fold import least_squares
from tfprune.core.moments import Moments, angles
from tfprune.core.selection import by_survivors

FOLDER = Path(__file__).parent / "images"
# No dates and no random names, so that the same code gives the same file.
mpl.rcParams.update({"svg.hashsalt": "tfprune", "svg.fonttype": "none", "font.size": 9})


def activations() -> np.ndarray:
    """200 samples of six units: two pairs that do the same work, a constant one, one alone."""
    rng = np.random.default_rng(4)
    causes = rng.normal(0, 1, (200, 3))
    units = np.stack(
        [
            causes[:, 0],
            0.8 * causes[:, 0] + 0.25 * causes[:, 1] + 1.0,
            causes[:, 1],
            -1.1 * causes[:, 1] + 0.2 * causes[:, 2] + 0.5,
            np.full(200, 0.7),
            causes[:, 2],
        ],
        axis=1,
    )
    units[:, :4] += rng.normal(0, 0.15, (200, 4))
    return units.astype("float32")


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(FOLDER / name, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def angle_figure(units: np.ndarray, degrees: np.ndarray) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.9))
    pairs = [(0, 1, "similar"), (2, 3, "complementary"), (0, 2, "different work")]
    for axis, (first, second, word) in zip(axes, pairs, strict=True):
        axis.scatter(units[:, first], units[:, second], s=6)
        axis.set_xlabel(f"activation of unit {first}")
        axis.set_ylabel(f"activation of unit {second}")
        axis.set_title(f"{degrees[first, second]:.0f} degrees: {word}")
    figure.tight_layout()
    save(figure, "angles.svg")


def matrix_figure(degrees: np.ndarray) -> None:
    figure, axis = plt.subplots(figsize=(3.4, 3))
    image = axis.imshow(degrees, vmin=0, vmax=180, cmap="coolwarm")
    for row, column in np.ndindex(degrees.shape):
        value = degrees[row, column]
        axis.text(
            column, row, "-" if np.isnan(value) else f"{value:.0f}",
            ha="center", va="center", fontsize=7,
        )  # fmt: skip
    axis.set_xlabel("unit")
    axis.set_ylabel("unit")
    figure.colorbar(image, label="degrees")
    save(figure, "angle_matrix.svg")


def fold_figure(units: np.ndarray, moments: Moments, degrees: np.ndarray) -> None:
    selection = by_survivors(degrees, moments.constant(), 30.0)
    fold = least_squares(selection, moments, moments.mean)
    rebuilt = units[:, fold.kept] @ fold.matrix + fold.offset
    removed = [
        unit for unit in range(units.shape[1]) if unit not in fold.kept and units[:, unit].std()
    ]
    figure, axes = plt.subplots(1, len(removed), figsize=(3 * len(removed), 2.9))
    for axis, unit in zip(np.atleast_1d(axes), removed, strict=True):
        axis.scatter(units[:, unit], rebuilt[:, unit], s=6)
        low, high = float(units[:, unit].min()), float(units[:, unit].max())
        axis.plot([low, high], [low, high], color="0.6", linewidth=1)
        axis.set_xlabel(f"unit {unit}, which is removed")
        axis.set_ylabel("from the units that stay")
        left = float(np.var(units[:, unit] - rebuilt[:, unit]))
        whole = float(np.var(units[:, unit]))
        axis.set_title(f"{100 * left / whole:.1f} % of its variance is lost")
    figure.tight_layout()
    save(figure, "fold.svg")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    units = activations()
    moments = Moments(units.shape[1])
    moments.add(units)
    degrees = angles(moments.gram(moments.mean))
    angle_figure(units, degrees)
    matrix_figure(degrees)
    fold_figure(units, moments, degrees)


if __name__ == "__main__":
    main()
