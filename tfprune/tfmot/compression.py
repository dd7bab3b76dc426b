"""Makes weights sparse or clusters them, by tensorflow-model-optimization."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfprune.graph.precision import in_float32
from tfprune.graph.predictions import outputs_of
from tfprune.tfmot.bridge import to_tf_keras, weights_from
from tfprune.tfmot.distillation import BATCH_SIZE, Distillation, Sides, as_inputs, tools
from tfprune.training.records import TrainingHistory
from tfprune.utils.arrays import Array

# Epochs of training, unless the data is so small that they would be fewer steps than this.
EPOCHS = 3
STEPS = 300
SPARSITY_RATE = 1e-3
CLUSTER_RATE = 5e-4
# Share of the steps after which all zeros are set, and how many times they are chosen till then.
ZEROS_SET, CHOICES = 0.6, 20
# Layers whose kernels get zeros and shared weights.
KERNELS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


@dataclass(frozen=True)
class Compressed:
    """The result of one kind of compression.

    Attributes
    ----------
    how : {"sparsity", "cluster"}
    epochs : int
    seconds : float
    before : float
        The loss on held-out samples of the model that came, without zeros or shared weights.
    history : TrainingHistory
        The loss with them: at the start without any training, and after each epoch; infinite
        where they were not all there yet.
    """

    how: str
    epochs: int
    seconds: float
    before: float
    history: TrainingHistory

    @property
    def note(self) -> str:
        """What the user should know, or empty."""
        if self.history.best_epoch == 0:
            return "training did not help, so they were set without"
        if self.history.diverged is not None:
            return f"the loss was not finite in epoch {self.history.diverged}, so it ended before"
        return ""


def compress(
    model: keras.Model,
    targets: Sequence[Array],
    x: Sequence[Array],
    *,
    sparsity: float | None = None,
    clusters: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    progress: bool = False,
    held_out: Sides | None = None,
) -> tuple[keras.Model, list[Compressed]]:
    """A copy of a model whose kernels hold zeros, or few distinct weights, or both.

    The shapes stay; what shrinks is the file when it is compressed, with gzip say. Trained without
    labels: see :class:`tfprune.tfmot.distillation.Distillation`. Zeros or shared weights cost
    something, so the result may be worse than the model that came; but of the states that have what
    was asked for, the untrained one among them, the one is returned that does best on held-out
    samples.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model.
    targets : sequence of arrays of shape (samples, ...)
        What the original model makes of ``x``: see :func:`tfprune.graph.predictions.outputs_of`.
    x : sequence of arrays of shape (samples, ...)
        One for each of ``model.inputs``.
    sparsity : float, optional
        Share in (0, 1) of the weights of each Dense or convolution kernel, those of least
        magnitude, that become zero.
    clusters : int, optional
        How many distinct weights a kernel may have, at least 2; zeros made here stay zero and
        count as one.
    epochs : int, optional
        Of training for each of the two; 3 by default, more for small data.
    seed : int
        The global seeds of Python, numpy and TensorFlow are set to it.
    progress : bool
        Whether to draw progress bars on stderr.
    held_out : pair of sequences of arrays, optional
        Other samples and targets; by default a part of these is held out.

    Returns
    -------
    model : keras.Model
        Not compiled; float32 where the model is of half precision.
    steps : list of Compressed
        What each of the two did.

    Raises
    ------
    TfpruneError
        If the model cannot be carried to tf_keras, or the training fails.

    References
    ----------
    Zhu, Gupta (2017), "To prune, or not to prune", eq. 1: the schedule of the zeros.
    Han, Mao, Dally (2016), "Deep compression", section 3: shared weights.
    """
    model = in_float32(model)
    x = as_inputs(model, x)
    epochs = epochs or max(EPOCHS, -(-STEPS * BATCH_SIZE // len(x[0])))
    distillation = Distillation(x, targets, epochs, seed=seed, progress=progress, held_out=held_out)
    tasks: dict[str, Callable[[keras.Model], tuple[keras.Model, TrainingHistory]]] = {}
    if sparsity is not None:
        tasks["sparsity"] = lambda model: _sparse(model, sparsity, distillation)
    if clusters is not None:
        tasks["cluster"] = lambda model: _clustered(
            model, clusters, sparsity is not None, distillation
        )
    steps = []
    for how, task in tasks.items():
        start = time.perf_counter()
        before = distillation.distance(outputs_of(model, distillation.held_out_x))
        model, history = task(model)
        steps.append(Compressed(how, epochs, time.perf_counter() - start, before, history))
    return model, steps


def _sparse(
    model: keras.Model, share: float, distillation: Distillation
) -> tuple[keras.Model, TrainingHistory]:
    with tools() as (tf_keras, tfmot):
        sparsity = tfmot.sparsity.keras
        end = max(int(ZEROS_SET * distillation.steps), 1)
        between = max(end // CHOICES, 1)
        # Masks change in steps of so many; the last one has to be that of the whole share.
        end -= end % between
        schedule = sparsity.PolynomialDecay(
            0.0, share, begin_step=0, end_step=end, frequency=between
        )
        network = _wrapped(
            model,
            distillation,
            tf_keras,
            lambda layer: sparsity.prune_low_magnitude(layer, pruning_schedule=schedule),
        )
        masked = [
            pair[:2] for layer in network.layers for pair in getattr(layer, "pruning_vars", ())
        ]

        def untrained() -> None:
            for weight, mask in masked:
                values = weight.numpy()
                kept = np.argsort(-np.abs(values), axis=None, kind="stable")
                zeros = np.zeros_like(values)
                zeros.flat[kept[: _kept(values.size, share)]] = 1
                mask.assign(zeros)
                weight.assign(values * zeros)

        def complete() -> bool:
            return all(
                np.count_nonzero(weight.numpy()) <= _kept(mask.shape.num_elements(), share)
                for weight, mask in masked
            )

        history = distillation.train(
            network, "sparsity", SPARSITY_RATE, tf_keras, sparsity.UpdatePruningStep(),
            untrained=untrained, complete=complete,
        )  # fmt: skip
        return weights_from(sparsity.strip_pruning(network), model), history


def _kept(size: int, share: float) -> int:
    """How many of so many weights stay where a share becomes zero, as tfmot counts."""
    return max(round(size * (1 - share)), 1)


def _clustered(
    model: keras.Model, clusters: int, sparse: bool, distillation: Distillation
) -> tuple[keras.Model, TrainingHistory]:
    with tools() as (tf_keras, tfmot):
        # The public one cannot keep zeros; tfmot's own guide imports this one for it.
        from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

        clustering = tfmot.clustering.keras

        def wrap(layer: Any) -> Any:
            if layer.get_weights()[0].size <= clusters:
                return layer  # It has no more distinct weights, whatever they become.
            return cluster.cluster_weights(
                layer,
                number_of_clusters=clusters,
                cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS,
                preserve_sparsity=sparse,
            )

        network = _wrapped(model, distillation, tf_keras, wrap)
        history = distillation.train(network, "cluster", CLUSTER_RATE, tf_keras)
        return weights_from(clustering.strip_clustering(network), model), history


def _wrapped(
    model: keras.Model, distillation: Distillation, tf_keras: Any, wrap: Callable[[Any], Any]
) -> Any:
    """The tf_keras model with the layers of its kernels wrapped."""
    # The first centroids are drawn at random.
    tf_keras.utils.set_random_seed(distillation.seed)
    tfk_model = to_tf_keras(model, distillation.x)

    def chosen(layer: Any) -> Any:
        return wrap(layer) if type(layer).__name__ in KERNELS else layer

    return tf_keras.models.clone_model(tfk_model, clone_function=chosen)
