"""Fits the layers that decide between classes to the original's probabilities (convex)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers as kl
from scipy import optimize, special

from tfprune.core.blas import threads_for
from tfprune.reconstruction.blocks import computed
from tfprune.reconstruction.sites import Wiring
from tfprune.utils.arrays import Array

# Rows that a layer is fitted on, at most, and numbers in them.
ROWS, NUMBERS = 2**15, 2**24
# Penalties of changes that are tried, for features of variance 1.
PENALTIES = (1e-1, 1e-2, 1e-3)
# Steps of L-BFGS at most; most fits need far fewer. Of more weights than so many, fewer.
STEPS = 100
MANY, STEPS_OF_MANY = 2**18, 30
# Nats that are rounding.
NOTHING = 1e-6


@dataclass(frozen=True, eq=False)
class OutputLayer:
    """A Dense layer whose outputs become a model's probabilities.

    Attributes
    ----------
    layer : keras.layers.Dense
        Of the pruned model's copy.
    source : KerasTensor
        What it takes.
    place : int
        Which of the model's outputs it makes.
    kind : {"softmax", "sigmoid", "logits"}
    """

    layer: Any
    source: Any
    place: int
    kind: str


def output_layers(ours: Wiring, kinds: Sequence[str]) -> list[OutputLayer]:
    """The Dense layers that make a pruned model's probabilities or logits.

    Parameters
    ----------
    ours : Wiring
        Of the pruned model.
    kinds : sequence of str
        Of its outputs: ``softmax``, ``sigmoid``, ``logits`` or ``values``, of which the last have
        no probabilities.
    """
    found = []
    for place, (tensor, kind) in enumerate(zip(ours.trace.model.outputs, kinds, strict=True)):
        path = ours.maker(tensor)
        if path is not None and type(ours.trace.copies.get(path)) in (kl.Activation, kl.Softmax):
            path = ours.maker(ours.trace.call_inputs[path][0][0])
        layer: Any = None if path is None else ours.trace.copies.get(path)
        if kind == "values" or path is None or type(layer) is not kl.Dense:
            continue
        if ours.single(path) and len(layer.get_weights()) == 1 + layer.use_bias:
            source = ours.trace.call_inputs[path][0][0]
            found.append(OutputLayer(layer, source, place, kind))
    return found


def fit_output_layer(
    output: OutputLayer,
    inputs: Sequence[Any],
    x: Sequence[Array],
    goal: Array,
    held: npt.NDArray[np.bool_],
) -> bool:
    """Fits a layer to the original's probabilities by the Kullback-Leibler divergence; in place.

    Least squares asks for the original's logits, also where they decide nothing. With the features
    given, the divergence is convex in the layer's weights, and changes of them are penalised.

    Parameters
    ----------
    output : OutputLayer
    inputs : sequence of KerasTensor
        Of the pruned model.
    x : sequence of arrays of shape (samples, ...)
    goal : array of shape (samples, ..., outputs)
        The original's probabilities, or its logits where the layer makes logits.
    held : array of shape (samples,)
        Which samples are held back to choose the penalty by.

    Returns
    -------
    bool
        Whether it changed: it does if it comes nearer on the samples held back.

    References
    ----------
    Hinton, Vinyals, Dean (2015), "Distilling the knowledge in a neural network".
    """
    features = computed(keras.Model(list(inputs), [output.source]), x)[0]
    sample = np.repeat(np.arange(len(x[0])), math.prod(features.shape[1:-1]))
    rows = features.reshape(len(sample), -1)
    targets = probabilities(goal.reshape(len(sample), -1), output.kind)
    most = max(1, min(ROWS, NUMBERS // rows.shape[1]))
    if len(rows) > most:
        chosen = np.sort(np.random.default_rng(0).choice(len(rows), most, replace=False))
        rows, targets, sample = rows[chosen], targets[chosen], sample[chosen]
    mask = held[sample]
    if not mask.any() or mask.all():
        return False
    kernel, *rest = output.layer.get_weights()
    bias = rest[0] if rest else None
    sigmoid = output.kind == "sigmoid"
    fit, check = (
        Divergence(rows[part], targets[part], kernel, bias, sigmoid) for part in (~mask, mask)
    )
    least, best = check.value(kernel, bias), None
    for penalty in PENALTIES:
        found = fit.least(penalty)
        if (error := check.value(*found)) < least - NOTHING:
            least, best = error, found
    if best is None:
        return False
    output.layer.set_weights([one for one in best if one is not None])
    return True


def probabilities(goal: Array, kind: str) -> Array:
    """The original's outputs as probabilities: rows that sum to 1, or single ones of a sigmoid.

    Parameters
    ----------
    goal : array of shape (rows, outputs)
    kind : {"softmax", "sigmoid", "logits"}

    Examples
    --------
    >>> probabilities(np.array([[0.0, 0.0]]), "logits")
    array([[0.5, 0.5]])
    """
    goal = np.asarray(goal, np.float64)
    if kind == "logits":
        return np.asarray(special.softmax(goal, axis=-1))
    return np.clip(goal, 0, 1) if kind == "sigmoid" else goal / goal.sum(axis=-1, keepdims=True)


class Divergence:
    """The cross entropy of a layer's probabilities with given ones, and its least value.

    Parameters
    ----------
    rows : array of shape (rows, inputs)
    targets : array of shape (rows, outputs)
        Probabilities.
    kernel : array of shape (inputs, outputs)
        The present one, from which changes are penalised.
    bias : array of shape (outputs,) or None
    sigmoid : bool
    """

    def __init__(
        self, rows: Array, targets: Array, kernel: Array, bias: Array | None, sigmoid: bool
    ) -> None:
        self._given, self._targets, self._sigmoid = rows, targets, sigmoid
        self._kernel, self._bias = kernel.astype(np.float64), bias
        mean = rows.mean(axis=0, dtype=np.float64)
        # Without a bias nothing could make up for what is taken off.
        self._centre = np.zeros_like(mean) if bias is None else mean
        scale = rows.std(axis=0, dtype=np.float64)
        # A feature that is nearly constant says nothing.
        self._scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)
        self._rows, self._span = (rows - self._centre) / self._scale, None
        if len(rows) < rows.shape[1] and kernel.size > MANY:
            # Changes that the rows do not see are 0, so they are sought in the rows' span.
            span, factor = np.linalg.qr(self._rows.T)
            self._rows, self._span = factor.T, span
        self._present = self._logits(self._kernel, bias)

    def _logits(self, kernel: Array, bias: Array | None) -> Array:
        return self._given @ kernel + (0.0 if bias is None else bias)

    def value(self, kernel: Array, bias: Array | None) -> float:
        """The mean cross entropy with a kernel and a bias."""
        return self._entropy(self._logits(kernel, bias))[0]

    def least(self, penalty: float) -> tuple[Array, Array | None]:
        """Kernel and bias of the least cross entropy plus the penalty of the kernel's change.

        Parameters
        ----------
        penalty : float
            Above 0; of half the squared change of the kernel for features of variance 1.
        """
        shape = (self._rows.shape[1] + 1, self._kernel.shape[1])
        steps = STEPS if self._kernel.size <= MANY else STEPS_OF_MANY
        constant = self._bias is not None

        def function(vector: Array) -> tuple[float, Array]:
            change = vector.reshape(shape)
            entropy, slope = self._entropy(self._present + self._rows @ change[:-1] + change[-1])
            gradient = np.vstack([self._rows.T @ slope, constant * slope.sum(axis=0)])
            gradient[:-1] += penalty * change[:-1]
            return entropy + penalty / 2 * float(
                np.vdot(change[:-1], change[:-1])
            ), gradient.ravel()

        with threads_for(shape[0]):
            found = optimize.minimize(
                function, np.zeros(math.prod(shape)), jac=True, method="L-BFGS-B",
                options={"maxiter": steps},
            )  # fmt: skip
        change = found.x.reshape(shape)
        more = change[:-1] if self._span is None else self._span @ change[:-1]
        more = more / self._scale[:, None]
        bias = None
        if self._bias is not None:
            bias = self._bias + change[-1] - self._centre @ more
        return self._kernel + more, bias

    def _entropy(self, logits: Array) -> tuple[float, Array]:
        """The mean cross entropy, and its slope by the logits."""
        count = len(logits)
        if self._sigmoid:
            cross = self._targets * special.log_expit(logits)
            cross = cross + (1 - self._targets) * special.log_expit(-logits)
            slope = special.expit(logits) - self._targets
        else:
            logarithms = special.log_softmax(logits, axis=-1)
            cross, slope = self._targets * logarithms, np.exp(logarithms) - self._targets
        return -float(cross.sum()) / count, slope / count
