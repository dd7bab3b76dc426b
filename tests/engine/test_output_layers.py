"""Layers that make probabilities, fitted to the original's."""

import keras
import numpy as np
import pytest
from scipy import special

from tfprune.graph.tracer import trace
from tfprune.reconstruction.output_layers import (
    Divergence,
    fit_output_layer,
    output_layers,
    probabilities,
)
from tfprune.reconstruction.sites import Wiring

HELD = np.arange(600) % 7 == 6


def features(seed=0):
    return np.random.default_rng(seed).normal(size=(600, 5)).astype("float32")


def classifier(kind, last=None):
    """Two layers, of which the first hands its input on."""
    activation = {"softmax": "softmax", "sigmoid": "sigmoid", "logits": None}[kind]
    hidden = keras.layers.Dense(5, name="hidden")
    layers = [hidden, keras.layers.Dense(3, None if last else activation, name="out")]
    model = keras.Sequential([keras.Input((5,)), *layers, *([last] if last else [])])
    hidden.set_weights([np.eye(5), np.zeros(5)])
    return model


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "logits"])
def test_a_layer_learns_the_probabilities_that_a_known_one_makes(kind):
    rng = np.random.default_rng(1)
    model, x = classifier(kind), features()
    kernel, bias = rng.normal(size=(5, 3)), rng.normal(size=3)
    goal = x @ kernel + bias
    answers = special.expit(goal) if kind == "sigmoid" else special.softmax(goal, axis=-1)
    wiring = Wiring(trace(model))
    (output,) = output_layers(wiring, [kind])
    given = goal if kind == "logits" else answers
    assert fit_output_layer(output, wiring.trace.model.inputs, [x], given, HELD)
    made = np.asarray(wiring.trace.model(x), np.float64)
    made = special.softmax(made, axis=-1) if kind == "logits" else made
    assert np.abs(made - answers).max() < 0.05


@pytest.mark.parametrize("last", [keras.layers.Activation("softmax"), keras.layers.Softmax()])
def test_the_layer_in_front_of_a_softmax_is_found(last):
    (output,) = output_layers(Wiring(trace(classifier("softmax", last))), ["softmax"])
    assert output.layer.name == "out" and output.place == 0


def test_a_layer_that_is_right_already_stays():
    model, x = classifier("softmax"), features()
    wiring = Wiring(trace(model))
    (output,) = output_layers(wiring, ["softmax"])
    before = output.layer.get_weights()
    goal = np.asarray(wiring.trace.model(x))
    assert not fit_output_layer(output, wiring.trace.model.inputs, [x], goal, HELD)
    assert all(map(np.array_equal, before, output.layer.get_weights()))


def test_values_have_no_probabilities():
    assert not output_layers(Wiring(trace(classifier("logits"))), ["values"])


@pytest.mark.parametrize("sigmoid", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_the_least_divergence_is_least(sigmoid, with_bias):
    rng = np.random.default_rng(2)
    x = features() * [1, 10, 0.1, 1, 0] + 3
    raw = rng.normal(size=(600, 3))
    targets = special.expit(raw) if sigmoid else special.softmax(raw, axis=-1)
    kernel, bias = rng.normal(size=(5, 3)) / 5, rng.normal(size=3) if with_bias else None
    penalty, spread = 0.1, x.std(axis=0)

    def objective(new, constant):
        """By its definition."""
        logits = x @ new + (0 if constant is None else constant)
        if sigmoid:
            chances = special.expit(logits)
            entropy = -(targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).sum(axis=1)
        else:
            entropy = -(targets * special.log_softmax(logits, axis=1)).sum(axis=1)
        return entropy.mean() + penalty / 2 * np.sum(((new - kernel) * spread[:, None]) ** 2)

    problem = Divergence(x, targets, kernel, bias, sigmoid)
    best = problem.least(penalty)
    least = objective(*best)
    assert least < objective(kernel, bias)
    for _ in range(20):
        step = 0.01 * rng.normal(size=(5, 3)) / np.maximum(spread, 0.1)[:, None]
        other = None if best[1] is None else best[1] + 0.01 * rng.normal(size=3)
        assert objective(best[0] + step, other) > least


def test_probabilities_of_logits_are_those_of_a_softmax():
    goal = np.array([[1.0, 2.0, 3.0]])
    by_hand = np.exp(goal) / np.exp(goal).sum()
    assert np.allclose(probabilities(goal, "logits"), by_hand)
    assert np.allclose(probabilities(by_hand * 2, "softmax"), by_hand)
