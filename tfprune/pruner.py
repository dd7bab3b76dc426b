"""``Pruner``: a model measured once, and pruned as often as it is asked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfprune.budget import RemovalSchedule, Widths, fit_best_budget
from tfprune.calibration import Calibration, calibrate
from tfprune.core.arrays import Array
from tfprune.core.fold import FOLD_RULES
from tfprune.core.unit_group import ScoreFunction
from tfprune.criteria import select_all, words_for
from tfprune.errors import PruningWarning, TfpruneError
from tfprune.folding import cuts_of
from tfprune.graph.attention import can_be_reduced, head_errors, reduce_attention, resized
from tfprune.graph.clone import lost, walk
from tfprune.graph.inputs import MOST_HELD_BACK, Samples
from tfprune.graph.rescaling import rescale
from tfprune.graph.safe_gradients import crash_notes
from tfprune.graph.shrink import Cut, shrink
from tfprune.graph.tied import tied_errors
from tfprune.options import (
    PruneOptions,
    check_centre,
    check_refit,
    criterion_name,
    prune_options,
)
from tfprune.outputs.change import Change, change_of
from tfprune.prune_result import PruneResult, approximated, layer_results, surprises
from tfprune.reconstruction.reconstruct import held_back_distance, reconstruct
from tfprune.results import ASKED_TO_SKIP, LayerResult, Skipped
from tfprune.shards.equations import open_source
from tfprune.shards.files import as_shards, in_order
from tfprune.utils.console import during, say
from tfprune.workers.pool import open_workers

# Steps of the reconstruction for each try of a search.
SEARCH_STEPS = 20


class Pruner:
    """A model measured once, to be pruned in several ways.

    Parameters
    ----------
    model, x, layers, skip, centre, batch_size, progress, validation, approximate
        As of :func:`tfprune.prune`. The model must not be changed in between.
    hold_back : bool
        Whether a part of ``x`` is held back where there is no ``validation``. With neither the
        least-squares fold is taken as it is.
    workers, cluster
        As of :func:`tfprune.prune`.

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
        batch_size: int | None = None,
        validation: Any = None,
        progress: bool = False,
        hold_back: bool = True,
        workers: int | None = None,
        cluster: str | None = None,
        approximate: bool = False,
    ) -> None:
        self._centre = check_centre(centre)
        self._progress = progress
        first = FOLD_RULES["least-squares"].centre(self._centre)
        shared = workers is not None or cluster is not None
        shards, validation = as_shards(x, model, shared), in_order(validation, model)
        if shards is None and shared:
            raise TfpruneError(
                "workers: for data in several pieces, expected a list of paths (.npy, .npz, .csv, "
                ".parquet, .tfrecord) or of tf.data.Dataset, such as [x.shard(8, n) for n in "
                f"range(8)], received {type(x).__name__}"
            )
        if shards is not None and approximate:
            raise TfpruneError("approximate: not for data in several pieces, received a list")
        self._shards, self._workers = shards, (workers, cluster)
        with open_workers(workers, cluster, say) as pool:
            self._calibration = calibrate(
                model, x if shards is None else shards, layers=layers, skip=skip, centre=first,
                batch_size=batch_size, progress=progress, validation=validation, pool=pool,
                hold_back=hold_back and validation is None, approximate=approximate,
            )  # fmt: skip
        self._calibrations = {first: self._calibration}
        self._validation = validation
        self._schedules: dict[tuple[bool, bool], RemovalSchedule] = {}
        self._heads: dict[str, Array] | None = None

    def prune(
        self,
        threshold: float | None = None,
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
        return warned(self.prune_as(options, compare=True))

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

        def counted(widths: Widths) -> keras.Model:
            model, _ = _shrunk(calibration, cuts_of(calibration, widths.selections, folds))
            return resized(model, widths.heads, options.round_to)

        reached = None
        paths = self._attention(options.select, options.fold)
        if options.target is not None:
            with during("budget"):
                macs = options.target.what == "macs"
                widths, reached = fit_best_budget(
                    calibration, self._schedule(macs, paths), options, counted,
                    distance=lambda widths: self._distance(calibration, widths, options),
                    progress=self._progress,
                )  # fmt: skip
        else:
            with during("selection"):
                chosen = select_all(calibration, options)
                widths = Widths(chosen, dict.fromkeys(paths, options.share))
        selections, heads = widths.selections, widths.heads
        cuts = cuts_of(calibration, selections, folds)
        smaller, off = _shrunk(calibration, cuts)
        tied = tied_errors(calibration.trace, cuts)
        cuts = [cut.units_alone() for cut in cuts]
        smaller, attention = _attended(smaller, calibration, options, heads)
        pairs = list(zip(calibration.groups, selections, strict=True))
        words = words_for(options.select)
        results = [
            result
            for stats, selection in pairs
            for result in approximated(
                layer_results(stats, selection, words), calibration, stats.group, off, tied
            )
        ]
        results += attention
        done = {row.name for row in attention}
        skipped = tuple(one for one in calibration.skipped if one.name not in done)
        shrunk = [one.group for one, selection in pairs if len(selection.kept) < selection.units]
        steps = _steps(options, len(shrunk))
        refit_kept = None
        if steps and shrunk:
            # A search takes many tries: the first steps have most of the gain.
            few = _few(options)
            steps = steps if few is None else min(steps, SEARCH_STEPS)
            files = self._shards if few is None else None
            models = smaller, calibration.model
            with open_source(files, self._workers, calibration.samples, *models) as source:
                refit_kept = reconstruct(
                    smaller, calibration.model, calibration.trace, cuts,
                    samples=calibration.samples, iterations=steps, stepped=few,
                    most=None if few is None else 2 * few, always=options.refit is not None,
                    source=source, progress=self._progress,
                )  # fmt: skip
        notes = [*lost(calibration.model, smaller), *crash_notes(smaller, calibration.model)]
        change = None
        if compare:
            # On samples held back, with folds that were fitted without them.
            trial = bool(shrunk) and not steps and self._held_back()
            shown = smaller
            if trial:
                shown, _ = _shrunk(calibration, cuts_of(calibration, selections, folds, True))
                shown, _ = _attended(shown, calibration, options, heads)
            change = self._change(shown)
            notes[:0] = surprises(options, centre, results, calibration.others, change)
        return PruneResult(
            model=smaller,
            layers=tuple(results),
            skipped=skipped,
            threshold=None if options.by_count else options.degrees,
            centre=str(centre),
            fold=options.fold,
            remove=options.share,
            round_to=options.round_to,
            refit=steps,
            refit_kept=refit_kept,
            select=criterion_name(options.select),
            reached=reached,
            notes=tuple(notes),
            others=calibration.others,
            asked=calibration.asked,
            layers_note=calibration.layers_note,
            change=change,
            original=calibration.model,
        )

    def _attention(self, select: str | ScoreFunction | None, fold: str) -> list[str]:
        """The attention layers whose heads go as well, where that was asked for."""
        calibration = self._calibration
        by_effect = select in (None, "effect", "angle") and fold == "least-squares"
        if not (by_effect and calibration.asked in ("all", "named")):
            return []
        layers = dict(walk(calibration.model))
        return [
            one.name
            for one in calibration.skipped
            if one.name in layers and one.reason != ASKED_TO_SKIP
            and not can_be_reduced(layers[one.name])
        ]  # fmt: skip

    def _distance(self, calibration: Calibration, widths: Widths, options: PruneOptions) -> float:
        """How far a model of these widths is from the original, folded, and refitted if it is."""
        cuts = cuts_of(calibration, widths.selections, FOLD_RULES[options.fold])
        model, samples = calibration.model, calibration.samples
        most = _few(options)
        smaller, _ = _attended(_shrunk(calibration, cuts)[0], calibration, options, widths.heads)
        if _steps(options, len(cuts)):
            # The closed form alone: steps come once the widths are chosen.
            reconstruct(
                smaller, model, calibration.trace, cuts, samples=samples, iterations=0, most=most,
                last=most is None,
            )  # fmt: skip
        return held_back_distance(smaller, model, samples, most)

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

    def parameters(
        self, round_to: int | None = None, fold: str = "least-squares"
    ) -> tuple[int, int]:
        """Of the original model, and of one with the least left in every layer that may shrink."""
        schedule = self._schedule(False, self._attention("effect", fold))
        return self._calibration.model.count_params(), round(schedule.least(round_to))

    def _about(self, centre: str | float) -> Calibration:
        """The calibration with angles about a centre."""
        if centre not in self._calibrations:
            self._calibrations[centre] = self._calibration.about(centre)
        return self._calibrations[centre]

    def _schedule(self, macs: bool, attention: Sequence[str]) -> RemovalSchedule:
        """The removal schedule for a kind of cost; it takes long to find, so it is kept."""
        key = macs, bool(attention)
        if key not in self._schedules:
            whole = self._calibration
            if attention and self._heads is None:
                self._heads = head_errors(whole.model, attention, whole.samples)
            heads = self._heads if attention else None
            self._schedules[key] = RemovalSchedule(whole, macs, heads)
        return self._schedules[key]


def _attended(
    smaller: keras.Model, whole: Calibration, options: PruneOptions,
    heads: Mapping[str, float | None],
) -> tuple[keras.Model, list[LayerResult]]:  # fmt: skip
    """The model with fewer or narrower heads of attention, for a budget as counted; their rows."""
    counted = options.target is not None
    return reduce_attention(
        smaller, heads, whole.samples, options.round_to, whole_heads=not counted
    )  # fmt: skip


def _shrunk(calibration: Calibration, cuts: Sequence[Cut]) -> tuple[keras.Model, dict[str, float]]:
    """The smaller model, and how far normalisation that changed with its units is off."""
    smaller = shrink(calibration.model, calibration.trace, cuts)
    return smaller, rescale(smaller, calibration.trace, cuts, calibration.samples)


def _few(options: PruneOptions) -> int | None:
    """Samples for one of many models that a search tries, each of which is not to take long."""
    return None if options.target is None or options.refit is not None else options.target.searched


def _steps(options: PruneOptions, groups: int) -> int:
    """Steps of the reconstruction where so many groups lose units; 0 for none."""
    return check_refit(options.refit, options.by_count and options.fold == "least-squares", groups)


def warned(result: PruneResult) -> PruneResult:
    """Issues a result's notes as warnings at the user's call, two frames up; returns it."""
    for note in result.notes:
        warnings.warn(note, PruningWarning, stacklevel=3)
    return result
