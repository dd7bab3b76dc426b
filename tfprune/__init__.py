"""Finds hidden units that do the same work, removes them from Keras models, exports TFLite.

Of eight hidden units the last four repeat the first four:

>>> import tempfile
>>> import keras
>>> import numpy as np
>>> import tfprune
>>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
>>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)], name="net")
>>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
>>> x = np.random.default_rng(0).normal(size=(100, 4))
>>> result = tfprune.prune(model, x, threshold=30)
>>> result.model.get_layer("hidden").units
4
>>> with tempfile.TemporaryDirectory() as folder:
...     files = tfprune.export(result.model, folder, ["int8"], representative=x)
>>> files["int8"].name
'net_int8.tflite'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tfprune.errors import PruningWarning, TfpruneError

if TYPE_CHECKING:
    from tfprune.adaptation import adapt
    from tfprune.core.unit_group import UnitGroup
    from tfprune.graph.registry import register_layer
    from tfprune.inspection.inspector import inspect
    from tfprune.inspection.result import Inspection
    from tfprune.prune_result import PruneResult
    from tfprune.pruner import Pruner
    from tfprune.pruning import prune
    from tfprune.tflite.converter import export
    from tfprune.training.distillation import heal, heal_with_record
    from tfprune.training.heal_result import HealResult

__version__ = "0.1.0"
__all__ = [
    "HealResult", "Inspection", "PruneResult", "Pruner", "PruningWarning", "TfpruneError",
    "UnitGroup", "adapt", "export", "heal", "heal_with_record", "inspect", "prune",
    "register_layer",
]  # fmt: skip

# Loaded at first use, so that what needs no TensorFlow does not wait for it.
_MODULES = {
    "PruneResult": "prune_result", "Pruner": "pruner", "prune": "pruning",
    "export": "tflite.converter", "heal": "training.distillation",
    "heal_with_record": "training.distillation", "HealResult": "training.heal_result",
    "Inspection": "inspection.result", "inspect": "inspection.inspector",
    "UnitGroup": "core.unit_group", "adapt": "adaptation", "register_layer": "graph.registry",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tfprune.utils.environment import check_backend

    check_backend()
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
