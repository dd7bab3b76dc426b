"""The closed form by sums over pieces of several files, against least squares in memory."""

from __future__ import annotations

from functools import cache

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tests.support.inline import Inline
from tfprune.graph.inputs import Samples
from tfprune.graph.tracer import trace
from tfprune.reconstruction import layer_rows, piece_sums, reconstruct
from tfprune.reconstruction.layer_rows import (
    assign,
    held_back,
    layer_bias,
    normalisation,
    parts_of,
    rows_wanted,
)
from tfprune.reconstruction.least_squares import Problem, solved
from tfprune.reconstruction.piece_sums import AIM, ERRORS, NORMAL, Room, Task
from tfprune.reconstruction.rows import mixed, patches, places_by_seeds, places_of, sample_digests
from tfprune.reconstruction.sites import Wiring, sites_of
from tfprune.reconstruction.summed import solve_by_sums
from tfprune.reconstruction.sums import Sums
from tfprune.shards import equations, files
from tfprune.shards.equations import FilePieces, open_source
from tfprune.shards.files import as_shards
from tfprune.workers.pool import Workers

SOLVED = ["stem", "depth", "outer", "plain", "out"]
SAMPLES = 150


def mixture():
    """Convolutions with and without a bias, normalised, depthwise and in a sum."""
    data = keras.Input((6, 6, 3))
    x = kl.Conv2D(6, 3, padding="same", name="stem", use_bias=False)(data)
    x = kl.ReLU()(kl.BatchNormalization(name="norm")(x))
    y = kl.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu", name="depth")(
        x
    )
    y = kl.BatchNormalization(name="second")(kl.Conv2D(6, 1, name="outer")(y))
    x = kl.Activation("relu")(kl.Add(name="sum")([x, y]))
    x = kl.Conv2D(5, 3, strides=2, activation="relu", name="plain", use_bias=False)(x)
    return keras.Model(data, kl.Dense(3, name="out")(kl.GlobalAveragePooling2D()(x)))


@pytest.fixture
def pair(rng):
    """A model with spoilt kernels, and the model that it was."""
    model = fill(mixture(), rng)
    spoilt = keras.models.clone_model(model)
    spoilt.set_weights(model.get_weights())
    for name in SOLVED:
        layer = spoilt.get_layer(name)
        layer.set_weights([w + rng.normal(0, 0.2, w.shape) for w in layer.get_weights()])
    return spoilt, model


@pytest.fixture
def shares(rng, tmp_path, monkeypatch):
    """Samples, and files of them: one of all, three, and the three in another order."""
    monkeypatch.setattr(files, "LEAST", 1)
    x = rng.normal(size=(SAMPLES, 6, 6, 3)).astype("float32")
    paths = []
    for place, part in enumerate([x, *np.split(x, [31, 109])]):
        paths.append(str(tmp_path / f"{place}.npy"))
        np.save(paths[-1], part)
    whole, *parts = paths
    return x, [[whole], parts, [parts[2], parts[0], parts[1]]]


class Recorded:
    """Pieces whose sums are kept as they come."""

    def __init__(self, pieces):
        self.samples, self._pieces, self.made = pieces.samples, pieces, []

    def sums(self, task):
        total = None
        for one in self._pieces.sums(task):
            yield one
            if task.what == ERRORS:
                total = one["squares"] + (0 if total is None else total)
            elif total is None:
                total = Sums.of({name: value.copy() for name, value in one.items()})
            else:
                total.add(Sums.of({name: value.copy() for name, value in one.items()}))
        total = {"squares": total} if task.what == ERRORS else total.state()
        self.made.append((task.path, task.what, total))


def solved_by_files(pair, paths, pool=None):
    """The weights, what was summed, and the layers that changed."""
    shards = as_shards(paths, pair[0])
    source = FilePieces(shards, pool, Samples(pair[0], shards.x), *pair)
    ours, theirs = (Wiring(trace(one)) for one in pair)
    pieces = Recorded(source.begin(ours, theirs, {}))
    changed = solve_by_sums(ours, theirs, {}, pieces)
    return ours.trace.model.get_weights(), pieces.made, changed


def problems_of(site, ours, theirs, x):
    """All rows of a layer in float64, of each channel where it is depthwise."""
    made = keras.Model(ours.trace.model.inputs[0], site.tensors)(x)
    rows, *others = [np.asarray(one) for one in (made if isinstance(made, list) else [made])]
    goal = np.asarray(keras.Model(theirs.trace.model.inputs[0], site.goal)(x), np.float64)
    places = places_of(goal.shape, 10**6, np.random.default_rng(0))
    patch = patches(site.layer, rows, places).astype(np.float64)
    goal = goal[places].reshape(len(patch), -1)
    held = held_back(sample_digests([x]))[places[0]]
    kernel, bias = site.layer.get_weights()[0], layer_bias(site)
    gain, shift = normalisation(site)
    if site.norm is not None and not others:
        goal = goal * gain + shift
    added = others[0].astype(np.float64)[places] if others else 0.0
    parts = [(patch.reshape(len(patch), -1), slice(None), kernel.reshape(-1, kernel.shape[-1]))]
    if site.depthwise:
        width = kernel.shape[-1]
        flat = kernel.reshape(-1, *kernel.shape[-2:])
        parts = [
            (patch[:, :, n], slice(n * width, (n + 1) * width), flat[:, n])
            for n in range(kernel.shape[-2])
        ]
    return [
        Problem(
            mine, goal[:, own], part, None if bias is None else bias[own], held,
            gain[own], shift[own], added, site.limits,
        )
        for mine, own, part in parts
    ]  # fmt: skip


def assert_near(made, wanted, digits=1e-12):
    np.testing.assert_allclose(made, wanted, 0, digits * np.abs(wanted).max(initial=0))


def test_sums_are_those_of_all_samples_in_memory(pair, shares, monkeypatch):
    monkeypatch.setattr(layer_rows, "CHUNK", 1000)
    x, (_, paths, _) = shares
    shards = as_shards(paths, pair[0])
    ours, theirs = (Wiring(trace(one)) for one in pair)
    source = FilePieces(shards, None, Samples(pair[0], shards.x), *pair)
    pieces = Recorded(source.begin(ours, theirs, {}))
    for site in sites_of(ours, theirs, {}):
        list(pieces.sums(Task(site.path, NORMAL, 36)))
        (*_, made) = pieces.made[-1]
        for place, one in enumerate(problems_of(site, ours, theirs, x)):
            fit = ~one.held
            wanted = one.wanted(one.kernel.astype(float), one.bias)[fit]
            centred, aims = (v - v.mean(axis=0) for v in (one.rows[fit], wanted))
            assert made["count"] == fit.sum()
            assert_near(made["gram"][place], centred.T @ centred)
            assert_near(made["cross"][place], centred.T @ aims)
            assert_near(made["mean"][place], one.rows[fit].mean(axis=0))
            assert_near(made["goal"][place], wanted.mean(axis=0))


def test_weights_are_those_of_all_samples_in_memory(pair, shares):
    x, (_, paths, _) = shares
    weights, _, changed = solved_by_files(pair, paths)
    assert changed == SOLVED
    ours, theirs = (Wiring(trace(one)) for one in pair)
    for site in sites_of(ours, theirs, {}):
        found = [solved(one) for one in problems_of(site, ours, theirs, x)]
        shape = site.layer.get_weights()[0].shape
        kernel = np.stack([one for one, _ in found], axis=1).reshape(shape)
        constant = found[0][1] is not None
        assign(site, kernel, np.concatenate([one for _, one in found]) if constant else None)
    for one, other in zip(weights, ours.trace.model.get_weights(), strict=True):
        assert_near(one, other, 1e-5)


@pytest.mark.parametrize(("drawn", "large"), [(False, False), (True, False), (True, True)])
def test_the_order_of_files_makes_no_difference(pair, shares, monkeypatch, drawn, large):
    x, orders = shares
    if large:
        for module in ("segments", "summed"):
            monkeypatch.setattr(f"tfprune.reconstruction.{module}.LARGE", 0)
        monkeypatch.setattr("tfprune.graph.forward.IN_TENSOR", 5000)  # Several batches.
    if drawn:  # Seven positions of a picture of 36.
        monkeypatch.setattr(layer_rows, "ROWS", 7 * SAMPLES)
    made = []
    for paths in orders:
        shards = as_shards(paths, pair[0])
        ours, theirs = (Wiring(trace(one)) for one in pair)
        source = FilePieces(shards, None, Samples(pair[0], shards.x), *pair)
        pieces = Recorded(source.begin(ours, theirs, {}))
        for site in sites_of(ours, theirs, {}):
            present = parts_of(site, (site.layer.get_weights()[0], layer_bias(site)))
            for what in (NORMAL, ERRORS, AIM):
                each = rows_wanted(site, False) // pieces.samples
                list(pieces.sums(Task(site.path, what, each, [present])))
        made.append(pieces.made)
    first, *others = made
    assert first[0][2]["count"] == (7 if drawn else 36) * (SAMPLES - number_held(x))
    for other in others:
        for (*names, sums), (*same, wanted) in zip(other, first, strict=True):
            assert names == same
            for name, value in sums.items():
                assert_near(value, wanted[name])
    # Weights are rounded to float32 before the next layer is summed.
    first, *others = (solved_by_files(pair, paths)[0] for paths in orders)
    for weights in others:
        for one, expected in zip(weights, first, strict=True):
            assert_near(one, expected, 1e-5)


def number_held(x):
    return int(held_back(sample_digests([x])).sum())


@pytest.mark.parametrize("room", [0, 2**26])
def test_workers_add_the_same_whatever_they_keep(pair, shares, monkeypatch, room):
    monkeypatch.setattr(piece_sums, "NUMBERS", room)
    _, (_, paths, _) = shares
    engine = Inline()
    weights, summed, _ = solved_by_files(pair, paths, Workers(engine, print))
    here, expected, _ = solved_by_files(pair, paths)
    for one, other in zip(weights, here, strict=True):
        assert one.tobytes() == other.tobytes()
    for (*_, one), (*_, other) in zip(summed, expected, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in other)
    # Paths, samples, models and weights go apart from what is asked of a piece.
    assert max(map(len, engine.requests)) < 1000


def test_a_worker_begins_with_the_weights_that_were_sent(pair, shares, monkeypatch):
    """Also where it has the same models from the time before, when their weights were changed."""
    monkeypatch.setattr(equations, "model_content", cache(equations.model_content))
    _, (_, paths, _) = shares
    pool = Workers(Inline(), print)
    first, again = (solved_by_files(pair, paths, pool)[0] for _ in range(2))
    assert all(np.array_equal(*both) for both in zip(first, again, strict=True))


def test_a_pruned_model_is_fitted_to_the_samples_of_all_files(rng, tmp_path, monkeypatch):
    """The first samples say nothing of the rest."""
    monkeypatch.setattr(files, "LEAST", 1)
    monkeypatch.setattr(reconstruct, "SAMPLES", 60)
    causes = rng.normal(size=(700, 8)) @ rng.normal(size=(8, 108))
    x = causes.reshape(700, 6, 6, 3).astype("float32")
    x[:100, :, 3:] = 0
    paths = [tmp_path / f"{n}.npy" for n in range(3)]
    for path, part in zip(paths, np.split(x[:600], [100, 350]), strict=True):
        np.save(path, part)
    model = fill(mixture(), rng)
    options = {"remove": 0.3, "layers": "all", "refit": 1, "validation": x[:8]}
    results = [tfprune.prune(model, data, **options) for data in (paths, x[:600])]
    errors = [
        np.mean((outputs(one.model, x[600:])[0] - outputs(model, x[600:])[0]) ** 2)
        for one in results
    ]
    assert errors[0] < errors[1]


def test_samples_without_any_difference_are_fitted_as_one(rng, tmp_path, monkeypatch):
    """None can be held back by what it is, so the first ones are fitted on by their numbers."""
    monkeypatch.setattr(reconstruct, "solve_by_sums", None)
    paths = [tmp_path / f"{n}.npy" for n in range(2)]
    for path in paths:
        np.save(path, np.ones((30, 6, 6, 3)))
    result = tfprune.prune(fill(mixture(), rng), paths, remove=0.3, layers="all", refit=1)
    assert result.refit == 1


def test_a_state_from_batch_to_batch_has_no_source(rng):
    inputs = keras.Input((5, 2), batch_size=4)
    model = keras.Model(inputs, kl.Dense(1)(kl.LSTM(3, stateful=True)(inputs)))
    with open_source(object(), (None, None), None, model, model) as source:
        assert source is None


def test_folds_samples_held_back_are_left_out(pair, shares):
    x, (_, paths, _) = shares
    shards = as_shards(paths, pair[0])
    samples = Samples(pair[0], shards.x, hold_back=True)
    source = FilePieces(shards, None, samples, *pair)
    assert source.samples == SAMPLES - len(samples.held_numbers()) == 120
    pieces = source.begin(*(Wiring(trace(one)) for one in pair), {})
    left = np.delete(x, samples.held_numbers(), axis=0)
    made = list(pieces.sums(Task("out", NORMAL, 1)))
    assert sum(int(one["count"]) + int(one["held"]) for one in made) == 120
    assert sum(int(one["held"]) for one in made) == number_held(left)


def test_what_is_drawn_of_a_sample_depends_on_it_alone(rng):
    x = [rng.normal(size=(40, 3)).astype("float32"), rng.integers(0, 9, (40, 2))]
    digests, order = sample_digests(x), rng.permutation(40)
    assert (sample_digests([one[order] for one in x]) == digests[order]).all()
    assert len(set(digests.tolist())) == 40
    shape = (40, 5, 6, 3)
    rows = [np.stack(places).T for places in (
        places_by_seeds(shape, 4, mixed(digests)), places_by_seeds(shape, 4, mixed(digests[order]))
    )]  # fmt: skip
    ours, theirs = (one[:, 1:].reshape(40, 4, 2) for one in rows)
    assert (ours[order] == theirs).all()
    # All positions are about as likely.
    many = mixed(np.arange(5000, dtype=np.uint64))
    counts = np.bincount(places_by_seeds((5000, 10, 1), 3, many)[1], minlength=10)
    assert np.abs(counts - 1500).max() < 5 * np.sqrt(1500)
    assert abs(held_back(many).mean() - 1 / 7) < 0.02


def test_what_finds_no_room_is_not_kept():
    room = Room(10)
    room.keep(1, "first", 6)
    room.keep(2, "second", 5)
    assert (room.get(1), room.get(2), room.left) == ("first", None, 4)
    room.keep(1, "third", 5)
    room.keep(2, "second", 5)
    assert (room.get(1), room.get(2), room.left) == ("third", "second", 0)
    room.clear()
    assert (room.get(1), room.left) == (None, 10)


def test_packed_arrays_come_back(rng):
    arrays = {"a": [rng.normal(size=(2, 3)), np.arange(3)], "b": [], "c/d": [np.zeros(0)]}
    text, made = equations._unpacked(equations._packed({"x": [1, None]}, arrays))
    assert text == {"x": [1, None]}
    assert {name: [one.tolist() for one in values] for name, values in made.items()} == {
        name: [one.tolist() for one in values] for name, values in arrays.items()
    }
