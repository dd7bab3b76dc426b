"""The layers of a pruned model whose kernels can be solved for, and what each should compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl

from tfprune.graph.clone import clone_layer
from tfprune.graph.layers import DEPTHWISE
from tfprune.graph.trace import Trace

# Convolutions and their likes that `rows.patches` can read.
PLAIN = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
# More unknowns of an output would take a matrix that is too large to solve.
MOST_UNKNOWNS = 8192


@dataclass(frozen=True, eq=False)
class Site:
    """A layer to be solved for.

    Attributes
    ----------
    path : str
    layer : layer
        Of the pruned model's copy.
    source : KerasTensor
        What the layer takes in the pruned model.
    goal : KerasTensor
        What it makes in the original, before its activation; or the sum that it goes into.
    kept : array of shape (outputs,)
        Which of the goal's features the layer makes.
    norm : keras.layers.BatchNormalization or None
        What normalises the layer's output, and nothing else's.
    others : list of KerasTensor
        What is added to it in the pruned model, where the goal is a sum.
    limits : (float, float) or None
        The range in which the activation behind the goal lets a value through, of a ReLU.
    """

    path: str
    layer: Any
    source: Any
    goal: Any
    kept: npt.NDArray[np.intp]
    norm: Any
    others: list[Any]
    limits: tuple[float, float] | None

    @property
    def depthwise(self) -> bool:
        """Whether each output reads one channel alone."""
        return isinstance(self.layer, DEPTHWISE)

    @property
    def tensors(self) -> list[Any]:
        """What is needed of the pruned model."""
        return [self.source, *self.others]


class Wiring:
    """Which call takes what a layer makes, in a traced model.

    Parameters
    ----------
    trace : Trace
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.order = {path: place for place, path in enumerate(trace.call_inputs)}
        self._takers: dict[int, list[str]] = {}
        self._maker: dict[int, str] = {}
        for path, calls in trace.call_inputs.items():
            for tensor in {id(one): one for call in calls for one in call}.values():
                self._takers.setdefault(id(tensor), []).append(path)
            for tensor in self._outputs(path):
                self._maker[id(tensor)] = path
        self._ends = {id(tensor) for tensor in trace.model.outputs}

    def single(self, path: str) -> bool:
        """Whether a layer is called once, and makes one tensor."""
        return len(self.trace.call_inputs[path]) == 1 and len(self._outputs(path)) == 1

    def output(self, path: str) -> Any:
        """What a layer that is called once makes."""
        return self._outputs(path)[0]

    def follower(self, path: str) -> str | None:
        """The only layer that takes what a layer makes, if it is called once."""
        if not self.single(path) or id(self.output(path)) in self._ends:
            return None
        takers = self._takers.get(id(self.output(path)), [])
        return takers[0] if len(takers) == 1 and self.single(takers[0]) else None

    def maker(self, tensor: Any) -> str | None:
        """The layer that makes a tensor; None of an input."""
        return self._maker.get(id(tensor))

    def before(self, tensor: Any, path: str) -> bool:
        """Whether all layers that a tensor comes from are called before a layer."""
        waiting, seen = [tensor], set()
        while waiting:
            maker = self.maker(waiting.pop())
            if maker is None or maker in seen:
                continue
            if self.order[maker] >= self.order[path]:
                return False
            seen.add(maker)
            waiting += [one for call in self.trace.call_inputs[maker] for one in call]
        return True

    def separators(self) -> list[str]:
        """Layers through whose output goes all that is computed after them, in order.

        Empty where a layer is called more than once or makes several tensors.
        """
        paths = list(self.order)
        if len(self.trace.model.inputs) > 1 or not all(map(self.single, paths)):
            return []
        last: dict[int, int] = {}
        for place, path in enumerate(paths):
            for tensor in self.trace.call_inputs[path][0]:
                last[id(tensor)] = place
        for tensor in self.trace.model.outputs:
            last[id(tensor)] = len(paths)
        alive: dict[int, int] = {
            id(tensor): last.get(id(tensor), -1) for tensor in self.trace.model.inputs
        }
        found = []
        for place, path in enumerate(paths):
            alive[id(self.output(path))] = last.get(id(self.output(path)), -1)
            alive = {one: until for one, until in alive.items() if until > place}
            # A mask would not come along; Keras has no public way to ask for one.
            masked = getattr(self.output(path), "_keras_mask", None) is not None
            if list(alive) == [id(self.output(path))] and not masked:
                found.append(path)
        return found

    def _outputs(self, path: str) -> list[Any]:
        calls = self.trace.call_outputs[path]
        return calls[0] if len(calls) == 1 else []


def sites_of(ours: Wiring, theirs: Wiring, kept: Mapping[str, npt.NDArray[np.intp]]) -> list[Site]:
    """The layers that can be solved for, in the order of their calls.

    Left out are layers that are called more than once, those whose weights are not plain, separable
    and transposed convolutions, and convolutions in groups or inside a TimeDistributed.

    Parameters
    ----------
    ours, theirs : Wiring
        Of the pruned model and of the original.
    kept : mapping of str to array
        By layer, which of the original's features stayed, where some went.
    """
    sites = []
    for path in ours.order:
        layer = ours.trace.copies.get(path)
        if path not in theirs.order or not _solvable(layer) or not ours.single(path):
            continue
        if path in ours.trace.steps and type(layer) is not kl.Dense:
            continue  # Inside a TimeDistributed, with one more axis than it was made for.
        sites.append(_site(ours, theirs, path, kept))
    return sites


def normalises(wiring: Wiring, path: str) -> bool:
    """Whether a layer is a BatchNormalization of the last axis that is called once."""
    layer: Any = wiring.trace.copies.get(path)
    return (
        type(layer) is kl.BatchNormalization
        and wiring.single(path)
        and layer.axis in (-1, len(wiring.output(path).shape) - 1)
    )


def _solvable(layer: Any) -> bool:
    if type(layer) is not kl.Dense and type(layer) not in (*PLAIN, *DEPTHWISE):
        return False
    if getattr(layer, "groups", 1) not in (1, None):
        return False
    if len(layer.get_weights()) != 1 + layer.use_bias:
        return False
    kernel = layer.get_weights()[0]
    unknowns = np.prod(kernel.shape[:-2]) if type(layer) in DEPTHWISE else kernel[..., 0].size
    return 0 < unknowns <= MOST_UNKNOWNS and bool(kernel.size)


def _site(
    ours: Wiring, theirs: Wiring, path: str, kept: Mapping[str, npt.NDArray[np.intp]]
) -> Site:
    layer: Any = ours.trace.copies[path]
    original: Any = theirs.trace.copies[path]
    goal, limits = theirs.output(path), None
    norm: Any = None
    others: list[Any] = []
    if layer.activation is not keras.activations.linear:
        # The same layer without its activation, on the same input.
        plain = clone_layer(original, activation="linear", name=f"{original.name}_linear")
        goal = plain(theirs.trace.call_inputs[path][0][0])
        plain.set_weights(original.get_weights())
        limits = _limits(layer.activation)
        after = None
    else:
        after = ours.follower(path)
    if after is not None and normalises(ours, after):
        norm, after = ours.trace.copies[after], ours.follower(after)
    if after is not None and _adds(ours, after):
        made = ours.output(path) if norm is None else norm.output
        rest = [one for one in ours.trace.call_inputs[after][0] if one is not made]
        if len(rest) + 1 == len(ours.trace.call_inputs[after][0]) and all(
            ours.before(one, path) for one in rest
        ):
            goal, others = theirs.output(after), rest
            after = ours.follower(after)
        else:
            after = None
    if after is not None:
        limits = _limits_of(ours.trace.copies.get(after, ours.trace.layers.get(after)))
    width = goal.shape[-1]
    return Site(
        path, layer, ours.trace.call_inputs[path][0][0], goal,
        kept.get(path, np.arange(width)), norm, others, limits,
    )  # fmt: skip


def _adds(wiring: Wiring, path: str) -> bool:
    layer = wiring.trace.copies.get(path, wiring.trace.layers.get(path))
    shapes = {tuple(one.shape) for one in wiring.trace.call_inputs[path][0]}
    return type(layer).__name__ == "Add" and len(shapes) == 1


def _limits_of(layer: Any) -> tuple[float, float] | None:
    if type(layer) is kl.Activation:
        return _limits(layer.activation)
    if type(layer) is kl.ReLU and not layer.negative_slope and not layer.threshold:
        return 0.0, np.inf if layer.max_value is None else float(layer.max_value)
    return None


def _limits(activation: Any) -> tuple[float, float] | None:
    if activation is keras.activations.relu:
        return 0.0, np.inf
    return (0.0, 6.0) if activation is keras.activations.relu6 else None
