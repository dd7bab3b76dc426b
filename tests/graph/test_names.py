"""Names of layers with which TensorFlow cannot run a model: told by name, before any work."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.commands import run
from tfprune.graph.names import check_names

NAMES = [
    "plain",
    "a.b",
    "a-b",
    "_a",
    "-a",
    "a>b",
    "a\\b",
    "a$",
    "<a",
    "a b",
    "ä",
    "a:0",
    "a%",
    "a\n",
]


@pytest.fixture(autouse=True)
def scopes_closed():
    """A scope that TensorFlow refuses stays open in Keras, in front of every later name."""
    yield
    keras.utils.clear_session()


def named(layer="hidden", model="net", flat="flat", data="data"):
    return keras.Sequential(
        [keras.Input((8,), name=data), kl.Dense(6, "relu", name=layer), kl.Flatten(name=flat),
         kl.Dense(3, name="out")],
        name=model,
    )  # fmt: skip


def nested(model, layer):
    data = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), kl.Dense(6, name=layer)], name=model)
    return keras.Model(data, kl.Dense(2, name="out")(inner(data)), name="net")


def runs(model):
    """Whether TensorFlow runs a model: Keras' own word."""
    try:
        model.predict(np.zeros((2, 8)), verbose=0)
    except Exception:  # TensorFlow fails in several ways.
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["layer", "model", "flat", "data", "nested", "in nested"])
def test_exactly_what_tensorflow_refuses_is_refused(name, where):
    if where == "nested":
        model = nested(name, "hidden")
    elif where == "in nested":
        model = nested("inner", name)
    else:
        model = named(**{where: name})
    if runs(model):
        check_names(model)
        return
    with pytest.raises(tfprune.TfpruneError, match="TensorFlow runs no (layer|model)") as caught:
        check_names(model)
    assert repr(name) in str(caught.value)


def test_prune_and_inspect_name_the_layer(rng):
    x = rng.normal(size=(60, 8)).astype("float32")
    for call in (tfprune.prune, tfprune.inspect):
        with pytest.raises(tfprune.TfpruneError, match=r"^layer 'a\$': TensorFlow runs no layer"):
            call(named(layer="a$"), x)
    # What computes nothing takes any name.
    assert [one.name for one in tfprune.inspect(named(layer="a$")).layers][:1] == ["a$"]


def test_the_command_says_it_in_a_line(rng, tmp_path, capfd):
    named(layer="a b").save(tmp_path / "own.keras")
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(60, 8)).astype("float32"))
    argv = ["--model", tmp_path / "own.keras", "--data", tmp_path / "own.npz"]
    code, out, err = run([*argv, "--output", tmp_path / "out"], capfd)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "layer 'a b': TensorFlow runs no layer of that name; build the model with" in err
    assert not (tmp_path / "out").exists()
