"""Works out where the marks of charts stand, and turns arrays into pictures."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from tfprune.utils.arrays import Array

# Of the area that a chart draws in, in units of its view box.
WIDTH, HEIGHT = 320, 180
# Degrees of a bar of a histogram.
BIN = 3
# Of ticks: these have one digit.
STEPS = (1, 2, 5, 10)
# Percent points that the axis of a score shows at least.
LEAST_SPAN = 1.0
# Pixels of a picture's longer side, at most.
SIDE = 96
# A picture has at least so many pixels a side.
LEAST_SIDE = 8


def histogram(pairs: Array, threshold: float | None) -> dict[str, Any]:
    """Bars of how many angles lie in each range of degrees, and where the thresholds are.

    Parameters
    ----------
    pairs : array of shape (pairs,)
        Degrees.
    threshold : float or None
    """
    counts, edges = np.histogram(pairs, np.arange(0, 181, BIN))
    most = max(int(counts.max()), 1)
    marks = [] if threshold is None else [threshold, 180 - threshold]
    return {
        "bars": [
            {
                "x": _round(WIDTH * start / 180),
                "height": _round(HEIGHT * count / most),
                "title": f"{start:g} to {start + BIN:g} degrees: {count:,} pairs",
            }
            for count, start in zip(counts, edges, strict=False)
            if count
        ],
        "width": _round(WIDTH * BIN / 180 - 0.6),
        "most": f"{most:,}",
        "marks": [_round(WIDTH * mark / 180) for mark in marks],
        "ticks": [{"x": _round(WIDTH * at / 180), "text": f"{at}°"} for at in range(0, 181, 30)],
    }


def scatter(files: Sequence[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Points of bytes, on a logarithmic axis, against a score.

    Parameters
    ----------
    files : sequence of dict
        The manifest's ``artifacts``; those without the score are left out, numbers stay.
    metric : {"accuracy", "agreement", "mse"}
    """
    share = metric != "mse"
    rows = [
        (number, one["bytes"], one[metric] * (100 if share else 1), one["variant"])
        for number, one in enumerate(files, 1)
        if one.get(metric) is not None and one["bytes"] > 0
    ]
    sizes, values = [row[1] for row in rows], [row[2] for row in rows]
    left, right = math.log(min(sizes) / 1.15), math.log(max(sizes) * 1.15)
    middle, half = (min(values) + max(values)) / 2, 0.6 * (max(values) - min(values))
    # Less than this is noise and should look like it.
    half = max(half, LEAST_SPAN / 2) if share else half or 0.1 * abs(middle) or 1.0
    low, high = middle - half, middle + half
    # Room above the highest point, but no percents that cannot be.
    low, high = (max(low, 0), min(high, 100)) if share else (max(low, 0), high)
    levels = [
        tick for tick in MaxNLocator(5, steps=STEPS).tick_values(low, high) if low <= tick <= high
    ]
    digits = max(0, -math.floor(math.log10(levels[1] - levels[0]) + 1e-9))

    def across(size: float) -> float:
        return _round(WIDTH * (math.log(size) - left) / (right - left))

    def down(value: float) -> float:
        return _round(HEIGHT * (high - value) / (high - low))

    points: list[dict[str, Any]] = [
        {"x": across(size), "y": down(value), "number": number, "variant": variant}
        for number, size, value, variant in rows
    ]
    taken: list[tuple[float, float]] = []
    for point in points:
        # Above the point, below it, or farther off where others have their numbers.
        places = ((point["x"], point["y"] + off) for off in (-7, 14, -17, 24, -27))
        place = next((p for p in places if not any(_close(p, other) for other in taken)), None)
        taken.append(place or (point["x"], point["y"] - 37))
        point["beside"] = _round(taken[-1][1] - point["y"])
    return {
        "points": points,
        "xs": [{"at": across(tick), "text": _kilobytes(tick)} for tick in _sizes(left, right)],
        "ys": [{"at": down(tick), "text": f"{tick:.{digits}f}"} for tick in levels],
        "across": "kB of the file, logarithmic",
        "up": f"{metric} %" if share else metric,
    }


def is_picture(shape: Sequence[int]) -> bool:
    """Whether an array of a sample is a picture: height, width, and one, three or four channels."""
    flat = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    return flat and min(shape[:2]) >= LEAST_SIDE and max(shape[:2]) <= 4 * min(shape[:2])


def pictures(samples: Sequence[Array]) -> list[bytes]:
    """Samples as PNG pictures, the least of all values black.

    Parameters
    ----------
    samples : sequence of arrays of shape (height, width) or (height, width, channels)
    """
    from PIL import Image

    values = np.stack([np.nan_to_num(np.asarray(sample, float)) for sample in samples])
    low, high = values.min(), values.max()
    grey = np.round(255 * (values - low) / ((high - low) or 1)).astype(np.uint8)
    made = []
    for pixels in grey:
        flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        image = Image.fromarray(flat)
        longest = max(image.size)
        if longest > SIDE:
            size = [max(1, round(side * SIDE / longest)) for side in image.size]
            image = image.resize((size[0], size[1]))
        out = io.BytesIO()
        image.save(out, "PNG", optimize=True)
        made.append(out.getvalue())
    return made


def _close(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two numbers at these places would lie over each other."""
    return abs(one[0] - other[0]) < 11 and abs(one[1] - other[1]) < 9


def _sizes(left: float, right: float) -> list[float]:
    """Bytes to mark between two logarithms: as round as leaves two to five of them."""
    low, high = math.exp(left), math.exp(right)
    for parts in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        marks = LogLocator(subs=parts, numticks=99).tick_values(low, high)
        marks = [mark for mark in marks if low <= mark <= high]
        if len(marks) >= 2:
            return marks[:: math.ceil(len(marks) / 5)]
    marks = MaxNLocator(3, steps=STEPS).tick_values(low, high)
    return [mark for mark in marks if low <= mark <= high]


def _kilobytes(size: float) -> str:
    return f"{size / 1000:.4g}"


def _round(value: float) -> float:
    return round(float(value), 1)
