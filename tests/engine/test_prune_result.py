"""What a ``PruneResult`` shows: a summary, a figure, HTML; and that its model trains on."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune

UGLY = "<b>$\\frac{&"


@pytest.fixture(scope="module")
def pruned(seed):
    """A small convolutional model, its data, and what is left of it."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), kl.Conv2D(8, 3, activation="relu", name="seen"), kl.Flatten(),
         kl.Dense(12, "relu", name="hidden"), kl.Dense(3, "softmax", name="out")]
    )  # fmt: skip
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x = np.random.default_rng(seed).normal(size=(200, 6, 6, 2)).astype("float32")
    return model, x, tfprune.prune(model, x, remove=0.5, refit=0, layers="all")


def cells(text: str) -> dict[str, list[str]]:
    """The cells of a table by the first of each row."""
    rows = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_the_summary_by_hand(pruned):
    model, _, result = pruned
    shown = cells(result.summary())
    macs = [16 * 9 * 2 * 8, 16 * 8 * 12, 12 * 3]
    fewer = [16 * 9 * 2 * 4, 16 * 4 * 6, 6 * 3]
    biases, left = [8, 12, 3], [4, 6, 3]
    weights, remaining = [9 * 2 * 8, 128 * 12, 36], [9 * 2 * 4, 64 * 6, 18]
    outputs = ["4x4x8 → 4x4x4", "12 → 6", "3"]
    for place, name in enumerate(("seen", "hidden", "out")):
        before, after = weights[place] + biases[place], remaining[place] + left[place]
        assert shown[name][1:] == [
            outputs[place], f"{before:,} → {after:,}", f"{macs[place]:,} → {fewer[place]:,}",
        ]  # fmt: skip
    assert shown["total"] == [
        f"{model.count_params():,} → {result.model.count_params():,}",
        f"{sum(macs):,} → {sum(fewer):,}",
    ]


def test_where_nothing_went_there_is_no_arrow(pruned):
    model, x, _ = pruned
    result = tfprune.prune(model, x, threshold=0.01)
    assert "→" not in result.summary()
    assert cells(result.summary())["total"][0] == f"{model.count_params():,}"


def test_the_figure_shows_widths_and_angles(pruned):
    model, x, result = pruned
    left, right = result.plot().axes[:2]
    widths = [[round(bar.get_width()) for bar in bars] for bars in left.containers]
    assert widths == [[8, 12], [4, 6]]
    (mesh,) = right.collections
    shares = mesh.get_array().reshape(2, 36)
    for row, layer in zip(shares, result.layers, strict=True):
        pairs = [
            layer.angles[one, other]
            for one in range(layer.units_before)
            for other in range(one + 1, layer.units_before)
        ]
        pairs = [angle for angle in pairs if not np.isnan(angle)]
        for place, share in enumerate(row[:-1]):
            inside = sum(5 * place <= angle < 5 * place + 5 for angle in pairs)
            assert share == pytest.approx(100 * inside / len(pairs))
    by_degrees = tfprune.prune(model, x, threshold=25).plot().axes[1]
    assert [line.get_xdata()[0] for line in by_degrees.lines] == [25, 155]


def test_names_are_text_in_html_and_in_the_figure(pruned):
    result = pruned[2]
    named = replace(result, layers=tuple(replace(one, name=UGLY) for one in result.layers))
    shown = named._repr_html_()
    assert html.escape(UGLY) in shown
    assert UGLY not in shown
    assert "<td>4x4x8 → 4x4x4</td>" in shown
    named.plot().canvas.draw()


def test_nothing_to_draw_is_drawn():
    model = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="out")])
    result = tfprune.prune(model, np.random.default_rng(0).normal(size=(20, 3)))
    result.plot().canvas.draw()
    assert cells(result.summary())["total"] == ["8", "6"]


def test_the_pruned_model_trains_on_as_it_was_compiled(pruned):
    model, x, result = pruned
    y = model.predict(x, verbose=0).argmax(axis=1)
    smaller = result.model
    assert type(smaller.optimizer) is type(model.optimizer)
    history = smaller.fit(x, y, epochs=8, batch_size=20, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert history["loss"][-1] < history["loss"][0]
