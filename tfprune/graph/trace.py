"""What tracing a model finds: layers that make units, layers that read them, what is in the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph.labels import Index, Labels


@dataclass(frozen=True)
class Producer:
    """A layer whose units (filters) could go.

    Attributes
    ----------
    name : str
    kind : str
        ``dense`` or ``conv``.
    labels : array of shape (units,)
    """

    name: str
    kind: str
    labels: Index


@dataclass(frozen=True, eq=False)
class Reading:
    """A layer that multiplies features with its weights.

    Attributes
    ----------
    layer : str
    tensor : int
        Position in :attr:`Trace.tensors`.
    labels, views : arrays of shape (features,)
        On the last axis. Features of one view went through the same functions.
    centre : array of shape (features,)
        The middle of the activation's range where it has one, 0.5 after a sigmoid, else 0: the
        point from which the studies measured angles.
    shiftless : bool
        Whether a constant cannot go into the bias: padding inside the layer puts zeros where
        the constant would be, or there is nowhere to put it.
    part : str
        Which of the layer's inputs, where it has a kernel for each (attention).
    """

    layer: str
    tensor: int
    labels: Index
    views: Index
    centre: npt.NDArray[np.float64]
    shiftless: bool
    part: str = ""


def slot(path: str, part: str = "") -> str:
    """Under which name :attr:`Trace.slices` has what reaches a layer's input."""
    return f"{path}:{part}" if part else path


@dataclass
class Trace:
    """Which layers make units, which layers read them, and what stands in the way.

    Attributes
    ----------
    model : keras.Model
        A copy of the traced model, the owner of ``tensors``.
    layers : dict of str to layer
        The original's layers by path: ``name``, or ``outer/inner`` inside a nested model.
    labels : Labels
    producers : dict of str to Producer
    readings : list of Reading
    tensors : list of KerasTensor
        The tensors that are read.
    slices : dict of str to array of shape (features,)
        By :func:`slot`, labels on the last axis of what reaches a layer that changes with it.
    blocked : list of (array, str)
        Labels of units that cannot go, and the reason; the later entry is the better reason.
    copies : dict of str to layer
        The layers of ``model`` by the same paths.
    given : dict of str to list of list of KerasTensor
        What each layer takes, once for every call.
    """

    model: keras.Model
    layers: dict[str, Any] = field(default_factory=dict)
    labels: Labels = field(default_factory=Labels)
    producers: dict[str, Producer] = field(default_factory=dict)
    readings: list[Reading] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)
    slices: dict[str, Index] = field(default_factory=dict)
    blocked: list[tuple[Index, str]] = field(default_factory=list)
    copies: dict[str, Any] = field(default_factory=dict)
    given: dict[str, list[list[Any]]] = field(default_factory=dict)
