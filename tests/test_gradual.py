"""Pruning in steps: the lines of the page, and the shares of benchmarks.gradual."""

from __future__ import annotations

import re
import textwrap

import keras
import numpy as np
import pytest

from benchmarks.gradual import shares
from tests.support.paths import ROOT


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(("remove", "left"), [(0.25, 48), (0.5, 32), (0.75, 16)])
def test_steps_end_where_one_does_and_take_as_many_units_each(remove, left, steps):
    units, counts = 64, []
    for share in shares(remove, steps):
        # As tfprune.prune rounds.
        counts.append(round(share * units))
        units -= counts[-1]
    assert units == left
    assert len(counts) == steps
    assert len(set(counts)) == 1


def test_no_steps_remove_nothing():
    assert shares(0.0, 0) == []


# Whether healing gains anything here is luck.
@pytest.mark.filterwarnings("ignore::tfprune.PruningWarning")
def test_the_lines_of_the_page_run(rng):
    text = (ROOT / "docs" / "tasks" / "gradual.md").read_text(encoding="utf-8")
    steps, training = re.findall(r"```python\n(.*?)```", text, re.S)
    x = rng.normal(size=(300, 6)).astype("float32")
    hidden = keras.layers.Dense(16, "tanh", name="hidden")
    model = keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(1e-6), "sparse_categorical_crossentropy")
    known = {"model": model, "x": x, "y": np.asarray(model(x)).argmax(axis=1)}
    exec(steps, known)
    smaller = known["smaller"]
    assert smaller.get_layer("hidden").units == 8
    assert hidden.units == 16
    before = smaller.get_weights()
    exec(textwrap.dedent(training), known)
    assert float(smaller.optimizer.learning_rate) == pytest.approx(0.001)
    # More than at the rate that the model was compiled with: 9 steps of at most 1e-6.
    moved = max(np.abs(a - b).max() for a, b in zip(smaller.get_weights(), before, strict=True))
    assert moved > 1e-4
