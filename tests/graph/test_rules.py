"""Layers of a user's own, held against a masked original; rules that do not hold are refused."""

from __future__ import annotations

import doctest
import re

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tests.support.own_layers import (
    Axis,
    Block,
    Centred,
    Channels,
    Counting,
    Doubled,
    FirstOnly,
    Flipped,
    Halved,
    Pairs,
    Penalty,
    Scale,
    Square,
    Total,
    Twice,
    Width,
)  # fmt: skip
from tests.support.paths import ROOT
from tfprune import TfpruneError, register_layer
from tfprune.graph import user_rules


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    """What one test registers the next does not know."""
    monkeypatch.setattr(user_rules, "USER_RULES", {})


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (120, 6)).astype("float32")


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (60, 8, 8, 3)).astype("float32")


def dense(rng, *layers, units=12):
    hidden = kl.Dense(units, activation="relu", name="hidden")
    return fill(
        keras.Sequential([keras.Input((6,)), hidden, *layers, kl.Dense(3, name="out")]), rng
    )


def filters(rng, *layers):
    parts = [kl.Conv2D(10, 3, name="hidden"), *layers, kl.Conv2D(2, 1, name="out")]
    return fill(keras.Sequential([keras.Input((8, 8, 3)), *parts, kl.Flatten()]), rng)


def masked(model, result, reader="out", source="hidden"):
    """The whole model; what reads units that went is zero."""
    with keras.saving.custom_object_scope({"Scale": Scale}):
        copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kept = next(layer.kept for layer in result.layers if layer.name == source)
    kernel, *bias = copy.get_layer(reader).get_weights()
    kernel[..., [unit for unit in range(kernel.shape[-2]) if unit not in kept], :] = 0
    copy.get_layer(reader).set_weights([kernel, *bias])
    return copy


def halve(model, x, **options):
    options = {"remove": 0.5, "select": "random", "fold": "drop", "refit": 0} | options
    return tfprune.prune(model, x, layers="all", **options)


def close(ours, theirs, x):
    for first, second in zip(outputs(ours, x), outputs(theirs, x), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5 * max(1, np.abs(second).max()))


def test_what_is_not_registered_is_left_alone(rng, x):
    result = tfprune.prune(dense(rng, Scale(name="own")), x)
    assert result.skipped[0].name == "hidden"
    assert result.skipped[0].reason == "feeds own (Scale), which is not handled"


def test_a_weight_for_every_unit_is_cut_with_it(rng, x):
    register_layer(Scale, "unitwise")
    model = dense(rng, Scale(name="own"))
    result = halve(model, x)
    kept = list(result.layers[0].kept)
    ours, whole = result.model.get_layer("own"), model.get_layer("own")
    np.testing.assert_array_equal(ours.scale, np.asarray(whole.scale)[kept])
    np.testing.assert_array_equal(ours.factor, whole.factor)
    close(result.model, masked(model, result), x)
    assert result.model.count_params() == 6 * 6 + 6 + 6 + 1 + 6 * 3 + 3


@pytest.mark.parametrize("layer", [Scale, Channels, Block])
def test_filters_too_and_subclasses_and_blocks(rng, pictures, layer):
    register_layer(Scale, "unitwise")
    register_layer(Block, "unitwise")
    model = filters(rng, layer(name="own"))
    for part in getattr(model.get_layer("own"), "parts", []):
        fill(keras.Sequential([part]), rng)
    result = halve(model, pictures)
    assert result.model.get_layer("hidden").filters == 5
    close(result.model, masked(model, result), pictures)
    assert not [one for one in result.skipped if one.name == "own"]


def test_other_axes_may_change(rng, pictures):
    register_layer(Halved, "unitwise")
    model = filters(rng, Halved())
    result = halve(model, pictures)
    assert result.model.get_layer("hidden").filters == 5
    close(result.model, masked(model, result), pictures)


def test_axes_of_any_size(rng):
    register_layer(Scale, "unitwise")
    layers = [kl.Conv1D(8, 3, name="hidden"), Scale(), kl.Conv1D(2, 1, name="out")]
    model = fill(keras.Sequential([keras.Input((None, 3)), *layers]), rng)
    x = rng.normal(0, 1, (40, 9, 3)).astype("float32")
    result = halve(model, x)
    close(result.model, masked(model, result), x)


def test_an_identity(rng, x):
    register_layer(Penalty, "identity")
    model = dense(rng, Penalty(), kl.Dropout(0.5), Penalty())
    result = halve(model, x)
    assert result.model.get_layer("hidden").units == 6
    close(result.model, masked(model, result), x)


def test_an_identity_with_a_weight_for_every_unit(rng, x):
    register_layer(Counting, "identity")
    model = dense(rng, Counting(name="own"))
    result = halve(model, x)
    seen = np.asarray(model.get_layer("own").seen)[list(result.layers[0].kept)]
    np.testing.assert_array_equal(result.model.get_layer("own").seen, seen)
    close(result.model, masked(model, result), x)


def test_inside_nested_models(rng, x):
    register_layer(Scale, "unitwise")
    register_layer(Penalty, "identity")
    inner = [keras.Input((6,)), kl.Dense(12, activation="relu", name="first"), Scale(name="own")]
    data = keras.Input((6,))
    tensor = kl.Dense(3, name="out")(Penalty()(keras.Sequential(inner, name="inner")(data)))
    model = keras.Model(data, tensor)
    model.set_weights([rng.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
    result = halve(model, x)
    assert result.model.get_layer("inner").get_layer("own").scale.shape == (6,)
    close(result.model, masked(model, result, source="inner/first"), x)


def test_a_layer_that_is_called_again(rng, x):
    """Units of both places go together, since the weights are the same."""
    register_layer(Scale, "unitwise")
    data, own = keras.Input((6,)), Scale(name="own")
    one = own(kl.Dense(8, name="hidden")(data))
    two = own(kl.Dense(8, name="other")(data))
    made = kl.Add()([kl.Dense(3, name="out")(one), kl.Dense(3, name="out2")(two)])
    model = fill(keras.Model(data, made), rng)
    result = halve(model, x)
    assert {*result.layers[0].group.split(" + ")} == {"hidden", "other"}
    reference = masked(masked(model, result), result, "out2", "other")
    close(result.model, reference, x)


def test_a_budget_counts_its_weights(rng, x):
    register_layer(Scale, "unitwise")
    result = tfprune.prune(dense(rng, Scale(), units=40), x, target_params="50%", refit=0)
    units = result.model.get_layer("hidden").units
    assert result.model.count_params() == units * (6 + 1 + 1 + 3) + 1 + 3
    # One unit more would be too many.
    assert 0 <= (40 * 11 + 4) / 2 - result.model.count_params() < 11


@pytest.mark.parametrize("layer", [Centred, Flipped, Pairs, FirstOnly, Square, Width])
@pytest.mark.parametrize("units", [4, 12])
def test_a_layer_that_mixes_units_is_no_unitwise_one(rng, x, layer, units):
    register_layer(layer, "unitwise")
    options = {"units": units} if layer is Width else {}
    with pytest.raises(TfpruneError, match=rf"^layer own \({layer.__name__}\): ") as error:
        tfprune.prune(dense(rng, layer(**options, name="own"), units=units), x, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [Centred, Square, Width])
def test_the_one_that_is_wrong_is_named(rng, x, layer):
    register_layer(Scale, "unitwise")
    register_layer(layer, "unitwise")
    model = dense(rng, Scale(name="first"), layer(name="second"), Scale(name="third"))
    with pytest.raises(TfpruneError, match=rf"^layer second \({layer.__name__}\): "):
        tfprune.prune(model, x)


def test_a_function_that_forgets_to_block(rng, x):
    """What it returns holds nobody's units, while others read them and could lose them."""

    def rule(call):
        return call.ledger.features_of(call.output)

    register_layer(Twice, rule)
    data = keras.Input((6,))
    hidden = kl.Dense(8, name="hidden")(data)
    made = kl.Concatenate()([kl.Dense(3)(hidden), Twice(name="own")(hidden)])
    with pytest.raises(TfpruneError, match=r"^layer own \(Twice\): the rule"):
        tfprune.prune(fill(keras.Model(data, made), rng), x)


@pytest.mark.parametrize("layer", [Twice, Centred])
def test_a_layer_that_changes_values_is_no_identity(rng, x, layer):
    register_layer(layer, "identity")
    message = rf"layer own \({layer.__name__}\): .*does not return its input's values"
    with pytest.raises(TfpruneError, match=message):
        tfprune.prune(dense(rng, layer(name="own")), x)


def test_rules_are_tried_only_where_units_may_go(rng, x):
    register_layer(Centred, "unitwise")
    model = dense(rng, kl.Dense(4, name="last"), Centred(name="own"))
    assert tfprune.prune(model, x, layers=["hidden"]).layers


def test_other_numbers_of_features_and_several_inputs(rng, x):
    register_layer(Doubled, "unitwise")
    with pytest.raises(TfpruneError, match=r"own \(Doubled\).*keeps its features.*\(None, 24\)"):
        tfprune.prune(dense(rng, Doubled(name="own")), x)
    register_layer(Total, "identity")
    data = keras.Input((6,))
    tensor = Total(name="own")(kl.Dense(5)(data), kl.Dense(5)(data))
    model = keras.Model(data, kl.Dense(2)(tensor))
    with pytest.raises(TfpruneError, match=r"own \(Total\).*takes one tensor"):
        tfprune.prune(model, x)


def test_a_function_says_it_for_every_call(rng, pictures):
    def rule(call):
        return call.unitwise() if call.is_last_axis else call.block("works along the rows")

    register_layer(Axis, rule)
    model = filters(rng, Axis(name="own"))
    result = halve(model, pictures)
    close(result.model, masked(model, result), pictures)
    skipped = tfprune.prune(filters(rng, Axis(1, name="own")), pictures, layers="all").skipped
    assert ("hidden", "feeds own (Axis), which works along the rows") in [
        (one.name, one.reason) for one in skipped
    ]


def test_a_function_that_says_nothing_or_something_else(rng, x):
    register_layer(Twice, lambda call: None)
    skipped = tfprune.prune(dense(rng, Twice(name="own")), x).skipped
    assert skipped[0].reason == "feeds own (Twice), which is not handled"
    register_layer(Twice, lambda call: "unitwise")
    with pytest.raises(TfpruneError, match=r"own \(Twice\): expected its rule .*received str"):
        tfprune.prune(dense(rng, Twice(name="own")), x)


def test_what_can_be_registered():
    for layer in (Twice(), int, "Scale", keras.ops):
        with pytest.raises(TfpruneError, match="expected a subclass of keras.Layer"):
            register_layer(layer, "unitwise")
    for layer in (kl.Dense, kl.Dropout, kl.Layer, keras.Model, keras.Sequential):
        with pytest.raises(TfpruneError, match="is Keras' own"):
            register_layer(layer, "unitwise")
    for rule in ("unit-wise", None, 3, lambda: None, lambda first, second: None, ["unitwise"]):
        with pytest.raises(TfpruneError, match="rule: expected one of unitwise, identity") as error:
            register_layer(Twice, rule)
        assert "\n" not in str(error.value)


def test_subclasses_of_keras_layers_stay_unknown(rng, x):
    class MyReLU(kl.ReLU):
        pass

    model = dense(rng, MyReLU(name="own"))
    assert tfprune.prune(model, x).skipped[0].reason == "feeds own (MyReLU), which is not handled"
    register_layer(MyReLU, "unitwise")
    result = halve(model, x)
    close(result.model, masked(model, result), x)


def test_inside_time_distributed(rng):
    class Shaped(Scale):
        def compute_output_shape(self, shape):
            return shape

    register_layer(Scale, "unitwise")
    steps = kl.TimeDistributed(Shaped(), name="each")
    model = fill(
        keras.Sequential(
            [keras.Input((5, 6)), kl.Dense(12, name="hidden"), steps, kl.Dense(3, name="out")]
        ), rng,
    )  # fmt: skip
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel[:, 6:], bias[6:] = kernel[:, :6], bias[:6]
    model.get_layer("hidden").set_weights([kernel, bias])
    scale = np.asarray(steps.layer.scale)
    steps.layer.scale.assign(np.tile(scale[:6], 2))
    x = rng.normal(size=(60, 5, 6)).astype("float32")
    result = tfprune.prune(model, x, remove=0.5, refit=0)
    assert result.model.get_layer("hidden").units == 6
    np.testing.assert_allclose(result.model(x), model(x), atol=1e-5)


def test_half_precision(rng, x):
    register_layer(Scale, "unitwise")
    model = fill(
        keras.Sequential(
            [keras.Input((6,)), kl.Dense(12, dtype="mixed_bfloat16", name="hidden"),
             Scale(dtype="mixed_bfloat16"), kl.Dense(3, dtype="mixed_bfloat16", name="out")]
        ), rng,
    )  # fmt: skip
    assert halve(model, x).model.get_layer("hidden").units == 6


def test_examples():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.split("## A layer of your own")[1].split("\n## ")[0]
    names = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    assert names["smaller"].get_layer("scale").scale.shape == (8,)
    assert names["smaller"].get_layer("hidden").units == 8
    register_layer(names["Scale"], names["along_the_last_axis"])
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(register_layer, "register_layer", globs={})
    assert doctest.DocTestRunner().run(example) == doctest.TestResults(0, len(example.examples))
