"""The rules that users registered for layers of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# For these classes and their subclasses; see :func:`tfprune.graph.registry.register_layer`.
USER_RULES: dict[type, Callable[..., Any]] = {}


def user_rule(layer: Any) -> Callable[..., Any] | None:
    """The rule that was registered for a layer's class or the nearest class above it."""
    return next((USER_RULES[kind] for kind in type(layer).__mro__ if kind in USER_RULES), None)
