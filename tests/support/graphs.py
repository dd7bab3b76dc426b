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
    "permute", "concatenate", "add", "multiply", "pool", "pad", "crop", "upsample", "depthwise",
    "separable", "transposed", "again", "scale", "global", "gru", "lstm", "rnn", "attention",
    "plus", "scalars",
]  # fmt: skip
# Operations on tensors, and channels in groups.
TENSOR_KINDS = ["slice", "gate", "stack", "grouped", "normalised groups", "shuffle"]
# Layers with units are what this is about, so they come more often, mostly one after another.
OFTEN = [*["dense"] * 5, *["conv"] * 9, *["residual"] * 6, *["again"] * 3, *["nested"] * 3, *KINDS]
steps = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(OFTEN),
        "source": st.sampled_from([1, 1, 1, 1, 2, 3]),
        "units": st.integers(2, 4),
        "activation": st.sampled_from(ACTIVATIONS),
        "use_bias": st.booleans(),
        "padding": st.sampled_from(["same", "same", "valid"]),
    }
)
recipes = st.fixed_dictionaries(
    {
        "shape": st.sampled_from([(5,), (8, 3), (8, 8, 2), (8, 8, 2)]),
        "steps": st.lists(steps, min_size=3, max_size=9),
        "outputs": st.lists(steps, min_size=1, max_size=2),
        "seed": st.integers(0, 2**32 - 1),
    }
)
tensor_recipes = st.fixed_dictionaries(
    {
        "shape": st.just((8, 8, 2)) | st.just((8, 3)),
        "steps": st.lists(
            st.tuples(steps, st.sampled_from([*TENSOR_KINDS, "dense", "conv", None])).map(
                lambda pair: pair[0] if pair[1] is None else pair[0] | {"kind": pair[1]}
            ),
            min_size=4,
            max_size=10,
        ),
        "outputs": st.lists(steps, min_size=1, max_size=2),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def build(recipe: dict, nesting: bool = True) -> keras.Model:
    """A Functional model of a recipe: branches, residuals, shared layers, one or two outputs.

    Without nesting the layers of its nested models stand outside, under their own names.
    """
    keras.backend.clear_session()
    tensors = [keras.Input(recipe["shape"], name="data")]
    layers: list = []
    for step in recipe["steps"]:
        x = tensors[-min(step["source"], len(tensors))]
        if step["kind"] == "nested":
            tensors.append(_nested(step, x, layers, nesting))
        else:
            tensors.append(_step(step, x, tensors, layers))
    made = []
    for number, step in enumerate(recipe["outputs"]):
        flat = kl.Flatten(name=f"flat{number}")(tensors[-min(step["source"], len(tensors))])
        out = kl.Dense(step["units"], use_bias=step["use_bias"], name=f"out{number}")
        made.append(out(flat))
    return fill(keras.Model(tensors[0], made), np.random.default_rng(recipe["seed"]))


def _nested(step: dict, x, layers: list, nesting: bool):
    """Layers that stand in a model of their own, which is called again later, or outside."""
    units, number = step["units"], len(layers)
    activation = step["activation"]
    first = kl.Dense(units, use_bias=step["use_bias"], name=f"first{number}")
    middle = [kl.BatchNormalization, kl.ReLU, kl.Dropout][units % 3](
        name=f"middle{number}", **({"rate": 0.3} if units % 3 == 2 else {})
    )
    last = kl.Dense(x.shape[-1], activation=activation, name=f"last{number}")
    if not nesting:

        def whole(tensor):
            return last(middle(first(tensor)))

        made = whole(x)
        whole.input = x
    elif units % 2:
        whole = keras.Sequential([first, middle, last], name=f"nested{number}")
        made = whole(x)
    else:
        data = keras.Input(x.shape[1:], name=f"inside{number}")
        deep = keras.Sequential([keras.Input(x.shape[1:]), first, middle], name=f"deep{number}")
        whole = keras.Model(data, last(deep(data)), name=f"nested{number}")
        made = whole(x)
    layers.append(whole)
    return made


def _step(step: dict, x, tensors: list, layers: list):  # noqa: PLR0911, PLR0912
    """One more tensor; what does not fit x's shape leaves it as it is."""
    kind, rank = step["kind"], len(x.shape) - 2
    if kind in TENSOR_KINDS:
        return _tensor_step(step, x, tensors)
    size = min(x.shape[1:-1], default=0)
    units, padding = step["units"], step["padding"]
    options = {"activation": step["activation"], "use_bias": step["use_bias"]}
    plain = {
        "dense": lambda: kl.Dense(units, **options),
        "normalise": kl.BatchNormalization,
        "dropout": lambda: kl.Dropout(0.4, seed=1),
        "relu": kl.ReLU,
        "leaky": kl.LeakyReLU,
        "prelu": kl.PReLU,
        "tanh": lambda: kl.Activation("tanh"),
        "softmax": kl.Softmax,
        "flatten": kl.Flatten,
        "scale": lambda: kl.Rescaling(0.5, 0.1),
        "reshape": lambda: kl.Reshape((-1, x.shape[-1])),
    }
    if kind in plain:
        return plain[kind]()(x)
    if kind == "scalars":
        return keras.ops.relu(0.5 * x + 0.3) - x / 4
    if kind == "plus":
        fitting = [t for t in tensors if t.shape[1:] == x.shape[1:] and t is not x]
        return x + fitting[-1] if fitting else x
    if kind in ("concatenate", "add", "multiply"):
        rule = {"concatenate": kl.Concatenate, "add": kl.Add, "multiply": kl.Multiply}[kind]
        alike = slice(1, -1) if kind == "concatenate" else slice(1, None)
        fitting = [t for t in tensors if t.shape[alike] == x.shape[alike] and t is not x]
        return rule()([x, fitting[-1]]) if fitting else x
    if kind == "again":
        fitting = [layer for layer in layers if layer.input.shape[1:] == x.shape[1:]]
        return fitting[0](x) if fitting else x
    if rank == 1 and kind in ("gru", "lstm", "rnn"):
        kind_of = {"gru": kl.GRU, "lstm": kl.LSTM, "rnn": kl.SimpleRNN}[kind]
        more = {"reset_after": padding == "same"} if kind == "gru" else {}
        bias = step["use_bias"]
        return kind_of(units, use_bias=bias, return_sequences=units % 2 == 0, **more)(x)
    if rank == 1 and kind == "attention":
        fitting = [t for t in tensors if len(t.shape) == 3]
        other, bias = fitting[units % len(fitting)], step["use_bias"]
        return kl.MultiHeadAttention(2, units, use_bias=bias)(x, other, x if units > 2 else other)
    if rank not in (1, 2) or size < 3 or kind in ("gru", "lstm", "rnn", "attention"):
        return x
    if kind == "permute":
        return kl.Permute((2, 1, *range(3, len(x.shape))))(x)
    if kind == "residual":
        if x is tensors[0]:
            x = [kl.Conv1D, kl.Conv2D][rank - 1](units, 1, **options)(x)
        inner = [kl.Conv1D, kl.Conv2D][rank - 1](x.shape[-1], 3, padding="same", **options)
        layers.append(inner)
        return kl.Add()([x, inner(x)])
    spatial = {
        "conv": lambda: [kl.Conv1D, kl.Conv2D][rank - 1](units, 3, padding=padding, **options),
        "transposed": lambda: [kl.Conv1DTranspose, kl.Conv2DTranspose][rank - 1](
            units, 2, padding=padding, **options
        ),
        "separable": lambda: [kl.SeparableConv1D, kl.SeparableConv2D][rank - 1](
            units, 2, padding=padding, depth_multiplier=1 + units % 2, **options
        ),
        "depthwise": lambda: [kl.DepthwiseConv1D, kl.DepthwiseConv2D][rank - 1](
            2, padding=padding, depth_multiplier=1 + units % 2, **options
        ),
        "pool": lambda: [
            [kl.MaxPooling1D, kl.MaxPooling2D], [kl.AveragePooling1D, kl.AveragePooling2D]
        ][units % 2][rank - 1](2, strides=1),
        "pad": lambda: [kl.ZeroPadding1D, kl.ZeroPadding2D][rank - 1](1),
        "crop": lambda: [kl.Cropping1D, kl.Cropping2D][rank - 1](1 if size > 4 else 0),
        "upsample": lambda: [kl.UpSampling1D, kl.UpSampling2D][rank - 1](2 if size < 5 else 1),
        "global": lambda: [
            [kl.GlobalMaxPooling1D, kl.GlobalMaxPooling2D],
            [kl.GlobalAveragePooling1D, kl.GlobalAveragePooling2D],
        ][units % 2][rank - 1](),
    }  # fmt: skip
    layer = spatial[kind]()
    made = layer(x)
    if kind == "conv":
        layers.append(layer)
    return made


def _tensor_step(step: dict, x, tensors: list):  # noqa: PLR0911
    """An operation on x, or channels in groups; what does not fit x's shape leaves it as it is."""
    kind, channels, pictures = step["kind"], x.shape[-1], len(x.shape) == 4
    alike = [t for t in tensors if t.shape[1:] == x.shape[1:] and t is not x]
    fits = {
        "slice": channels > 2,
        "gate": channels % 2 == 0,
        "stack": bool(alike),
        "grouped": pictures and channels % 2 == 0 and x.shape[1] > 2,
        "normalised groups": pictures and channels % 2 == 0,
        "shuffle": pictures and channels % 4 == 0 and x.shape[1] < 9,
    }
    if not fits[kind]:
        return x
    if kind == "slice":
        return x[..., 1:]
    if kind == "gate":
        first, second = keras.ops.split(x, 2, axis=-1)
        return first * keras.ops.sigmoid(second)
    if kind == "stack":
        return keras.ops.mean(keras.ops.stack([x, alike[-1]], axis=1), axis=1)
    if kind == "shuffle":
        return keras.ops.depth_to_space(x, 2)
    if kind == "normalised groups":
        return kl.GroupNormalization(2)(x)
    more = {"activation": step["activation"], "use_bias": step["use_bias"]}
    return kl.Conv2D(2 * step["units"], 2, padding=step["padding"], groups=2, **more)(x)


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


def chain(rng, *middle, activation="relu", units=12):
    model = keras.Sequential(
        [
            keras.Input((6,), name="data"),
            kl.Dense(units, activation=activation, name="hidden"),
            *middle,
            kl.Dense(3, name="out"),
        ],
        name="chain",
    )
    return positive(fill(model, rng))


def positive(model):
    """With a negative gamma a planted copy would be a complement, rightly."""
    for layer in model.layers:
        if isinstance(layer, kl.BatchNormalization):
            gamma, *rest = layer.get_weights()
            layer.set_weights([np.abs(gamma), *rest])
    return model


def largest_change(model, result, x):
    pairs = zip(outputs(model, x), outputs(result.model, x), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def several(rng):
    """Two inputs; a softmax behind its own layer, a nested sigmoid, and values."""
    one, two = keras.Input((6,), name="one"), keras.Input((5,), name="two")
    x = kl.Concatenate()([one, kl.Dense(6, activation="tanh", name="left")(two)])
    x = kl.Dense(24, activation="relu", name="hidden")(x)
    x = kl.Dropout(0.5)(kl.BatchNormalization(name="norm")(x))
    classes = kl.Softmax(name="classes")(kl.Dense(4, name="scores")(x))
    nested = keras.Sequential([keras.Input((24,)), kl.Dense(2, activation="sigmoid")], name="yes")
    values = kl.Dense(3, name="values")(x)
    outputs = {"classes": classes, "yes": nested(x), "values": values}
    return fill(keras.Model({"one": one, "two": two}, outputs), rng)


def error(model, teacher, x):
    """Mean squared difference of all outputs, by what Keras computes."""
    ours, theirs = (
        [np.asarray(out, float) for out in keras.tree.flatten(m.predict(x, verbose=0))]
        for m in (model, teacher)
    )
    return [float(np.mean((a - b) ** 2)) for a, b in zip(ours, theirs, strict=True)]
