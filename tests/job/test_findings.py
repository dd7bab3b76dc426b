"""What a run says beside its figures: losses with their figures, files that did not shrink."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfprune.cli.flags import read
from tfprune.job.config import JobConfig
from tfprune.job.findings import Run, closest, findings, lost
from tfprune.job.model_card import card
from tfprune.job.records import Artifact
from tfprune.results import LayerResult

COMMAND = ["python", "-m", "tools.export", "--prune", "30", "--data", "my data.npz", "--seed=3"]


def layer(units=10, kept=10, apart=40.0, name="hidden", group=""):
    angles = np.full((units, units), 90.0, np.float32)
    np.fill_diagonal(angles, 0)
    angles[0, 1] = angles[1, 0] = apart
    return LayerResult(name, units, kept, 0, 0, units - kept, np.arange(kept), angles, group)


def file(variant, scheme, size=1000, **scores):
    name = "net" if variant == "original" else f"net_{variant}"
    return Artifact(f"{name}_{scheme}.tflite", variant, scheme, size, "", 1, 1, scores)


def run(original, pruned, judged_by=("accuracy",), config=None, layers=None, **more):
    """A run of float32 (and int8) files: scores of the original's, then of the pruned ones."""
    schemes = ("float32", "int8")
    artifacts = [
        file(variant, scheme, size, **scores)
        for variant, size, files in (("original", 1000, original), ("pruned", 900, pruned))
        for scheme, scores in zip(schemes, files, strict=False)
    ]
    floats = {"original": original[0], "pruned": pruned[0]}
    asked = config or JobConfig(schemes=schemes)
    gone = [layer(kept=8)] if layers is None else layers
    return Run(asked, COMMAND, gone, artifacts, floats, judged_by, 500, **more)


def scored(*values, name="accuracy"):
    return [{name: value} for value in values]


@pytest.mark.parametrize(
    ("name", "before", "within", "beyond"),
    [
        ("accuracy", 0.98, 0.975, 0.9749),
        ("agreement", 1.0, 0.98, 0.9799),
        ("output_error", 0.0, 0.05, 0.0501),
        ("output_error", 0.12, 0.13, 0.1301),  # A right triangle: 5, 12, 13.
    ],
)
def test_a_loss_beyond_the_limit_is_said_with_its_figures(name, before, within, beyond):
    whole = scored(before, name=name)
    assert findings(run(whole, scored(within, name=name), (name,))) == []
    (one,) = findings(run(whole, scored(beyond, name=name), (name,)))
    text = str(one)
    assert one.about == "pruning"
    assert text.startswith("WARNING: net_pruned_float32.tflite lost by pruning: ")
    assert "net_float32.tflite" in text
    assert "500 test samples" in text
    assert (
        "instead: python -m tools.export --prune 30 --data 'my data.npz' --seed=3 --heal 10" in text
    )
    assert "--prune 15" in text
    assert ("--max-drop 0.5" in text) == (name == "accuracy")


def test_the_figures_are_those_of_the_worst_file():
    (one,) = findings(run(scored(0.9, 0.9), scored(0.86, 0.858)))
    assert "net_pruned_int8.tflite" in one.message
    assert "accuracy 85.80 %, 4.20 points below 90.00 % unpruned (net_int8.tflite)" in one.message
    assert one.message.endswith("; float32 likewise")


def test_what_quantisation_costs_is_said_of_quantisation():
    original, pruned = findings(run(scored(0.9, 0.8), scored(0.9, 0.79)))
    assert (original.about, pruned.about) == ("quantisation", "quantisation")
    assert "net_int8.tflite lost by quantisation: accuracy 80.00 %, 10.00 points" in str(original)
    assert "--schemes int16x8 or float16" in str(original)
    assert "--qat" not in str(original)
    assert "net_pruned_int8.tflite" in str(pruned)
    assert "--seed=3 --qat 3" in str(pruned)


def test_a_loss_that_neither_step_has_alone_is_not_lost_between_them():
    """0.4 points by pruning, 0.4 by quantisation: 0.8 below the original's int8 file."""
    (one,) = findings(run(scored(0.9, 0.9), scored(0.896, 0.892)))
    assert one.about == "pruning"
    assert "0.80 points" in one.message


def test_a_drop_that_was_asked_for_is_no_surprise():
    asked = JobConfig(schemes=("float32",), max_drop=2.0).validate()
    assert findings(run(scored(0.9), scored(0.881), config=asked)) == []
    (one,) = findings(run(scored(0.9), scored(0.879), config=asked))
    assert "--max-drop 1" in str(one)


@pytest.mark.parametrize(
    ("asked", "expected", "absent"),
    [
        ({"remove": 0.5}, ["--remove 25%", "--max-drop 0.5 in place of --remove"], ["--prune"]),
        ({"centre": "none"}, ["--centre mean"], []),
        ({"fold": "drop"}, ["--fold least-squares", "--max-drop"], ["--centre"]),
        ({"fold": "outgoing"}, ["--fold least-squares"], ["--max-drop"]),
        ({"select": "span"}, ["--prune 15"], ["--max-drop"]),
        ({"heal": 4}, ["--heal 8", "--finetune 5"], []),
    ],
)
def test_advice_is_something_else_than_what_was_asked_for(asked, expected, absent):
    config = JobConfig(schemes=("float32",), **asked).validate()
    (one,) = findings(run(scored(0.9), scored(0.8), config=config))
    advice = " ".join(one.advice).replace("--prune 30", "")
    assert all(words in advice for words in expected)
    assert not any(words in advice for words in absent)


def test_training_for_int8_is_advised_only_where_it_is_possible():
    for possible in (True, False):
        said = findings(run(scored(0.9, 0.9), scored(0.9, 0.6), quantisable=lambda: possible))  # noqa: B023
        (one,) = [one for one in said if one.about == "quantisation"]
        assert ("--qat" in str(one)) == possible
        assert "--schemes int16x8" in str(one)


def test_training_for_int8_that_did_no_good_is_not_advised_again():
    for kept in (True, False):
        config = JobConfig(schemes=("float32", "int8"), qat=3).validate()
        said = findings(run(scored(0.9, 0.9), scored(0.9, 0.6), config=config, qat_kept=kept))
        (one,) = [one for one in said if one.about == "quantisation"]
        assert ("--qat 6" in str(one)) == kept


COMMANDS = [
    ["--prune", "30"],
    ["--remove=50%", "--compat", "--layers", "conv"],
    ["--target-params", "50%", "--layers=all", "--schemes", "int8"],
    [],
]


@pytest.mark.parametrize("words", COMMANDS)
@pytest.mark.parametrize("removed", [0, 2])
def test_every_command_that_is_named_can_be_typed(words, removed):
    """Read and checked as the command reads and checks it."""
    command = ["python", "-m", "tools.export", *words]
    made = run(
        scored(0.9, 0.9), scored(0.8, 0.6), config=request_of(words), filters=True,
        layers=[layer(kept=10 - removed)],
    )  # fmt: skip
    larger = [replace(one, bytes=1200) for one in made.artifacts if one.variant == "pruned"]
    same = [one for one in made.artifacts if one.variant == "original"]
    said = findings(replace(made, command=command, artifacts=[*same, *larger]))
    typed = [text for one in said for text in one.advice if "python -m" in text]
    assert {one.about for one in said} == {"pruning", "quantisation", "size"}
    assert len(typed) >= 3
    for text in typed:
        request_of(shlex.split(text[text.index("python -m") :])[3:])


def request_of(words):
    """What a command line asks for, checked."""
    return read(JobConfig, words, "tools.export").validate()


def test_nothing_removed_says_what_would_go():
    same = scored(0.9, 0.9)
    made = run(
        same, same, layers=[layer(apart=150.0), layer(apart=37.2, name="late")], filters=True
    )
    artifacts = [replace(one, bytes=1000) for one in made.artifacts]
    (one,) = findings(replace(made, artifacts=artifacts))
    assert one.about == "size"
    assert "no unit was removed" in one.message
    assert one.advice[0].endswith("--layers all")
    assert "--prune 31 (the closest pair, in hidden, is 30.0 degrees apart)" in one.advice
    assert "--remove 25% in place of --prune" in one.advice
    assert "--max-drop 1 in place of --prune" in one.advice


def test_no_closer_pair_is_advised_where_both_ways_stay_as_wide():
    """Only a layer whose units were not put back says at how many degrees more goes."""
    same = scored(0.9)
    back, other = replace(layer(apart=12.0), evened=2), layer(apart=44.5, name="backward")
    for layers, advice in (
        ([back, other], "--prune 45 (the closest pair, in backward, is 44.5 degrees apart)"),
        ([back], "both, python -m tools.export --prune 30 --data 'my data.npz' --seed=3 --layers"),
    ):
        made = run(same, same, layers=layers)
        (one,) = findings(replace(made, artifacts=[replace(a, bytes=7) for a in made.artifacts]))
        assert one.advice[0].startswith(advice)
        assert ("hidden has to stay as wide as the other way" in one.message) == (layers == [back])
        assert not any("--prune 13" in words for words in one.advice)


def test_a_file_that_grew_is_named_although_units_went():
    made = run(scored(0.9, 0.9), scored(0.9, 0.9))
    grown = [
        replace(one, bytes=1016) if one.file == "net_pruned_int8.tflite" else one
        for one in made.artifacts
    ]
    (one,) = findings(replace(made, artifacts=grown))
    assert (
        "net_pruned_int8.tflite has 1,016 bytes, 16 more than the unpruned net_int8" in one.message
    )
    assert "although 2 units are gone" in one.message
    # The float32 file has 900 bytes, fewer than the one that grew.
    assert one.advice[0] == "take net_pruned_float32.tflite, which has 900 bytes"
    (one,) = findings(replace(made, artifacts=[replace(a, bytes=1016) for a in made.artifacts]))
    assert not any(words.startswith("take ") for words in one.advice)


def test_without_any_layer_to_prune_the_filters_are_named():
    made = run(scored(0.9), scored(0.9), layers=[], filters=True)
    (one,) = findings(replace(made, artifacts=[replace(a, bytes=7) for a in made.artifacts]))
    assert "nothing was pruned" in one.message
    assert one.advice == (f"filters too, {made.typed('--layers', 'all')}",)


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(["accuracy", "agreement", "output_error"]))
def test_losses_grow_with_what_was_lost(before, after, name):
    loss = lost(name, before, after)
    worse = after > before if name == "output_error" else after < before
    assert (loss > 0) <= worse
    assert lost(name, before, before) == 0


def test_the_closest_pair_is_one_of_survivors():
    assert closest(layer(apart=12.0)) == 12
    assert closest(layer(apart=170.0)) == pytest.approx(10)
    gone = replace(layer(apart=12.0, kept=9), kept=np.arange(1, 10))
    assert closest(gone) == 90
    assert closest(replace(layer(), angles=np.full((10, 10), np.nan, np.float32))) == np.inf


def test_the_card_has_the_warnings(shipped):
    manifest = shipped[1]
    assert "## Warnings" not in card({**manifest, "warnings": []})
    warning = {"about": "size", "message": "it grew by 3 bytes", "advice": []}
    assert "## Warnings\n\n- it grew by 3 bytes.\n" in card({**manifest, "warnings": [warning]})
