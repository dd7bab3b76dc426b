"""The result of rewriting an old configuration, and the forms in which Keras 3 writes its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Config = dict[str, Any]

# Keras 3's hard_sigmoid is relu6(x + 3) / 6, Keras 2's was clip(0.2 x + 0.5, 0, 1): the same of 1.2
# times x, so what is multiplied with a kernel needs no other layer.
HARD_SIGMOID = 1.2


@dataclass(frozen=True)
class Edit:
    """What has to be done to a layer's weights once they are read.

    Attributes
    ----------
    path : tuple of str
        Names from the model down; inside wrappers the name of the attribute (``layer``, ``cell``).
    what : {"hard_sigmoid", "recurrent_hard_sigmoid", "cudnn"}
    """

    path: tuple[str, ...]
    what: str


@dataclass
class Adapted:
    """A configuration as Keras 3 has it, and how it came about.

    Attributes
    ----------
    config : dict
    keras_3 : bool
        Whether Keras 3 wrote it, in an ``.h5`` file: only the form is another then.
    changes : list of str
        What was changed, in the words of the file.
    edits : list of Edit
    names : dict of str to str
        Layers of the outermost model whose name changed, by the new one.
    """

    config: Config = field(default_factory=dict)
    keras_3: bool = False
    changes: list[str] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def note(self, change: str) -> None:
        """Says what was changed, once."""
        if change not in self.changes:
            self.changes.append(change)


def plain(value: Any) -> Any:
    """Without the forms that older versions of Keras wrapped arrays, shapes and tuples in."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"type", "value"} and value["type"] == "ndarray":
        return plain(value["value"])
    if value.get("class_name") in ("TensorShape", "__tuple__") and "items" in value:
        return plain(value["items"])
    return {key: plain(item) for key, item in value.items() if key != "__passive_serialization__"}


def native(module: str, class_name: str, config: Config) -> Config:
    """An object as Keras 3 writes it."""
    return {
        "module": module, "class_name": class_name, "config": config, "registered_name": None,
    }  # fmt: skip


def tensor(name: str, node: int, index: int) -> Config:
    """The output of a layer's call; only whose it is counts, not its shape."""
    config = {"shape": [None], "dtype": "float32", "keras_history": [name, node, index]}
    return {"class_name": "__keras_tensor__", "config": config}
