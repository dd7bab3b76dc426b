"""``tfprune.inspect``: its figures against those of Keras, plain loops and arithmetic by hand."""

from __future__ import annotations

import html
import json
import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tfprune.inspection import trial_healing
from tfprune.inspection.records import DEGREES, SHARES
from tfprune.inspection.text import ASCII

UGLY = "<script>alert(1)</script>&"


def residual(name: str = "first") -> keras.Model:
    """Two convolutions that meet in an Add, BatchNormalization, and a Dense layer that reads it."""
    image = keras.Input((6, 6, 3), name="image")
    stem = kl.Conv2D(8, 3, padding="same", activation="relu", name=name)(image)
    inner = kl.Conv2D(4, 1, activation="relu", name="inner")(stem)
    back = kl.BatchNormalization(name="normal")(kl.Conv2D(8, 1, use_bias=False, name="back")(inner))
    met = kl.Add(name="met")([stem, back])
    out = kl.Dense(3, name="out")(kl.Flatten(name="flat")(met))
    return keras.Model(image, out, name="small")


def planted(rng) -> tuple[keras.Model, np.ndarray]:
    """16 ReLU units: 3 dead, 1 constant, and 4 the multiples of others; and data."""
    hidden = kl.Dense(16, "relu", name="hidden")
    model = keras.Sequential([keras.Input((5,)), hidden, kl.Dense(4, name="out")], name="planted")
    kernel = rng.normal(size=(5, 16))
    bias = rng.normal(0, 0.1, 16)
    kernel[:, 12:] = 2 * kernel[:, :4]
    bias[12:] = 2 * bias[:4]
    kernel[:, 4:8] = 0
    bias[4:8] = [-1, -2, -3, 1]
    hidden.set_weights([kernel, bias])
    return model, rng.normal(size=(600, 5)).astype("float32")


def renamed(found: tfprune.Inspection, name: str) -> tfprune.Inspection:
    """The same with another name for the model and for its first layer with its group."""
    measured = replace(
        found.measured,
        redundancy=(replace(found.measured.redundancy[0], name=name),),
        sensitivity=(replace(found.measured.sensitivity[0], name=name),),
    )
    layers = (replace(found.layers[0], name=name), *found.layers[1:])
    groups = (replace(found.groups[0], layers=(name,)), *found.groups[1:])
    return replace(found, name=name, layers=layers, groups=groups, measured=measured)


@pytest.fixture(scope="module")
def seen(seed):
    """The planted model, its data, labels that it mostly gets right, and what is found."""
    rng = np.random.default_rng(seed)
    model, x = planted(rng)
    y = model.predict(x, verbose=0).argmax(axis=1)
    y[::10] = (y[::10] + 1) % 4
    return model, x, y, tfprune.inspect(model, x, y)


def test_parameters_are_those_that_keras_counts():
    model = residual()
    found = tfprune.inspect(model)
    assert found.parameters == model.count_params()
    assert [one.name for one in found.layers] == [layer.name for layer in model.layers]
    assert [one.parameters for one in found.layers] == [one.count_params() for one in model.layers]
    assert {one.name: one.shape for one in found.layers} == {
        layer.name: tuple(keras.tree.flatten(layer.output)[0].shape[1:]) for layer in model.layers
    }
    assert found.measured is None
    assert found.recommended is None


def test_multiply_accumulates_and_bytes_by_hand():
    found = tfprune.inspect(residual())
    macs = {one.name: one.macs for one in found.layers if one.macs}
    assert macs == {
        "first": 6 * 6 * 3 * 3 * 3 * 8, "inner": 6 * 6 * 8 * 4, "back": 6 * 6 * 4 * 8,
        "out": 6 * 6 * 8 * 3,
    }  # fmt: skip
    assert found.macs == sum(macs.values())
    # A weight takes a byte, a bias four, and BatchNormalization goes into the layer before it.
    weights = 3 * 3 * 3 * 8 + 8 * 4 + 4 * 8 + 6 * 6 * 8 * 3
    assert found.bytes == weights + 4 * (8 + 4 + 3)


def test_what_goes_together_who_consumes_it_and_what_stays():
    model = residual()
    groups = {one.name: one for one in tfprune.inspect(model).groups}
    assert set(groups) == {"first + back", "inner", "out"}
    assert groups["first + back"].units == 8
    assert set(groups["first + back"].consumers) == {"inner", "out"}
    assert groups["inner"].consumers == ("back",)
    assert groups["out"].stays == "output layer"
    # Half of a group, counted by building the model with half as many.
    without = groups["inner"]
    assert without.half_parameters == 2 * (8 + 1) + 2 * 8
    assert without.half_macs == 6 * 6 * (8 * 2 + 2 * 8)


def test_dead_and_constant_units_are_those_of_a_plain_loop(seen):
    model, x, _, found = seen
    hidden = keras.Model(model.inputs, model.layers[0].output).predict(x, verbose=0)
    dead = constant = 0
    for unit in range(16):
        values = [float(value) for value in hidden[:, unit]]
        constant += max(values) == min(values)
        dead += all(value == 0 for value in values)
    (one,) = found.measured.redundancy
    assert (one.units, one.constant, one.dead) == (16, constant, dead) == (16, 4, 3)


def test_units_near_others_are_those_that_a_threshold_removes(seen):
    model, x, _, found = seen
    pruner = tfprune.Pruner(model, x)
    (one,) = found.measured.redundancy
    # The four that repeat others, at any number of degrees.
    assert min(one.near) >= 4
    assert list(one.near) == sorted(one.near)
    assert list(one.spanned) == sorted(one.spanned)
    for degrees, near, spanned in zip(DEGREES, one.near, one.spanned, strict=True):
        (layer,) = pruner.prune(threshold=degrees).layers
        # Measured on three quarters of the samples here, on all there.
        assert abs(near - layer.similar - layer.complementary) <= 1
        assert spanned >= near - 1


@pytest.mark.parametrize("labels", [True, False])
def test_a_cell_of_sensitivity_is_that_group_alone_pruned(seed, labels):
    rng = np.random.default_rng(seed)
    model = residual()
    for layer in model.layers:
        layer.set_weights([abs(w) + 0.1 if w.ndim == 1 else 3 * w for w in layer.get_weights()])
    x = rng.normal(size=(400, 6, 6, 3)).astype("float32")
    classes = model.predict(x, verbose=0).argmax(axis=1)
    y = np.where(np.arange(400) % 8 == 0, (classes + 1) % 3, classes)
    found = tfprune.inspect(model, x, y if labels else None, seed=5)
    measured = found.measured
    assert measured.score == ("accuracy" if labels else "agreement")
    truth = y if labels else classes

    # A quarter of the samples is scored, drawn by the seed; the others are measured.
    order = np.random.default_rng(5).permutation(400)
    scored, rest = np.sort(order[:100]), np.sort(order[100:])
    assert (measured.samples, measured.scored) == (len(rest) * 36, 100)
    assert measured.original == pytest.approx((classes[scored] == truth[scored]).mean())
    for row in measured.sensitivity:
        names = row.name.split(" + ")
        for share, left, score in zip(SHARES, row.units, row.scores, strict=True):
            result = tfprune.prune(
                model, x[rest], remove=share, refit=0, layers=names, validation=x[scored]
            )
            kept = {layer.units_after for layer in result.layers}
            outputs = result.model.predict(x[scored], verbose=0)
            assert kept == {left}
            assert score == pytest.approx((outputs.argmax(axis=1) == truth[scored]).mean())
    # The test would pass on a map of one colour.
    assert len({score for row in measured.sensitivity for score in row.scores}) > 2


def test_what_is_recommended_keeps_what_it_promises(seen):
    model, x, _, found = seen
    advice = found.recommended
    assert advice.score >= found.measured.original - 0.01
    assert advice.parameters < model.count_params()
    result = eval(advice.command, {"tfprune": tfprune, "model": model, "x": x})
    # The same request on all samples: about the same size.
    assert abs(result.model.count_params() - advice.parameters) <= 2 * (5 + 1 + 4)
    assert f"{advice.parameters:,} parameters in place of {found.parameters:,}" in advice.expected
    assert str(found).splitlines()[-1] == f"next: {advice.command}  # expect {advice.expected}"


def test_where_nothing_goes_free_of_loss_it_recommends_healing():
    """Units at right angles, each of them needed: whichever goes, a class is never chosen again."""
    hidden = kl.Dense(4, name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, kl.Dense(4, name="out")])
    hidden.set_weights([np.eye(4), np.zeros(4)])
    model.layers[1].set_weights([np.eye(4), np.zeros(4)])
    x = np.random.default_rng(0).normal(size=(500, 4)).astype("float32")
    found = tfprune.inspect(model, x)
    assert found.measured.redundancy[0].near == (0, 0, 0)
    assert found.recommended.command.startswith("tfprune.heal(")
    assert found.recommended.score < 0.99


def test_blocks_are_the_darker_the_more_is_lost(seen):
    found = seen[3]
    table = str(found)
    for row in found.measured.sensitivity:
        for score in row.scores:
            points = 100 * (found.measured.original - score)
            mark = "█" if points >= 20 else "▓" if points >= 10 else "▒" if points >= 3 else "░"
            mark = mark if points >= 1 else " "
            assert f"{100 * score:.2f} {mark * 3}".rstrip() in table
    table.translate(ASCII).encode("ascii")


def test_names_are_escaped_in_html(seen):
    found = renamed(seen[3], UGLY)
    shown = found.to_html()
    assert "<script" not in shown
    escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;"
    # The title twice, the table of layers, the tree, the two tables of groups.
    assert shown.count(escaped) == 6
    assert found._repr_html_() in shown
    assert '<meta name="viewport"' in shown
    # Cells have colours there, and what is typed stands by itself.
    assert not set("░▒▓█") & set(shown)
    assert f"<code>{html.escape(found.recommended.command)}</code>" in shown
    # A cell's title says how many units are left.
    assert f'title="{found.measured.sensitivity[0].units[0]} units left"' in shown


def test_the_heat_map_shows_every_score(seen):
    found = seen[3]
    axes = found.plot().axes[0]
    drawn = [text.get_text() for text in axes.texts]
    scores = [score for row in found.measured.sensitivity for score in row.scores]
    assert drawn == [f"{100 * score:.2f}" for score in scores]
    lost = axes.images[0].get_array().ravel()
    wanted = [min(max(100 * (found.measured.original - score), 0), 30) for score in scores]
    np.testing.assert_allclose(lost, wanted)


def test_a_formula_in_a_name_is_drawn_as_it_is(seen):
    figure = renamed(seen[3], "$\\frac{$").plot()
    figure.canvas.draw()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["\\$\\frac{\\$"]


def test_it_is_plain_data_as_well(seen):
    found = seen[3]
    data = json.loads(json.dumps(found.to_dict()))
    assert data["parameters"] == found.parameters
    assert data["measured"]["sensitivity"][0]["scores"] == [*found.measured.sensitivity[0].scores]


def test_the_model_stays_as_it_is(seen):
    model, x, _, _ = seen
    before = [weight.copy() for weight in model.get_weights()]
    tfprune.inspect(model, x[:100])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_model_in_which_nothing_can_go_says_so():
    model = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="out")])
    found = tfprune.inspect(model, np.ones((10, 3)))
    assert found.prunable == ()
    assert found.measured is None
    assert "stays: output layer" in str(found)
    assert str(found).endswith("nothing can be pruned; the reasons stand in the tree")
    with pytest.raises(tfprune.TfpruneError, match="was measured"):
        found.plot()


def test_an_axis_of_any_size_has_no_count():
    model = keras.Sequential(
        [keras.Input((None, 3)), kl.Conv1D(4, 2, name="seen"), kl.GlobalMaxPooling1D(), kl.Dense(2)]
    )
    found = tfprune.inspect(model)
    assert found.macs is None
    assert {one.name: one.macs for one in found.layers}["seen"] is None
    assert found.layers[0].shape == (None, 4)
    assert "?x4" in str(found)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (None, [0, 1], "y: expected x with it, received labels alone"),
        (np.ones((4, 5)), [0, 1], "y: expected a label for each of 4 samples, received 2"),
        (np.ones((1, 5)), None, "expected at least 2 samples"),
        (np.ones((9, 4)), None, "shape"),
        (np.full((9, 5), math.nan), None, "NaN"),
    ],
)
def test_what_does_not_fit_is_told(rng, x, y, message):
    model, _ = planted(rng)
    with pytest.raises(tfprune.TfpruneError, match=message):
        tfprune.inspect(model, x, y)


def one_sided(seed, rare=0.02):
    """A model that gives class 1 for about a share of the samples, and data."""
    rng = np.random.default_rng(seed)
    start, x = planted(rng)
    hidden = start.layers[0]
    out = kl.Dense(2, name="out")
    model = keras.Sequential([keras.Input((5,)), hidden, out], name="one_sided")
    kernel = np.stack([np.zeros(16), rng.normal(size=16)], axis=1)
    out.set_weights([kernel, np.zeros(2)])
    bias = -np.quantile(model.predict(x, verbose=0)[:, 1], 1 - rare)
    out.set_weights([kernel, np.array([0, bias])])
    return model, x


def test_where_one_answer_is_nearly_always_given_outputs_are_scored(seed):
    model, x = one_sided(seed)
    answers = model.predict(x, verbose=0).argmax(axis=1)
    found = tfprune.inspect(model, x, seed=5)
    measured = found.measured
    scored = np.sort(np.random.default_rng(5).permutation(len(x))[: len(x) // 4])
    share = 100 * np.bincount(answers[scored]).max() / len(scored)
    assert share >= 95
    assert measured.score == "output variance kept"
    assert measured.warning.startswith(f"the model gives one answer for {share:.1f} % of the sa")
    assert f"\nWARNING: {measured.warning}\nSensitivity: output variance kept" in str(found)
    assert "WARNING: the model gives one answer" in found.to_html()
    assert measured.original == 1
    # By hand: of the outputs' variance on the samples that are scored.
    rest = np.sort(np.random.default_rng(5).permutation(len(x))[len(x) // 4 :])
    result = tfprune.prune(model, x[rest], remove=0.75, refit=0, validation=x[scored])
    pair = (result.model, model)
    ours, theirs = (one.predict(x[scored], verbose=0).astype(float) for one in pair)
    spread = ((theirs - theirs.mean(axis=0)) ** 2).mean()
    least = (0.05**2) * (theirs**2).mean()
    kept = 1 - ((ours - theirs) ** 2).mean() / max(spread, least)
    same = (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
    assert 0 < kept < 0.999
    assert abs(kept - same) > 1e-3
    assert measured.sensitivity[0].scores[-1] == pytest.approx(kept, abs=1e-5)
    assert found.recommended.score >= 0.99 or "heal" in found.recommended.command


def test_labels_or_several_answers_need_no_such_warning(seed, seen):
    model, x = one_sided(seed)
    answers = model.predict(x, verbose=0).argmax(axis=1)
    assert tfprune.inspect(model, x, answers).measured.score == "accuracy"
    assert tfprune.inspect(model, x, answers).measured.warning == ""
    model, x, _, _ = seen
    measured = tfprune.inspect(model, x).measured
    assert (measured.score, measured.warning) == ("agreement", "")


@pytest.mark.parametrize("small", [True, False])
def test_what_is_to_be_expected_after_healing_is_measured_in_small_models(monkeypatch, small):
    if not small:
        monkeypatch.setattr(trial_healing, "MOST_MACS", 375 * (16 + 16) * 2 - 1)
    hidden = kl.Dense(4, name="hidden")
    model = keras.Sequential([keras.Input((4,)), hidden, kl.Dense(4, name="out")])
    for layer in model.layers:
        layer.set_weights([np.eye(4), np.zeros(4)])
    x = np.random.default_rng(0).normal(size=(500, 4)).astype("float32")
    found = tfprune.inspect(model, x, x.argmax(axis=1) if small else None)
    advice = found.recommended
    assert advice.command.startswith("tfprune.heal(")
    if small:
        # Three units of four: the largest of four numbers is at best taken for another in a fifth.
        assert advice.score <= advice.healed < 0.9
        assert (
            f"accuracy {100 * advice.healed:.2f} % (now 100.00 %, give or take " in advice.expected
        )
        assert " as healed on trial, 10 epochs on 375 samples; " in advice.expected
        assert "10 epochs on 375 samples" in advice.expected
    else:
        assert advice.healed is None
        assert "before refitting and before healing" in advice.expected
