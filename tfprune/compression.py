"""Kernels of many zeros and of few distinct weights, by tensorflow-model-optimization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfprune.bridge import to_tf_keras, weights_from
from tfprune.distil import BATCH_SIZE, Distillation, tools
from tfprune.inputs import Array
from tfprune.precision import in_float32

# Epochs of training, unless the data is so small that they would be fewer steps than this.
EPOCHS = 3
STEPS = 300
SPARSITY_RATE = 1e-3
CLUSTER_RATE = 5e-4
# Share of the steps after which all zeros are set, and how many times they are chosen till then.
ZEROS_SET, CHOICES = 0.6, 20
# Layers whose kernels get zeros and shared weights.
KERNELS = ("Dense", "Conv1D", "Conv2D", "Conv3D")


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
) -> keras.Model:
    """A copy of a model whose kernels hold zeros, or few distinct weights, or both.

    The shapes stay; what shrinks is the file when it is compressed, with gzip say. Trained without
    labels: see :class:`tfprune.distil.Distillation`.

    Parameters
    ----------
    model : keras.Model
        A Sequential or Functional model.
    targets : sequence of arrays of shape (samples, ...)
        What the original model makes of ``x``: see :func:`tfprune.convert.outputs_of`.
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

    Returns
    -------
    keras.Model
        Not compiled; float32 where the model is of half precision.

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
    x = [data.astype(tensor.dtype) for data, tensor in zip(x, model.inputs, strict=True)]
    epochs = epochs or max(EPOCHS, -(-STEPS * BATCH_SIZE // len(x[0])))
    school = Distillation(x, targets, epochs, seed, progress)
    if sparsity is not None:
        model = _sparse(model, sparsity, school)
    if clusters is not None:
        model = _clustered(model, clusters, sparsity is not None, school)
    return model


def _sparse(model: keras.Model, share: float, school: Distillation) -> keras.Model:
    with tools() as (tf_keras, tfmot):
        sparsity = tfmot.sparsity.keras
        end = max(int(ZEROS_SET * school.steps), 1)
        schedule = sparsity.PolynomialDecay(
            0.0, share, begin_step=0, end_step=end, frequency=max(end // CHOICES, 1)
        )
        network = _wrapped(
            model,
            school,
            tf_keras,
            lambda layer: sparsity.prune_low_magnitude(layer, pruning_schedule=schedule),
        )
        callback = sparsity.UpdatePruningStep()
        school.train(network, "sparsity", SPARSITY_RATE, tf_keras, callback)
        return weights_from(sparsity.strip_pruning(network), model)


def _clustered(
    model: keras.Model, clusters: int, sparse: bool, school: Distillation
) -> keras.Model:
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

        network = _wrapped(model, school, tf_keras, wrap)
        school.train(network, "cluster", CLUSTER_RATE, tf_keras)
        return weights_from(clustering.strip_clustering(network), model)


def _wrapped(
    model: keras.Model, school: Distillation, tf_keras: Any, wrap: Callable[[Any], Any]
) -> Any:
    """The tf_keras twin with its kernels' layers wrapped."""
    # The first centroids are drawn at random.
    tf_keras.utils.set_random_seed(school.seed)
    twin = to_tf_keras(model, school.x)

    def chosen(layer: Any) -> Any:
        return wrap(layer) if type(layer).__name__ in KERNELS else layer

    return tf_keras.models.clone_model(twin, clone_function=chosen)
