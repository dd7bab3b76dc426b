"""Budgets of parameters, multiply-accumulates and bytes: met, not by more than a unit, and how."""

from __future__ import annotations

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.support.graphs import build, fill, outputs, recipes
from tfprune import TfpruneError
from tfprune.budget import BLENDS
from tfprune.graph.costs import Costs, macs, parameters
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace
from tfprune.graph.width_search import (
    TRIES,
    even,
    first_that_fits,
    merged,
    predicted,
    ranking,
)
from tfprune.options import prune_options
from tfprune.reconstruction.reconstruct import held_back_distance


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (80, 10, 10, 3)).astype("float32")


@pytest.fixture
def model(rng):
    return fill(
        keras.Sequential(
            [
                keras.Input((10, 10, 3)),
                kl.Conv2D(8, 3, activation="relu", name="first"),
                kl.MaxPooling2D(2),
                kl.Conv2D(12, 3, activation="relu", name="second"),
                kl.Flatten(),
                kl.Dense(20, activation="relu", name="hidden"),
                kl.Dense(3, name="out"),
            ]
        ),
        rng,
    )


def by_hand(first, second, hidden):
    """Parameters and multiply-accumulates of the model with these widths."""
    kernels = [(9 * 3 * first, 64), (9 * first * second, 4), (4 * second * hidden, 1)]
    kernels.append((hidden * 3, 1))
    numbers = sum(size for size, _ in kernels) + first + second + hidden + 3
    return numbers, sum(size * places for size, places in kernels)


@pytest.mark.parametrize(("what", "place"), [("target_params", 0), ("target_macs", 1)])
@pytest.mark.parametrize("share", ["50%", 0.2])
def test_a_budget_is_met_and_one_unit_more_would_not_fit(model, pictures, what, place, share):
    whole = by_hand(8, 12, 20)[place]
    limit = int(whole * float(str(share).rstrip("%")) / (100 if "%" in str(share) else 1))
    result = tfprune.prune(model, pictures, layers="all", refit=0, **{what: share})
    widths = [layer.units_after for layer in result.layers]
    reached = by_hand(*widths)[place]
    assert reached <= limit
    assert result.reached.reached == reached
    assert (result.reached.limit, result.reached.whole) == (limit, whole)
    assert result.model.count_params() == by_hand(*widths)[0]
    more = [by_hand(*(w + (i == j) for j, w in enumerate(widths)))[place] for i in range(3)]
    assert max(more) > limit
    assert result.reached.why in [f"one unit more makes {size:,}" for size in more]


@pytest.mark.parametrize("compat", [False, True])
def test_bytes_are_those_of_the_file(model, pictures, tmp_path, compat):
    def exported(what, name):
        files = tfprune.export(what, tmp_path, ["int8"], pictures, name=name, compat=compat)
        return files["int8"].stat().st_size

    whole = exported(model, "whole")
    limit = round(0.6 * whole)
    result = tfprune.prune(
        model, pictures, layers="all", target_bytes=limit, refit=5, file_compat=compat
    )
    assert result.reached.whole == whole
    # What refitting changes are values; a value that is the default of the format takes no bytes.
    assert abs(exported(result.model, "small") - result.reached.reached) <= 32
    assert result.reached.reached <= limit < result.reached.reached + 600


def test_widths_are_those_where_a_unit_of_each_layer_is_as_dear(pictures, rng):
    """Two layers alike but for one whose units nobody needs: these go first."""
    data = keras.Input((10, 10, 3))
    flat = kl.Flatten()(data)
    needed = kl.Dense(10, activation="relu", name="needed")(flat)
    idle = kl.Dense(10, activation="relu", name="idle")(flat)
    made = [kl.Dense(3, name="heard")(needed), kl.Dense(3, name="barely")(idle)]
    model = fill(keras.Model(data, made), rng)
    # Of rank one: all but one of the units can go at no loss.
    kernel, bias = model.get_layer("idle").get_weights()
    model.get_layer("idle").set_weights([np.repeat(kernel[:, :1], 10, 1), np.repeat(bias[:1], 10)])
    result = tfprune.prune(model, pictures, target_params="60%", refit=0)
    left = {layer.name: layer.units_after for layer in result.layers}
    assert left["idle"] == 1
    assert left["needed"] == 10 or result.reached.reached + 303 > result.reached.limit
    np.testing.assert_allclose(
        outputs(result.model, pictures)[1], outputs(model, pictures)[1], atol=1e-3
    )


def test_no_layer_of_a_group_is_left_without_units(pictures, rng):
    """The two halves of a sum are layers of their own; what reads it hardly hears the first."""
    data = keras.Input((10, 10, 3))
    flat = kl.Flatten()(data)
    halves = [kl.Dense(4, name=name)(flat) for name in ("left", "right")]
    both = kl.Add()([kl.Concatenate()(halves), kl.Dense(8, name="whole")(flat)])
    model = fill(keras.Model(data, kl.Dense(3, name="out")(both)), rng)
    heard, bias = model.get_layer("out").get_weights()
    heard[:4] *= 1e-3
    model.get_layer("out").set_weights([heard, bias])
    sizes = [301 * (left + right + left + right) + 3 * (left + right) + 3
             for left, right in [(1, 4), (1, 1)]]  # fmt: skip
    for size in sizes:
        result = tfprune.prune(model, pictures, target_params=size, refit=0)
        widths = {layer.name: layer.units_after for layer in result.layers}
        assert min(widths.values()) >= 1
        assert widths["whole"] == widths["left"] + widths["right"]
        assert result.model.count_params() == result.reached.reached <= size


def test_a_budget_that_is_there_already_takes_nothing(model, pictures):
    result = tfprune.prune(model, pictures, target_params=10**6)
    assert result.reached.why == "nothing has to go"
    assert [layer.units_after for layer in result.layers] == [20]


@pytest.mark.parametrize("what", ["target_params", "target_macs", "target_bytes"])
def test_an_impossible_budget_names_the_best(model, pictures, what):
    with pytest.raises(TfpruneError, match="cannot be reached; the least is [0-9,]+ of") as failed:
        tfprune.prune(model, pictures, **{what: 10})
    assert str(failed.value).endswith("(layers='all' may reach more)")
    with pytest.raises(TfpruneError, match="in every layer that may lose any$"):
        tfprune.prune(model, pictures, layers="all", **{what: 10})
    if what == "target_params":
        assert f"{by_hand(8, 12, 1)[0]:,} of {by_hand(8, 12, 20)[0]:,}" in str(failed.value)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"target_params": "50%", "remove": 0.5}, "expected one of them"),
        ({"target_params": "50%", "target_macs": "50%"}, "expected one of them"),
        ({"target_params": "half"}, "target_params: expected a share such as 50%"),
        ({"target_bytes": 0}, "target_bytes: expected a share such as 50%"),
        ({"target_macs": 1.5}, "target_macs: expected"),
        ({"target_macs": "50%", "select": "angle"}, "select: a budget knows effect only"),
        (
            {"target_macs": "50%", "fold": "scaled"},
            "fold: expected least-squares or drop with target_macs",
        ),
        ({"target_bytes": "50%", "scheme": "int7"}, "schemes: expected some of"),
        ({"target_bytes": "50%", "file_batch": 0}, "file_batch: expected"),
    ],
)
def test_what_cannot_be_is_told_before_the_work(model, asked, told):
    with pytest.raises(TfpruneError, match=told):
        tfprune.prune(model, None, **asked)


def test_multiply_accumulates_of_every_kind_of_layer():
    data = keras.Input((9, 9, 4))
    x = kl.Conv2D(6, 3, strides=2, name="conv")(data)  # 4 x 4
    x = kl.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = kl.SeparableConv2D(5, 3, padding="same", name="separable")(x)
    x = kl.Conv2DTranspose(2, 2, strides=2, name="transposed")(x)  # from 4 x 4
    x = kl.Reshape((8, 16))(x)
    x = kl.BatchNormalization()(x)
    x = kl.Dense(7, name="dense")(x)
    x = kl.LSTM(3, name="lstm")(x)
    model = keras.Model(data, kl.Dense(2, name="out")(x))
    wanted = {
        "conv": 16 * 9 * 4 * 6,
        "depthwise": 16 * 9 * 6,
        "separable": 16 * (9 * 6 + 6 * 5),
        "transposed": 16 * 4 * 5 * 2,
        "dense": 8 * 16 * 7,
        "lstm": 8 * 4 * 3 * (7 + 3),
        "out": 3 * 2,
    }
    assert macs(model) == sum(wanted.values())


def test_an_axis_without_a_size_cannot_be_counted():
    data = keras.Input((None, 9, 4))
    model = keras.Model(data, kl.Conv2D(6, 3, name="conv")(data))
    with pytest.raises(TfpruneError, match="conv .Conv2D. has an axis without a size"):
        macs(model)


@settings(max_examples=12)
@given(recipes)
def test_costs_of_any_graph_are_its_parameters(recipe):
    model = build(recipe)
    traced = trace(model)
    groups = [group for group in groups_of(traced) if group.blocked is None]
    whole = parameters(traced, groups).total(np.ones(len(groups)))
    assert whole == pytest.approx(model.count_params())


def chain(widths):
    """Parameters of a chain of layers, each reading the one before it; 1 feature in and out."""
    groups = len(widths)
    inputs, units = np.zeros((2, groups + 1, groups + 1))
    sizes = [a * b for a, b in itertools.pairwise([1, *widths, 1])]
    for weight in range(groups + 1):
        inputs[weight, weight] = 1
        units[weight, weight + 1 if weight < groups else 0] = 1
    return Costs(np.array(sizes, float), inputs, units)


@given(st.lists(st.integers(2, 6), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
def test_every_step_is_the_best_there_is(widths, seed):
    """Against a plain loop over all groups, the cost counted layer by layer."""
    noise = np.random.default_rng(seed)
    errors = [np.cumsum(noise.random(width - 1)) for width in widths]

    def cost(left):
        return sum(a * b for a, b in itertools.pairwise([1, *left, 1]))

    left = list(widths)
    order = ranking(errors, chain(widths))
    made = predicted(order, widths, chain(widths))
    assert made[0] == pytest.approx(cost(left))
    for step, group in enumerate(order, 1):
        prices = []
        for place, width in enumerate(left):
            gone = widths[place] - width
            if width > 1:
                more = errors[place][gone] - (errors[place][gone - 1] if gone else 0)
                smaller = [w - (other == place) for other, w in enumerate(left)]
                prices.append((more / (cost(left) - cost(smaller)), place))
        assert group in [place for price, place in prices if price <= min(prices)[0] * (1 + 1e-9)]
        left[group] -= 1
        assert made[step] == pytest.approx(cost(left))
    assert left == [1] * len(widths)


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=60),
    st.lists(st.integers(0, 50), min_size=60, max_size=60),
    st.integers(0, 1500),
)
def test_the_first_model_that_fits_is_found(falls, guesses, limit):
    """However wrong the predicted costs are; against looking at all of them."""
    sizes = [sum(falls[step:]) for step in range(len(falls) + 1)]
    costs = np.cumsum([1.0 + guess for guess in guesses])[: len(sizes)][::-1]
    found, seen = first_that_fits(lambda step: sizes[step], limit, list(costs))
    fitting = [step for step, size in enumerate(sizes) if size <= limit]
    assert len(seen) <= TRIES
    assert all(size == sizes[step] for step, size in seen.items())
    if not fitting:
        assert found is None
    elif len(seen) < TRIES:
        assert found == fitting[0]
    else:
        assert found in fitting


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_even_widths_keep_nearly_one_share_of_each_group(sizes):
    order = even(sizes)
    assert np.bincount(order, minlength=len(sizes)).tolist() == [size - 1 for size in sizes]
    for steps in range(len(order)):
        gone = np.bincount(order[:steps], minlength=len(sizes)) / sizes
        next_ones = gone + 1 / np.array(sizes)
        # No group is a whole unit behind another one, unless it has nothing left to lose.
        can = np.array([size - 1 for size in sizes]) > np.bincount(
            order[:steps], minlength=len(sizes)
        )
        assert not can.any() or gone.max() <= next_ones[can].min() + 1e-9


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_merged_orders_hold_the_same_removals(sizes, seed):
    one = even(sizes)
    other = np.random.default_rng(seed).permutation(one)
    assert merged(one, other, 0).tolist() == one.tolist()
    assert merged(one, other, 1).tolist() == other.tolist()
    assert sorted(merged(one, other, 0.5)) == sorted(one)


@pytest.mark.parametrize("what", ["target_params", "target_macs"])
def test_the_widths_that_do_best_on_samples_held_back_are_taken(model, rng, what):
    pictures = rng.normal(0, 1, (200, 10, 10, 3)).astype("float32")
    pruner = tfprune.Pruner(model, pictures, layers="all")
    options = prune_options(refit=0, **{what: "50%"})
    rivals = {
        blend: pruner.prune_as(replace(options, target=replace(options.target, blend=blend)))
        for blend in BLENDS
    }
    assert all(rival.reached.blend == blend for blend, rival in rivals.items())
    samples = pruner.calibration.samples
    distances = {
        blend: held_back_distance(rival.model, model, samples) for blend, rival in rivals.items()
    }
    assert len({str([one.units_after for one in rival.layers]) for rival in rivals.values()}) > 1
    best = pruner.prune_as(options)
    assert distances[best.reached.blend] == pytest.approx(min(distances.values()))
    widths = [one.units_after for one in best.layers]
    assert widths == [one.units_after for one in rivals[best.reached.blend].layers]
    shares = [one.units_after / one.units_before for one in rivals[0.0].layers]
    assert max(shares) - min(shares) <= 1 / 8
