"""``prune(model, x, threshold=30)``, and ``Pruner``, which measures once and prunes often."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras

from tfprune.budget import RemovalSchedule, fit_budget
from tfprune.calibration import Calibration, calibrate
from tfprune.core.fold import FOLD_RULES
from tfprune.core.selection import Selection
from tfprune.core.unit_group import ScoreFunction
from tfprune.criteria import select_all, words_for
from tfprune.errors import PruningWarning
from tfprune.folding import cuts_of
from tfprune.graph.clone import lost
from tfprune.graph.inputs import MOST_HELD_BACK, Samples
from tfprune.graph.safe_gradients import crash_notes
from tfprune.graph.shrink import shrink
from tfprune.options import (
    DEGREES,
    PruneOptions,
    check_centre,
    check_refit,
    criterion_name,
    prune_options,
)
from tfprune.outputs.change import Change, change_of
from tfprune.prune_result import PruneResult, layer_results, surprises
from tfprune.reconstruction import reconstruct as refit_survivors
from tfprune.results import Skipped


def prune(
    model: keras.Model,
    x: Any,
    threshold: float = DEGREES,
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
    batch_size: int = 256,
    progress: bool = False,
) -> PruneResult:
    """Removes hidden units and filters that do the same work as others.

    Parameters
    ----------
    model : keras.Model
        A built Sequential or Functional model; it stays as it is.
    x : array, list or dict of arrays, path of a .npy, tf.data.Dataset or keras.utils.PyDataset
        Calibration data as the model takes it, arrays of shape (samples, ...); labels are not
        needed. A memory-mapped array or a data set is never held whole.
    threshold : float
        Degrees in (0, 90). Units are similar below it and complementary above 180 minus it.
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
    layers : {"dense", "conv", "all"} or sequence of str, optional
        Prune only these. By default all Dense layers that can be, or, in a model without a hidden
        Dense layer that can lose units, ``all``; ``result.layers_note`` and the table say so.
        Layers that meet in an Add go together, or not at all.
    skip : sequence of str
        Leave these alone.
    refit : int, optional
        Steps of the reconstruction, which fits the survivors' incoming weights and their consumers'
        weights to what the consumers compute in the original model; 0 for none. By default 100 with
        ``remove`` and targets (fewer where over ten groups lose units: 1,000 in all), else 0.
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
    batch_size : int
        A model of a fixed batch size takes batches of that, the last filled up with its last
        sample, which is not counted again. Where a recurrent layer keeps its state from batch to
        batch, the data is read in its order, from a state of zero.
    progress : bool
        Whether to draw a progress bar on stderr.

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
        progress=progress, validation=validation,
    )  # fmt: skip
    return _warned(pruner.prune_as(options, compare=True))


def _warned(result: PruneResult) -> PruneResult:
    """Issues a result's notes as warnings at the user's call, two frames up; returns it."""
    for note in result.notes:
        warnings.warn(note, PruningWarning, stacklevel=3)
    return result


class Pruner:
    """A model measured once, to be pruned in several ways.

    Parameters
    ----------
    model, x, layers, skip, centre, batch_size, progress, validation
        As of :func:`tfprune.prune`. The model must not be changed in between.
    hold_back : bool
        Whether a part of ``x`` is held back where there is no ``validation``. With neither the
        least-squares fold is taken as it is.

    Raises
    ------
    TfpruneError
        If an argument is not as there, a layer does not exist, the data does not fit the model, or
        weights, data or activations are NaN or infinite.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> import tfprune
    >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
    >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
    >>> pruner = tfprune.Pruner(model, np.random.default_rng(0).normal(size=(100, 4)))
    >>> pruner.units
    8
    """

    def __init__(
        self,
        model: keras.Model,
        x: Any,
        *,
        layers: str | Sequence[str] | None = None,
        skip: Sequence[str] = (),
        centre: str | float = "auto",
        batch_size: int = 256,
        validation: Any = None,
        progress: bool = False,
        hold_back: bool = True,
    ) -> None:
        self._centre = check_centre(centre)
        self._progress = progress
        first = FOLD_RULES["least-squares"].centre(self._centre)
        self._calibration = calibrate(
            model, x, layers=layers, skip=skip, centre=first, batch_size=batch_size,
            progress=progress, hold_back=hold_back and validation is None, validation=validation,
        )  # fmt: skip
        self._calibrations = {first: self._calibration}
        self._validation = validation
        self._schedules: dict[bool, RemovalSchedule] = {}

    def prune(
        self,
        threshold: float = DEGREES,
        *,
        remove: float | None = None,
        target_params: float | str | None = None,
        target_macs: float | str | None = None,
        target_bytes: float | str | None = None,
        select: str | ScoreFunction | None = None,
        fold: str = "least-squares",
        refit: int | None = None,
        round_to: int | None = None,
        scheme: str = "int8",
        file_batch: int | None = 1,
        file_compat: bool = False,
        seed: int = 0,
    ) -> PruneResult:
        """A smaller model; the one that was measured stays as it is.

        Parameters
        ----------
        threshold, remove, target_params, target_macs, target_bytes, select, fold, refit, \
round_to, scheme, file_batch, file_compat, seed
            As of :func:`tfprune.prune`, whose result this is for the same arguments.

        Returns
        -------
        PruneResult

        Raises
        ------
        TfpruneError
            If an argument is not as there, or a target cannot be reached.

        Examples
        --------
        >>> import keras
        >>> import numpy as np
        >>> import tfprune
        >>> hidden = keras.layers.Dense(8, "tanh", name="hidden")
        >>> model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(2)])
        >>> hidden.set_weights([np.tile(np.eye(4), 2), np.zeros(8)])
        >>> pruner = tfprune.Pruner(model, np.random.default_rng(0).normal(size=(100, 4)))
        >>> results = pruner.prune(threshold=30), pruner.prune(remove=0.25)
        >>> [result.model.get_layer("hidden").units for result in results]
        [4, 6]
        """
        options = prune_options(
            threshold, remove=remove, target_params=target_params, target_macs=target_macs,
            target_bytes=target_bytes, select=select, fold=fold, refit=refit, scheme=scheme,
            file_batch=file_batch, file_compat=file_compat, seed=seed, round_to=round_to,
        )  # fmt: skip
        return _warned(self.prune_as(options, compare=True))

    def prune_as(self, options: PruneOptions, compare: bool = False) -> PruneResult:
        """Prunes by options that were checked before; issues no warnings.

        Parameters
        ----------
        options : PruneOptions
        compare : bool
            Whether to measure what pruning changed in the outputs.

        Raises
        ------
        TfpruneError
            If a target cannot be reached.
        """
        folds = FOLD_RULES[options.fold]
        centre = folds.centre(self._centre)
        calibration = self._about(centre)

        def build(selections: Sequence[Selection], trial: bool = False) -> keras.Model:
            cuts = cuts_of(calibration, selections, folds, trial)
            return shrink(calibration.model, calibration.trace, cuts)

        reached = None
        if options.target is not None:
            schedule = self._schedule(options.target.what == "macs")
            selections, reached = fit_budget(calibration, schedule, options, build, self._progress)
        else:
            selections = select_all(calibration, options)
        smaller = build(selections)
        pairs = list(zip(calibration.groups, selections, strict=True))
        words = words_for(options.select)
        results = [result for pair in pairs for result in layer_results(*pair, words)]
        shrunk = [one.group for one, selection in pairs if len(selection.kept) < selection.units]
        by_default = options.by_count and options.fold == "least-squares"
        steps = check_refit(options.refit, by_default, len(shrunk))
        if steps and shrunk:
            refit_survivors(
                smaller, calibration.model, shrunk, {layer.name: layer.kept for layer in results},
                samples=calibration.samples, iterations=steps, progress=self._progress,
            )  # fmt: skip
        notes = [*lost(calibration.model, smaller), *crash_notes(smaller, calibration.model)]
        change = None
        if compare:
            # On samples held back, with folds that were fitted without them.
            trial = bool(shrunk) and not steps and self._held_back()
            change = self._change(build(selections, trial=True) if trial else smaller)
            notes[:0] = surprises(options, centre, results, calibration.others, change)
        return PruneResult(
            model=smaller,
            layers=tuple(results),
            skipped=calibration.skipped,
            threshold=None if options.by_count else options.degrees,
            centre=str(centre),
            fold=options.fold,
            remove=options.share,
            round_to=options.round_to,
            refit=steps,
            select=criterion_name(options.select),
            reached=reached,
            notes=tuple(notes),
            others=calibration.others,
            asked=calibration.asked,
            layers_note=calibration.layers_note,
            change=change,
            original=calibration.model,
        )

    def _held_back(self) -> bool:
        """Whether a part of the calibration data is held back."""
        return self._validation is None and self._calibration.samples.held_back() is not None

    def _change(self, smaller: keras.Model) -> Change:
        """What pruning changed: on validation data, else samples held back, else the first ones."""
        calibration, source = self._calibration, self._validation
        x = calibration.samples.held_back() if source is None else None
        if x is None:
            samples = calibration.samples if source is None else Samples(calibration.model, source)
            x = [data[:MOST_HELD_BACK] for data in next(samples.batches(MOST_HELD_BACK))]
        return change_of(calibration.model, smaller, x)

    @property
    def units(self) -> int:
        """Units of all groups that can be pruned; layers that go together count once."""
        return sum(len(stats.constant) for stats in self._calibration.groups)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The layers of the kinds asked for that are left alone, and why."""
        return self._calibration.skipped

    @property
    def calibration(self) -> Calibration:
        """What was measured, and of which layers: ``asked`` and ``layers_note``."""
        return self._calibration

    def parameters(self, round_to: int | None = None) -> tuple[int, int]:
        """Of the original model, and of one with the least left in every layer that may shrink."""
        return self._calibration.model.count_params(), round(self._schedule(False).least(round_to))

    def _about(self, centre: str | float) -> Calibration:
        """The calibration with angles about a centre."""
        if centre not in self._calibrations:
            self._calibrations[centre] = self._calibration.about(centre)
        return self._calibrations[centre]

    def _schedule(self, macs: bool) -> RemovalSchedule:
        """The removal schedule for a kind of cost; it takes long to find, so it is kept."""
        if macs not in self._schedules:
            self._schedules[macs] = RemovalSchedule(self._calibration, macs)
        return self._schedules[macs]
