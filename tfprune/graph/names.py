"""Names of layers that TensorFlow refuses when it runs a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import keras

from tfprune.errors import TfpruneError
from tfprune.graph.wrappers import is_nested

# Of tf.Graph.name_scope, less the backslash, which fails later. The model's name stands outermost,
# where fewer will do.
INSIDE = re.compile(r"[A-Za-z0-9_./>-]*")
OUTERMOST = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_./>-]*")


def check_names(model: keras.Model) -> None:
    """Raises :class:`TfpruneError` for names with which TensorFlow cannot run the model.

    Keras takes any name, and computes single batches with it; but ``predict``, ``fit`` and every
    conversion end in a message about scopes.

    Examples
    --------
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a b")])
    >>> check_names(model)
    Traceback (most recent call last):
        ...
    tfprune.errors.TfpruneError: layer 'a b': TensorFlow runs no layer of that name; build the \
model with another one, of letters, digits, _, . and -
    """
    refused = [("layer", name) for name in _names(model) if not INSIDE.fullmatch(name)]
    if not OUTERMOST.fullmatch(model.name):
        refused.insert(0, ("model", model.name))
    if refused:
        what, name = refused[0]
        more = f" (nor of {len(refused) - 1} others)" if len(refused) > 1 else ""
        raise TfpruneError(
            f"{what} {name!r}: TensorFlow runs no {what} of that name{more}; build the model with "
            "another one, of letters, digits, _, . and -"
        )


def _names(model: Any) -> Iterator[str]:
    for layer in model.layers:
        # Names of inputs are no scopes, nor are those of operations such as x[:, 0].
        if isinstance(layer, keras.Layer) and not isinstance(layer, keras.layers.InputLayer):
            yield layer.name
        if is_nested(layer):
            yield from _names(layer)
