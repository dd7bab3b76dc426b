"""Recurrent layers lose units of their own: the oracle is a plain loop over the steps."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.support.graphs import outputs
from tests.support.litert import in_litert
from tests.support.recurrent import at, duplicated, filled, gates, steps_of
from tfprune.graph.costs import macs

UNITS, STEPS, INPUTS = 7, 5, 3
KINDS = {
    "rnn": lambda **more: kl.SimpleRNN(UNITS, name="r", **more),
    "gru": lambda **more: kl.GRU(UNITS, name="r", **more),
    "gru that resets first": lambda **more: kl.GRU(UNITS, name="r", reset_after=False, **more),
    "lstm": lambda **more: kl.LSTM(UNITS, name="r", **more),
}
FORMS = {
    "last state": {},
    "sequence": {"return_sequences": True},
    "backwards": {"return_sequences": True, "go_backwards": True},
    "without bias": {"use_bias": False},
    "unrolled": {"unroll": True},
}


def model_of(layer, rng, steps=STEPS):
    return filled(
        keras.Sequential(
            [keras.Input((steps, INPUTS)), layer, kl.Flatten(), kl.Dense(2, name="out")]
        ),
        rng,
    )


def data(rng, samples=60):
    return rng.normal(size=(samples, STEPS, INPUTS)).astype("float32")


def close(ours, theirs, tolerance=2e-6):
    np.testing.assert_allclose(ours, theirs, atol=tolerance * max(1, np.abs(theirs).max()))


@pytest.mark.parametrize("form", ["last state", "backwards", "without bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_is_zero_at_every_step(rng, kind, form):
    """With units dropped, the model computes what a loop does that sees zeros in their place."""
    model, x = model_of(KINDS[kind](**FORMS[form]), rng), data(rng)
    result = tfprune.prune(model, x, remove=0.4, select="random", fold="drop", refit=0)
    (row,) = result.layers
    assert (row.name, row.units_before, row.units_after) == ("r", UNITS, 4)
    layer = at(model, "r")
    mask = np.diag(np.isin(np.arange(UNITS), row.kept).astype(float))
    same = (mask, np.zeros(UNITS))
    states = steps_of(layer, x, read={"recurrent": same, "candidate": same})
    made = states if layer.return_sequences else states[:, -1:]
    kernel, bias = at(model, "out").get_weights()
    close(result.model(x), (made * np.diag(mask)).reshape(len(x), -1) @ kernel + bias)
    assert at(result.model, "r").get_weights()[1].shape == (4, 4 * gates(layer))


@pytest.mark.parametrize("form", ["sequence", "unrolled"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_opposites_go_without_a_trace(rng, kind, form):
    model, x = model_of(KINDS[kind](**FORMS[form]), rng), data(rng)
    layer = duplicated(at(model, "r"))
    opposite(layer, 2, 3)
    result = tfprune.prune(model, x, 0.5)
    (row,) = result.layers
    assert (row.units_after, row.similar, row.complementary) == (UNITS - 2, 1, 1)
    close(result.model(x), model(x))


def opposite(layer, source, target):
    """A unit that is always the negative of another one: gates alike, what they let in not."""
    duplicated(layer, source, target)
    block = {kl.GRU: 2, kl.LSTM: 2}.get(type(layer), 0)
    weights = layer.get_weights()
    for weight in weights:
        weight[..., block * layer.units + target] *= -1
    layer.set_weights(weights)


@pytest.mark.parametrize("kind", KINDS)
def test_units_that_are_always_zero_go(rng, kind):
    model, x = model_of(KINDS[kind](return_sequences=True), rng), data(rng)
    layer = at(model, "r")
    weights = layer.get_weights()
    for weight in weights:
        blocks = weight.reshape(*weight.shape[:-1], gates(layer), UNITS)
        blocks[..., 4] = 0
    layer.set_weights(weights)
    result = tfprune.prune(model, x, 0.5)
    assert result.layers[0].constant == 1
    assert 4 not in result.layers[0].kept
    close(result.model(x), model(x))


def test_a_constant_that_begins_with_the_first_step_is_none(rng):
    """The state in front of the first step is zero, so a constant would be wrong there."""
    model, x = model_of(KINDS["rnn"](return_sequences=True), rng), data(rng)
    kernel, recurrent, bias = at(model, "r").get_weights()
    kernel[:, 4], recurrent[:, 4], bias[4] = 0, 0, 0.9
    at(model, "r").set_weights([kernel, recurrent, bias])
    assert not tfprune.prune(model, x, 0.5).layers[0].constant


@pytest.mark.parametrize("bias", [True, False])
def test_the_fold_goes_into_the_recurrent_kernel(rng, bias):
    """A unit of a linear layer is the sum of two others: what reads it then reads these."""
    layer = KINDS["rnn"](activation="linear", use_bias=bias, return_sequences=True)
    model, x = model_of(layer, rng), data(rng, 200)
    weights = layer.get_weights()
    for weight in weights:
        weight[:] *= 0.5
        weight[..., 0] = weight[..., 1] + weight[..., 2]
    layer.set_weights(weights)
    result = tfprune.prune(model, x, remove=1 / UNITS, refit=0)
    assert result.layers[0].units_after == UNITS - 1
    close(result.model(x), model(x), 1e-4)


def test_least_squares_beats_what_is_only_left_out(rng):
    for make in KINDS.values():
        model, x = model_of(make(return_sequences=True), rng), data(rng, 300)
        results = [
            tfprune.prune(model, x, remove=0.3, select="random", refit=0, **more)
            for more in ({}, {"fold": "drop"})
        ]
        errors = [float(np.mean((result.model(x) - model(x)) ** 2)) for result in results]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("kind", KINDS)
def test_masked_steps_leave_the_state_as_it_is(rng, kind):
    first = kl.Masking(0.0)
    model = filled(
        keras.Sequential(
            [keras.Input((STEPS, INPUTS)), first, KINDS[kind](return_sequences=True),
             kl.GRU(4, name="second"), kl.Dense(2, name="out")]
        ), rng
    )  # fmt: skip
    lengths = rng.integers(1, STEPS + 1, 80)
    x = data(rng, 80) * (np.arange(STEPS) < lengths[:, None])[..., None].astype("float32")
    duplicated(at(model, "r"))
    duplicated(at(model, "second"))
    result = tfprune.prune(model, x, 0.5)
    assert [row.units_after for row in result.layers] == [UNITS - 1, 3]
    close(result.model(x), model(x))
    dropped = tfprune.prune(
        model, x, remove=0.4, select="random", fold="drop", refit=0, layers=["r"]
    )
    kept = np.isin(np.arange(UNITS), dropped.layers[0].kept)
    same = (np.diag(kept.astype(float)), np.zeros(UNITS))
    read = {"recurrent": same, "candidate": same}
    mask = (x != 0).any(axis=-1)
    between = steps_of(at(model, "r"), x, mask=mask, read=read) * kept
    last = steps_of(at(model, "second"), between, mask=mask)[:, -1]
    kernel, bias = at(model, "out").get_weights()
    close(dropped.model(x), last @ kernel + bias)


def test_an_embedding_masks_and_states_go_on_in_a_decoder(rng):
    """What an encoder hands over as a state goes in step with the decoder's units."""
    words, shifted = keras.Input((6,), name="words"), keras.Input((4, 2), name="shifted")
    embedded = kl.Embedding(9, 4, mask_zero=True)(words)
    _, h, c = kl.LSTM(UNITS, return_state=True, name="encoder")(embedded)
    decoded = kl.LSTM(UNITS, return_sequences=True, name="decoder")(shifted, initial_state=[h, c])
    model = filled(keras.Model([words, shifted], kl.Dense(2, name="out")(decoded)), rng)
    for name in ("encoder", "decoder"):
        duplicated(at(model, name))
    lengths = rng.integers(2, 7, (60, 1))
    x = {"words": rng.integers(1, 9, (60, 6)) * (np.arange(6) < lengths),
         "shifted": rng.normal(size=(60, 4, 2)).astype("float32")}  # fmt: skip
    result = tfprune.prune(model, x, 0.5, layers="recurrent")
    assert [(row.name, row.units_after, row.group) for row in result.layers] == [
        ("encoder", UNITS - 1, "encoder + decoder"), ("decoder", UNITS - 1, "encoder + decoder"),
    ]  # fmt: skip
    close(result.model(x), model(x))


def test_a_decoder_that_starts_from_dense_layers_and_reads_states_as_features(rng):
    image, sequence = keras.Input((5,), name="image"), keras.Input((4, 2), name="sequence")
    start = kl.Dense(UNITS, activation="tanh", name="start")(image)
    out, h = kl.GRU(UNITS, return_state=True, name="gru")(sequence, initial_state=start)
    model = filled(keras.Model([image, sequence], kl.Dense(2)(kl.Concatenate()([out, h]))), rng)
    duplicated(at(model, "start"))
    duplicated(at(model, "gru"))
    x = {"image": rng.normal(size=(60, 5)), "sequence": rng.normal(size=(60, 4, 2))}
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert [row.units_after for row in result.layers] == [UNITS - 1] * 2
    close(outputs(result.model, x)[0], outputs(model, x)[0])


def test_a_state_given_from_outside_keeps_the_units(rng):
    sequence, state = keras.Input((4, 2), name="sequence"), keras.Input((UNITS,), name="state")
    made = kl.GRU(UNITS, name="gru")(sequence, initial_state=state)
    model = filled(keras.Model([sequence, state], kl.Dense(2)(made)), rng)
    x = {"sequence": rng.normal(size=(60, 4, 2)), "state": rng.normal(size=(60, UNITS))}
    result = tfprune.prune(model, x, 30, layers="all")
    assert {one.name: one.reason for one in result.skipped}["gru"] == (
        "it starts from a state that cannot be pruned"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_kept_from_batch_to_batch(rng, kind):
    model = keras.Sequential(
        [keras.Input((STEPS, INPUTS), batch_size=20), KINDS[kind](stateful=True),
         kl.Dense(2, name="out")]
    )  # fmt: skip
    filled(model, rng)
    duplicated(at(model, "r"))
    x = data(rng, 60)
    result = tfprune.prune(model, x, 0.5)
    assert result.layers[0].units_after == UNITS - 1
    at(model, "r").reset_state()
    at(result.model, "r").reset_state()
    for batch in range(3):
        part = x[20 * batch : 20 * batch + 20]
        close(result.model(part), model(part))


def test_what_it_costs_and_budgets(rng):
    model = keras.Sequential(
        [keras.Input((STEPS, INPUTS)), kl.LSTM(12, return_sequences=True, name="one"),
         kl.GRU(10, name="two"), kl.Dense(2)]
    )  # fmt: skip
    filled(model, rng)
    kernels = [4 * 12 * (INPUTS + 12), 3 * 10 * (12 + 10)]
    assert macs(model) == STEPS * sum(kernels) + 20
    x = data(rng, 120)
    for size, more in (
        (keras.Model.count_params, {"target_params": 0.5}),
        (macs, {"target_macs": 0.5}),
        (keras.Model.count_params, {"target_params": 0.6, "round_to": 4}),
    ):
        result = tfprune.prune(model, x, refit=0, **more)
        assert size(result.model) <= next(iter(more.values())) * size(model)
        assert all(row.units_after < row.units_before for row in result.layers)
        if "round_to" in more:
            assert all(row.units_after % 4 == 0 for row in result.layers)


@pytest.mark.parametrize("select", ["effect", "span", "angle", "magnitude", "random", "own"])
def test_every_criterion(rng, select):
    def score(group):
        assert [one.kernel.shape for one in group.producers] == [(4 * (INPUTS + UNITS), UNITS)]
        return np.arange(group.units)

    model, x = model_of(KINDS["lstm"](), rng), data(rng)
    select = score if select == "own" else select
    result = tfprune.prune(model, x, remove=0.4, select=select, refit=0)
    assert result.layers[0].units_after == 4
    if select is score:
        assert result.layers[0].kept.tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("fold", ["scaled", "outgoing", "incoming", "drop"])
def test_every_fold(rng, fold):
    model, x = model_of(KINDS["lstm"](return_sequences=True), rng), data(rng)
    duplicated(at(model, "r"))
    result = tfprune.prune(model, x, 1, fold=fold, centre="none")
    assert result.layers[0].units_after == UNITS - 1
    if fold in ("scaled", "outgoing"):
        close(result.model(x), model(x))


def test_functions_that_mix_units_or_are_unknown(rng):
    def mine(x):
        return keras.ops.tanh(x)

    for more, reason in (
        ({"activation": "softmax"}, "softmax of r (SimpleRNN) mixes the units"),
        ({"activation": mine}, "is not known to treat units alone"),
    ):
        model = model_of(KINDS["rnn"](**more), rng)
        result = tfprune.prune(model, data(rng), 30, layers="recurrent")
        assert [one.name for one in result.skipped] == ["r"]
        assert result.skipped[0].reason.endswith(reason)


def test_rows_by_kind(rng):
    model = model_of(KINDS["lstm"](), rng)
    model = keras.Sequential([*model.layers[:2], kl.Dense(4, name="hidden"), kl.Dense(2)])
    model.build((None, STEPS, INPUTS))
    x = data(rng)
    asked = {
        kind: [row.name for row in tfprune.prune(model, x, 5, layers=kind).layers]
        for kind in ("dense", "recurrent", "all")
    }
    assert asked == {"dense": ["hidden"], "recurrent": ["r"], "all": ["r", "hidden"]}
    assert "1 LSTM (r)" in str(tfprune.prune(model, x, 5))


def test_the_reconstruction_fits_recurrent_kernels(rng):
    model = filled(
        keras.Sequential(
            [keras.Input((STEPS, INPUTS)), kl.Masking(), KINDS["lstm"](return_sequences=True),
             kl.GRU(5, name="second"), kl.Dense(2)]
        ), rng
    )  # fmt: skip
    lengths = rng.integers(2, STEPS + 1, (200, 1))
    x = data(rng, 200) * (np.arange(STEPS) < lengths)[..., None].astype("float32")
    plain, fitted = (
        tfprune.prune(model, x, remove=0.4, refit=steps, layers="recurrent") for steps in (0, 30)
    )
    errors = [float(np.mean((r.model(x) - model(x)) ** 2)) for r in (plain, fitted)]
    assert errors[1] < errors[0]
    before, after = (at(r.model, "r").get_weights()[1] for r in (plain, fitted))
    assert np.abs(before - after).max() > 1e-3


def test_healed_exported_and_inspected(rng, tmp_path):
    model, x = model_of(KINDS["gru"](unroll=True), rng), data(rng, 80)
    result = tfprune.prune(model, x, remove=0.4, refit=0)
    healed = tfprune.heal(result.model, model, x, 1)
    assert at(healed, "r").units == 4
    files = tfprune.export(healed, tmp_path, ["float32", "int8"], representative=x)
    for path in files.values():
        theirs = in_litert(path, x[:8])
        assert np.abs(theirs - np.asarray(healed(x[:8]))).max() < 0.1 * np.abs(theirs).max() + 0.05
    found = tfprune.inspect(model, x)
    assert next((group.name, group.kind, group.units) for group in found.groups) == (
        "r", "recurrent", UNITS,
    )  # fmt: skip
