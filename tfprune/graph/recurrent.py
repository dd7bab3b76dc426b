"""Recurrent layers: the rule of their units, which they read themselves a step later."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np

from tfprune.graph import layers as known
from tfprune.graph.clone import clone_layer
from tfprune.graph.features import Features, compact, shape_of
from tfprune.graph.helpers import PreviousStates, ResetStates
from tfprune.graph.keras_rules import meeting
from tfprune.graph.rules import Call


def recurrent(call: Call) -> Features | None:
    """A SimpleRNN, GRU or LSTM: one kernel reads the input, the other its units of the last step.

    Its last state holds its units as its output does, and the state that it starts from has to.
    """
    layer, ledger = call.layer, call.ledger
    bound = inspect.signature(type(layer).call).bind(layer, *call.args, **call.kwargs).arguments
    sequence, mask = bound["sequences"], bound.get("mask")
    starts = keras.tree.flatten(bound.get("initial_state"))
    starts = [state for state in starts if state is not None]
    ledger.read(layer, sequence, ledger.features_of(sequence))
    if mask is not None:
        ledger.block(ledger.features_of(mask).labels, f"is a mask of {call.name}")
    output, *states = keras.tree.flatten(call.output)
    units = ledger.produce(layer, "recurrent", layer.units, output)
    labels = units.rows()[0]
    for state in starts:
        _start(call, labels, ledger.features_of(state))
    made = _activated(call, units)
    _read_itself(call, sequence, starts, mask)
    for state in states:
        ledger.features[id(state)] = ledger.after(made, shape=shape_of(state))
    ledger.features[id(output)] = made
    return None if states else made


def _start(call: Call, labels: Any, state: Features) -> None:
    """The state that a layer starts from loses the units that the layer does."""
    row = state.row
    if row is None:
        call.ledger.block(state.labels, f"starts {call.name} across several axes")
        call.ledger.block(labels, "starts from a state across several axes")
    elif not row.any():
        call.ledger.block(labels, "it starts from a state that cannot be pruned")
    else:
        call.ledger.lay_over(f"the start of {call.name}", [labels, row])


def _activated(call: Call, units: Features) -> Features:
    """Units after the layer's functions, all of which have to treat them alone."""
    layer, ledger = call.layer, call.ledger
    names = [known.activation_name(layer.activation)]
    if hasattr(layer, "recurrent_activation"):
        names.append(known.activation_name(layer.recurrent_activation))
    for name in names:
        if name in known.MIXING_ACTIVATIONS:
            ledger.block(units.labels, f"{name} of {call.name} mixes the units")
        elif name not in known.UNITWISE_ACTIVATIONS:
            what = f"activation {name} of {call.name}"
            ledger.block(units.labels, f"{what} is not known to treat units alone")
    return ledger.after(units, known.UNITWISE_ACTIVATIONS.get(names[0], 0.0))


def _read_itself(call: Call, sequence: Any, starts: list[Any], mask: Any) -> None:
    """Notes what the recurrent kernel reads: the states in front of each step."""
    layer, ledger = call.layer, call.ledger
    states = keras.tree.flatten(call.output)[0]
    # At masked steps a layer may put zeros out, while its state stays as it is.
    masked = mask is not None or getattr(sequence, "_keras_mask", None) is not None
    if not layer.return_sequences or (masked and layer.zero_output_for_mask):
        every = clone_layer(
            layer, name=ledger.helper_name(), return_sequences=True, return_state=False,
            zero_output_for_mask=False,
        )  # fmt: skip
        states = every(*call.args, **call.kwargs)
        ledger.inner.append((ledger.path(layer), every))
    # A layer that goes on from its last state starts from zero only once.
    before = states
    if not layer.stateful:
        before = PreviousStates(ledger.helper_name())([states, *starts[:1]])
    ledger.alive += [states, before]
    labels = ledger.result.producers[ledger.path(layer)].labels
    held = ledger.after(Features.spread(labels, labels * 0, 0.0, shape_of(before)))
    # Without a state that is measured from its start a constant would be wrong in the first step.
    no_offset = layer.stateful
    ledger.read(layer, before, held, part="recurrent", no_offset=no_offset)
    if "candidate" in known.parts_of(layer):
        gated = ResetStates(ledger.helper_name(), layer)([before, sequence])
        ledger.alive.append(gated)
        held = ledger.after(held, shape=shape_of(gated))
        ledger.read(layer, gated, held, part="candidate", no_offset=no_offset)


def merged(call: Call, mode: str | None) -> Features:
    """What a Bidirectional's output holds of what its two layers make."""
    if mode in (None, "concat"):
        parts = [(one.labels, one.views, one.centre) for one in call.features]
        arrays = [np.concatenate(each, axis=-1) for each in zip(*parts, strict=True)]
        return Features(*map(compact, arrays))
    return meeting(call)
