"""Measures a model on calibration data: angles, constants and moments of each group of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.core.arrays import Array
from tfprune.core.moments import Moments, angles
from tfprune.errors import TfpruneError
from tfprune.graph.activations import Measured, measure
from tfprune.graph.batches import fixed_batch, from_zero_state, padded
from tfprune.graph.clone import walk
from tfprune.graph.forward import numbers_of
from tfprune.graph.groups import Consumer, Group, groups_of, takes
from tfprune.graph.inputs import Samples, packed
from tfprune.graph.names import check_names
from tfprune.graph.rule_check import check_rules
from tfprune.graph.subclasses import check_call
from tfprune.graph.trace import Trace
from tfprune.graph.tracer import trace
from tfprune.graph.unfollowed import unfollowed
from tfprune.layer_choice import choose_layers
from tfprune.results import Other, Skipped
from tfprune.shards.files import Shards
from tfprune.shards.moments import measure_samples
from tfprune.workers.pool import Workers

# With fewer samples any two vectors look alike.
LEAST_SAMPLES = 8
# Numbers that are computed to compare a copy with the model, if a sample does not take more.
COMPARED = 2**26
# Samples that the rules of registered layers are tried on; all their activations are in memory.
TRIED = 16
# What is said where no layers were asked for and the default takes more than Dense layers.
TOO = {"conv": "filters", "recurrent": "units of recurrent layers", "embedding": "embeddings"}
MORE_TOO = "layers: all, so {} too, as the model has no hidden Dense layer that can lose units"


@dataclass(frozen=True, eq=False)
class GroupStats:
    """A group of units and what was measured of them at each consumer.

    Attributes
    ----------
    group : Group
    views : tuple of ConsumerView
        One for each of the group's consumers.
    angles : array of shape (units, units)
        Degrees: see :func:`tfprune.calibration.group_angles`.
    constant : array of shape (units,)
        Which units never change.
    """

    group: Group
    views: tuple[ConsumerView, ...]
    angles: Array
    constant: npt.NDArray[np.bool_]

    @property
    def samples(self) -> int:
        """The length of the activation vectors, at the consumer with the fewest samples."""
        return min(view.moments.count for view in self.views)


def group_stats(group: Group, measured: Sequence[Measured], centre: str | float) -> GroupStats:
    """Angles and constants of a group about ``mean``, ``activation``, ``none`` or a number."""
    pairs = zip(group.consumers, measured, strict=True)
    views = tuple(consumer_view(consumer, each, centre) for consumer, each in pairs)
    return GroupStats(group, views, *group_angles(group, views))


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibrated model: the groups that can lose units, and the layers that were left alone."""

    model: keras.Model
    trace: Trace
    samples: Samples
    groups: tuple[GroupStats, ...]
    skipped: tuple[Skipped, ...]
    others: tuple[Other, ...] = ()
    asked: str = "dense"
    layers_note: str = ""

    def about(self, centre: str | float) -> Calibration:
        """The same calibration with angles about another centre; the data is not read again."""
        groups = tuple(
            group_stats(
                one.group, [Measured(v.moments, v.fitted, v.held) for v in one.views], centre
            )
            for one in self.groups
        )
        return replace(self, groups=groups)


def calibrate(
    model: keras.Model,
    x: Any,
    *,
    layers: str | Sequence[str] | None = None,
    skip: Sequence[str] = (),
    centre: str | float = "mean",
    batch_size: int | None = None,
    progress: bool = False,
    hold_back: bool = False,
    validation: Any = None,
    pool: Workers | None = None,
    approximate: bool = False,
) -> Calibration:
    """Follows a model's units and measures their activations; parameters as of ``prune``.

    ``centre`` is ``mean``, ``activation``, ``none`` or a number; ``approximate`` is that of
    :func:`tfprune.graph.tracer.trace`. Folds are tried on a part of ``x`` with ``hold_back``, or on
    other samples, ``validation``. :class:`Shards` are measured by the workers of ``pool``.

    Raises
    ------
    TfpruneError
        If a layer does not exist or has a name with which TensorFlow cannot run it, the data does
        not fit the model or is too little, or weights, data or activations are NaN or infinite, or
        a registered rule does not hold.
    """
    check_weights(model)
    traced = trace(model, approximate)
    check_names(model)
    shards = x if isinstance(x, Shards) else None
    data = Samples(model, x if shards is None else shards.x, hold_back)
    if batch_size is not None and batch_size < 1:
        raise TfpruneError(f"batch_size: expected at least 1, received {batch_size}")
    check_call(model, data.head)
    _check_copy(model, traced, data.head)
    all_groups = groups_of(traced)
    unfollowed_layers = unfollowed(model, traced, all_groups)
    wanted = default_layers(all_groups) if layers is None else layers
    groups, skipped, others = choose_layers(traced, all_groups, unfollowed_layers, wanted, skip)
    consumers = [consumer for group in groups for consumer in group.consumers]
    measurements = measure_samples(
        traced, consumers, data, shards, pool, batch_size=batch_size, progress=progress
    )
    if validation is not None and consumers:
        other_measurements = measure(traced, consumers, Samples(model, validation), batch_size)
        pairs = zip(measurements, other_measurements, strict=True)
        measurements = [
            Measured(ours.moments, ours.moments, other.moments) for ours, other in pairs
        ]
    exact = [g for g in groups if not any(takes(traced, g, one) for one in traced.approximated)]
    if consumers and traced.registered:
        first_samples = [array[:TRIED] for array in next(data.batches(TRIED))]
        check_rules(model, traced, exact, first_samples)
    measured = iter(measurements)
    stats = []
    for group in groups:
        stats.append(group_stats(group, [next(measured) for _ in group.consumers], centre))
        check_enough(stats[-1].samples)
    asked = wanted if isinstance(wanted, str) else "named"
    there = {kind for group in groups for kind in group.kinds.values()}
    more = [word for kind, word in TOO.items() if kind in there]
    note = MORE_TOO.format(" and ".join(more)) if layers is None and wanted == "all" else ""
    return Calibration(model, traced, data, tuple(stats), skipped, others, asked, note)


def default_layers(groups: Sequence[Group]) -> str:
    """The kind of layers to prune where none was asked for.

    ``dense``, but ``all`` where no hidden Dense layer can lose units and something else can.
    """
    able = [set(group.kinds.values()) for group in groups if group.blocked is None]
    return "dense" if {"dense"} in able or not able else "all"


def check_enough(samples: int, whole: int | None = None) -> None:
    """Raises :class:`TfpruneError` if so many samples are too few to measure angles on.

    ``whole`` counts those as well that are there but kept for validation and tests.
    """
    if samples < LEAST_SAMPLES:
        rest = f" of {whole}; the others are for validation and tests" if whole else ""
        raise TfpruneError(
            f"data: expected at least {LEAST_SAMPLES} samples to measure angles on, "
            f"received {samples}{rest}"
        )


def check_weights(model: Any) -> None:
    """Raises :class:`TfpruneError` if a weight of the model is NaN or infinite."""
    for path, layer in walk(model) if isinstance(model, keras.Model) else ():
        for weight in layer.get_weights():
            if weight.dtype.kind not in "iub" and not np.isfinite(weight).all():
                raise TfpruneError(
                    f"layer {path}: expected finite weights, received NaN or infinity; "
                    "was the training stable?"
                )


def _check_copy(model: keras.Model, traced: Trace, samples: Sequence[npt.NDArray[Any]]) -> None:
    """Raises where a copy computes something else: a layer holds state beside weights (a table)."""
    few = max(1, COMPARED // numbers_of(traced.model))
    batch = padded([data[:few] for data in samples], fixed_batch(model))
    with from_zero_state(model, traced.model):
        made = [
            keras.tree.flatten(one(packed(one, batch), training=False))
            for one in (model, traced.model)
        ]
    for ours, theirs in zip(*made, strict=True):
        expected, received = (keras.ops.convert_to_numpy(t).astype(float) for t in (ours, theirs))
        finite = np.isfinite(expected).all()
        if finite and not np.allclose(
            expected, received, rtol=1e-2, atol=1e-3 * (1 + np.abs(expected).max())
        ):
            raise TfpruneError(
                f"model {model.name}: a copy of it computes something else; does a layer hold "
                "state beside its weights? Take such layers out and put them in front again"
            )


@dataclass(frozen=True, eq=False)
class ConsumerView:
    """What one consumer of a group's units receives of them, measured.

    Attributes
    ----------
    read : Consumer
    moments : Moments
    centre : array of shape (seen,)
        The point about which angles are measured.
    lengths : array of shape (seen,)
        Each unit's scale, of which the error of removing it is a share: the length of its vector
        about the centre, or less. 0 for units without a direction.
    fitted, held : Moments or None
        If folds are tried on samples held back: the samples that they are fitted on, and those
        that they are compared on.
    """

    consumer: Consumer
    moments: Moments
    centre: Array
    lengths: Array
    fitted: Moments | None = None
    held: Moments | None = None


def consumer_view(consumer: Consumer, measured: Measured, point: str | float) -> ConsumerView:
    """A consumer's moments with angles about ``mean``, ``activation``, ``none`` or a number.

    Without an offset (``consumer.no_offset``) a unit can only be a multiple of another, so angles
    are about 0. With ``mean`` errors are shares of a unit's deviation there as well, since that is
    what the consumer works with.
    """
    moments = measured.moments
    if consumer.no_offset:
        centre = np.zeros(moments.units)
    elif point == "activation":
        centre = consumer.centre
    elif point == "mean":
        centre = moments.mean
    else:
        centre = np.full(moments.units, 0.0 if point == "none" else float(point))
    lengths = moments.lengths(centre)
    if consumer.no_offset and point == "mean":
        # A constant unit has no deviation, so its own length is taken.
        varying = moments.lengths(moments.mean)
        lengths = np.where(varying > 0, varying, lengths)
    return ConsumerView(consumer, moments, centre, lengths, measured.fitted, measured.held)


def group_angles(
    group: Group, views: Sequence[ConsumerView]
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Angles between a group's units, and which of them never change.

    Every consumer gets a fold of its own, so a pair is similar (or opposite) only if it is so for
    each consumer, by whatever factor: the angle that counts is that at the consumer where the two
    are least alike. It is 90 degrees where a consumer receives only one of them, or one that is
    always 0.

    Returns
    -------
    degrees : array of shape (units, units)
        NaN for units that have no direction at any consumer: about the mean, constant units.
    constant : array of shape (units,)
    """
    size = len(group.unit_ids)
    least_alike = None
    constant = np.ones(size, bool)
    alive = np.zeros(size, bool)
    for view in views:
        consumer, moments, centre = view.consumer, view.moments, view.centre
        unchanging = moments.constant(view.held)
        if consumer.no_offset:
            # Without an offset only units that are always 0 can be removed as constants.
            unchanging &= moments.mean == 0
        constant[consumer.units] &= unchanging
        gram = moments.gram(centre)
        no_direction = view.lengths == 0
        gram[no_direction] = 0
        gram[:, no_direction] = 0
        degrees = _held_against(angles(gram), moments.lengths(centre), view.lengths)
        here = np.zeros(size, bool)
        here[consumer.units] = ~np.isnan(degrees.diagonal())
        alive |= here
        if len(consumer.units) < size:
            mine, degrees = degrees, np.full((size, size), np.nan)
            degrees[np.ix_(consumer.units, consumer.units)] = mine
        if not here.all():
            degrees[here[:, None] != here] = 90.0
        if least_alike is None:
            least_alike = degrees
            continue
        nearer = np.isnan(least_alike) | (np.abs(degrees - 90) < np.abs(least_alike - 90))
        np.copyto(least_alike, degrees, where=nearer & ~np.isnan(degrees))
    assert least_alike is not None, "a group that can be pruned has a consumer"
    least_alike[np.diag_indices(size)] = np.where(alive, 0.0, np.nan)
    return least_alike, constant


def _held_against(degrees: Array, lengths: Array, measure: Array) -> Array:
    """Angles whose sine is a unit's error as a share of ``measure``, in place of its length.

    The best multiple of unit j misses unit i by ``lengths[i] * sin(angle)``; of a pair the larger
    of the two errors counts.

    Parameters
    ----------
    degrees : array of shape (units, units)
    lengths, measure : arrays of shape (units,)
        The vectors' lengths, and the scales of which errors are shares in place of them.
    """
    if (lengths == measure).all():
        return degrees
    longer = lengths / np.where(measure > 0, measure, np.inf)
    sines = np.sin(np.radians(degrees)) * np.maximum(longer, longer[:, None])
    opened = np.degrees(np.arcsin(np.minimum(sines, 1)))
    opened = np.where(degrees > 90, 180 - opened, opened)
    opened[np.diag_indices_from(opened)] = degrees.diagonal()
    return opened
