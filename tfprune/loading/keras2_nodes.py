"""Reads the graph nodes that Keras 2.2 to 2.4 wrote as calls of functions."""

from __future__ import annotations

import re

from tfprune.errors import TfpruneError
from tfprune.loading.keras2_forms import Config


def call_of(config: Config, calls: list[Config]) -> tuple[str, list[Config]]:
    """The function and arguments of a TensorFlowOpLayer.

    Parameters
    ----------
    config : dict
        With ``node_def``, the text of one node, and its constant inputs by their places.
    calls : list of dict
        The layer's calls, ``args`` and ``kwargs``.

    Returns
    -------
    function : str
        The operation's name.
    calls : list of dict
        With the constants among their arguments, named as TensorFlow's functions name them.
    """
    match = re.search(r'\bop: "(\w+)"', str(config.get("node_def")))
    if match is None:
        raise TfpruneError("a TensorFlowOpLayer without an operation")
    operation = match[1]
    constants = config.get("constants") or {}
    result = []
    for call in calls:
        inputs = list(call["args"])
        if len(inputs) == 1 and isinstance(inputs[0], list):
            inputs = inputs[0]
        for at in sorted(constants, key=int):
            inputs.insert(int(at), constants[at])
        result.append({"args": inputs, "kwargs": call["kwargs"]})
    names = _GRAPH_ARGUMENTS.get(operation, ())
    for call in result:
        inputs = call["args"]
        if operation == "ConcatV2":
            call["kwargs"] = {"axis": inputs.pop()}
        while names and len(inputs) > 1:
            call["kwargs"] = {**call["kwargs"], names[len(inputs) - 2]: inputs.pop()}
        if operation in ("Mean", "Sum", "Max", "Min"):
            call["kwargs"]["keepdims"] = bool(
                re.search(r'"keep_dims"[^}]*b: true', config["node_def"])
            )
    return operation, result


# The inputs of operations after the first, by the names of their functions.
_GRAPH_ARGUMENTS = {
    "ExpandDims": ("axis",), "Max": ("axis",), "Mean": ("axis",), "Min": ("axis",),
    "Pad": ("paddings",), "Reshape": ("shape",), "Sum": ("axis",), "Transpose": ("perm",),
}  # fmt: skip
