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
from tfprune.job.drop_search import Trials, brief_epochs, within_drop
from tfprune.job.halving import Try
from tfprune.job.sent_config import received, sent
from tfprune.micro.boards import boards
from tfprune.workers.pool import Workers


def nothing(line):
    pass


def parameters(units):
    """Of the model with so many hidden ones."""
    return 10 * units + 3


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


def test_what_does_not_fit_here_is_not_taken(searched, monkeypatch):
    """Whatever others say, the smallest model that fits here is taken, of those they were asked."""
    builder, *_ = searched
    real = Trials._made

    def made(self, asked, brief):
        """With 6 of 30 units all is well."""
        variant, one = real(self, asked, brief)
        fits = one.tried.parameters >= parameters(6)
        return variant, replace(one, tried=replace(one.tried, drop=9.0 * (not fits), fits=fits))

    monkeypatch.setattr(Trials, "_made", made)
    true, told = [], []

    def half(one):
        """With 2 units it is said to be."""
        true.append(one.tried)
        fits = one.tried.parameters >= parameters(2)
        told.append(replace(one.tried, drop=0.0, fits=fits) if fits else one.tried)
        return replace(one, tried=told[-1], sha256="another")

    variant, tried = within_drop(builder, Others(builder, half))
    right = [one.parameters for one in true if one.fits]
    assert {one.parameters for one in told if one.fits} > set(right)
    assert variant.models["pruned"].count_params() == min(right)
    # What was measured here takes the place of what was told, up to the model that is taken.
    assert tried == [one if one.parameters <= min(right) else other
                     for one, other in zip(true, told, strict=True)]  # fmt: skip


def test_the_drop_is_that_below_the_original_as_it_came(searched):
    """Not below what --adapt made of it, from which is pruned."""
    builder, *_ = searched
    asked = Try(parameters(20), 1.0)
    other = keras.models.clone_model(builder.model)  # Weights of its own: hardly right.
    (x,) = builder.data.validation.arrays
    share = np.mean(other.predict(x, verbose=0).argmax(axis=1) == builder.data.validation.y)
    drop, below_other = (
        Trials(replace(builder, original=model)).made(asked)[1].tried.drop
        for model in (builder.model, other)
    )
    assert drop - below_other == pytest.approx(100 * (1 - share), abs=1e-3)


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
def test_a_try_is_healed_for_a_third_of_the_epochs_or_until_it_is_good_enough(healing, monkeypatch):
    trials, *_ = healing
    asked = Try(12 * 7 + 13 * 3, 1.0)  # 12 units of 15 that differ.
    found = {}
    # All answers may change, or fewer than none can.
    for share in (100.0, -1.0):
        monkeypatch.setattr(trials, "points", 2 * share)
        variant, one = trials.made(asked)
        assert variant.models["pruned"].get_layer("hidden").units == 12
        assert one.tried.drop == pytest.approx(changed(trials.builder, variant), abs=1e-3)
        assert one.brief
        found[share] = one, variant.training[0]
    (brief, short), (slow, long) = found.values()
    assert short.epochs == long.epochs == 3
    assert 0 < short.best_epoch < 3
    assert brief.sha256 != slow.sha256
    assert long.after <= short.after < short.before
    variant, one = trials.in_full(asked, variant, one)
    assert [entry.epochs for entry in variant.training] == [3, 5]
    assert variant.training[1].before == pytest.approx(long.after)
    assert variant.training[1].after <= long.after
    assert not one.brief


@pytest.mark.trains
def test_a_try_that_is_far_off_is_healed_for_an_epoch(healing, monkeypatch):
    trials, *_ = healing
    epochs = []
    for times in (0, 8):
        monkeypatch.setattr("tfprune.job.drop_search.HOPELESS", times)
        variant, one = trials._made(Try(parameters(1), 1.0), True)
        assert one.tried.drop > trials.points
        epochs.append(variant.training[0].best_epoch)
    assert epochs[0] == 1 < epochs[1]


def test_a_single_epoch_is_no_shorter_in_a_search(config):
    trials, *_ = drop_pieces._trials(sent(replace(config, heal=1)))
    assert brief_epochs(1) == 1
    assert not trials.made(Try(12 * 7 + 13 * 3, 1.0))[1].brief


@pytest.mark.slow
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
    last = [line for line in said if "made in full " in line]
    assert len(last) <= 1
    drop = changed(trials.builder, variant)
    assert drop <= trials.points
    assert any(one.drop == pytest.approx(drop, abs=1e-3) and one.fits for one in tried)
    epochs = sum(entry.epochs for entry in variant.training)
    assert epochs == (3 if last and "that is kept" in last[0] else 8)


@pytest.fixture
def invented(healing, monkeypatch):
    """Runs a search in which drops are as they are told, by parameters, after either healing."""
    trials, *_ = healing

    def run(in_haste, whole):
        def told(self, variant, brief):
            variant, one = real(self, variant, brief)
            drop = (in_haste if brief else whole)(one.tried.parameters)
            tried = replace(one.tried, drop=drop, fits=drop <= self.points)
            return variant, replace(one, tried=tried)

        real = Trials._tried
        said = []
        with monkeypatch.context() as patched:
            patched.setattr(Trials, "_tried", told)
            variant, tried = within_drop(replace(trials.builder, say=said.append))
        return variant.models["pruned"].get_layer("hidden").units, tried, said

    return run


@pytest.mark.parametrize(("down", "fits"), [(7.4, True), (7.6, False)])
def test_a_model_that_may_fit_is_made_in_full(invented, down, fits):
    """Where models are healed, up to 2.5 times as far down as asked for: 3 points here."""
    units, tried, said = invented(
        lambda count: down if count < parameters(20) else 0.5, lambda count: 0.2
    )
    assert (units < 20) == fits
    assert min(one.parameters for one in tried if one.fits) == parameters(units)
    doubts = [line for line in said if "in haste; made in full" in line]
    assert len(doubts) == sum(one.drop == 0.2 and one.parameters < parameters(20) for one in tried)


def test_the_model_that_is_found_is_made_in_full(invented):
    _, tried, said = invented(lambda count: 0.7, lambda count: 0.2)
    assert sum("made in full 0.20 points down, 0.70 points down in haste" in s for s in said) == 1
    assert [one.drop for one in tried if one.drop != 0.7] == [0.2]


def test_a_model_that_more_training_makes_worse_is_kept_as_it_was(invented):
    units, tried, said = invented(lambda count: 1.0, lambda count: 2.0)
    assert sum("; that is kept" in line for line in said) == 1
    assert min(one.parameters for one in tried) == parameters(units)
    assert {one.drop for one in tried} == {1.0}


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
