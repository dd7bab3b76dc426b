"""Survivors refitted together with what reads them: nearer to the whole model, and not more."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tfprune.graph.tracer import trace
from tfprune.reconstruction.segments import Segments, _Run
from tfprune.reconstruction.sites import Wiring


@pytest.fixture
def pictures(rng):
    # Of few causes, as pictures are, so that fewer units can do.
    causes = rng.normal(0, 1, (600, 4)) @ rng.normal(0, 0.5, (4, 128))
    return causes.reshape(600, 8, 8, 2).astype("float32")


def chain(dtype=None):
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            kl.Conv2D(8, 3, activation="relu", name="conv", dtype=dtype),
            kl.BatchNormalization(dtype=dtype),
            kl.MaxPooling2D(2, dtype=dtype),
            kl.Flatten(dtype=dtype),
            kl.Dense(12, activation="tanh", name="hidden", dtype=dtype),
            kl.Dense(3, activation="softmax", name="out", dtype=dtype),
        ]
    )


def residual():
    data = keras.Input((8, 8, 2))
    x = kl.Conv2D(8, 3, padding="same", name="stem")(data)
    y = kl.ReLU()(kl.Conv2D(6, 3, padding="same", name="inner")(x))
    x = kl.Add()([x, kl.Conv2D(8, 3, padding="same", name="outer")(y)])
    both = [kl.Dense(2, name=name)(kl.GlobalAveragePooling2D()(x)) for name in ("one", "two")]
    return keras.Model(data, both)


def error(model, smaller, x):
    pairs = zip(outputs(model, x), outputs(smaller, x), strict=True)
    return float(np.mean([np.mean((one - other) ** 2) for one, other in pairs]))


@pytest.mark.trains
@pytest.mark.parametrize("build", [chain, pytest.param(residual, marks=pytest.mark.slow)])
def test_new_samples_come_out_nearer(build, pictures, rng):
    """Of three models together: one may lose so little by its fold that nothing is to be gained."""
    seen, fresh = pictures[:400], pictures[400:]
    errors = []
    for _ in range(3):
        model = fill(build(), rng)
        picked, refitted = (
            tfprune.prune(model, seen, remove=0.5, layers="all", refit=steps) for steps in (0, None)
        )
        assert refitted.refit == 100
        assert picked.refit == 0
        assert [layer.units_after for layer in refitted.layers] == [
            layer.units_after for layer in picked.layers
        ]
        errors.append([error(model, result.model, fresh) for result in (picked, refitted)])
    before, after = np.sum(errors, axis=0)
    assert after < before, errors


def test_without_it_survivors_stay_as_they_are(pictures, rng):
    model = fill(chain(), rng)
    result = tfprune.prune(model, pictures, remove=0.5, layers=["conv"], refit=0)
    kernel = model.get_layer("conv").get_weights()[0]
    kept = result.layers[0].kept
    np.testing.assert_array_equal(
        result.model.get_layer("conv").get_weights()[0], kernel[..., kept]
    )


def test_a_result_says_whether_it_was_kept(pictures, rng):
    """Where it was not, the weights are those without it; copies leave nothing to be gained."""
    apart, copies = fill(chain(), rng), fill(chain(), rng)
    hidden = copies.get_layer("hidden")
    hidden.set_weights([np.tile(weight[..., :6], 2) for weight in hidden.get_weights()])
    for model in apart, copies:
        how = {"remove": 0.5, "layers": ["hidden"]}
        folded, refitted = (tfprune.prune(model, pictures, refit=n, **how) for n in (0, 5))
        pairs = zip(folded.model.get_weights(), refitted.model.get_weights(), strict=True)
        assert folded.refit_kept is None
        assert refitted.refit_kept is not all(np.array_equal(*pair) for pair in pairs)
        assert ("reconstruction: not kept" in str(refitted)) is not refitted.refit_kept
    assert refitted.refit_kept is False


def test_narrow_places_of_one_shape_share_memory_and_samples_stay(rng):
    """From each place on the models compute what they do as a whole, samples among them."""
    names = ["a", "b", "c", "d"]
    whole = [keras.Input((6,)), *(kl.Dense(6, activation="relu", name=name) for name in names)]
    ours, theirs = (Wiring(trace(fill(keras.models.clone_model(keras.Sequential(whole)), rng)))
                    for _ in range(2))  # fmt: skip
    x = rng.normal(size=(700, 6)).astype("float32")  # In several batches.
    before, segments, places = x.copy(), Segments(ours, theirs, [x]), []
    for name in names:
        segments.go_to(name)
        places.append([data[0] for data in segments._data])
        for side, wiring in enumerate((ours, theirs)):
            run = _Run(segments, side, [wiring.output(name)])
            made = np.concatenate([batch for (batch,) in run.batches()])
            expected = keras.Model(wiring.trace.model.inputs, wiring.output(name))([x])
            np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(x, before)
    assert all(one is other for one, other in zip(places[-1], places[-2], strict=True))
    assert not np.shares_memory(*places[-1])


def test_the_same_twice(pictures, rng):
    model = fill(chain(), rng)
    one, other = (tfprune.prune(model, pictures, remove=0.5, refit=20).model for _ in range(2))
    for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_whole_model_stays_as_it_is(pictures, rng):
    model = fill(chain(), rng)
    before = [weight.copy() for weight in model.get_weights()]
    tfprune.prune(model, pictures, remove=0.5, layers="all")
    for ours, theirs in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_duplicates_leave_nothing_to_fit(pictures, rng):
    model = fill(chain(), rng)
    hidden = model.get_layer("hidden")
    kernel, bias = hidden.get_weights()
    kernel[:, 6:], bias[6:] = kernel[:, :6], bias[:6]
    hidden.set_weights([kernel, bias])
    result = tfprune.prune(model, pictures, 5, refit=50)
    assert result.layers[0].units_after == 6
    assert error(model, result.model, pictures) < 1e-10


def test_shared_layers_keep_their_fold(rng):
    one, other = keras.Input((6,)), keras.Input((6,))
    shared = kl.Dense(8, activation="relu", name="shared")
    out = kl.Dense(2, name="out")(kl.Add()([shared(one), shared(other)]))
    model = fill(keras.Model([one, other], out), rng)
    x = [rng.normal(0, 1, (100, 6)).astype("float32") for _ in range(2)]
    folded, refitted = (tfprune.prune(model, x, remove=0.5, refit=steps).model for steps in (0, 9))
    for ours, theirs in zip(folded.get_weights(), refitted.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.trains
def test_half_precision_is_fitted_in_float32(pictures, rng):
    model = fill(chain("mixed_float16"), rng)
    picked, refitted = (
        tfprune.prune(model, pictures, remove=0.5, refit=steps).model for steps in (0, 50)
    )
    assert refitted.get_layer("hidden").dtype_policy.name == "mixed_float16"
    # Outputs of 16 bits may be the same to the last one.
    assert error(model, refitted, pictures) <= error(model, picked, pictures)


@pytest.mark.parametrize("steps", [-1, 1.5, "many", True])
def test_steps_are_a_whole_number(steps, pictures):
    with pytest.raises(tfprune.TfpruneError, match="refit: expected a whole number from 0"):
        tfprune.prune(chain(), pictures, remove=0.5, refit=steps)
