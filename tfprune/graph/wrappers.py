"""Layers that hold other layers: nested models, TimeDistributed and Bidirectional."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers as kl

from tfprune.graph.layers import RECURRENT
from tfprune.graph.user_rules import user_rule


def has_shapes(model: keras.Model) -> bool:
    """Whether a model knows the shapes of its inputs and outputs."""
    try:
        return bool(model.inputs and model.outputs)
    except (AttributeError, ValueError):
        return False


def is_nested(layer: Any) -> bool:
    """Whether a layer is a Sequential or Functional model whose layers can be followed."""
    # Exactly Keras' own: a subclass may do anything.
    return isinstance(layer, keras.Model) and _from_keras(layer) and has_shapes(layer)


def wrapped(layer: Any) -> list[Any]:
    """The layers inside a wrapper that is looked into; none of anything else.

    TimeDistributed around a nested model, a wrapper, one of Keras' layers without a state from
    batch to batch or one with a registered rule, and Bidirectional around recurrent layers.
    """
    if type(layer) is kl.TimeDistributed:
        inner = layer.layer
        single = _from_keras(inner) or user_rule(inner) is not None
        followed = is_nested(inner) or (single and not isinstance(inner, keras.Model))
        if isinstance(inner, kl.Wrapper):
            followed = bool(wrapped(inner))
        # No public walk reaches the layers inside; a state would go on from step to step.
        states = any(getattr(one, "stateful", False) for one in inner._flatten_layers())
        return [inner] if followed and not states else []
    if type(layer) is kl.Bidirectional:
        both = [layer.forward_layer, layer.backward_layer]
        return both if all(type(one) in RECURRENT for one in both) else []
    return []


def holds_layers(layer: Any) -> bool:
    """Whether a layer is called by calling those inside it, which can be followed."""
    return is_nested(layer) or bool(wrapped(layer))


def rewrapped(layer: Any, inside: Sequence[Any], dtypes: Mapping[str, str]) -> Any:
    """A new wrapper around other layers.

    Parameters
    ----------
    layer : keras.layers.TimeDistributed or keras.layers.Bidirectional
        Its settings are taken over.
    inside : sequence of keras.Layer
        In the order of :func:`wrapped`.
    dtypes : mapping of str to str
        What dtype policies become, by their names; others stay.
    """
    policy = dtypes.get(layer.dtype_policy.name, layer.dtype_policy)
    settings: dict[str, Any] = {"name": layer.name, "trainable": layer.trainable, "dtype": policy}
    if type(layer) is kl.TimeDistributed:
        return kl.TimeDistributed(inside[0], **settings)
    # It makes its forward layer anew from a configuration, in which a user's functions are lost;
    # so it is given others that agree, and then these.
    places = [
        kl.SimpleRNN(
            1, return_sequences=one.return_sequences, return_state=one.return_state,
            stateful=one.stateful, go_backwards=one.go_backwards,
        )
        for one in inside
    ]  # fmt: skip
    wrapper = kl.Bidirectional(
        places[0], merge_mode=layer.merge_mode, backward_layer=places[1], **settings
    )
    wrapper.forward_layer, wrapper.backward_layer = inside
    # The layers that it was given first are still listed, and no public method takes them out.
    wrapper._layers[:] = inside
    return wrapper


def _from_keras(layer: Any) -> bool:
    return type(layer).__module__.split(".")[0] == "keras"
