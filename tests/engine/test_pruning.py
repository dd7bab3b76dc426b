"""``tfprune.prune`` from outside: planted units, reasons, what survives, what is refused."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import (
    chain,
    fill,
    largest_change,
    outputs,
    plant,
    plant_constant,
    positive,
)
from tfprune import TfpruneError
from tfprune.core.fold import FOLD_RULES


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (600, 6)).astype("float32")


@pytest.mark.parametrize("fold", ["least-squares", "scaled"])
@pytest.mark.parametrize(
    "middle",
    [
        [],
        [kl.BatchNormalization],
        [kl.Dropout],
        [kl.BatchNormalization, kl.Dropout],
        [lambda: kl.Activation("relu")],
        [kl.Identity, kl.Flatten],
    ],
)
def test_planted_relu_units_go_without_a_trace(rng, x, fold, middle):
    model = chain(rng, *[layer(0.3) if layer is kl.Dropout else layer() for layer in middle])
    plant(model, "hidden", 3, 0)
    plant(model, "hidden", 4, 1, scale=2.5)
    plant_constant(model, "hidden", 5, -1.0)
    plant_constant(model, "hidden", 6, 0.7)
    result = tfprune.prune(model, x, 1, fold=fold)
    (layer,) = result.layers
    assert set(range(12)) - set(layer.kept) >= {0, 1, 5, 6}
    assert (layer.similar, layer.constant) == (2, 2)
    assert largest_change(model, result, x) < 1e-5
    assert result.model.get_layer("hidden").kernel.shape == (6, 8)
    assert result.model.get_layer("out").kernel.shape == (8, 3)
    assert model.get_layer("hidden").kernel.shape == (6, 12)


@pytest.mark.parametrize("fold", ["least-squares", "scaled"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("normalised", [False, True])
def test_planted_complements_go_about_the_centre(rng, x, fold, activation, normalised):
    middle = [kl.BatchNormalization()] if normalised else []
    model = chain(rng, *middle, activation=activation)
    plant(model, "hidden", 3, 0)
    plant(model, "hidden", 4, 1, scale=-1)
    result = tfprune.prune(model, x, 1, fold=fold)
    (layer,) = result.layers
    assert (layer.similar, layer.complementary, layer.constant) == (1, 1, 0)
    assert largest_change(model, result, x) < 1e-5


def test_raw_angles_of_sigmoids_know_no_complements(rng, x):
    model = chain(rng, activation="sigmoid")
    plant(model, "hidden", 4, 1, scale=-1)
    (layer,) = tfprune.prune(model, x, 1, centre="none").layers
    assert layer.complementary == 0
    (layer,) = tfprune.prune(model, x, 1, centre="mean").layers
    assert layer.complementary == 1
    (layer,) = tfprune.prune(model, x, 1, centre=0.5).layers
    assert layer.complementary == 1


def test_the_studies_lose_both_of_a_complementary_pair(rng, x):
    model = chain(rng, activation="tanh")
    plant(model, "hidden", 4, 1, scale=-1)
    (layer,) = tfprune.prune(model, x, 1, fold="drop").layers
    assert layer.complementary == 2
    assert not {1, 4} & set(layer.kept)


def test_angles_are_of_the_activations_that_the_reader_sees(rng, x):
    model = chain(rng, kl.BatchNormalization(), kl.ReLU(), activation=None, units=5)
    (layer,) = tfprune.prune(model, x, 1).layers
    seen = keras.Model(model.inputs[0], model.layers[-2].output)(x).numpy().astype(float)
    seen -= seen.mean(axis=0)
    for i in range(5):
        for j in range(i):
            cosine = (
                seen[:, i] @ seen[:, j] / np.linalg.norm(seen[:, i]) / np.linalg.norm(seen[:, j])
            )
            assert layer.angles[i, j] == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.01)


def branches(rng):
    data = keras.Input((4, 6), name="data")
    a = kl.Dense(10, activation="relu", name="a")(data)
    flat = kl.Flatten(name="flat")(a)
    b = kl.Dense(8, activation="sigmoid", name="b")(flat)
    normalised = kl.BatchNormalization(name="bn")(b)
    c = kl.Dense(8, activation="relu", name="c", use_bias=False)(flat)
    both = kl.Concatenate(name="both")([normalised, c, b])
    first = kl.Dense(3, activation="softmax", name="first")(kl.Dropout(0.5)(both))
    second = kl.Dense(1, use_bias=False, name="second")(normalised)
    return positive(fill(keras.Model(data, [first, second], name="branches"), rng))


def test_branches_consumers_and_outputs(rng):
    model = branches(rng)
    x = rng.normal(0, 1, (300, 4, 6)).astype("float32")
    plant(model, "a", 9, 0)
    plant(model, "a", 8, 1, scale=3)
    plant_constant(model, "a", 2, 0.4)
    plant(model, "b", 7, 0)
    plant_constant(model, "b", 3, 0.1)
    result = tfprune.prune(model, x, 0.5)
    after = {layer.name: layer.units_after for layer in result.layers}
    assert after == {"a": 7, "b": 6, "c": 8}
    assert {s.name: s.reason for s in result.skipped} == {
        "first": "output layer",
        "second": "output layer",
    }
    assert largest_change(model, result, x) < 1e-5
    assert result.model.get_layer("first").kernel.shape == (6 + 8 + 6, 3)
    # The constant's share had nowhere to go without a bias.
    assert result.model.get_layer("second").use_bias
    assert result.model.get_layer("bn").gamma.shape == (6,)


def test_the_default_fold_keeps_more_than_the_others(rng):
    """Redundant but not identical units: the order that the package exists for."""
    model = chain(rng, units=64)
    kernel = rng.normal(0, 1, (6, 8)) @ rng.normal(0, 1, (8, 64))
    model.get_layer("hidden").set_weights([kernel, rng.normal(0, 0.3, 64)])
    x = rng.normal(0, 1, (2000, 6)).astype("float32")
    errors = {
        fold: np.mean(
            (outputs(model, x)[0] - outputs(tfprune.prune(model, x, 35, fold=fold).model, x)[0])
            ** 2
        )
        for fold in FOLD_RULES
    }
    assert errors["least-squares"] < 0.5 * errors["scaled"]
    assert errors["scaled"] < min(errors["drop"], errors["outgoing"], errors["incoming"])


def test_what_the_user_set_survives(rng, x):
    model = keras.Sequential(
        [
            keras.Input((6,), name="data"),
            kl.Dense(
                9, activation="relu", name="hidden", kernel_regularizer="l2", trainable=False,
                dtype="mixed_bfloat16",
            ),
            kl.Dense(3, name="out"),
        ],
        name="mine",
    )  # fmt: skip
    fill(model, rng)
    model.compile("sgd", "mse", metrics=["mae"])
    plant(model, "hidden", 1, 0)
    smaller = tfprune.prune(model, x, 3).model
    assert isinstance(smaller, keras.Sequential)
    assert smaller.name == "mine"
    hidden = smaller.get_layer("hidden")
    assert hidden.units < 9
    assert hidden.dtype_policy.name == "mixed_bfloat16"
    assert not hidden.trainable
    assert isinstance(hidden.kernel_regularizer, keras.regularizers.L2)
    assert smaller.loss == "mse"
    smaller.fit(x, np.zeros((len(x), 3)), epochs=1, verbose=0)


def test_a_pruned_model_saves_and_loads(rng, tmp_path):
    model = branches(rng)
    x = rng.normal(0, 1, (100, 4, 6)).astype("float32")
    plant(model, "a", 9, 0)
    smaller = tfprune.prune(model, x, 1).model
    assert type(smaller) is type(model)
    assert [t.name for t in smaller.inputs] == [t.name for t in model.inputs]
    smaller.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    for ours, theirs in zip(outputs(loaded, x), outputs(smaller, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@keras.saving.register_keras_serializable("tests")
class Custom(keras.layers.Layer):
    def call(self, x):
        return x[:, ::-1]


@keras.saving.register_keras_serializable("tests")
def backwards(x):
    return x[:, ::-1]


def skipped_because(middle, rng, x, **more):
    result = tfprune.prune(chain(rng, *middle), x, 20, **more)
    assert result.model.get_layer("hidden").units == 12
    return {skipped.name: skipped.reason for skipped in result.skipped}["hidden"]


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        (lambda: [kl.Softmax(name="mix")], r"mix \(Softmax\) mixes the units"),
        (lambda: [kl.Activation("softmax", name="mix")], r"softmax of mix .* mixes the units"),
        (lambda: [kl.LayerNormalization(name="norm")], r"norm \(LayerNormalization\) mixes"),
        (lambda: [Custom(name="own")], r"feeds own \(Custom\), which is not handled"),
        (lambda: [kl.Reshape((3, 4), name="split"), kl.Flatten()], "split .* splits the units"),
        (lambda: [kl.UnitNormalization(name="again")], r"again \(UnitNormalization\) mixes"),
        (lambda: [kl.Activation(backwards, name="own")], r"backwards \(not Keras' own\) of own"),
        (lambda: [kl.Lambda(backwards, name="own")], r"feeds own \(Lambda\), which is not handled"),
    ],
)
def test_what_cannot_be_pruned_is_skipped_with_the_reason(rng, x, middle, reason):
    import re

    assert re.search(reason, skipped_because(middle(), rng, x))


def test_layers_around_a_shared_one_go_together(rng, x):
    data = keras.Input((6,), name="data")
    shared = kl.Dense(6, activation="relu", name="shared")
    before = kl.Dense(6, activation="relu", name="before")(data)
    model = fill(keras.Model(data, kl.Dense(2, name="out")(shared(shared(before)))), rng)
    plant(model, "before", 1, 0)
    plant(model, "shared", 1, 0)
    result = tfprune.prune(model, x, 0.5)
    assert {(layer.name, layer.units_after, layer.group) for layer in result.layers} == {
        ("before", 5, "before + shared"),
        ("shared", 5, "before + shared"),
    }
    assert largest_change(model, result, x) < 1e-5
    kept = {
        skipped.name: skipped.reason
        for skipped in tfprune.prune(model, x, 5, skip=["before"]).skipped
    }
    assert "goes together with before" in kept["shared"]


def test_an_output_that_is_also_read_is_not_pruned(rng, x):
    data = keras.Input((6,), name="data")
    both = kl.Dense(6, activation="relu", name="both")(data)
    model = fill(keras.Model(data, [both, kl.Dense(2, name="out")(both)]), rng)
    plant(model, "both", 1, 0)
    result = tfprune.prune(model, x, 5)
    assert not result.layers
    assert "nothing to prune" in str(result)


def test_layers_and_skip(rng):
    model = branches(rng)
    x = rng.normal(0, 1, (50, 4, 6)).astype("float32")
    assert [layer.name for layer in tfprune.prune(model, x, 5, layers=["b"]).layers] == ["b"]
    assert {layer.name for layer in tfprune.prune(model, x, 5, skip=["b"]).layers} == {"a", "c"}
    for bad in ({"layers": ["nope"]}, {"skip": ["nope"]}, {"layers": ["flat"]}):
        with pytest.raises(TfpruneError, match="is no layer of .* these are: a, "):
            tfprune.prune(model, x, 5, **bad)


def test_a_layer_of_constants_keeps_one_unit_and_says_so(rng, x):
    model = chain(rng, units=3)
    for unit in range(3):
        plant_constant(model, "hidden", unit, 0.5)
    result = tfprune.prune(model, x, 5)
    assert result.layers[0].units_after == 1
    assert "a layer needs one" in str(result)
    assert largest_change(model, result, x) < 1e-5


def test_the_table_adds_up(rng, x):
    model = chain(rng)
    plant(model, "hidden", 3, 0)
    plant_constant(model, "hidden", 5, -1.0)
    result = tfprune.prune(model, x, 1)
    rows = [line.split() for line in str(result).splitlines()]
    assert rows[2] == ["hidden", "12", "10", "1", "0", "1"]
    assert rows[4][:6] == ["total", "12", "10", "1", "0", "1"]
    assert "16.7 % of units removed" in str(result)
