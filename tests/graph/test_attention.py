"""Attention in fewer dimensions and heads: planted ones go without a trace, others at a price."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed, set_unit
from tests.support.graphs import fill
from tfprune.core.low_rank import factors
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace

LENGTH, FEATURES = 6, 8


@pytest.fixture
def x(rng):
    return rng.normal(size=(80, LENGTH, FEATURES)).astype("float32")


def model_of(rng, layer, call=None):
    data = keras.Input((LENGTH, FEATURES), name="data")
    made = layer(data, data) if call is None else call(layer, data)
    out = kl.Dense(3, name="out")(kl.Flatten()(made))
    return fill(keras.Model(data, out), rng)


def attention(heads=4, key_dim=6, value_dim=5, **more):
    return kl.MultiHeadAttention(heads, key_dim, value_dim, name="att", **more)


def edit(model, change):
    """Changes the weights of the layer, by the names of their parts."""
    layer = model.get_layer("att")
    names = ["/".join(weight.path.split("/")[-2:]) for weight in layer.weights]
    weights = dict(zip(names, layer.get_weights(), strict=True))
    change(weights)
    layer.set_weights([weights[name] for name in names])


def low_rank_scores(weights):
    """The queries' last two dimensions are made of the others, biases with them."""
    mix = np.random.default_rng(1).normal(size=(4, 2))
    for name in ("query/kernel", "query/bias"):
        if name in weights:
            weights[name][..., 4:] = weights[name][..., :4] @ mix


def low_rank_values(weights):
    for name in ("value/kernel", "value/bias"):
        if name in weights:
            weights[name][..., 3] = 2 * weights[name][..., 1]
            weights[name][..., 0] = weights[name][..., 4] - weights[name][..., 2]


def twin_heads(weights):
    """Head 2 attends and reads as head 0 does, on another scale."""
    for name in ("query", "key", "value"):
        for part in (f"{name}/kernel", f"{name}/bias"):
            if part in weights:
                weights[part][..., 2, :] = weights[part][..., 0, :] * (3 if name == "value" else 1)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("plant", "sizes"),
    [
        (low_rank_scores, (4, 4, 5)),
        (low_rank_values, (4, 6, 3)),
        (twin_heads, (3, 6, 5)),
    ],
)
def test_what_the_rest_makes_up_for_goes_without_a_trace(rng, x, plant, sizes, use_bias):
    model = model_of(rng, attention(use_bias=use_bias))
    edit(model, plant)
    result = tfprune.prune(model, x, layers="all")
    (row,) = (one for one in result.layers if one.name == "att")
    layer = result.model.get_layer("att")
    assert (layer.num_heads, layer.key_dim, layer.value_dim) == sizes
    assert row.units_before == 4 * 11
    assert row.units_after == sizes[0] * (sizes[1] + sizes[2])
    assert changed(model, result, x) < 1e-4


def test_random_attention_stays_as_it_is_by_degrees(rng, x):
    result = tfprune.prune(model_of(rng, attention()), x, layers="all")
    assert "nothing that the rest makes up for" in result.layers[-1].note
    assert result.model.get_layer("att").get_config()["key_dim"] == 6


@pytest.mark.parametrize("causal", [False, True])
def test_masks_change_nothing(rng, x, causal):
    def call(layer, data):
        return layer(data, data, use_causal_mask=causal)

    model = model_of(rng, attention(), call)
    edit(model, low_rank_scores)
    edit(model, low_rank_values)
    result = tfprune.prune(model, x, layers="all")
    assert result.model.get_layer("att").key_dim == 4
    assert changed(model, result, x) < 1e-4


def test_a_share_goes_where_it_costs_least(rng, x):
    """Of heads that do next to nothing whole ones; what that costs stands in the row."""
    model = model_of(rng, attention())

    def weak(weights):
        weights["attention_output/kernel"][1:3] *= 1e-3

    edit(model, weak)
    result = tfprune.prune(model, x, remove=0.5, layers="all", refit=0)
    layer = result.model.get_layer("att")
    assert (layer.num_heads, layer.key_dim, layer.value_dim) == (2, 6, 5)
    note = next(one.note for one in result.layers if one.name == "att")
    assert note.startswith("heads 4 to 2; output error 0.")
    # Two heads of 6, 6 and 5 read 8 features with a bias each, and make 8 with one.
    assert layer.count_params() == 2 * (2 * 6 + 5) * 9 + 2 * 5 * 8 + 8
    strong = model_of(rng, attention())
    edit(strong, low_rank_values)
    other = tfprune.prune(strong, x, remove=0.5, layers=["att"], refit=0).model.get_layer("att")
    assert other.num_heads * (other.key_dim + other.value_dim) <= 4 * 11 / 2 + 4


def test_widths_are_multiples_where_asked(rng, x):
    layer = tfprune.prune(
        model_of(rng, attention(2, 16, 16)), x, remove=0.6, layers="all", refit=0, round_to=4
    ).model.get_layer("att")
    assert layer.key_dim % 4 == layer.value_dim % 4 == 0


@pytest.mark.parametrize("heads", [1, 2])
def test_grouped_queries(rng, x, heads):
    """Queries that share keys and values have one width for all."""
    layer = kl.GroupQueryAttention(6, 4, heads, name="att")
    model = model_of(rng, layer)
    edit(model, low_rank_scores)

    def values(weights):
        for name in ("value/kernel", "value/bias"):
            weights[name][..., 4:] = weights[name][..., :2]

    edit(model, values)
    result = tfprune.prune(model, x, layers="all")
    assert result.model.get_layer("att").head_dim == 4
    assert changed(model, result, x) < 1e-4


def test_units_before_attention_go_as_well(rng, x):
    data = keras.Input((LENGTH, FEATURES), name="data")
    first = kl.Dense(10, activation="relu", name="first")(data)
    out = kl.Dense(3, name="out")(kl.Flatten()(attention()(first, first)))
    model = fill(keras.Model(data, out), rng)
    set_unit(model, "first", 1, 7)
    edit(model, low_rank_scores)
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert {one.name: one.units_after for one in result.layers}["first"] == 9
    assert result.model.get_layer("att").key_dim == 4
    assert changed(model, result, x) < 1e-4


def test_other_criteria_leave_it_alone(rng, x):
    data = keras.Input((LENGTH, FEATURES), name="data")
    first = kl.Dense(10, activation="relu", name="first")(data)
    out = kl.Dense(3, name="out")(kl.Flatten()(attention()(first, first)))
    model = fill(keras.Model(data, out), rng)
    for how in ({"select": "random", "remove": 0.3}, {"fold": "drop", "target_params": "90%"}):
        result = tfprune.prune(model, x, layers="all", refit=0, **how)
        assert result.model.get_layer("att").key_dim == 6
        assert "att" in {one.name for one in result.skipped}
    assert not [one for one in tfprune.prune(model, x, remove=0.3, refit=0).layers
                if one.name == "att"]  # fmt: skip


def test_attention_without_kernels(rng, x):
    """Values pass, each feature for itself; what is compared stays, and the reason is told."""
    data = keras.Input((LENGTH, FEATURES), name="data")
    asked, keys = kl.Dense(5, name="asked")(data), kl.Dense(5, name="keys")(data)
    values = kl.Dense(7, activation="relu", name="values")(data)
    made = kl.Attention(name="att")([asked, values, keys])
    model = fill(keras.Model(data, kl.Dense(3, name="out")(made)), rng)
    set_unit(model, "values", 2, 6, scale=2.0)
    blocked = {one.name: one.blocked for one in groups_of(trace(model))}
    assert "compares units of queries and keys" in blocked["asked"]
    assert "compares units of queries and keys" in blocked["keys"]
    result = tfprune.prune(model, x, 0.5, layers=["values"])
    assert result.layers[0].units_after == 6
    assert changed(model, result, x) < 1e-5


def test_factors_are_the_nearest_product_of_a_rank(rng):
    left, right = rng.normal(size=(9, 5)), rng.normal(size=(7, 5))
    b, c, strengths = factors(left, right)
    u, s, vt = np.linalg.svd(left @ right.T)
    for rank in range(1, 6):
        ours = left @ b[:, :rank] @ (right @ c[:, :rank]).T
        np.testing.assert_allclose(ours, u[:, :rank] * s[:rank] @ vt[:rank], atol=1e-10)
    np.testing.assert_allclose(strengths, s[:5])


def test_values_of_grouped_queries_are_as_wide_as_the_queries(rng):
    """Keras refuses others, so units that reach either stay."""
    query, other = keras.Input((5, 8)), keras.Input((5, 3))
    value = kl.Dense(8, "tanh", name="value")(other)
    x = kl.GroupQueryAttention(4, 4, 2, name="att")(query, value)
    model = keras.Model([query, other], kl.Dense(2)(kl.GlobalMaxPooling1D()(x)))
    data = [rng.normal(size=(60, 5, size)).astype("float32") for size in (8, 3)]
    result = tfprune.prune(model, data, remove=0.5, layers="all", refit=0)
    assert result.model.get_layer("value").units == 8
    reasons = {one.name: one.reason for one in result.skipped}
    assert "as many features of values as of queries" in reasons["value"]


@pytest.mark.parametrize("kind", ["mha", "gqa"])
def test_scores_that_are_read_keep_their_heads(rng, x, kind):
    """Scores are of every head, so attention that gives them stays as it is, and says so."""
    data = keras.Input((LENGTH, FEATURES))
    grouped = kl.GroupQueryAttention(4, 4, 2, name="att")
    layer = attention(heads=2) if kind == "mha" else grouped
    made, scores = layer(data, data, return_attention_scores=True)
    hidden = kl.Dense(6, "relu", name="hidden")(kl.Flatten()(scores))
    both = kl.Concatenate()([kl.Flatten()(made), hidden])
    model = fill(keras.Model(data, [kl.Dense(3, name="out")(both), scores]), rng)
    result = tfprune.prune(model, x, remove=0.5, layers="all", refit=0)
    layers = [one.get_layer("att") for one in (model, result.model)]
    assert [w.shape for w in layers[0].weights] == [w.shape for w in layers[1].weights]
    after = result.model.predict(x, verbose=0)[1]
    np.testing.assert_allclose(after, model.predict(x, verbose=0)[1], atol=1e-6)
    (row,) = (one for one in result.skipped if one.name == "att")
    assert row.reason == "its scores are read, so its heads stay"
    assert result.model.get_layer("hidden").units == 3
