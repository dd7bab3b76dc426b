"""The rule of each kind of layer: Keras' own and those that users register."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
from keras import layers as kl

from tfprune.errors import TfpruneError
from tfprune.graph import keras_rules, recurrent, rules, tensor_rules, user_rules
from tfprune.graph import layers as known
from tfprune.graph.features import Features
from tfprune.graph.rules import Call

Rule = Callable[[Call], Features | list[Features] | None]

# For these classes exactly: a subclass may do anything.
KERAS_RULES: dict[type, Rule] = {
    kl.Dense: keras_rules.dense,
    kl.Activation: keras_rules.activation,
    kl.BatchNormalization: keras_rules.normalisation,
    kl.PReLU: keras_rules.prelu,
    kl.GroupNormalization: keras_rules.over_groups,
    kl.Rescaling: keras_rules.resizing,
    **dict.fromkeys(known.ATTENTION, keras_rules.attention),
    **dict.fromkeys((kl.Attention, kl.AdditiveAttention), keras_rules.comparing),
    **dict.fromkeys(known.EMBEDDINGS, keras_rules.embedding),
    **dict.fromkeys(known.DEPTHWISE, keras_rules.depthwise),
    **dict.fromkeys(known.CONVOLUTIONS, keras_rules.convolution),
    **dict.fromkeys(known.SEPARABLE, keras_rules.separable),
    **dict.fromkeys(known.RESIZING, keras_rules.resizing),
    **dict.fromkeys(known.MEETING, keras_rules.meeting),
    **dict.fromkeys(known.IDENTITY, rules.identity),
    **dict.fromkeys(known.NONLINEAR, keras_rules.nonlinear),
    **dict.fromkeys(known.MOVING, tensor_rules.moving),
    **dict.fromkeys(known.OVER_UNITS, keras_rules.over_units),
    **dict.fromkeys(known.MIXING, keras_rules.mixing),
    **dict.fromkeys(known.RECURRENT, recurrent.recurrent),
}
NAMED_RULES: dict[str, Rule] = {"unitwise": rules.unitwise, "identity": rules.same_values}


def register_layer(layer: type, rule: str | Callable[[Call], Features | None]) -> None:
    """Says how units pass through a layer of your own, so that models with it can be pruned.

    The rule holds for the class and its subclasses, until the class is registered again. Pruning
    tries it first: units are cut around the layer, and the layer has to compute what it computes
    in the original model with the weights that read these units set to zero.

    Parameters
    ----------
    layer : type
        A subclass of :class:`keras.Layer`. Its ``get_config`` has what its ``__init__`` needs, and
        it takes its width from its input.
    rule : {"unitwise", "identity"} or callable
        ``unitwise``: the layer takes one tensor, and a feature of its output (on the last axis)
        depends on the same feature of its input alone. A weight that has the features on its last
        axis is cut with the units; a weight that does not depend on their number stays as it is.
        ``identity``: the layer returns its input's values as they are in inference.
        A callable ``rule(call) -> Features or None`` is given a
        :class:`tfprune.graph.rules.Call` for every call of the layer, and returns one of
        ``call.unitwise()``, ``call.identity()`` and ``call.block("mixes the units")``, whose text
        is the reason why layers that feed it are not pruned.

    Raises
    ------
    TfpruneError
        If ``layer`` is no layer's class or tfprune has a rule for it, or ``rule`` is not as above.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
    ...
    ...     def call(self, x):
    ...         return x * self.scale
    >>> tfprune.register_layer(Scale, "unitwise")
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, Scale(), keras.layers.Dense(2)])
    >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> tfprune.prune(model, x, threshold=30).model.get_layer("hidden").units
    4
    """
    if not (isinstance(layer, type) and issubclass(layer, keras.Layer)):
        raise TfpruneError(f"layer: expected a subclass of keras.Layer, received {layer!r}")
    if layer in (*KERAS_RULES, keras.Layer, keras.Model, keras.Sequential):
        raise TfpruneError(f"layer: {layer.__name__} is Keras' own; register a subclass of it")
    if isinstance(rule, str) and rule in NAMED_RULES:
        user_rules.USER_RULES[layer] = NAMED_RULES[rule]
    elif callable(rule) and _takes_one(rule):
        user_rules.USER_RULES[layer] = rule
    else:
        names = ", ".join(NAMED_RULES)
        raise TfpruneError(
            f"rule: expected one of {names}, or a function of one call, received {rule!r}"
        )


def rule_of(layer: Any) -> Rule:
    """The rule of a layer's class."""
    if known.is_operation(layer):
        return tensor_rules.operation
    if type(layer) in KERAS_RULES:
        return KERAS_RULES[type(layer)]
    return user_rules.user_rule(layer) or rules.unknown


def hands_on(layer: Any) -> bool:
    """Whether a layer returns its input's values in inference."""
    return rule_of(layer) in (rules.identity, rules.same_values)


def _takes_one(rule: Callable[..., Any]) -> bool:
    try:
        inspect.signature(rule).bind(None)
    except (TypeError, ValueError):
        return False
    return True
