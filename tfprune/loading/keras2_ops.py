"""Rewrites TensorFlow functions in Keras 2 graphs as Keras 3 layers and operations.

Keras 2 wrote ``x + y`` or ``tf.nn.relu(x)`` as a layer TFOpLambda that names the function. A
function is never looked up here: those below have a counterpart, the others are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfprune.errors import TfpruneError
from tfprune.loading.keras2_forms import Adapted, Config, native
from tfprune.loading.keras2_nodes import call_of

NUMPY = "keras.src.ops.numpy"
KINDS = ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer")

# Two tensors become a layer, a tensor and a number an operation or a Rescaling.
ARITHMETIC = {
    "add": ("Add", "Add"),
    "subtract": ("Subtract", "Subtract"),
    "multiply": ("Multiply", "Multiply"),
    "maximum": ("Maximum", "Maximum"),
    "minimum": ("Minimum", "Minimum"),
    "divide": (None, "TrueDivide"),
    "pow": (None, "Power"),
}
SAME = {
    "add_v2": "add", "addv2": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide",
    "realdiv": "divide", "concatv2": "concat", "swish": "silu", "mean": "reduce_mean",
    "sum": "reduce_sum", "max": "reduce_max", "min": "reduce_min", "neg": "negative",
    "expanddims": "expand_dims", "batchmatmulv2": "matmul", "stridedslice": "strided_slice",
}  # fmt: skip
ACTIVATIONS = ("relu", "relu6", "sigmoid", "tanh", "elu", "selu", "softplus", "softsign", "silu")
UNARY = {
    "abs": "Absolute", "exp": "Exp", "log": "Log", "negative": "Negative", "sign": "Sign",
    "sin": "Sin", "cos": "Cos", "sqrt": "Sqrt", "square": "Square", "floor": "Floor",
    "round": "Round", "identity": "Copy", "log1p": "Log1p",
}  # fmt: skip
REDUCTIONS = {
    "reduce_mean": "Mean", "reduce_sum": "Sum", "reduce_max": "Max", "reduce_min": "Min",
    "reduce_prod": "Prod",
}  # fmt: skip


def name_of(function: str) -> str:
    """The one name here of a function that TensorFlow has under several."""
    name = function.rpartition(".")[2].lower()
    return SAME.get(name, name)


class _Call:
    """One call of a function: its positional and keyword arguments, by TensorFlow's names."""

    def __init__(self, function: str, node: Config) -> None:
        self.function = function
        self.name = name_of(function)
        self.positional = list(node["args"])
        self.named = {key: value for key, value in node["kwargs"].items() if key != "name"}

    def take(self, *names: str, default: Any = None) -> Any:
        """The value of an argument under any of its names; it is then used up."""
        values = [self.named.pop(name) for name in names if name in self.named]
        return values[0] if values else default

    def done(self, **neutral: tuple[Any, ...]) -> None:
        """Refuses arguments that nobody took, but for those that change nothing."""
        for key, value in self.named.items():
            if value is not None and value not in neutral.get(key, ()):
                raise TfpruneError(f"tf.{self.function} with {key}={value!r}")


Built = tuple[Config, list[Any], Config]


def translated(
    entry: Config, name: str, calls: list[Config], result: Adapted
) -> list[Config] | None:
    """A function's layer as one of Keras 3 for each call; None for other layers.

    Parameters
    ----------
    entry : dict
        The layer as the file has it.
    name : str
    calls : list of dict
        Its calls, ``args`` and ``kwargs`` as Keras 3 has them.
    result : Adapted
        Is told what changed.

    Raises
    ------
    TfpruneError
        If the function or an argument has no counterpart.
    """
    if entry.get("class_name") not in KINDS:
        return None
    config = entry["config"]
    function = config.get("function")
    if entry["class_name"] == "TensorFlowOpLayer":
        function, calls = call_of(config, calls)
    if len(calls) != 1:
        raise TfpruneError(f"layer {name!r}: tf.{function} called {len(calls)} times")
    if not isinstance(function, str):
        raise TfpruneError(f"layer {name!r}: expected the name of a function, not {function!r}")
    try:
        layer, args, kwargs = _built(_Call(function, calls[0]))
    except TfpruneError as error:
        raise TfpruneError(
            f"layer {name!r}: {error} has no counterpart among Keras 3's layers; load the model in "
            "tf_keras, put a layer in its place and save it again"
        ) from None
    result.note(f"tf.{function}")
    layer["config"]["name"] = name
    return [{**layer, "name": name, "inbound_nodes": [{"args": args, "kwargs": kwargs}]}]


def _built(call: _Call) -> Built:
    if call.name in ARITHMETIC:
        return _arithmetic(call)
    if call.name in _BUILDERS:
        return _BUILDERS[call.name](call)
    x = _first(call)
    if call.name in ACTIVATIONS:
        call.done(beta=(1.0,))
        return _layer("Activation", activation=call.name), [x], {}
    if call.name in UNARY:
        call.done()
        return _operation(UNARY[call.name]), [x], {}
    if call.name in REDUCTIONS:
        axis, keep = call.take("axis", "reduction_indices"), call.take("keepdims", "keep_dims")
        call.done()
        return _operation(REDUCTIONS[call.name], axis=axis, keepdims=bool(keep)), [x], {}
    raise TfpruneError(f"tf.{call.function}")


def _first(call: _Call) -> Any:
    """The one tensor that a function is applied to."""
    if not call.positional:
        call.positional = [call.take("x", "input", "a", "features", "logits", "tensor", "value")]
    x, *others = call.positional
    if others or not _is_tensor(x):
        raise TfpruneError(f"tf.{call.function} of {len(call.positional)} arguments")
    return x


def _arithmetic(call: _Call) -> Built:
    values = [*call.positional]
    values += [call.named.pop(key) for key in ("x", "y", "b") if key in call.named]
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    call.done()
    if len(values) != 2:
        raise TfpruneError(f"tf.{call.function} of {len(values)} arguments")
    layer, operation = ARITHMETIC[call.name]
    x, y = values
    if layer and _is_tensor(x) and _is_tensor(y):
        return _layer(layer), [values], {}
    rescaling = _rescaling(call.name, x, y)
    if rescaling is not None:
        scale, offset, tensor = rescaling
        return _layer("Rescaling", scale=scale, offset=offset), [tensor], {}
    constants = [_constant(value) for value in values]
    return _operation(operation), constants, {}


def _rescaling(name: str, x: Any, y: Any) -> tuple[float, float, Any] | None:
    """``scale * tensor + offset`` for a tensor and a number."""
    tensor, number = (x, y) if _is_tensor(x) else (y, x)
    if isinstance(number, bool) or not isinstance(number, float):
        return None  # Whole numbers may go with tensors of these, which a Rescaling would change.
    if name == "add":
        return 1.0, number, tensor
    if name == "multiply":
        return number, 0.0, tensor
    if name == "subtract":
        return (1.0, -number, tensor) if tensor is x else (-1.0, number, tensor)
    if name == "divide" and tensor is x and number:
        return 1.0 / number, 0.0, tensor
    return None


def _constant(value: Any) -> Any:
    if isinstance(value, list):
        whole = all(isinstance(item, int) for item in value)
        config = {"value": value, "dtype": "int32" if whole else "float32"}
        return {"class_name": "__numpy__", "config": config}
    return value


def _concat(call: _Call) -> Built:
    values = call.positional or [call.take("values")]
    axis = call.take("axis", default=0)
    if len(values) == 1 and isinstance(values[0], list):
        values = values[0]
    call.done()
    if not all(map(_is_tensor, values)):
        raise TfpruneError(f"tf.{call.function} with a constant")
    return _layer("Concatenate", axis=axis), [values], {}


def _stack(call: _Call) -> Built:
    values = call.positional[0] if call.positional else call.take("values")
    axis = call.take("axis", default=0)
    call.done()
    return _operation("Stack", axis=axis), [values], {}


def _reshape(call: _Call) -> Built:
    shape = call.take("shape")
    if shape is None and len(call.positional) == 2:
        shape = call.positional.pop()
    x = _first(call)
    call.done()
    if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
        raise TfpruneError(f"tf.{call.function} to a computed shape")
    if shape and shape[0] == -1 and -1 not in shape[1:]:
        return _layer("Reshape", target_shape=shape[1:]), [x], {}
    return _operation("Reshape", newshape=shape), [x], {}


def _transpose(call: _Call) -> Built:
    axes = call.take("perm")
    x = _first(call)
    call.done(conjugate=(False,))
    if isinstance(axes, list) and axes and axes[0] == 0:
        return _layer("Permute", dims=axes[1:]), [x], {}
    return _operation("Transpose", axes=axes), [x], {}


def _axis(operation: str, *names: str) -> Callable[[_Call], Built]:
    def build(call: _Call) -> Built:
        axis = call.take(*names)
        x = _first(call)
        call.done()
        return _operation(operation, axis=axis), [x], {}

    return build


def _softmax(call: _Call) -> Built:
    axis = call.take("axis", "dim", default=-1)
    x = _first(call)
    call.done()
    return _layer("Softmax", axis=axis), [x], {}


def _leaky_relu(call: _Call) -> Built:
    slope = call.take("alpha", default=0.2)
    x = _first(call)
    call.done()
    return _layer("LeakyReLU", negative_slope=slope), [x], {}


def _gelu(call: _Call) -> Built:
    approximate = call.take("approximate", default=False)
    x = _first(call)
    call.done()
    operation = native("keras.src.ops.nn", "Gelu", {"approximate": approximate})
    return operation, [x], {}


def _l2_normalize(call: _Call) -> Built:
    axis = call.take("axis", "dim", default=None)
    x = _first(call)
    call.done(epsilon=(1e-12,))
    return _layer("UnitNormalization", axis=axis), [x], {}


def _clip(call: _Call) -> Built:
    low, high = call.take("clip_value_min"), call.take("clip_value_max")
    x = _first(call)
    call.done()
    return _operation("Clip", x_min=low, x_max=high), [x], {}


def _matmul(call: _Call) -> Built:
    values = [*call.positional, *(call.named.pop(key) for key in ("b",) if key in call.named)]
    call.done(**dict.fromkeys(
        ("transpose_a", "transpose_b", "adjoint_a", "adjoint_b", "a_is_sparse", "b_is_sparse",
         "grad_a", "grad_b"), (False,)))  # fmt: skip
    return _operation("Matmul"), [_constant(value) for value in values], {}


def _split(call: _Call) -> Built:
    sections, axis = call.take("num_or_size_splits"), call.take("axis", default=0)
    x = _first(call)
    call.done()
    if isinstance(sections, list):  # TensorFlow names sizes, Keras where to cut.
        ends = [sum(sections[: at + 1]) for at in range(len(sections) - 1)]
        return _operation("Split", indices_or_sections=ends, axis=axis), [x], {}
    return _operation("Split", indices_or_sections=sections, axis=axis), [x], {}


def _pad(call: _Call) -> Built:
    paddings = call.take("paddings")
    x = _first(call)
    call.done(mode=("CONSTANT",), constant_values=(0, 0.0))
    return _operation("Pad", pad_width=paddings), [x], {}


def _cast(call: _Call) -> Built:
    dtype = call.take("dtype", "DstT")
    x = _first(call)
    call.done()
    return native("keras.src.ops.core", "Cast", {"dtype": dtype}), [x], {}


def _resize(call: _Call) -> Built:
    size, method = call.take("size"), call.take("method", default="bilinear")
    x = _first(call)
    call.done(preserve_aspect_ratio=(False,), antialias=(False,))
    if not isinstance(size, list) or method not in ("bilinear", "nearest", "bicubic"):
        raise TfpruneError(f"tf.{call.function} to {size} by {method}")
    return _layer("Resizing", height=size[0], width=size[1], interpolation=method), [x], {}


def _space(operation: str) -> Callable[[_Call], Built]:
    def build(call: _Call) -> Built:
        size = call.take("block_size")
        x = _first(call)
        call.done(data_format=("NHWC",))
        return native("keras.src.ops.nn", operation, {"block_size": size}), [x], {}

    return build


def _getitem(call: _Call) -> Built:
    key = [_slice(part) for part in call.take("slice_spec", default=[])]
    x = _first(call)
    call.done()
    return _operation("GetItem"), [x, key], {}


def _slice(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    if part.get("class_name") == "__ellipsis__":
        return {"class_name": "__ellipsis__", "config": {}}
    config = {key: part.get(key) for key in ("start", "stop", "step")}
    if not all(value is None or isinstance(value, int) for value in config.values()):
        raise TfpruneError("x[...] with a computed index")
    return {"class_name": "__slice__", "config": config}


_BUILDERS: dict[str, Callable[[_Call], Built]] = {
    "cast": _cast,
    "clip_by_value": _clip,
    "concat": _concat,
    "depth_to_space": _space("DepthToSpace"),
    "expand_dims": _axis("ExpandDims", "axis", "dim"),
    "gelu": _gelu,
    "getitem": _getitem,
    "l2_normalize": _l2_normalize,
    "leaky_relu": _leaky_relu,
    "matmul": _matmul,
    "pad": _pad,
    "reshape": _reshape,
    "resize": _resize,
    "softmax": _softmax,
    "space_to_depth": _space("SpaceToDepth"),
    "split": _split,
    "squeeze": _axis("Squeeze", "axis", "squeeze_dims"),
    "stack": _stack,
    "transpose": _transpose,
}


def is_translated(function: Any) -> bool:
    """Whether the name of a TensorFlow function is one of those with a counterpart."""
    if not isinstance(function, str):
        return False
    name = name_of(function)
    return any(name in names for names in (ARITHMETIC, _BUILDERS, ACTIVATIONS, UNARY, REDUCTIONS))


def _layer(name: str, **config: Any) -> Config:
    return native("keras.layers", name, config)


def _operation(name: str, **config: Any) -> Config:
    return native(NUMPY, name, config)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"
