"""Configurations with other values in places: a file is read, or refused in one line."""

from __future__ import annotations

import copy
import random
import shutil
import warnings

import keras
import pytest
from keras import layers as kl

from tests.support.keras2_files import L, save, tf_keras
from tests.support.planted import edited, obj
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("same_process"),
]
VALUES = [
    None, True, 0, -1, 3, 2**40, 1e308, float("nan"), "", "relu", "x", "/etc/passwd",
    "hard_sigmoid", [], [[]], {}, {"a": 1}, ["a", 0, 0], ["a", 0, 0, {}], obj("Dense"),
    obj("Lambda"), {"class_name": "__tuple__", "items": [1]}, obj("__keras_tensor__"),
    obj("__numpy__", value=[1, [2]]),
]  # fmt: skip
KEYS = ["name", "axis", "dtype", "activation", "class_name", "x", "vocabulary", "layers", "module"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each kind: both archives, of Keras 3 and of Keras 2."""
    folder = tmp_path_factory.mktemp("mutants")
    x = keras.Input((6, 6, 2))
    y = kl.BatchNormalization()(kl.Conv2D(3, 3, activation="relu")(x))
    inner = keras.Sequential([keras.Input((3, 4, 3)), kl.Flatten(), kl.Dense(4)])
    model = keras.Model(x, kl.Dense(2)(inner(keras.ops.relu(y + 1.0)[:, 1:])))
    model.compile("adam", "mse", metrics=["mae"])
    x = L.Input((6, 6, 2))
    y = L.TimeDistributed(L.Dense(2))(L.DepthwiseConv2D(3)(L.Conv2D(3, 3)(x) * 2.0))
    last = tf_keras.Sequential([L.Dense(3, input_shape=(2,))])
    other = tf_keras.Model(x, last(L.Dense(2)(L.Flatten()(y[:, 1:]))))
    other.compile("adam", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "new.keras")
        model.save(folder / "new.h5")
        other.save(folder / "old.keras")
        save(other, folder / "old.h5")
    for path in folder.iterdir():
        load_model(path, compiled=True)
    return sorted(folder.iterdir())


def places(value, path=()):
    """The paths to all values within a value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def mutant(config, rng):
    """A configuration with something missing, doubled, moved or replaced."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        *path, last = rng.choice([place for place in places(config) if place])
        around = config
        for key in path:
            around = around[key]
        choice = rng.random()
        if choice < 0.2:
            del around[last]
        elif choice < 0.3 and isinstance(around, dict):
            around[rng.choice(KEYS)] = copy.deepcopy(rng.choice(VALUES))
        elif choice < 0.4 and isinstance(around, list):
            around.append(copy.deepcopy(around[last]))
        elif choice < 0.5:
            moved = config
            for key in rng.choice(list(places(config))):
                moved = moved[key]
            around[last] = copy.deepcopy(moved)
        else:
            around[last] = copy.deepcopy(rng.choice(VALUES))


def tried(files, folder, seed):
    """Whether one mutant was read."""
    rng = random.Random(seed)
    source = rng.choice(files)
    path = folder / f"m{source.suffix}"
    shutil.copy(source, path)
    edited(path, lambda config: mutant(config, rng))
    try:
        load_model(path, compiled=rng.random() < 0.3)
    except TfpruneError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 3000
        return False
    return True


def test_a_mutant_is_read_or_refused(files, tmp_path):
    results = [tried(files, tmp_path, seed) for seed in range(120)]
    # Both happen, or the mutants are too wild or too tame to try anything.
    assert 5 < sum(results) < 115


@pytest.mark.slow
def test_many_mutants_are_read_or_refused(files, tmp_path):
    start = random.SystemRandom().randrange(2**32)
    for seed in range(start, start + 3000):
        try:
            tried(files, tmp_path, seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
