"""Rules of what moves, picks, lays together or reduces values: layers, and Keras' operations.

What only moves values is run on the labels themselves. Where its settings count features, or say
which, they change with the units: :mod:`tfprune.graph.sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph import layers as known
from tfprune.graph.calls import Sized
from tfprune.graph.features import Features, compact, shape_of
from tfprune.graph.keras_rules import meeting
from tfprune.graph.rules import Call, unknown


def moving(call: Call) -> list[Features] | Features | None:
    """Moves values and changes none: run on the labels themselves."""
    layer = call.layer
    name = type(layer).__name__
    if name in ("Concatenate", "Stack") and not _along_features(call):
        return beside(call)
    made = _moved_features(call)
    if made is None:
        unknown(call)
        return None
    if name in known.SIZED:
        path = call.ledger.path(layer)
        sized = Sized(path, call.features[0].labels, [one.labels for one in made], call.args)
        call.ledger.size(sized)
    return made if isinstance(call.output, (list, tuple)) else made[0]


def _along_features(call: Call) -> bool:
    """Whether tensors are put together along the last axis, or along a new last one."""
    rank = len(call.output.shape)
    return bool(call.layer.axis % rank == rank - 1)


def _moved_features(call: Call) -> list[Features] | None:
    """What each output holds; None where samples are mixed, or a size is not known."""
    outputs = keras.tree.flatten(call.output)
    if any(len(out.shape) < 2 or None in out.shape[1:] for out in outputs):
        return None
    if getattr(call.layer, "axis", 1) == 0:
        return None
    moved = []
    for what, dtype in (("labels", "int32"), ("views", "int32"), ("centre", "float32")):
        arrays = _moved(call, [getattr(f, what) for f in call.features], dtype)
        if arrays is None or [a.shape for a in arrays] != list(map(shape_of, outputs)):
            return None
        kind: Any = float if what == "centre" else np.intp
        moved.append([compact(array.astype(kind)) for array in arrays])
    return [Features(*each) for each in zip(*moved, strict=True)]


def _moved(
    call: Call, arrays: Sequence[npt.NDArray[Any]], dtype: str
) -> list[npt.NDArray[Any]] | None:
    """What the layer makes of arrays in place of its inputs, without the batch."""
    # The second sample is 0, and has to stay so: samples are not mixed.
    values = iter([np.stack([a, np.zeros_like(a)]).astype(dtype) for a in arrays])

    def given(value: Any) -> Any:
        is_input = isinstance(value, keras.KerasTensor)
        return keras.ops.convert_to_tensor(next(values)) if is_input else value

    args, kwargs = keras.tree.map_structure(given, (call.args, call.kwargs))
    try:
        made = call.ledger.original(call.layer)(*args, **kwargs)
    except Exception:  # Each has errors of its own for a batch of another size, say.
        return None
    results = [keras.ops.convert_to_numpy(one) for one in keras.tree.flatten(made)]
    if any(one.ndim < 1 or len(one) != 2 or one[1].any() for one in results):
        return None
    return [one[0] for one in results]


def beside(call: Call) -> Features | None:
    """Tensors that are laid one behind the other along another axis: their features go together."""
    ledger, out = call.ledger, call.output
    if not any(features.labels.any() for features in call.features):
        return ledger.features_of(out)
    if call.layer.axis % len(out.shape) == 0:
        unknown(call)
        return None
    rows = [ledger.joined_row(features) for features in call.features]
    if any(row is None for row in rows):
        call.block("lays units beside each other across several axes")
        return ledger.features_of(out)
    together = ledger.lay_over(call.name, [row for row in rows if row is not None])
    views = ledger.next_views(*(features.rows()[1] for features in call.features))
    return Features.spread(together, views, 0.0, shape_of(out))


def shuffling(call: Call) -> Features | None:
    """``depth_to_space``: all channels that become one at other places go together."""
    ledger, features = call.ledger, call.features[0]
    row = features.row
    if row is None or call.layer.data_format != "channels_last":
        unknown(call)
        return None
    size = call.layer.block_size**2
    joined = ledger.lay_over(call.name, list(row.reshape(size, -1)))
    views = ledger.next_views(*features.rows()[1].reshape(size, -1))
    return Features.spread(joined, views, 0.0, shape_of(call.output))


def reducing(call: Call) -> Features | None:
    """A mean, sum or extreme over positions: every feature for itself."""
    features, layer = call.features[0], call.layer
    rank = len(call.inputs[0].shape)
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    over = {rank - 1 if axis is None else axis % rank for axis in axes}
    if rank - 1 in over:
        call.block("computes one value of several units")
        return None
    if 0 in over:
        call.block("mixes samples")
        return None
    if call.ledger.row(layer, features) is None:
        return call.ledger.features_of(call.output)
    return call.ledger.after(features, 0.0, shape_of(call.output))


def padding(call: Call) -> Features | list[Features] | None:
    """``keras.ops.pad``: beside the features it treats every one for itself."""
    widths = call.layer.pad_width
    if len(widths) == 1 or any(tuple(widths[0])):
        unknown(call)
        return None
    if any(tuple(widths[-1])):
        return moving(call)
    if call.ledger.row(call.layer, call.features[0]) is None:
        return call.ledger.features_of(call.output)
    return call.ledger.after(call.features[0], 0.0, shape_of(call.output))


# Operations by the names of their classes, which stand nowhere in the public API.
OPERATIONS: dict[str, Callable[[Call], list[Features] | Features | None]] = {
    **dict.fromkeys(known.MOVING_OPERATIONS, moving),
    **dict.fromkeys(known.REDUCTIONS, reducing),
    "DepthToSpace": shuffling,
    "Pad": padding,
}


def operation(call: Call) -> list[Features] | Features | None:
    """``x + y``, ``0.5 * x``, ``x[:, :8]``, ``keras.ops.relu(x)``: what keeps units apart."""
    name, inputs, features = type(call.layer).__name__, call.inputs, call.features
    if name in OPERATIONS and features:
        return OPERATIONS[name](call)
    others = [a for a in keras.tree.flatten((call.args, call.kwargs)) if a is not inputs[0]]
    if len(features) == 1 and all(np.ndim(other) == 0 for other in others):
        if name in known.UNITWISE_OPERATIONS:
            return call.ledger.after(features[0], known.UNITWISE_OPERATIONS[name])
        if name in known.ARITHMETIC:
            return call.ledger.after(features[0])
    ranks = {len(tensor.shape) for tensor in inputs}
    if len(features) == 2 and name in known.ARITHMETIC and len(ranks) == 1:
        return meeting(call)
    unknown(call)
    return None
