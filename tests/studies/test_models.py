"""What a study's models and its pruning are made of."""

from __future__ import annotations

import base64
import json

import keras
import numpy as np
import pytest

from tfprune.data.splits import Split
from tfprune.pruning import prune
from tfprune.studies import networks, study
from tfprune.studies.bench import Bench, Data
from tfprune.studies.cutting import file_of, zeroed
from tfprune.studies.record import pack, unpack


def random_data(rng, count=240):
    parts = [
        Split(rng.random((count, 28, 28, 1)).astype(np.float32), np.arange(count) % 10)
        for _ in range(2)
    ]
    return Data("random", "digest", False, *parts)


def test_the_zeroed_network_computes_what_the_shrunken_one_does_and_stays_as_large(rng):
    made = study.load("fanyu")
    for name, centre in (("cnn", "auto"), ("autoencoder", 0.5)):
        model = networks.build(made.models[name])
        x = rng.random((300, 28, 28, 1)).astype(np.float32)
        result = prune(model, x, 40, centre=centre, fold="incoming")
        (layer,) = result.layers
        assert 0 < layer.units_after < layer.units_before
        zeros = zeroed(model, result)
        small = result.model.predict(x, verbose=0)
        np.testing.assert_allclose(zeros.predict(x, verbose=0), small, atol=1e-5)
        hidden = zeros.get_layer("hidden").kernel.numpy()
        assert (np.abs(hidden).sum(axis=0) > 0).sum() == layer.units_after
        if name == "cnn":
            sizes = [file_of(one, x[:100])[0] for one in (model, zeros, result.model)]
            assert sizes[1] == pytest.approx(sizes[0], rel=0.01)
            gone = layer.units_before - layer.units_after
            # At least the bytes of the kernels of the units that went, 320 inputs and 10 outputs.
            assert sizes[0] - sizes[2] > 330 * gone


@pytest.mark.parametrize("loss", ["log-softmax", "cross-entropy", "mse", "binary"])
def test_losses_are_keras_own(loss, rng):
    spec = {"loss": loss, "optimizer": {"type": "SGD"}, "batch": 8, "layers": [{"type": "Flatten"}]}
    last = {"log-softmax": "linear", "binary": "sigmoid"}.get(loss, "softmax")
    spec["layers"].append({"type": "Dense", "units": 10, "activation": last})
    model = networks.build(spec)
    networks.compile_for(model, spec, 32)
    x, y = rng.random((32, 28, 28, 1)).astype(np.float32), np.arange(32) % 10
    wanted = networks.target(spec, x, y)
    told = model.evaluate(x, wanted, batch_size=32, verbose=0)[0]
    assert networks.loss_of(spec, model.predict(x, verbose=0), wanted) == pytest.approx(told, 1e-4)


@pytest.mark.trains
def test_descent_on_all_samples_is_one_step_an_epoch(rng):
    spec = {
        "loss": "cross-entropy", "optimizer": {"type": "SGD", "learning_rate": 0.5}, "batch": 40,
        "layers": [{"type": "Flatten"}, {"type": "Dense", "units": 10, "activation": "softmax"}],
    }  # fmt: skip
    x, y = rng.random((40, 28, 28, 1)).astype(np.float32), np.arange(40) % 10
    ends = []
    for change in ({}, {"batch": "all", "part": 10}):
        keras.utils.set_random_seed(3)
        model = networks.build(spec)
        batch = networks.compile_for(model, {**spec, **change}, 40)
        model.fit(x, y, batch_size=batch, epochs=3, verbose=0)
        ends.append(model.get_weights()[0])
    assert batch == 10
    np.testing.assert_allclose(*ends, atol=1e-5)


def test_a_tied_layer_shares_its_kernel_and_can_be_untied(rng):
    spec = study.load("fanyu").models["tied"]
    model = networks.build(spec)
    # One kernel and two biases: 784 * 400 + 400 + 784.
    assert model.count_params() == 314_784
    x = rng.random((5, 28, 28, 1)).astype(np.float32)
    plain = networks.untied(model, spec)
    assert plain.count_params() == 2 * 784 * 400 + 400 + 784
    np.testing.assert_allclose(plain.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.trains
def test_early_stopping_holds_samples_back_and_a_model_is_trained_once(rng):
    made = study.load("mchunu", quick=True)
    made.models["stopping"]["epochs"] = 30
    one = next(one for one in made.experiments if one.id == "stopping")
    done = []
    bench = Bench(made, random_data(rng), 0, 0, lambda: done.append(1))
    trained = bench.trained("stopping", one)
    # Noise cannot be learnt, so it stops; its test images are not what stops it.
    assert len(trained.history) == len(done) < 30
    assert {"held_loss", "loss"} <= set(trained.history[0])
    assert "test_loss" not in trained.history[0]
    assert bench.trained("stopping", one) is trained


def test_pictures_come_back_as_they_went(rng):
    image = np.round(255 * rng.random((2, 3, 4))) / 255
    packed = pack(image)
    assert len(base64.b64decode(packed["data"])) == 24
    np.testing.assert_allclose(unpack(json.loads(json.dumps(packed))), image)
