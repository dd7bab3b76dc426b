"""Criteria of users' own, ``select=callable``, against loops over weights and activations."""

from __future__ import annotations

import functools
import re

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import chain, fill, outputs
from tests.support.paths import ROOT
from tfprune import TfpruneError


@pytest.fixture
def x(rng):
    return rng.normal(0, 1, (300, 6)).astype("float32")


@pytest.fixture
def pictures(rng):
    return rng.normal(0, 1, (60, 8, 8, 2)).astype("float32")


@pytest.fixture
def branched(rng):
    """Convolutions, one of them transposed, whose filters meet in an Add."""
    data = keras.Input((8, 8, 2))
    y = kl.Conv2D(6, 3, activation="relu", padding="same", name="one")(data)
    y = kl.Add()([y, kl.Conv2DTranspose(6, 3, padding="same", name="other")(y)])
    return fill(keras.Model(data, kl.Dense(2, name="out")(kl.GlobalMaxPooling2D()(y))), rng)


def kept(result):
    return [layer.kept.tolist() for layer in result.layers]


def constant_score(group):
    return np.ones(group.units)


def length_of_weights(group):
    """As ``magnitude``, number by number."""
    scores = []
    for unit in range(group.units):
        total = 0.0
        for producer in group.producers:
            for inputs in producer.kernel:
                for value, mine in zip(inputs, producer.units, strict=True):
                    total += float(value) ** 2 if mine == unit else 0.0
        scores.append(total**0.5)
    return scores


def test_a_loop_over_the_weights_chooses_as_magnitude_does(rng, x):
    model = chain(rng, units=12)
    named = tfprune.prune(model, x, remove=0.4, select="magnitude", refit=0)
    looped = tfprune.prune(model, x, remove=0.4, select=length_of_weights, refit=0)
    assert kept(looped) == kept(named)
    for ours, theirs in zip(looped.model.get_weights(), named.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_so_it_does_for_filters_that_several_layers_make(branched, pictures):
    how = {"remove": 0.5, "layers": "all", "refit": 0}
    named = tfprune.prune(branched, pictures, select="magnitude", **how)
    looped = tfprune.prune(branched, pictures, select=length_of_weights, **how)
    assert kept(looped) == kept(named)
    assert [len(units) for units in kept(looped)] == [3, 3]


def test_the_lowest_scores_go_and_of_equal_ones_the_first(rng, x):
    model = chain(rng, units=12)
    equal = tfprune.prune(model, x, remove=0.25, select=constant_score, refit=0)
    assert kept(equal)[0] == list(range(3, 12))
    falling = tfprune.prune(
        model, x, remove=0.25, select=lambda group: -np.arange(group.units), refit=0
    )
    assert kept(falling)[0] == list(range(9))


def test_what_a_group_tells_is_what_the_layers_hold(branched, pictures):
    received = []

    def watching(group):
        received.append(group)
        return constant_score(group)

    tfprune.prune(
        branched, pictures, remove=0.5, select=watching, layers="all", refit=0,
        validation=pictures[:20],
    )  # fmt: skip
    (group,) = received
    assert isinstance(group, tfprune.UnitGroup)
    assert (group.layers, group.units) == (("one", "other"), 6)
    kernel = branched.get_layer("one").get_weights()[0]
    np.testing.assert_allclose(group.producers[0].kernel, kernel.reshape(18, 6))
    # Of a transposed convolution the filters are the last axis but one.
    across = np.moveaxis(branched.get_layer("other").get_weights()[0], 2, 3).reshape(54, 6)
    np.testing.assert_allclose(group.producers[1].kernel, across)
    (out,) = [consumer for consumer in group.consumers if consumer.layer == "out"]
    np.testing.assert_allclose(out.kernel, branched.get_layer("out").get_weights()[0])
    pooled = keras.Model(branched.input, branched.get_layer("out").input)
    (seen,) = outputs(pooled, pictures)
    assert out.count == 60
    np.testing.assert_allclose(out.mean, seen.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(out.covariance, np.cov(seen.T, bias=True), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(out.gram, seen.T.astype(float) @ seen, rtol=1e-4)
    np.testing.assert_allclose(out.second_moments, out.gram / 60)
    (other,) = [consumer for consumer in group.consumers if consumer.layer == "other"]
    assert (other.count, other.kernel.shape) == (60 * 64, (6, 54))
    assert group.angles.shape == (6, 6)
    assert not group.constant.any()


def test_a_group_is_the_criterions_own_to_change(rng, x):
    model = chain(rng, units=12)

    def spoiling(group):
        for array in (group.angles, group.constant, group.producers[0].units):
            array[:] = 0
        for consumer in group.consumers:
            consumer.covariance[:] = consumer.mean[:] = consumer.units[:] = 0
        return np.arange(group.units)

    pruner = tfprune.Pruner(model, x)
    before = pruner.prune(remove=0.5, refit=0)
    pruner.prune(remove=0.5, select=spoiling, refit=0)
    assert kept(pruner.prune(remove=0.5, refit=0)) == kept(before)


def resized(scores, group):
    return np.resize(scores, group.units)


class Louder:
    def __call__(self, group):
        return group.consumers[0].mean


@pytest.mark.parametrize(
    ("criterion", "name"),
    [
        (constant_score, "constant_score"),
        (Louder(), "Louder"),
        (functools.partial(resized, [1, 2]), "resized"),
        (lambda group: list(range(group.units)), "<lambda>"),
    ],
)
def test_the_result_names_the_criterion(criterion, name, rng, x):
    result = tfprune.Pruner(chain(rng, units=12), x).prune(remove=0.25, select=criterion, refit=0)
    assert result.select == name
    assert f"of least score by {name}" in str(result)


@pytest.mark.parametrize(
    ("scores", "complaint"),
    [
        (lambda group: np.ones((group.units, 1)), r"shape \(\d+,\), received shape \(\d+, 1\)"),
        (lambda group: [1.0], r"units of \w+, shape \(\d+,\), received shape \(1,\)"),
        (lambda group: 1.0, r"received shape \(\)"),
        (lambda group: None, "expected a number for each of the .* received NoneType"),
        (lambda group: ["a"] * group.units, "expected a number .* received list"),
        (lambda group: [[1], [1, 2]], "expected a number .* received list"),
        (lambda group: 1j * np.ones(group.units), "expected a number .* received ndarray"),
        (lambda group: [*range(group.units - 1), np.nan], r"finite score .* received nan for unit"),
        (lambda group: [-np.inf, *range(group.units - 1)], "received -inf for unit 0"),
    ],
)
def test_scores_that_are_none_are_refused(scores, complaint, rng, x):
    with pytest.raises(TfpruneError, match=f"^select <lambda>: .*{complaint}") as told:
        tfprune.prune(chain(rng, units=12), x, remove=0.5, select=scores)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("asked", "other"),
    [
        ({}, "threshold"),
        ({"threshold": 20}, "threshold"),
        ({"target_params": "50%"}, "target_params"),
        ({"target_bytes": 4000}, "target_bytes"),
    ],
)
def test_without_a_share_it_is_refused(asked, other, rng, x):
    complaint = (
        "select constant_score: a criterion of your own needs a share to remove, such as "
        f"remove=0.5, in place of {other}"
    )
    with pytest.raises(TfpruneError, match=f"^{re.escape(complaint)}$"):
        tfprune.prune(chain(rng), x, select=constant_score, **asked)


def test_what_a_criterion_raises_is_the_users_to_see(rng, x):
    with pytest.raises(ZeroDivisionError):
        tfprune.prune(chain(rng), x, remove=0.5, select=lambda group: 1 / 0)


def test_what_is_no_criterion_is_told(rng, x):
    with pytest.raises(TfpruneError, match="select: expected one of effect, .* received 3"):
        tfprune.prune(chain(rng), x, remove=0.5, select=3)


def test_the_documented_criterion_runs(rng, x):
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = text.split("## A criterion of your own")[1].split("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    model = chain(rng, units=12)
    names = {"model": model, "x": x}
    exec(block, names)
    # What the last layer receives of each unit, sample by sample.
    hidden, out = model.get_layer("hidden"), model.get_layer("out")
    (seen,) = outputs(keras.Model(model.inputs[0], hidden.output), x)
    reads = out.get_weights()[0].astype(float)
    energy = [np.sum(np.square(np.outer(seen[:, unit], reads[unit]))) for unit in range(12)]
    kept_units = names["result"].layers[0].kept
    assert set(range(12)) - set(kept_units) == set(np.argsort(energy)[:6])
    assert names["result"].select == "energy"
