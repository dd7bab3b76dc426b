"""Finds hidden units that do the same work, removes them from Keras models, exports TFLite.

>>> import tfprune
>>> result = tfprune.prune(model, x, threshold=30)  # doctest: +SKIP
>>> print(result)  # doctest: +SKIP
>>> tfprune.export(result.model, "exported", representative=x)  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfprune.errors import PruningWarning, TfpruneError

if TYPE_CHECKING:
    from tfprune.core.unit_group import UnitGroup
    from tfprune.graph.registry import register_layer
    from tfprune.prune_result import PruneResult
    from tfprune.pruning import Pruner, prune
    from tfprune.tflite.converter import export
    from tfprune.training.distillation import HealResult, heal, heal_with_record

__version__ = "0.1.0"
__all__ = [
    "HealResult", "PruneResult", "Pruner", "PruningWarning", "TfpruneError", "UnitGroup", "export",
    "heal", "heal_with_record", "prune", "register_layer",
]  # fmt: skip

# Loaded at first use, so that what needs no TensorFlow does not wait for it.
_MODULES = {
    "PruneResult": "prune_result", "Pruner": "pruning", "prune": "pruning",
    "export": "tflite.converter", "heal": "training.distillation",
    "heal_with_record": "training.distillation", "HealResult": "training.distillation",
    "UnitGroup": "core.unit_group", "register_layer": "graph.registry",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfprune.utils.environment import check_backend

    check_backend()
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
