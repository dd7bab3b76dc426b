"""The search of ``--max-drop`` by workers: what they are asked, what becomes of their answers."""

from __future__ import annotations

import json
from dataclasses import replace

import keras
import numpy as np
import pytest

from tests.support.graphs import fill
from tests.support.inline import Inline
from tfprune.errors import TfpruneError
from tfprune.job import drop_pieces
from tfprune.job.config import JobConfig
from tfprune.job.drop_pieces import SearchWorkers
from tfprune.job.drop_search import _made_here, within_drop
from tfprune.job.halving import Try
from tfprune.job.sent_config import received, sent
from tfprune.micro.boards import boards
from tfprune.workers.pool import Workers


def nothing(line):
    pass


@pytest.fixture(scope="module")
def config(tmp_path_factory, seed):
    """A search on a small model, every unit twice, whose labels are what it decides."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(seed)
    hidden = keras.layers.Dense(30, activation="relu", name="hidden")
    model = fill(
        keras.Sequential([keras.Input((6,)), hidden, keras.layers.Dense(3, name="out")]), rng
    )
    kernel, bias = hidden.get_weights()
    kernel[:, 15:], bias[15:] = kernel[:, :15], bias[:15]
    hidden.set_weights([kernel, bias])
    x = rng.standard_normal((800, 6)).astype("float32")
    model.save(folder / "own.keras")
    np.savez(folder / "own.npz", x=x, y=model.predict(x, verbose=0).argmax(axis=1))
    return JobConfig(
        model=str(folder / "own.keras"), data=str(folder / "own.npz"), max_drop=3.0,
        schemes=("float32",), refit=0,
    ).validate()  # fmt: skip


@pytest.fixture(scope="module")
def searched(config):
    """What makes the search's models, the digests of what it is made of, and its own result."""
    trials, origin, _ = drop_pieces._trials(sent(config))
    said = []
    builder = replace(trials.builder, say=said.append)
    variant, tried = within_drop(builder)
    assert len({one.fits for one in tried}) == 2
    return replace(builder, say=nothing), origin, variant, tried, said


class Others:
    """Others who make the models of a search, and answer in their own way."""

    def __init__(self, builder, change):
        self._trials, self._change = drop_pieces.Trials(builder), change
        self.stopped = False

    def measured(self, state, asked, say):
        return self._change(self._trials.made(asked)[1])

    def stop(self):
        self.stopped = True


def test_what_workers_are_asked_leads_to_the_same(config, searched, tmp_path, monkeypatch):
    _, origin, variant, tried, said = searched
    monkeypatch.chdir(tmp_path)
    lines, engine = [], Inline()
    helpers = SearchWorkers(Workers(engine, nothing), config)
    helpers.load(origin)
    theirs, again = within_drop(replace(searched[0], say=lines.append), helpers)
    assert (again, lines) == (tried, said)
    assert theirs.files == variant.files
    assert len(engine.requests) > len(tried)


def test_other_data_is_refused(config, searched):
    helpers = SearchWorkers(Workers(Inline(), nothing), config)
    helpers.load({**searched[1], "data": "0" * 64})
    with pytest.raises(TfpruneError, match="the data is another one here .* in place of 00000000"):
        within_drop(searched[0], helpers)


def test_a_file_that_is_another_one_here_is_measured_here(searched):
    builder, _, variant, tried, _ = searched
    lines = []
    others = Others(builder, lambda one: replace(one, sha256="another"))
    theirs, again = within_drop(replace(builder, say=lines.append), others)
    assert others.stopped
    assert (theirs.files, again) == (variant.files, tried)
    assert sum("is another one than the worker's" in line for line in lines) == 1


def test_what_does_not_fit_here_is_not_taken(searched):
    """A unit of 30 can go, and 29 cannot, whatever others say; the smallest that can is taken."""
    builder, *_ = searched
    whole, least = builder.pruner.parameters()
    asked_for = [Try(whole - 1, 1.0), Try(least, 1.0)]
    true = [drop_pieces.Trials(builder).made(asked)[1] for asked in asked_for]
    assert [one.tried.fits for one in true] == [True, False]
    told = [replace(one, tried=replace(one.tried, drop=0.0, fits=True)) for one in true]
    made = [true[0], told[1]]
    variant = _made_here(builder, asked_for, made)
    assert variant.models["pruned"].get_layer("hidden").units == 29
    assert made == true
    assert _made_here(builder, asked_for[1:], told[1:]) is None


@pytest.fixture(scope="module")
def healing(config):
    """What makes the models of a search that heals them."""
    return drop_pieces._trials(sent(replace(config, heal=8)))


def changed(builder, variant):
    """How many percent of the validation samples are decided otherwise; they were right before."""
    (x,) = builder.data.validation.arrays
    answers = [m.predict(x, verbose=0).argmax(axis=1) for m in
               (builder.model, variant.models["pruned"])]  # fmt: skip
    return 100 * np.mean(answers[0] != answers[1])


@pytest.mark.trains
def test_a_try_is_healed_until_it_is_good_enough(healing, monkeypatch):
    trials, *_ = healing
    asked = Try(12 * 7 + 13 * 3, 1.0)  # 12 units of 15 that differ.
    found = {}
    # A quarter of all answers may change, or fewer than none can.
    for share in (25.0, -1.0):
        monkeypatch.setattr(trials, "points", 2 * share)
        variant, one = trials.made(asked)
        assert variant.models["pruned"].get_layer("hidden").units == 12
        assert one.tried.drop == pytest.approx(changed(trials.builder, variant), abs=1e-3)
        assert one.brief == (share == 25)
        assert one.brief <= (one.tried.drop <= share)
        found[share] = one, variant.training[0]
    (brief, short), (_, long) = found.values()
    assert short.seconds > 0
    assert brief.rate == short.learning_rate == long.learning_rate > 0
    assert long.after <= short.after < short.before
    variant, one = trials.healed_to_the_end(asked, brief)
    assert variant.training[0].after <= long.after
    assert not one.brief


@pytest.mark.parametrize(
    ("after_epochs", "stops"),
    [
        ([9, 6, 4, 3, 2.8, 2.7, 2.7, 2.6], 8),  # 6 were gained in 4 epochs: 3 may be in the rest.
        ([9, 8.5, 8, 7.5, 7], 4),  # 1.5 were gained, 4.5 are missing.
        ([9, 1.5], 2),
        ([9, 1.6, 1.5], 3),
    ],
)
def test_healing_on_trial_ends_where_it_is_good_enough_or_hopeless(
    healing, monkeypatch, after_epochs, stops
):
    trials, *_ = healing
    assert (trials.points, trials.builder.config.heal) == (3, 8)
    left, drops = list(after_epochs), []
    monkeypatch.setattr(trials, "_drop", lambda outputs: left.pop(0))
    settled = False
    while left and not settled:
        settled = trials._settled(trials.builder.model, drops)
    assert len(drops) == stops


@pytest.mark.trains
def test_workers_heal_as_the_search_does_and_the_last_model_is_healed_to_the_end(healing, config):
    lines, said = [], []
    trials, origin, _ = healing
    variant, tried = within_drop(replace(trials.builder, say=said.append))
    helpers = SearchWorkers(Workers(Inline(), nothing), replace(config, heal=8))
    helpers.load(origin)
    theirs, again = within_drop(replace(trials.builder, say=lines.append), helpers)
    assert (again, lines) == (tried, said)
    assert theirs.files == variant.files
    last = [line for line in said if "healed for all epochs" in line]
    assert len(last) <= 1


def test_options_come_back_as_they_were_sent():
    config = JobConfig(
        model="cnn", layers="conv1,conv2", schemes="int8,float32", batch="dynamic", max_drop="1",
        round_to="8", centre="0.5", heal="auto", device=tuple(boards(["raspberry-pi-pico"])),
    )  # fmt: skip
    config = replace(config, batch=1).validate()
    values = json.loads(json.dumps(sent(replace(config, device=()))))
    assert received(JobConfig, values).validate() == replace(config, device=())
    open_batch = JobConfig(dataset="digits", max_drop="1", batch="dynamic").validate()
    values = json.loads(json.dumps(sent(open_batch)))
    assert received(JobConfig, values).validate() == open_batch
