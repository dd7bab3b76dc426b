"""Fits the weights around removed units together, step by step (block reconstruction).

The incoming weights of the units that stay and their consumers' weights are fitted together, so
that the consumers compute what they compute in the original model (Li et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers as kl
from scipy import optimize

from tfprune.core.blas import threads_for
from tfprune.graph.batches import fixed_batch, from_zero_state, padded, states_of
from tfprune.graph.clone import clone_layer
from tfprune.graph.forward import Forward
from tfprune.graph.groups import Group
from tfprune.graph.inputs import predicted
from tfprune.graph.layers import CONVOLUTIONS, ITSELF, RECURRENT, SEPARABLE
from tfprune.graph.safe_gradients import safe_gradients
from tfprune.graph.trace import Trace
from tfprune.utils.arrays import Array
from tfprune.utils.console import meter

# Numbers in the samples that a block is fitted on, at most.
NUMBERS = 2**24
# Samples in a batch, which bounds the memory of gradients.
BATCH = 512
# One sample in so many is held back, to stop when fitting no longer helps.
HELD_BACK = 5
# Steps of L-BFGS that are remembered.
MEMORY = 20
# Steps without a smaller error on the samples held back after which fitting ends.
PATIENCE = 10
# Relative squared error that is rounding.
NOTHING = 1e-9


@dataclass(frozen=True, eq=False)
class _Block:
    """The layers from a group's producers to its consumers, in the small and the original model."""

    before: keras.Model
    ours: keras.Model
    theirs: keras.Model
    producers: dict[str, Any]
    consumers: dict[str, Any]
    kept: list[npt.NDArray[np.intp] | None]

    @property
    def variables(self) -> list[Any]:
        """The variables that are fitted."""
        layers = (*self.producers.values(), *self.consumers.values())
        return [weight for layer in layers for weight in layer.weights]


def fit_blocks(
    ours: Trace,
    theirs: Trace,
    groups: Sequence[Group],
    kept: Mapping[str, npt.NDArray[np.intp]],
    x: Sequence[Array],
    *,
    iterations: int,
    progress: bool = False,
) -> None:
    """Fits producers and consumers of every group together, from the input on; in place.

    Groups stay as they are if one of their layers is shared, stands inside a TimeDistributed, is
    neither Dense nor a convolution nor recurrent, or consumes its own group's units and has an
    activation. A recurrent layer does so in any case; all of its kernels are fitted together.

    Parameters
    ----------
    ours, theirs : Trace
        Of the small model and of the original.
    groups : sequence of Group
        The groups that lost units.
    kept : mapping of str to array
        By layer, the units that stayed, for layers that lost any.
    x : sequence of arrays of shape (samples, ...)
        Fewer are used where layers are large. A fifth is held back: each group keeps the step that
        does best there, which may be the start.
    iterations : int
        Steps of L-BFGS for each group, at most.
    progress : bool
        Whether to draw a progress bar on stderr.

    References
    ----------
    Li et al. (2021), "BRECQ: pushing the limit of post-training quantization by block
    reconstruction", for the blocks; Liu, Nocedal (1989), "On the limited memory BFGS method
    for large scale optimization".
    """
    places = {path: place for place, path in enumerate(theirs.call_inputs)}
    # By the last consumer: what is inside a residual block comes before the sum that it goes into.
    order = sorted(
        groups, key=lambda group: max(places[consumer.layer] for consumer in group.consumers)
    )
    with meter("reconstruction: blocks", len(groups), progress, "group") as bar:
        for group in order:
            block = _block(ours, theirs, group, kept)
            if block is not None:
                with safe_gradients(block.ours):
                    _fit(block, x, iterations)
                for path, layer in (block.producers | block.consumers).items():
                    ours.copies[path].set_weights(layer.get_weights())
            bar.update()


def _block(
    ours: Trace, theirs: Trace, group: Group, kept: Mapping[str, npt.NDArray[np.intp]]
) -> _Block | None:
    consumers = list(
        dict.fromkeys(
            consumer.layer
            for consumer in group.consumers
            if not (consumer.layer in group.producers and consumer.part in ITSELF)
        )
    )
    plain = (kl.Dense, *CONVOLUTIONS, *SEPARABLE, *RECURRENT)
    if any(
        type(ours.copies[path]) not in plain
        or len(ours.call_inputs[path]) > 1
        or path in ours.steps
        for path in (*group.producers, *consumers)
    ):
        return None
    linear = {path: _linear(ours, path) for path in consumers}
    if any(linear.get(path) not in (None, ours.copies[path]) for path in group.producers):
        return None  # It consumes its own group's units, so a copy of it would not do.
    if not consumers:
        return None
    outputs = [_output(layer) for layer in linear.values()]
    start = ours.call_inputs[next(iter(group.producers))][0]
    if any(getattr(tensor, "_keras_mask", None) is not None for tensor in start):
        start = ours.model.inputs  # A mask would not come along.
    try:
        between = keras.Model(start, outputs)
    except ValueError:  # The consumers' inputs come from elsewhere as well.
        start = ours.model.inputs
        between = keras.Model(start, outputs)
    if states_of(between):
        return None  # Its outputs depend on earlier batches, which are left out here.
    return _Block(
        keras.Model(ours.model.inputs, start),
        between,
        keras.Model(theirs.model.inputs, [_output(_linear(theirs, path)) for path in consumers]),
        {path: ours.copies[path] for path in group.producers if path not in linear},
        linear,
        [kept.get(path) for path in consumers],
    )


def _linear(trace: Trace, path: str) -> Any:
    """A consumer without its activation: a copy on the same input, if it has one.

    That of a recurrent layer is in its midst, so it is taken as it is.
    """
    layer = trace.copies[path]
    if type(layer) in RECURRENT or layer.activation is keras.activations.linear:
        return layer
    copy = clone_layer(layer, activation="linear", name=f"{layer.name}_linear")
    copy(trace.call_inputs[path][0][0])
    copy.set_weights(layer.get_weights())
    return copy


def _output(layer: Any) -> Any:
    """What a layer makes; of a recurrent one without its state."""
    return keras.tree.flatten(layer.output)[0]


def _fit(block: _Block, x: Sequence[Array], iterations: int) -> None:
    tensors = [*block.ours.inputs, *block.theirs.outputs]
    numbers = sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)
    x = [data[: max(NUMBERS // numbers, 2 * HELD_BACK)] for data in x]
    inputs, goals = computed(block.before, x), computed(block.theirs, x)
    goals = [g if k is None else g[..., k] for g, k in zip(goals, block.kept, strict=True)]
    held = np.arange(len(goals[0])) % HELD_BACK == HELD_BACK - 1
    sizes = [float(np.mean((g - g.mean(axis=0)) ** 2)) or 1.0 for g in goals]
    fit, check = (
        _Error(block, [data[part] for data in inputs], [g[part] for g in goals], sizes)
        for part in (~held, held)
    )
    start = _vector(block.variables)
    best, waited = (check.value(start), start), 0
    if best[0] <= NOTHING:
        return

    def look(xk: Array) -> None:
        nonlocal best, waited
        error = check.value(xk)
        if error < best[0]:
            best, waited = (error, xk.copy()), 0
            return
        waited += 1
        if waited == PATIENCE:
            raise StopIteration

    # Products of some long vectors: threads would wait for each other longer than they compute.
    with threads_for(1):
        optimize.minimize(
            fit,
            start,
            jac=True,
            method="L-BFGS-B",
            callback=look,
            options={"maxiter": iterations, "maxcor": MEMORY},
        )
    _assign(block.variables, best[1])


def computed(model: keras.Model | Forward, x: Sequence[Array]) -> list[Array]:
    """What a model makes of samples in inference, as a list of arrays."""
    forward = model if isinstance(model, Forward) else Forward(model, BATCH)

    def outputs(batch: list[Array]) -> list[Any]:
        if forward.size is not None:  # There may be many batches.
            return predicted(forward.model, batch)
        return forward(batch)

    step = forward.step
    with from_zero_state(forward.model):
        batches = [
            outputs([data[at : at + step] for data in x]) for at in range(0, len(x[0]), step)
        ]
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def _step(model: keras.Model, inputs: Sequence[Array]) -> int | None:
    """The batch size that a block without state insists on, if it does."""
    size = fixed_batch(model)
    if size is None or len(inputs[0]) < 2 * size:
        return size
    # Most layers take any size, whatever the model was built for.
    try:
        both, first, second = (
            keras.tree.flatten(model([data[start:stop] for data in inputs], training=False))
            for start, stop in ((0, 2 * size), (0, size), (size, 2 * size))
        )
        parts = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
        same = all(map(partial(np.allclose, rtol=1e-3, atol=1e-4), both, parts))
    except Exception:  # Each layer has an error of its own.
        return size
    return None if same else size


class _Error:
    """The squared error of a block, relative to the goals' variance, and its gradient."""

    def __init__(
        self, block: _Block, inputs: Sequence[Array], goals: Sequence[Array], sizes: Sequence[float]
    ) -> None:
        self._variables = block.variables
        count = len(goals[0])
        fixed = _step(block.ours, inputs)
        step = fixed or BATCH
        self._batches = [
            (
                list(map(tf.constant, padded([data[at : at + step] for data in inputs], fixed))),
                [tf.constant(goal[at : at + step]) for goal in goals],
            )
            for at in range(0, count, step)
        ]
        weights = [
            1 / (size * math.prod(goal.shape)) for size, goal in zip(sizes, goals, strict=True)
        ]
        values = [variable.value for variable in block.variables]

        def error(inputs: list[Any], goals: list[Any]) -> Any:
            outputs = block.ours(inputs, training=False)
            parts = zip(weights, keras.tree.flatten(outputs), goals, strict=True)
            return sum(
                w * tf.reduce_sum(tf.square(out[: tf.shape(goal)[0]] - goal))
                for w, out, goal in parts
            )

        def slope(inputs: list[Any], goals: list[Any]) -> Any:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                loss = error(inputs, goals)
            return loss, tape.gradient(loss, values)

        self._error: Callable[..., Any] = tf.function(error, reduce_retracing=True)
        self._slope: Callable[..., Any] = tf.function(slope, reduce_retracing=True)

    def value(self, at: Array) -> float:
        """The error alone."""
        _assign(self._variables, at)
        return sum(float(self._error(*batch)) for batch in self._batches)

    def __call__(self, at: Array) -> tuple[float, Array]:
        _assign(self._variables, at)
        total, gradient = 0.0, np.zeros_like(at)
        for batch in self._batches:
            loss, slopes = self._slope(*batch)
            total += float(loss)
            gradient += np.concatenate([np.asarray(s, np.float64).ravel() for s in slopes])
        return total, gradient


def _vector(variables: Sequence[Any]) -> Array:
    parts = [keras.ops.convert_to_numpy(variable).ravel() for variable in variables]
    return np.concatenate(parts).astype(np.float64)


def _assign(variables: Sequence[Any], vector: Array) -> None:
    at = 0
    for variable in variables:
        size = math.prod(variable.shape)
        variable.assign(vector[at : at + size].reshape(variable.shape))
        at += size
