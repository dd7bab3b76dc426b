"""Which layers read features as they are made, so that their weights can make up for new ones."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from tfprune.graph.layers import EMBEDDINGS, describe
from tfprune.graph.registry import hands_on
from tfprune.graph.trace import Trace, is_tied


def follow_tied(trace: Trace) -> None:
    """Adds what layers hand on to :attr:`Trace.tied`, and blocks tables that have to stay.

    A table of fewer columns makes other numbers of the words, for which only layers that multiply
    them with weights can make up.
    """
    for path, made in trace.tied.items():
        if is_tied(trace, path):
            _, obstacle = _readers(trace, path, made)
            if path in trace.steps:
                obstacle = "is inside a TimeDistributed"
            if obstacle:
                what = f"{describe(trace.layers[path])} reads with the weights that make its units"
                trace.blocked.append((trace.producers[path].labels, f"{what}, and {obstacle}"))


def follow_unweighted(trace: Trace) -> None:
    """Notes which layers can make up for normalisation over units that has no weights.

    Others block the units.
    """
    for path in trace.approximated:
        if trace.layers[path].weights:
            continue
        made = [tensor for call in trace.call_outputs[path] for tensor in call]
        readers, obstacle = _readers(trace, path, made)
        if obstacle:
            reason = f"{describe(trace.layers[path])} mixes the units, and {obstacle}"
            trace.blocked.append((trace.input_labels[path], reason))
        trace.unweighted[path] = readers


def _readers(trace: Trace, path: str, made: list[Any]) -> tuple[Set[tuple[str, str]], str]:
    """The layers, and their parts, that read what a layer makes, and what else does with it.

    What layers hand on as it is is added to ``made``.
    """
    waiting = list(made)
    readers: set[tuple[str, str]] = set()
    while waiting:
        tensor = waiting.pop()
        for taker, calls in trace.call_inputs.items():
            for place, inputs in enumerate(calls):
                if all(one is not tensor for one in inputs):
                    continue
                if hands_on(trace.copies[taker]):
                    made += trace.call_outputs[taker][place]
                    waiting += trace.call_outputs[taker][place]
                    continue
                parts = [
                    one.part for one in trace.readings
                    if one.layer == taker and trace.tensors[one.tensor] is tensor
                ]  # fmt: skip
                if taker == path or not parts or type(trace.layers[taker]) in EMBEDDINGS:
                    what = f"{describe(trace.layers[taker])} is no layer that reads them"
                    return readers, "takes them as they are" if taker == path else what
                readers |= {(taker, part) for part in parts}
    own = {id(tensor) for tensor in made}
    for one in trace.readings:
        if (one.layer, one.part) in readers and id(trace.tensors[one.tensor]) not in own:
            return readers, f"{describe(trace.layers[one.layer])} reads others, too"
    return readers, ""
