"""Fits a pruned model to the original's outputs: in closed form, then step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfprune.graph.batches import states_of
from tfprune.graph.clone import copy_weights, walk
from tfprune.graph.costs import layer_macs
from tfprune.graph.forward import Forward
from tfprune.graph.inputs import Samples
from tfprune.graph.layers import DEPTHWISE
from tfprune.graph.precision import in_float32
from tfprune.graph.shrink import Cut, kept_features
from tfprune.graph.trace import Trace, slot
from tfprune.graph.tracer import trace
from tfprune.outputs.decisions import rules_of
from tfprune.outputs.distance import confidence_free, matches
from tfprune.reconstruction.blocks import computed, fit_blocks
from tfprune.reconstruction.layer_rows import HELD_BACK, held_back
from tfprune.reconstruction.output_layers import fit_output_layer, output_layers
from tfprune.reconstruction.piece_sums import Source
from tfprune.reconstruction.rows import sample_digests
from tfprune.reconstruction.sequential import solve_layers
from tfprune.reconstruction.sites import Wiring, normalises
from tfprune.reconstruction.statistics import measure_statistics
from tfprune.reconstruction.summed import solve_by_sums
from tfprune.utils.arrays import Array
from tfprune.utils.console import during

# Samples that are fitted on, at most, numbers in them, and multiply-accumulates of one pass.
SAMPLES, NUMBERS, MACS = 4096, 2**26, 5e11
# Multiply-accumulates of a pass over all samples in files, above which the first ones do.
SUMMED = 16 * MACS
# Multiply-accumulates of a model in which steps are always taken.
SMALL = 5e6
# Fewer than these tell too little of a layer.
FEWEST = 64
# Samples of a batch that is read, and batches, at most.
BATCH, BATCHES = 512, 512
# By how much of the way statistics of BatchNormalization are moved, at most: one of these; each
# takes as long as several passes, so a large model has one.
SHARES, LARGE_SHARES = (0.1, 0.2, 0.3), (0.2,)
# Samples that they are measured on, and those of a large model.
MEASURED, LARGE_MEASURED = 512, 128


def reconstruct(
    smaller: keras.Model,
    model: keras.Model,
    traced: Trace,
    cuts: Sequence[Cut],
    *,
    samples: Samples,
    iterations: int,
    stepped: int | None = None,
    most: int | None = None,
    always: bool = True,
    last: bool = True,
    source: Source | None = None,
    progress: bool = False,
) -> bool:
    """Fits the layers of a pruned model to what the original's compute; changes the pruned model.

    First every kernel is solved for in closed form, from the input on
    (:func:`tfprune.reconstruction.sequential.solve_layers`). Then the layers around each group are
    fitted together, step by step (:func:`tfprune.reconstruction.blocks.fit_blocks`). At last the
    statistics of BatchNormalization are moved towards those of what now reaches it, and layers that
    make probabilities are fitted to the original's by the divergence of these.
    A seventh of the samples is held back, and a stage is kept only if the outputs there come nearer
    to the original's (:func:`tfprune.outputs.distance.confidence_free`: least squares makes a model
    less sure of its classes, which does no harm).

    Parameters
    ----------
    smaller, model : keras.Model
        The small model, and the original that it was made of.
    traced : Trace
        Of the original.
    cuts : sequence of Cut
        What was taken out.
    samples : Samples
        At most 4,096 of them are used, fewer where the model is large; but see ``source``.
    iterations : int
        Steps for each group, at most; 0 leaves the closed form.
    stepped : int, optional
        Samples that steps are taken on, at most.
    most : int, optional
        Samples that are used at all, at most.
    always : bool
        Whether steps are taken in models of over 5 million multiply-accumulates as well, where they
        cost minutes and add little to the closed form.
    last : bool
        Whether to take the last stage, which takes as long as the closed form in small models.
    source : Source, optional
        All samples in pieces, for the closed form to be fitted to, if one pass over them takes at
        most 8e12 multiply-accumulates; by default it is to those that are used for the rest.
    progress : bool
        Whether to draw progress bars on stderr.

    Returns
    -------
    bool
        Whether a stage was kept, so that the pruned model changed.
    """
    with during("reconstruction"):
        ours, theirs = trace(in_float32(smaller)), trace(in_float32(model))
        shrunk = [cut.group for cut in cuts if len(cut.kept) < len(cut.group.unit_ids)]
        macs = _macs(traced)
        x = [data[:most] for data in first_samples(samples, model, macs)]
        held = _held(x)
        if not held.any():
            return False  # Too few to tell whether it helps.
        still = not states_of(smaller)
        if source is not None:
            # The same are held back wherever samples are summed.
            by_value = held_back(sample_digests(x))
            quick = (samples.total or 0) * macs <= SUMMED
            if quick and still and by_value.any() and not by_value.all():
                held = by_value
            else:
                source = None
        candidates = _Candidates(ours, theirs, model, [data[held] for data in x])
        wires = Wiring(ours), Wiring(theirs)
        kept = kept_outputs(traced, theirs, cuts)
        if source is not None:
            solved = solve_by_sums(*wires, kept, source.begin(*wires, kept), progress=progress)
        else:
            solved = solve_layers(*wires, kept, x, held, progress=progress) if still else []
        if solved:
            candidates.offer()
        if iterations and (always or macs <= SMALL):
            kept_units = {
                layer: _kept(units, cut)
                for cut in cuts
                for layer, units in cut.group.producers.items()
            }
            few = [data[:stepped] for data in x]
            fit_blocks(
                ours, theirs, shrunk, kept_units, few, iterations=iterations, progress=progress
            )
            candidates.offer()
        if still and last:
            candidates.finish(wires[0], x, held)
        if candidates.changed:
            for path, layer in dict(walk(smaller)).items():
                copy = ours.copies.get(path)
                if copy is not None and layer.weights:
                    copy_weights(copy, layer, copy.get_weights())
        return candidates.changed


def held_back_distance(
    smaller: keras.Model, model: keras.Model, samples: Samples, most: int | None = None
) -> float:
    """How far a smaller model's outputs are from the original's, on what reconstruction holds back.

    Parameters
    ----------
    smaller, model : keras.Model
    samples, most
        As of :func:`reconstruct`.

    Returns
    -------
    float
        See :func:`tfprune.outputs.distance.confidence_free`; infinite where too few samples tell.
    """
    theirs = trace(in_float32(model))
    x = [data[:most] for data in first_samples(samples, model, _macs(theirs))]
    held = _held(x)
    if not held.any():
        return math.inf
    ours = trace(in_float32(smaller))
    candidates = _Candidates(ours, theirs, model, [data[held] for data in x])
    return candidates.score()


class _Candidates:
    """States of a model, of which the one that does best on samples held back is kept."""

    def __init__(self, ours: Trace, theirs: Trace, model: keras.Model, x: Sequence[Array]) -> None:
        self._model, self._x = ours.model, x
        self._ours, self._theirs = Forward(ours.model, BATCH), Forward(theirs.model, BATCH)
        self._goals = computed(self._theirs, x)
        variances = [float(np.var(goal)) for goal in self._goals]
        self._matches = matches(ours.model, model, variances)
        self._rules = rules_of(theirs.model, self._goals)
        self.changed = False
        self._best, self._score = self._model.get_weights(), self.score()

    def score(self, outputs: Sequence[Array] | None = None) -> float:
        """How far the outputs are from the original's, whatever the confidence; less is better."""
        outputs = computed(self._ours, self._x) if outputs is None else outputs
        triples = zip(self._matches, self._goals, outputs, strict=True)
        score = sum(one.weight * confidence_free(one.kind, *pair) for one, *pair in triples)
        return score if math.isfinite(score) else math.inf

    def offer(self) -> bool:
        """Keeps the model as it is if it does better than the best, else goes back to that."""
        score = self.score()
        if score < self._score:
            self._best, self._score, self.changed = self._model.get_weights(), score, True
            return True
        self._model.set_weights(self._best)
        return False

    def finish(self, wiring: Wiring, x: Sequence[Array], held: npt.NDArray[np.bool_]) -> None:
        """Moves statistics by several shares, fits output layers to each, and keeps the best.

        Best is that with most decisions that are the original's; of as many, with the lowest score.
        """
        normalised = any(normalises(wiring, path) for path in wiring.order)
        layers = output_layers(wiring, [match.kind for match in self._matches])
        some = np.flatnonzero(~held)[: LARGE_MEASURED if self._ours.large else MEASURED]
        few = [data[some] for data in x]
        goals = computed(self._theirs, x) if layers else []
        least, best = self._judged(), self._best
        made: dict[Any, Forward] = {}
        shares = LARGE_SHARES if self._ours.large else SHARES
        for share in (0.0, *shares) if normalised else (0.0,):
            self._model.set_weights(self._best)
            if share:
                measure_statistics(wiring, few, share, made)
                if (judged := self._judged()) < least:
                    least, best = judged, self._model.get_weights()
            for layer in layers:
                fit_output_layer(layer, self._model.inputs, x, goals[layer.place], held)
            if layers and (judged := self._judged()) < least:
                least, best = judged, self._model.get_weights()
        self.changed |= best is not self._best
        self._best, self._score = best, least[1]
        self._model.set_weights(best)

    def _judged(self) -> tuple[float, float]:
        """The share of decisions that are not the original's, and the score."""
        outputs = computed(self._ours, self._x)
        wrong = [
            float(np.mean(rule.decisions(ours) != rule.decisions(goal)))
            for rule, ours, goal in zip(self._rules, outputs, self._goals, strict=True)
            if not rule.values
        ]
        return sum(wrong), self.score(outputs)


def kept_outputs(
    traced: Trace, theirs: Trace, cuts: Sequence[Cut]
) -> Mapping[str, npt.NDArray[np.intp]]:
    """By layer, which of its outputs stay, for layers that lose any."""
    kept = {
        layer: _kept(units, cut) for cut in cuts for layer, units in cut.group.producers.items()
    }
    for path, layer in theirs.copies.items():
        if type(layer) in DEPTHWISE and slot(path) in traced.input_labels:
            stays = kept_features(traced, traced.input_labels[slot(path)], cuts)
            kept[path] = np.flatnonzero(np.repeat(stays, layer.depth_multiplier))
    return kept


def _kept(units: npt.NDArray[np.intp], cut: Cut) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.isin(units, cut.kept))


def _held(x: Sequence[Array]) -> npt.NDArray[np.bool_]:
    return np.arange(len(x[0])) % HELD_BACK == HELD_BACK - 1


def _macs(traced: Trace) -> int:
    return sum(cost or 0 for cost in layer_macs(traced).values())


def first_samples(samples: Samples, model: keras.Model, macs: int | None = None) -> list[Array]:
    """The first samples, as many as are fitted on; arrays of shape (samples, ...)."""
    macs = _macs(trace(model)) if macs is None else macs
    each = sum(math.prod(shape) for shape in ([n or 1 for n in t.shape[1:]] for t in model.inputs))
    most = min(SAMPLES, max(FEWEST, NUMBERS // max(each, 1)), max(FEWEST, int(MACS / max(macs, 1))))
    batches: list[list[Array]] = []
    for batch in samples.batches(BATCH):
        batches.append(batch)
        # Each batch is a call, and those of a fixed size may be small.
        if sum(len(part[0]) for part in batches) >= most or len(batches) == BATCHES:
            break
    if len(batches) == 1:
        return [data[:most] for data in batches[0]]
    return [np.concatenate(parts)[:most] for parts in zip(*batches, strict=True)]
