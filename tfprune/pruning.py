"""``prune(model, x, threshold=30)``: a smaller model in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfprune.core.unit_group import ScoreFunction
from tfprune.options import prune_options
from tfprune.prune_result import PruneResult
from tfprune.pruner import Pruner, warned


def prune(
    model: keras.Model,
    x: Any,
    threshold: float | None = None,
    *,
    remove: float | None = None,
    target_params: float | str | None = None,
    target_macs: float | str | None = None,
    target_bytes: float | str | None = None,
    select: str | ScoreFunction | None = None,
    centre: str | float = "auto",
    fold: str = "least-squares",
    layers: str | Sequence[str] | None = None,
    skip: Sequence[str] = (),
    refit: int | None = None,
    round_to: int | None = None,
    validation: Any = None,
    scheme: str = "int8",
    file_batch: int | None = 1,
    file_compat: bool = False,
    seed: int = 0,
    batch_size: int | None = None,
    progress: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    approximate: bool = False,
) -> PruneResult:
    """Removes hidden units and filters that do the same work as others.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model; it stays as it is.
    x : array, list or dict of arrays, path of a file, tf.data.Dataset or keras.utils.PyDataset
        Calibration data as the model takes it, arrays of shape (samples, ...); labels are not
        needed. A memory-mapped array or a data set is never held whole. For a model of one input
        also a path, or a list of paths, which are read one at a time: .npy, .npz (arrays ``x``, or
        ``x_train``), .csv, .parquet (all columns but ``label``) or .tfrecord. Or a list of
        tf.data.Dataset, such as ``[data.shard(8, n) for n in range(8)]``.
    threshold : float, optional
        Degrees in (0, 90), 30 where nothing else is asked for. Units are similar below it and
        complementary above 180 minus it.
    remove : float, optional
        In place of a threshold: the share of units, in (0, 1), that goes from every layer.
    target_params, target_macs, target_bytes : int, float or str, optional
        In place of a threshold, one of them: how many parameters, multiply-accumulates of a
        sample, or bytes of the ``.tflite`` file the smaller model may have; a number, or a share
        of the original model's such as ``"50%"``. As few units as possible go, from layers where
        they have least effect for what they save.
    select : {"angle", "span", "effect", "magnitude", "random"} or callable, optional
        By what units are chosen. ``angle``, the default with a threshold: pairs that do the same
        work. ``span``: the threshold holds for the angle between a unit and the span of all
        survivors. ``effect``, the default with ``remove`` and the only one with targets: those go
        whose loss, with the survivors refitted, changes least what their consumers receive.
        ``magnitude`` (length of the incoming weights) and ``random`` are there to compare with.
        The last three need ``remove``. So does a criterion of your own, ``score(group)``: it is
        called with a :class:`tfprune.UnitGroup` for every group of units that go together, and
        returns a finite number for each, shape (units,); units of the lowest scores go, of equal
        ones the first.
    centre : {"auto", "mean", "activation", "none"} or float
        The point about which angles are measured. ``auto``: the ``mean`` of the activations for
        the folds that correct by a constant (``least-squares``, ``scaled``), else ``activation``:
        0.5 after a sigmoid, 0 after others, as the studies did. ``none``: 0. For a consumer
        with padding, whose bias cannot take a constant, always 0.
    fold : {"least-squares", "scaled", "outgoing", "incoming", "drop"}
        What the layers that consume a removed unit get in its place.
    layers : {"dense", "conv", "recurrent", "all"} or sequence of str, optional
        Prune only these. By default all Dense layers that can be, or, in a model without a hidden
        Dense layer that can lose units, ``all``; ``result.layers_note`` and the table say so.
        Layers that meet in an Add go together, or not at all.
    skip : sequence of str
        Leave these alone.
    refit : int, optional
        Steps of the reconstruction, at most; 0 for none of it. It first solves for every layer in
        closed form, then fits producers and consumers together step by step, to what the consumers
        compute in the original model. The closed form takes all samples of a list of paths, else
        the first 4,096 at most, as the steps do. By default 100 with ``remove`` and targets (fewer
        where over ten groups lose units: 1,000 in all; the closed form alone in models of over 5
        million multiply-accumulates), else 0.
    round_to : int, optional
        Widths are multiples of this, such as 8: for a threshold and targets more units stay, for
        ``remove`` it is the nearest; or a layer stays whole. Narrower layers are as without it.
    validation : as x, optional
        Other samples than ``x``, of which some hundred are enough: folds are tried on them, and the
        outputs before and after pruning compared. By default a fifth of ``x``, at most 256
        samples, is held back for both.
    scheme : str
        Of the file whose bytes ``target_bytes`` counts: see :func:`tfprune.export`.
    file_batch : int or None
        Batch size of that file; None leaves it open.
    file_compat : bool
        Whether that file is one for tflite-runtime 2.14.
    seed : int
        Of ``random``.
    batch_size : int, optional
        Samples in a batch; by default 256, fewer where the model is large. A model of a fixed
        batch size takes batches of that, the last filled up with its last sample, which is not
        counted again. Where a recurrent layer keeps its state from batch to batch, the data is
        read in its order, from a state of zero.
    progress : bool
        Whether to draw a progress bar on stderr.
    workers : int, optional
        How many processes of this machine measure the files of a list of paths, and sum what the
        reconstruction solves for.
    cluster : str, optional
        In place of ``workers`` the address of a Dask scheduler, whose workers find the files under
        the same paths; needs ``pip install 'tfprune[cluster]'``.
    approximate : bool
        Whether units also go in front of LayerNormalization, RMSNormalization and
        UnitNormalization, which then compute something else: their weights, or those of what reads
        one without weights, are fitted to what they made of all units, and the rows say how far
        their outputs are off.

    Returns
    -------
    PruneResult

    Raises
    ------
    TfpruneError
        If an argument is not as above, a layer does not exist, the data does not fit the model,
        weights, data or activations are NaN or infinite, scores are not what they should be, a
        target cannot be reached, or a layer does not do what the rule registered for it says: see
        :func:`tfprune.register_layer`.

    References
    ----------
    Gedeon, Harris (1991), "Network reduction techniques", for the angles.
    Hassibi, Stork (1993), "Second order derivatives for network pruning: Optimal brain surgeon",
    for the effect.

    Examples
    --------
    Of eight units the last four repeat the first four:

    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
    >>> x = np.random.default_rng(0).normal(size=(100, 4))
    >>> result = tfprune.prune(model, x, threshold=30)
    >>> hidden.units, result.model.get_layer("hidden").units
    (8, 4)
    >>> np.allclose(result.model(x), model(x), atol=1e-5)
    True
    """
    options = prune_options(
        threshold, remove=remove, target_params=target_params, target_macs=target_macs,
        target_bytes=target_bytes, select=select, fold=fold, refit=refit, scheme=scheme,
        file_batch=file_batch, file_compat=file_compat, seed=seed, round_to=round_to,
    )  # fmt: skip
    pruner = Pruner(
        model, x, layers=layers, skip=skip, centre=centre, batch_size=batch_size,
        progress=progress, validation=validation, workers=workers, cluster=cluster,
        approximate=approximate,
    )  # fmt: skip
    return warned(pruner.prune_as(options, compare=True))
