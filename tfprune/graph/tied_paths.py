"""Which layers read what an embedding makes whose one table also reads in reverse."""

from __future__ import annotations

from typing import Any

from tfprune.graph.layers import describe
from tfprune.graph.registry import hands_on
from tfprune.graph.trace import Trace, is_tied


def follow_tied(trace: Trace) -> None:
    """Adds what layers hand on to :attr:`Trace.tied`, and blocks tables that have to stay.

    A table of fewer columns makes other numbers of the words, for which only layers that multiply
    them with weights can make up.
    """
    for path, made in trace.tied.items():
        if is_tied(trace, path):
            obstacle = _obstacle(trace, path, made)
            if obstacle:
                reason = (
                    f"{describe(trace.layers[path])} reads with the weights that make its units"
                )
                trace.blocked.append((trace.producers[path].labels, f"{reason}, and {obstacle}"))


def _obstacle(trace: Trace, path: str, made: list[Any]) -> str:
    """Why what reads the words cannot be given other weights; ``made`` grows."""
    if path in trace.steps:
        return "is inside a TimeDistributed"
    waiting, readers = list(made), set()
    while waiting:
        tensor = waiting.pop()
        for taker, calls in trace.call_inputs.items():
            for place, inputs in enumerate(calls):
                if all(one is not tensor for one in inputs):
                    continue
                if taker == path:
                    return "takes them as they are"
                if hands_on(trace.copies[taker]):
                    made += trace.call_outputs[taker][place]
                    waiting += trace.call_outputs[taker][place]
                elif not _reads(trace, taker, tensor):
                    return f"{describe(trace.layers[taker])} is no layer that reads them"
                readers.add(taker)
    others = [
        one.layer for one in trace.readings
        if one.layer in readers and all(trace.tensors[one.tensor] is not part for part in made)
        and not one.part
    ]  # fmt: skip
    return f"{others[0]} reads others, too" if others else ""


def _reads(trace: Trace, path: str, tensor: Any) -> bool:
    return any(one.layer == path and trace.tensors[one.tensor] is tensor for one in trace.readings)
