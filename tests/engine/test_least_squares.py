"""Kernels in closed form against Keras' layers and plain loops."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tfprune.graph.tracer import trace
from tfprune.reconstruction.least_squares import Problem, solved
from tfprune.reconstruction.rows import patches, places_of
from tfprune.reconstruction.sequential import solve_layers
from tfprune.reconstruction.sites import Wiring, sites_of
from tfprune.reconstruction.statistics import measure_statistics


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(5, 9), kernel=st.integers(1, 4), stride=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]), seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_times_kernel_is_the_convolution(size, kernel, stride, padding, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, size, size + 1, 3)).astype("float32")
    layer = kl.Conv2D(4, kernel, stride, padding=padding, bias_initializer="normal")
    made = np.asarray(layer(x))
    places = places_of(made.shape, 7, rng)
    rows = patches(layer, x, places)
    values, bias = layer.get_weights()
    ours = rows.reshape(len(rows), -1) @ values.reshape(-1, 4) + bias
    np.testing.assert_allclose(ours, made[places], atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: kl.Dense(4),
        lambda: kl.Conv1D(4, 3, padding="causal"),
        lambda: kl.Conv1D(4, 3, dilation_rate=2, padding="same"),
        lambda: kl.DepthwiseConv1D(3, padding="same", depth_multiplier=2),
    ],
)
def test_rows_of_sequences(layer, rng):
    x = rng.normal(size=(3, 9, 2)).astype("float32")
    layer = layer()
    made = np.asarray(layer(x))
    places = places_of(made.shape, 100, rng)
    rows, kernel = patches(layer, x, places), layer.get_weights()[0]
    if isinstance(layer, kl.DepthwiseConv1D):
        ours = np.einsum("nkc,kcd->ncd", rows, kernel).reshape(len(rows), -1)
    else:
        ours = rows.reshape(len(rows), -1) @ kernel.reshape(-1, 4)
    assert len(rows) == made[..., 0].size
    np.testing.assert_allclose(ours, made[places], atol=1e-5)


def problem(rng, limits=None, **changes):
    rows = rng.normal(1, 1, (2000, 5))
    kernel = rng.normal(size=(5, 3))
    values = {
        "rows": rows, "goal": rows @ kernel + [1.0, 2.0, 3.0], "kernel": np.zeros((5, 3)),
        "bias": np.zeros(3), "held": np.arange(2000) % 7 == 0, "gain": np.ones(3),
        "shift": np.zeros(3), "limits": limits,
    }  # fmt: skip
    return Problem(**(values | changes)), kernel


def test_a_normalisation_and_a_sum_behind_the_layer_are_undone(rng):
    gain, shift, added = rng.uniform(0.5, 2, 3), rng.normal(size=3), rng.normal(size=(2000, 3))
    one, kernel = problem(rng)
    goal = gain * one.goal + shift + added
    one, _ = problem(rng, rows=one.rows, goal=goal, gain=gain, shift=shift, added=added)
    found, bias = solved(one)
    np.testing.assert_allclose(found, kernel, atol=1e-2)
    np.testing.assert_allclose(bias, [1, 2, 3], atol=2e-2)


def test_in_front_of_a_relu_what_is_below_0_is_free(rng):
    """Goals cut off at 0 are met by a kernel that goes on below; plain least squares misses it."""
    one, _ = problem(rng)
    cut = np.maximum(one.goal - 2, 0)
    plain, clipped = (
        problem(rng, rows=one.rows, goal=cut, limits=limits)[0] for limits in (None, (0.0, np.inf))
    )
    errors = [clipped.error(*solved(each)) for each in (plain, clipped)]
    assert errors[1] < errors[0] / 2


def test_nothing_better_is_none(rng):
    one, kernel = problem(rng)
    best, _ = problem(rng, rows=one.rows, goal=one.goal, kernel=kernel, bias=np.array([1.0, 2, 3]))
    assert solved(best) is None


def residual():
    data = keras.Input((8, 8, 3))
    x = kl.Conv2D(8, 3, padding="same", name="stem", use_bias=False)(data)
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(x))
    y = kl.DepthwiseConv2D(3, padding="same", activation="relu", name="depth")(x)
    y = kl.BatchNormalization(name="second")(kl.Conv2D(8, 1, name="outer")(y))
    x = kl.Activation("relu")(kl.Add(name="sum")([x, y]))
    x = kl.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(data, kl.Dense(3, activation="softmax", name="out")(x))


def test_what_each_layer_aims_at():
    wires = Wiring(trace(residual()))
    sites = {site.path: site for site in sites_of(wires, Wiring(trace(residual())), {})}
    assert list(sites) == ["stem", "depth", "outer", "out"]
    assert [bool(site.others) for site in sites.values()] == [False, False, True, False]
    assert [site.norm and site.norm.name for site in sites.values()] == [
        "norm", None, "second", None,
    ]  # fmt: skip
    assert [site.limits for site in sites.values()] == [*[(0.0, np.inf)] * 3, None]


def test_everything_goes_through_narrow_places():
    names = Wiring(trace(residual())).separators()
    assert {"stem", "norm", "sum", "pool", "out"} <= set(names)
    assert not {"depth", "outer", "second"} & set(names)


@pytest.mark.parametrize("large", [False, True])
def test_a_spoilt_model_is_solved_back(rng, monkeypatch, large):
    """With no unit gone every layer can make again exactly what the original's makes."""
    if large:
        monkeypatch.setattr("tfprune.reconstruction.segments.LARGE", 0)
        monkeypatch.setattr("tfprune.graph.forward.IN_TENSOR", 5000)  # Several batches.
    model = fill(residual(), rng)
    x = rng.normal(size=(300, 8, 8, 3)).astype("float32")
    spoilt = keras.models.clone_model(model)
    spoilt.set_weights(model.get_weights())
    for name in ("stem", "depth", "outer", "out"):
        layer = spoilt.get_layer(name)
        layer.set_weights([w + rng.normal(0, 0.2, w.shape) for w in layer.get_weights()])
    ours, theirs = trace(spoilt), trace(model)
    held = np.arange(300) % 7 == 0
    changed = solve_layers(Wiring(ours), Wiring(theirs), {}, [x], held)
    assert changed == ["stem", "depth", "outer", "out"]
    before, after = (
        np.abs(outputs(one, x)[0] - outputs(model, x)[0]).max() for one in (spoilt, ours.model)
    )
    assert after < 0.05 * before


@pytest.mark.parametrize("large", [False, True])
def test_statistics_are_those_of_what_reaches_the_layer(rng, monkeypatch, large):
    if large:
        monkeypatch.setattr("tfprune.reconstruction.segments.LARGE", 0)
    model = fill(residual(), rng)
    x = rng.normal(1, 2, (200, 8, 8, 3)).astype("float32")
    ours = trace(model)
    measure_statistics(Wiring(ours), [x], 1.0)
    norm, second = ours.copies["norm"], ours.copies["second"]
    reach = keras.Model(ours.model.inputs[0], [norm.input, second.input])(x)
    for layer, values in zip((norm, second), reach, strict=True):
        flat = np.asarray(values, np.float64).reshape(-1, 8)
        np.testing.assert_allclose(layer.moving_mean, flat.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(layer.moving_variance, flat.var(axis=0), rtol=1e-3)


@pytest.mark.parametrize("steps", [1, None])
def test_held_out_outputs_come_nearer(steps, rng):
    model = fill(residual(), rng)
    causes = rng.normal(size=(900, 6)) @ rng.normal(size=(6, 192))
    x = causes.reshape(900, 8, 8, 3).astype("float32")
    errors = []
    for refit in (0, steps):
        smaller = tfprune.prune(model, x[:600], remove=0.4, layers="all", refit=refit).model
        errors.append(np.mean((outputs(smaller, x[600:])[0] - outputs(model, x[600:])[0]) ** 2))
    assert errors[1] < errors[0]


def test_both_models_run_in_the_same_batches(rng, monkeypatch):
    """Also where those of the smaller one could be larger."""
    monkeypatch.setattr("tfprune.reconstruction.segments.IN_BATCH", 1100)
    model = fill(residual(), rng)
    x = rng.normal(size=(140, 8, 8, 3)).astype("float32")
    result = tfprune.prune(model, x, remove=0.4, layers="all", refit=1)
    assert np.isfinite(outputs(result.model, x)[0]).all()
