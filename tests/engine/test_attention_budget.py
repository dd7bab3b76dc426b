"""Budgets that narrow the heads of attention as they do other layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed
from tests.support.graphs import fill
from tfprune.errors import TfpruneError
from tfprune.graph.attention import resized
from tfprune.graph.costs import macs, multiply_accumulates, parameters
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace

LENGTH, FEATURES, HEADS, WIDTH, HIDDEN = 6, 8, 2, 8, 12


@pytest.fixture
def x(rng):
    return rng.normal(size=(80, LENGTH, FEATURES)).astype("float32")


@pytest.fixture
def model(rng):
    """Two layers of attention and a Dense layer between that can lose units."""
    data = keras.Input((LENGTH, FEATURES), name="data")
    y = kl.MultiHeadAttention(HEADS, WIDTH, name="first")(data, data)
    y = kl.Dense(HIDDEN, activation="relu", name="hidden")(y)
    y = kl.MultiHeadAttention(HEADS, WIDTH, output_shape=4, name="second")(y, y)
    return fill(keras.Model(data, kl.Dense(3, name="out")(kl.Flatten()(y))), rng)


def by_hand(first, hidden, second):
    """Parameters and multiply-accumulates with these widths of heads and so many hidden units."""
    kernels = {
        "first": HEADS * first * (3 * FEATURES + FEATURES),
        "hidden": FEATURES * hidden,
        "second": HEADS * second * (3 * hidden + 4),
    }
    biases = 3 * HEADS * first + FEATURES + hidden + 3 * HEADS * second + 4
    out = LENGTH * 4 * 3
    return sum(kernels.values()) + biases + out + 3, LENGTH * sum(kernels.values()) + out


def widths_of(result):
    layers = {name: result.model.get_layer(name) for name in ("first", "hidden", "second")}
    assert layers["first"].value_dim == layers["first"].key_dim
    assert layers["first"].num_heads == layers["second"].num_heads == HEADS
    return layers["first"].key_dim, layers["hidden"].units, layers["second"].key_dim


@pytest.mark.parametrize(("what", "place"), [("target_params", 0), ("target_macs", 1)])
@pytest.mark.parametrize("share", ["70%", "30%"])
def test_a_budget_is_met_and_one_step_more_would_not_fit(model, x, what, place, share):
    whole = by_hand(WIDTH, HIDDEN, WIDTH)[place]
    assert model.count_params() == by_hand(WIDTH, HIDDEN, WIDTH)[0]
    limit = int(whole * float(share.rstrip("%")) / 100)
    result = tfprune.prune(model, x, layers="all", refit=0, **{what: share})
    widths = widths_of(result)
    reached = by_hand(*widths)[place]
    assert (result.reached.reached, result.reached.whole) == (reached, whole)
    assert reached <= limit
    assert result.model.count_params() == by_hand(*widths)[0]
    more = [by_hand(*(w + (i == j) for j, w in enumerate(widths)))[place] for i in range(3)]
    assert result.reached.why in [f"one unit more makes {size:,}" for size in more]
    rows = {row.name: row.units_after for row in result.layers}
    # Of keys and of values.
    assert (rows["first"], rows["second"]) == tuple(2 * HEADS * widths[n] for n in (0, 2))
    assert not {"first", "second"} & {one.name for one in result.skipped}


def test_what_could_not_be_reached_before_is(model, x):
    """With one hidden unit alone attention still has more than half."""
    goal = by_hand(WIDTH, 1, WIDTH)[0] - 1
    with pytest.raises(TfpruneError, match="cannot be reached"):
        tfprune.prune(model, x, layers="all", skip=["first", "second"], refit=0, target_params=goal)
    assert (
        tfprune.prune(model, x, layers="all", refit=0, target_params=goal).reached.reached <= goal
    )
    with pytest.raises(TfpruneError, match=f"the least is {by_hand(1, 1, 1)[0]:,} of"):
        tfprune.prune(model, x, layers="all", refit=0, target_params=10)
    assert tfprune.Pruner(model, x, layers="all").parameters() == (
        by_hand(WIDTH, HIDDEN, WIDTH)[0], by_hand(1, 1, 1)[0],
    )  # fmt: skip


def test_heads_that_need_few_dimensions_go_first(model, x):
    """Half of the dimensions of one layer are made of the others, so that nothing is lost."""
    layer = model.get_layer("first")
    weights = dict(zip(["/".join(w.path.split("/")[-2:]) for w in layer.weights],
                       layer.get_weights(), strict=True))  # fmt: skip
    mix = np.random.default_rng(1).normal(size=(WIDTH // 2, WIDTH // 2))
    for part in ("query", "value"):
        for name in (f"{part}/kernel", f"{part}/bias"):
            weights[name][..., WIDTH // 2 :] = weights[name][..., : WIDTH // 2] @ mix
    layer.set_weights(list(weights.values()))
    goal = by_hand(WIDTH // 2, HIDDEN, WIDTH)[0]
    result = tfprune.prune(model, x, layers="all", refit=0, target_params=goal)
    assert widths_of(result) == (WIDTH // 2, HIDDEN, WIDTH)
    assert changed(model, result, x) < 1e-4


@pytest.mark.parametrize("share", [0.25, 0.5, 0.875])
def test_costs_are_those_of_a_model_of_these_sizes(model, share):
    """Counted by Keras, and by hand."""
    traced = trace(model)
    groups = [group for group in groups_of(traced) if "hidden" in group.producers]
    left = np.array([1.0, 1 - share, 1.0])
    width = round((1 - share) * WIDTH)
    smaller = resized(model, {"first": share})
    heads = ["first", "second"]
    assert parameters(traced, groups, heads).total(left) == smaller.count_params()
    assert multiply_accumulates(traced, groups, heads).total(left) == macs(smaller)
    assert (smaller.count_params(), macs(smaller)) == by_hand(width, HIDDEN, WIDTH)


def test_widths_are_multiples_where_asked(model, x):
    result = tfprune.prune(model, x, layers="all", refit=0, target_params="60%", round_to=4)
    assert not any(width % 4 for width in widths_of(result))
    assert result.model.count_params() == by_hand(*widths_of(result))[0] == result.reached.reached
