"""Random models out of all supported layers, and models with planted units."""

from __future__ import annotations

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers as kl

ACTIVATIONS = ["linear", "relu", "sigmoid", "tanh", "leaky_relu", "gelu"]


def fill(model: keras.Model, rng: np.random.Generator) -> keras.Model:
    """Gives a model random weights, variances positive."""
    for layer in model.layers:
        layer.set_weights(
            [
                np.abs(w) + 0.5 if "variance" in variable.name else w
                for variable, w in zip(
                    layer.weights,
                    [rng.normal(0, 0.5, variable.shape) for variable in layer.weights],
                    strict=True,
                )
            ]
        )
    return model


KINDS = [
    "normalise", "dropout", "relu", "leaky", "prelu", "tanh", "softmax", "flatten", "reshape",
    "permute", "concatenate",
]  # fmt: skip
# Dense is what this is about, so it comes more often.
steps = st.fixed_dictionaries(
    {
        "kind": st.sampled_from([*["dense"] * 6, *KINDS]),
        "source": st.integers(1, 3),
        "units": st.integers(2, 5),
        "activation": st.sampled_from(ACTIVATIONS),
        "use_bias": st.booleans(),
    }
)
recipes = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([(5,), (3, 4), (2, 2, 3)]),
        "steps": st.lists(steps, min_size=2, max_size=9),
        "outputs": st.lists(steps, min_size=1, max_size=2),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def build(recipe: dict) -> keras.Model:
    """A Functional model of a recipe: branches, several consumers, one or two outputs."""
    keras.backend.clear_session()
    tensors = [keras.Input(recipe["shape"], name="data")]
    for step in recipe["steps"]:
        x = tensors[-min(step["source"], len(tensors))]
        tensors.append(_step(step, x, tensors))
    outputs = []
    for number, step in enumerate(recipe["outputs"]):
        flat = kl.Flatten(name=f"flat{number}")(tensors[-min(step["source"], len(tensors))])
        out = kl.Dense(step["units"], use_bias=step["use_bias"], name=f"out{number}")
        outputs.append(out(flat))
    return fill(keras.Model(tensors[0], outputs), np.random.default_rng(recipe["seed"]))


def _step(step: dict, x, tensors: list):
    if step["kind"] == "dense":
        layer = kl.Dense(step["units"], step["activation"], use_bias=step["use_bias"])
    elif step["kind"] == "reshape":
        layer = kl.Reshape((-1, x.shape[-1]))
    elif step["kind"] == "permute":
        if len(x.shape) < 3:
            return x
        layer = kl.Permute((2, 1, *range(3, len(x.shape))))
    elif step["kind"] == "concatenate":
        fitting = [t for t in tensors if t.shape[1:-1] == x.shape[1:-1]]
        return kl.Concatenate()([x, fitting[-1]])
    else:
        layer = {
            "normalise": kl.BatchNormalization,
            "dropout": lambda: kl.Dropout(0.4, seed=1),
            "relu": kl.ReLU,
            "leaky": kl.LeakyReLU,
            "prelu": kl.PReLU,
            "tanh": lambda: kl.Activation("tanh"),
            "softmax": kl.Softmax,
            "flatten": kl.Flatten,
        }[step["kind"]]()
    return layer(x)


def outputs(model: keras.Model, x: np.ndarray) -> list[np.ndarray]:
    """A model's outputs as a list."""
    return [np.asarray(out) for out in keras.tree.flatten(model(x, training=False))]


def plant(model: keras.Model, name: str, source: int, target: int, scale: float = 1.0) -> None:
    """Makes a Dense unit a multiple of another one, before the activation."""
    layer = model.get_layer(name)
    kernel, bias = layer.get_weights()
    kernel[:, target], bias[target] = scale * kernel[:, source], scale * bias[source]
    layer.set_weights([kernel, bias])


def plant_constant(model: keras.Model, name: str, target: int, bias: float) -> None:
    """Makes a Dense unit ignore its inputs."""
    layer = model.get_layer(name)
    kernel, biases = layer.get_weights()
    kernel[:, target], biases[target] = 0, bias
    layer.set_weights([kernel, biases])
