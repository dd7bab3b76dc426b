"""Records of calls that are looked at again once a model is traced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tfprune.graph.features import Index


@dataclass(frozen=True, eq=False)
class Sized:
    """A call of something whose settings count features: see :mod:`tfprune.graph.sizes`.

    Attributes
    ----------
    layer : str
    before : array
        Labels of what it takes, of that tensor's shape without the batch.
    after : list of arrays
        Labels of what it makes, likewise.
    args : tuple
        What it is called with.
    """

    layer: str
    before: Index
    after: list[Index]
    args: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Attended:
    """A call of an attention layer with kernels for each of its inputs.

    Attributes
    ----------
    path : str
    query, key, value : KerasTensor
    causal : bool
        Whether later positions are masked.
    inputs : list of KerasTensor
        Of the traced model.
    """

    path: str
    query: Any
    key: Any
    value: Any
    causal: bool
    inputs: list[Any] = field(default_factory=list)

    @property
    def tensors(self) -> list[Any]:
        """What it reads."""
        return [self.query, self.key, self.value]
