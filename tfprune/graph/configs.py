"""Builds Keras objects anew from their configuration, the user's own objects included.

Keras writes functions and objects into a configuration by name and finds them again by name. A
function of the user's that is called ``relu`` so comes back as Keras' own, and one that was
defined inside another function does not come back at all. Here such objects are handed over as
they are.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers as kl

Config = dict[str, Any]

_MISSING = object()
PLAIN = (type(None), bool, int, float, str)
# What has variables of its own, which two models must not share.
STATEFUL = (keras.Operation, keras.Metric, keras.optimizers.Optimizer, keras.Variable)


class ConfigError(ValueError):
    """Says why a class cannot make an object from its configuration."""


def remade(
    source: Any,
    changes: Mapping[str, Any] | None = None,
    *,
    child: Callable[[Any], Any] | None = None,
    rewrite: Callable[[Config], Config] | None = None,
) -> Any:
    """A new object of the same class and configuration, without weights and other state.

    Functions and stateless objects that are not Keras' own (activations, regularizers, ...) are
    the very same in both; layers inside it are made anew.

    Parameters
    ----------
    source : keras.Layer, keras.Operation, keras.Metric or keras.optimizers.Optimizer
    changes : mapping, optional
        Entries of the configuration that are to be others.
    child : callable, optional
        Makes a layer inside it anew; this function by default.
    rewrite : callable, optional
        Makes another configuration of the one that is read; not of layers inside.

    Raises
    ------
    ConfigError
        If its class cannot make it from its configuration; says why.
    """
    kind, changes = type(source), dict(changes or {})
    config, own = _settings(source, child or remade)
    config = config if rewrite is None else rewrite(config)
    own = {key: value for key, value in own.items() if key not in changes}
    whole = {**config, **own, **changes}
    # A class that reads its configuration itself may want it serialised; its __init__ does not.
    attempts: list[Callable[[], Any]] = [
        lambda: kind.from_config(dict(whole)),
        *([lambda: kind(**whole)] if own else []),
        *([lambda: kind.from_config({**config, **changes})] if own else []),
        *([lambda: _of_arguments(kind, whole)] if not _from_keras(kind) else []),
    ]
    copies, reason = [], ""
    for attempt in attempts:
        try:
            copy = attempt()
        except Exception as error:  # Each class has errors of its own for what it cannot take.
            reason = _cause(error)
            continue
        if not _lacking(copy, own):
            return copy
        copies.append(copy)
    if not copies:
        raise ConfigError(reason)
    # Its class makes something else of what it is given: a compiled function, say.
    for key, value in _lacking(copies[0], own).items():
        name = key if key in vars(copies[0]) else f"_{key}"
        if name not in vars(copies[0]):
            raise ConfigError(f"its {key} is not kept as the attribute {key}")
        setattr(copies[0], name, value)
    return copies[0]


def config_of(source: Any) -> Config:
    """What ``get_config`` returns, even where it fails on functions of the user's.

    Keras refuses to write some functions, such as ``functools.partial`` or a lambda that was
    typed in, and warns of others. All of them stand as a placeholder here where one is refused.
    """
    with warnings.catch_warnings():
        # It advises against lambdas in files; no file is written here.
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        try:
            return dict(source.get_config())
        except Exception:  # Any class' own code may fail here in any way; the next way is tried.
            pass
        try:
            return dict(_shadow(source, {}).get_config())
        except NotImplementedError:
            return _without_get_config(source)
        except Exception as error:
            raise ConfigError(_cause(error)) from None


def fixed_starts(layer: Any) -> dict[str, Any]:
    """A layer's initializers that may only work for its present shapes, by their keys.

    An array of constants, and all that are not Keras' own.
    """
    starts = {
        key: _attribute(layer, key) for key in config_of(layer) if key.endswith("_initializer")
    }
    return {
        key: start
        for key, start in starts.items()
        if is_own(start) or np.ndim(getattr(start, "value", 0))
    }


def hand_over_starts(layer: Any, copy: Any) -> None:
    """Gives a built copy the user's own initializers in place of those that built it."""
    for key, start in fixed_starts(layer).items():
        # Those of a recurrent layer are its cell's.
        for owner in (copy, getattr(copy, "cell", None)):
            names = [name for name in (key, f"_{key}") if owner and name in vars(owner)]
            if is_own(start) and names:
                setattr(owner, names[0], start)


def is_own(value: Any) -> bool:
    """Whether a value is a user's function, or an object without state."""
    if isinstance(value, STATEFUL) or not (callable(value) or hasattr(value, "get_config")):
        return False
    where = value if inspect.isroutine(value) or isinstance(value, type) else type(value)
    # A function inside one of Keras' holds what the user gave, the array of an initializer say.
    local = "<locals>" in getattr(where, "__qualname__", "")
    return local or not _from_keras(where)


def _from_keras(kind: Any) -> bool:
    return str(getattr(kind, "__module__", "")).split(".")[0] == "keras"


def _settings(source: Any, child: Callable[[Any], Any]) -> tuple[Config, Config]:
    """An object's configuration, and the user's own objects in place of what Keras wrote."""
    if type(source) is kl.Lambda:
        # Its own get_config writes code into the configuration, or fails to.
        return kl.Layer.get_config(source), {
            "function": source.function,
            "mask": source.mask,
            "arguments": dict(source.arguments),
            # There is no public name for it.
            "output_shape": source._output_shape,
        }
    config = config_of(source)
    own = {key: _own(_attribute(source, key), child) for key in config}
    if isinstance(source, kl.Bidirectional):
        own["layer"] = child(source.forward_layer)
    own = {key: value for key, value in own.items() if value is not _MISSING}
    for key, value in config.items():
        if key not in own and _placeholder.__name__ in str(value):
            raise ConfigError(f"its {key} cannot be written into a configuration")
    return config, own | _left_out(source, config, child)


def _own(value: Any, child: Callable[[Any], Any]) -> Any:
    """The object that replaces a value's configuration, if it has to be replaced."""
    if _is_layer(value):
        return child(value)
    if isinstance(value, (list, tuple)) and any(_is_layer(part) for part in value):
        return [child(part) if _is_layer(part) else part for part in value]
    return value if is_own(value) else _MISSING


def _attribute(source: Any, key: str) -> Any:
    """The attribute that an entry of the configuration was made from."""
    # Some of Keras' classes keep it under a private name alone: attention its initializers,
    # metrics their function, optimizers their schedule.
    for name in (key, f"_{key}"):
        if name in vars(source):
            return vars(source)[name]
    value = getattr(source, key, _MISSING)
    return _MISSING if inspect.ismethod(value) and value.__self__ is source else value


def _left_out(source: Any, config: Config, child: Callable[[Any], Any]) -> Config:
    """Arguments of a user's class that its configuration lacks but its attributes hold."""
    if _from_keras(type(source)):
        return {}
    names = [name for name in arguments_of(type(source)) if name not in config]
    known = {name: vars(source)[name] for name in names if name in vars(source)}
    shared = {name: value for name, value in known.items() if can_be_shared(value)}
    return shared | {name: child(layer) for name, layer in known.items() if _is_layer(layer)}


def _is_layer(value: Any) -> bool:
    return isinstance(value, keras.Layer)


def can_be_shared(value: Any) -> bool:
    """Whether two models may share a value: plain values, and functions without state."""
    if isinstance(value, (list, tuple)):
        return all(map(can_be_shared, value))
    return isinstance(value, PLAIN) or (callable(value) and not isinstance(value, STATEFUL))


def arguments_of(kind: type) -> list[str]:
    """The names of a class' arguments, without those it passes on to its parents."""
    parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return [
        one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
    ][1:]


def _of_arguments(kind: type, config: Config) -> Any:
    """An object built by its class' arguments; settings that are no arguments have to match."""
    names = arguments_of(kind)
    copy = kind(**{key: value for key, value in config.items() if key in names})
    rest = {key: value for key, value in config.items() if key not in names}
    for key in rest.keys() & {"name", "trainable"}:
        setattr(copy, key, rest[key])
    received = config_of(copy)
    for key, value in rest.items():
        if received.get(key, _MISSING) != value:
            raise ConfigError(f"its __init__ takes no {key}")
    return copy


def _lacking(copy: Any, own: Config) -> Config:
    """The user's functions and objects that a copy did not take over."""
    return {
        key: value
        for key, value in own.items()
        if callable(value)
        and not isinstance(value, STATEFUL)
        and _attribute(copy, key) is not value
    }


def _placeholder(*values: Any) -> Any:
    raise NotImplementedError("stands for a function that Keras cannot write")


def _shadow(source: Any, known: dict[int, Any]) -> Any:
    """A copy of an object with placeholders for the user's functions, to get its configuration."""
    if id(source) in known:
        return known[id(source)]
    shadow = known[id(source)] = object.__new__(type(source))
    for name, value in vars(source).items():
        # Not setattr: Keras would track what is set as a part of the object.
        shadow.__dict__[name] = _shadow_of(value, known)
    return shadow


def _shadow_of(value: Any, known: dict[int, Any]) -> Any:
    if isinstance(value, (list, tuple)) and any(_is_layer(part) for part in value):
        return [_shadow_of(part, known) for part in value]
    if _is_layer(value):
        own = not _from_keras(type(value))
        return kl.Identity(name=_placeholder.__name__) if own else _shadow(value, known)
    return _placeholder if is_own(value) else value


def _without_get_config(source: Any) -> Config:
    """The arguments of a class without ``get_config``: every layer's own, and attributes.

    Raises
    ------
    ConfigError
        If an argument of the class is not.
    """
    policy = keras.dtype_policies.serialize(source.dtype_policy)
    config = {"name": source.name, "trainable": source.trainable, "dtype": policy}
    for name in arguments_of(type(source)):
        value = vars(source).get(name, _MISSING)
        if name not in config and not can_be_shared(value) and not _is_layer(value):
            raise ConfigError(f"it has no get_config, and no attribute {name} that could be taken")
    return config


def _cause(error: Exception) -> str:
    """The cause of an error in one line; Keras puts it last where it wraps another error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Exception encountered: ")]
    message = (causes[-1:] or lines[:1] or [type(error).__name__])[0]
    return message.removeprefix("Exception encountered: ")
