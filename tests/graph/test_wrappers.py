"""Layers inside TimeDistributed and Bidirectional: pruned like those of a nested model."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import outputs
from tests.support.recurrent import at, duplicated, filled, steps_of
from tfprune.graph.clone import walk
from tfprune.graph.costs import macs
from tfprune.graph.tracer import trace


def net(name="net"):
    return keras.Sequential(
        [keras.Input((3,)), kl.Dense(8, activation="relu", name="a"),
         kl.BatchNormalization(name="n"), kl.Dense(6, activation="tanh", name="b")], name=name,
    )  # fmt: skip


def steps(*layers, shape=(5, 3)):
    return keras.Sequential(
        [keras.Input(shape), *layers, kl.Flatten(name="flat"), kl.Dense(2, name="out")]
    )


def exact(model, x, paths, **options):
    """Planted copies go, each from its layer, and nothing else changes."""
    for path in paths:
        duplicated(at(model, path))
    result = tfprune.prune(model, x, 0.5, layers="all", **options)
    gone = {layer.name: layer.units_before - layer.units_after for layer in result.layers}
    assert {path for path, count in gone.items() if count} == set(paths)
    for ours, theirs in zip(outputs(result.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6 * max(1, np.abs(theirs).max()))
    assert [path for path, _ in walk(result.model)] == [path for path, _ in walk(model)]
    return result


def test_a_model_inside_time_distributed(rng, tmp_path):
    model = filled(steps(kl.TimeDistributed(net(), name="td")), rng)
    inner = model.get_layer("td").layer
    for weight in inner.get_layer("n").weights:
        weight.assign(keras.ops.full_like(weight, 0.7))  # Copies stay copies.
    x = rng.normal(size=(60, 5, 3)).astype("float32")
    result = exact(model, x, ["td/net/a", "td/net/b"])
    smaller = result.model.get_layer("td")
    assert type(smaller) is kl.TimeDistributed
    assert [layer.name for layer in smaller.layer.layers] == ["a", "n", "b"]
    result.model.save(tmp_path / "smaller.keras")
    again = keras.models.load_model(tmp_path / "smaller.keras")
    np.testing.assert_array_equal(again(x), result.model(x))


def test_convolutions_of_each_picture_of_a_film(rng):
    model = steps(
        kl.TimeDistributed(kl.Conv2D(5, 3, activation="relu", name="conv"), name="one"),
        kl.TimeDistributed(kl.SeparableConv2D(4, 2, activation="tanh", name="sep"), name="two"),
        kl.TimeDistributed(kl.MaxPooling2D(name="pool"), name="three"),
        kl.TimeDistributed(kl.Flatten(name="flatten"), name="four"),
        kl.TimeDistributed(kl.Dense(6, activation="relu", name="dense"), name="five"),
        shape=(3, 7, 7, 2),
    )
    x = rng.normal(size=(30, 3, 7, 7, 2)).astype("float32")
    exact(filled(model, rng), x, ["two/sep", "five/dense"])


def test_time_distributed_inside_another_and_called_twice(rng):
    shared = kl.TimeDistributed(
        kl.TimeDistributed(kl.Dense(6, activation="tanh", name="dense"), name="inner"), name="outer"
    )
    first, second = keras.Input((2, 4, 3), name="first"), keras.Input((2, 4, 3), name="second")
    both = kl.Concatenate()([kl.Flatten()(shared(first)), kl.Flatten()(shared(second))])
    model = filled(keras.Model([first, second], kl.Dense(2)(both)), rng)
    x = {name: rng.normal(size=(40, 2, 4, 3)) for name in ("first", "second")}
    duplicated(at(model, "outer/inner/dense"))
    result = tfprune.prune(model, x, 0.5)
    assert at(result.model, "outer/inner/dense").units == 5
    np.testing.assert_allclose(outputs(result.model, x)[0], outputs(model, x)[0], atol=1e-5)


def test_any_number_of_steps_and_sizes_of_batches(rng):
    model = keras.Sequential(
        [keras.Input((None, 3)), kl.TimeDistributed(kl.Dense(6, activation="tanh", name="d")),
         kl.GlobalAveragePooling1D(), kl.Dense(2)]
    )  # fmt: skip
    filled(model, rng)
    duplicated(model.layers[0].layer)
    result = tfprune.prune(model, rng.normal(size=(30, 7, 3)), 0.5)
    assert result.model.layers[0].layer.units == 5
    x = rng.normal(size=(4, 3, 3))
    np.testing.assert_allclose(outputs(result.model, x)[0], outputs(model, x)[0], atol=1e-6)


def test_masks_go_round_the_layers_inside(rng):
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), kl.Embedding(9, 4, mask_zero=True),
         kl.TimeDistributed(kl.Dense(6, activation="tanh", name="d"), name="td"),
         kl.LSTM(3, name="lstm"), kl.Dense(2)]
    )  # fmt: skip
    filled(model, rng)
    duplicated(model.get_layer("td").layer)
    x = rng.integers(0, 9, (50, 6)) * (np.arange(6) < rng.integers(1, 7, (50, 1)))
    result = tfprune.prune(model, x, 0.5)
    np.testing.assert_allclose(outputs(result.model, x)[0], outputs(model, x)[0], atol=1e-6)
    assert result.layers[0].units_after == 5


def test_what_it_costs(rng):
    model = steps(
        kl.TimeDistributed(kl.Conv1D(4, 3, padding="same", name="conv")),
        kl.TimeDistributed(kl.Flatten()), kl.TimeDistributed(kl.Dense(7)), shape=(5, 6, 2),
    )  # fmt: skip
    # Five steps of six places of a 3x2x4 kernel, five of a 24x7 one, and the output layer.
    assert macs(model) == 5 * 6 * 3 * 2 * 4 + 5 * 24 * 7 + 35 * 2
    x = rng.normal(size=(40, 5, 6, 2))
    for target in ("params", "macs"):
        result = tfprune.prune(model, x, **{f"target_{target}": 0.5}, layers="all", refit=0)
        size = macs if target == "macs" else keras.Model.count_params
        assert size(result.model) <= size(model) // 2
        assert {r.name for r in result.layers if r.units_after < r.units_before} > set()


def test_the_reconstruction_goes_into_wrappers_too(rng):
    model = filled(steps(kl.TimeDistributed(net(), name="td")), rng)
    x = rng.normal(size=(200, 5, 3)).astype("float32")
    plain = tfprune.prune(model, x, remove=0.4, refit=0)
    fitted = tfprune.prune(model, x, remove=0.4)
    errors = [float(np.mean((r.model(x) - model(x)) ** 2)) for r in (plain, fitted)]
    assert errors[1] <= errors[0]


def test_units_that_differ_from_step_to_step_stay(rng):
    data = keras.Input((4,))
    x = kl.Reshape((3, 2))(kl.Dense(6, activation="tanh", name="wide")(data))
    x = kl.TimeDistributed(kl.Dense(5, activation="tanh", name="dense"), name="td")(x)
    model = filled(keras.Model(data, kl.Dense(2)(kl.Flatten()(x))), rng)
    result = tfprune.prune(model, rng.normal(size=(60, 4)), remove=0.4, refit=0)
    assert "several axes" in next(s.reason for s in result.skipped if s.name == "wide")
    assert [layer.name for layer in result.layers] == ["td/dense"]


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_other_precisions(rng, policy):
    dense = kl.Dense(6, activation="tanh", name="d", dtype=policy)
    model = filled(steps(kl.TimeDistributed(dense, name="td", dtype=policy)), rng)
    duplicated(model.get_layer("td").layer)
    x = rng.normal(size=(40, 5, 3)).astype("float32")
    result = tfprune.prune(model, x, 2 if "16" in policy else 0.5)
    copy = result.model.get_layer("td")
    assert (copy.dtype_policy.name, copy.layer.dtype_policy.name) == (policy, policy)
    assert copy.layer.units == 5
    assert copy.layer.kernel.dtype == model.get_layer("td").layer.kernel.dtype


def test_the_traced_copy_computes_the_same(rng):
    model = filled(steps(kl.TimeDistributed(net(), name="td")), rng)
    x = rng.normal(size=(7, 5, 3)).astype("float32")
    np.testing.assert_allclose(trace(model).model(x), model(x), atol=1e-6)


MODES = ["concat", "sum", "ave", "mul"]


def both_ways(mode, rng, sequences=True, kind=kl.LSTM, **more):
    inner = kind(6, return_sequences=sequences, name="r", **more)
    wrapper = kl.Bidirectional(inner, merge_mode=mode, name="both")
    return filled(steps(wrapper, shape=(5, 3)), rng)


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_bidirectional(rng, mode, sequences, tmp_path):
    model = both_ways(mode, rng, sequences, kl.LSTM if sequences else kl.GRU)
    x = rng.normal(size=(60, 5, 3)).astype("float32")
    # Sums need the same copies on both sides; laid end to end these are each other's business.
    other = (2, 3) if mode == "concat" else (1, 0)
    duplicated(at(model, "both/backward_r"), *other)
    duplicated(at(model, "both/forward_r"))
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert [(row.name, row.units_after) for row in result.layers] == [
        ("both/forward_r", 5), ("both/backward_r", 5),
    ]  # fmt: skip
    assert {row.group for row in result.layers} == (
        {""} if mode == "concat" else {"both/forward_r + both/backward_r"}
    )
    np.testing.assert_allclose(result.model(x), model(x), atol=2e-6)
    wrapper = result.model.get_layer("both")
    assert (type(wrapper), wrapper.merge_mode) == (kl.Bidirectional, mode)
    paths = [
        [w.path.split("both/")[-1] for w in one.get_layer("both").weights]
        for one in (result.model, model)
    ]
    assert paths[0] == paths[1]
    if mode == "concat":
        result.model.save(tmp_path / "smaller.keras")
        again = keras.models.load_model(tmp_path / "smaller.keras")
        np.testing.assert_array_equal(again(x), result.model(x))


@pytest.mark.parametrize("mode", ["concat", "mul"])
def test_what_goes_both_ways_is_zero_at_every_step(rng, mode):
    model = both_ways(mode, rng)
    x = rng.normal(size=(60, 5, 3)).astype("float32")
    result = tfprune.prune(
        model, x, remove=0.5, select="random", fold="drop", refit=0, layers="recurrent"
    )
    made = []
    for row in result.layers:
        kept = np.isin(np.arange(6), row.kept)
        same = (np.diag(kept.astype(float)), np.zeros(6))
        made.append(steps_of(at(model, row.name), x, read={"recurrent": same}) * kept)
    made[1] = made[1][:, ::-1]
    both = np.concatenate(made, axis=-1) if mode == "concat" else made[0] * made[1]
    kernel, bias = at(model, "out").get_weights()
    expected = both.reshape(60, -1) @ kernel + bias
    np.testing.assert_allclose(result.model(x), expected, atol=2e-6)


def test_both_ways_stay_as_wide_as_each_other(rng):
    """Keras takes them for equally wide, so what only one of them could lose stays."""
    model = both_ways("concat", rng)
    duplicated(at(model, "both/forward_r"))
    duplicated(at(model, "both/forward_r"), 3, 2)
    duplicated(at(model, "both/backward_r"))
    x = rng.normal(size=(60, 5, 3)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert [row.units_after for row in result.layers] == [5, 5]
    assert result.layers[0].note == "1 put back: both ways are as wide, and the other keeps 5"
    np.testing.assert_allclose(result.model(x), model(x), atol=2e-6)
    # And what is left out keeps the other one whole.
    spared = tfprune.prune(model, x, remove=0.5, refit=0, layers="all", skip=["both/backward_r"])
    assert [row.units_after for row in spared.layers] == [6]
    budget = tfprune.prune(model, x, target_params=0.5, refit=0, layers="all")
    assert len({row.units_after for row in budget.layers}) == 1
    assert budget.model.count_params() <= model.count_params() / 2


def test_what_is_advised_removes_units_of_both_ways(rng):
    """A closest pair of 0 degrees in one of them removes nothing, at any threshold below."""
    model = both_ways("concat", rng)
    duplicated(at(model, "both/forward_r"))
    x = rng.normal(size=(60, 5, 3)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="recurrent")
    assert [row.units_after for row in result.layers] == [6, 6]
    assert "closest pair" not in result.layers[0].note
    (said,) = result.notes
    degrees = int(re.search(r"threshold=(\d+)", said)[1])
    for threshold, removed in ((degrees - 2, 0), (degrees, 2)):
        tried = tfprune.prune(model, x, threshold, layers="recurrent")
        assert 12 - sum(row.units_after for row in tried.layers) == removed
    alone = tfprune.prune(model, x, 30, layers=["both/forward_r"])
    assert [row.units_after for row in alone.layers] == [6]
    (said,) = alone.notes
    assert said == (
        "no unit was removed at 30 degrees, as both/forward_r has to stay as wide as the other way "
        'of its Bidirectional, which keeps its units; instead: both, layers="recurrent"'
    )


def test_a_tagger_of_masked_words_and_states_of_both_ways(rng):
    words, other = keras.Input((6,), dtype="int32", name="words"), keras.Input((4, 2), name="other")
    x = kl.Embedding(9, 4, mask_zero=True)(words)
    x, *states = kl.Bidirectional(
        kl.GRU(4, return_sequences=True, return_state=True, name="r"), name="both"
    )(x)
    tags = kl.TimeDistributed(kl.Dense(3, activation="softmax"), name="tags")(x)
    decoded = kl.Bidirectional(kl.GRU(4, name="d"), name="decoder")(other, initial_state=states)
    model = filled(keras.Model([words, other], [tags, kl.Dense(2)(decoded)]), rng)
    paths = ["both/forward_r", "both/backward_r", "decoder/forward_d", "decoder/backward_d"]
    for path in paths:
        duplicated(at(model, path))
    lengths = rng.integers(2, 7, (60, 1))
    x = {"words": rng.integers(1, 9, (60, 6)) * (np.arange(6) < lengths),
         "other": rng.normal(size=(60, 4, 2)).astype("float32")}  # fmt: skip
    result = tfprune.prune(model, x, 0.5, layers="recurrent")
    assert {row.name: row.units_after for row in result.layers} == dict.fromkeys(paths, 3)
    for ours, theirs in zip(outputs(result.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_both_outputs_by_themselves_inside_time_distributed(rng):
    data = keras.Input((3, 5, 2), name="data")
    x = kl.TimeDistributed(kl.Bidirectional(kl.SimpleRNN(4, name="r"), name="both"), name="td")(
        data
    )
    one, two = kl.Bidirectional(kl.GRU(4, name="g"), merge_mode=None, name="apart")(x)
    model = filled(keras.Model(data, [kl.Dense(2)(one), kl.Dense(2)(two)]), rng)
    paths = ["td/both/forward_r", "td/both/backward_r", "apart/forward_g", "apart/backward_g"]
    for path in paths:
        duplicated(at(model, path))
    x = rng.normal(size=(60, 3, 5, 2)).astype("float32")
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert {row.name: row.units_after for row in result.layers} == dict.fromkeys(paths, 3)
    for ours, theirs in zip(outputs(result.model, x), outputs(model, x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_a_user_s_function_inside_both_ways(rng):
    def mine(x):
        return keras.ops.tanh(x) / 2

    with keras.saving.custom_object_scope({"mine": mine}):
        model = both_ways("concat", rng, kind=kl.SimpleRNN, activation=mine)
    result = tfprune.prune(
        model, rng.normal(size=(30, 5, 3)), remove=0.5, refit=0, layers=["both/forward_r"]
    )
    assert "not known to treat units alone" in result.skipped[0].reason
    assert result.model.get_layer("both").forward_layer.activation is mine
