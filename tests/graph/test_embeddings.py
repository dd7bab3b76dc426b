"""Columns of embeddings, and channels behind a gate (squeeze and excite): planted units."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed, set_unit
from tests.graph.test_shrink import check
from tests.support.graphs import fill
from tfprune.graph.groups import groups_of
from tfprune.graph.tracer import trace

WORDS = 40


@pytest.fixture
def x(rng):
    return rng.integers(0, WORDS, (200, 7)).astype("int32")


def copy_column(model, name, target, source, scale=1.0):
    weights = model.get_layer(name).get_weights()
    weights[0][:, target] = scale * weights[0][:, source]
    model.get_layer(name).set_weights(weights)


def kept_of(result):
    return {layer.name: sorted(set(range(layer.units_before)) - set(map(int, layer.kept)))
            for layer in result.layers}  # fmt: skip


def masked(model, reader, gone):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kernel, *rest = copy.get_layer(reader).get_weights()
    kernel[..., gone, :] = 0
    copy.get_layer(reader).set_weights([kernel, *rest])
    return copy


def classifier(rng, *middle):
    layers = [kl.Embedding(WORDS, 8, name="words"), *middle, kl.GlobalAveragePooling1D(),
              kl.Dense(6, activation="relu", name="hidden"), kl.Dense(1, name="out")]  # fmt: skip
    return fill(keras.Sequential([keras.Input((7,), dtype="int32"), *layers]), rng)


def test_a_column_that_repeats_another_goes_from_a_text_classifier(rng, x):
    model = classifier(rng, kl.Dropout(0.1))
    copy_column(model, "words", 2, 5, -1.5)
    result = tfprune.prune(model, x, 0.5, layers="all", centre="none")
    assert kept_of(result)["words"] in ([2], [5])
    words = result.model.get_layer("words")
    assert (words.output_dim, words.embeddings.shape) == (7, (WORDS, 7))
    assert changed(model, result, x) < 1e-5


def test_columns_are_cut_as_a_masked_original_says(rng, x):
    model = classifier(rng)
    result = tfprune.prune(model, x, remove=0.5, select="random", fold="drop", refit=0,
                           layers=["words"])  # fmt: skip
    other = masked(model, "hidden", kept_of(result)["words"])
    np.testing.assert_allclose(result.model(x), other(x), atol=1e-5)
    assert result.model.count_params() == WORDS * 4 + 4 * 6 + 6 + 6 + 1


def test_by_default_hidden_dense_layers_alone_are_pruned(rng, x):
    assert [layer.name for layer in tfprune.prune(classifier(rng), x, remove=0.5).layers] == [
        "hidden"
    ]


def test_positions_and_words_go_together(rng):
    data = [keras.Input((7,), dtype="int32", name=name) for name in ("w", "p")]
    words, places = kl.Embedding(WORDS, 8, name="words"), kl.Embedding(7, 8, name="places")
    both = kl.Add()([words(data[0]), places(data[1])])
    out = kl.Dense(2, name="out")(kl.Conv1D(4, 3, activation="relu", name="read")(both))
    model = fill(keras.Model(data, kl.Flatten()(out)), rng)
    for name in ("words", "places"):
        copy_column(model, name, 1, 6)
    x = {"w": rng.integers(0, WORDS, (80, 7)), "p": np.tile(np.arange(7), (80, 1))}
    result = tfprune.prune(model, x, 0.5, layers=["words", "places"])
    assert kept_of(result) == {"words": [1], "places": [1]}
    assert changed(model, result, x) < 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_an_embedding_read_in_reverse(rng, x, tied):
    """As wide as what it reads; with tied weights it stays, and the reason is told."""
    table = kl.ReversibleEmbedding(WORDS, 8, tie_weights=tied, name="table")
    data = keras.Input((7,), dtype="int32")
    hidden = kl.Dense(8, activation="relu", name="hidden")(table(data))
    model = fill(keras.Model(data, table(hidden, reverse=True)), rng)
    groups = groups_of(trace(model))
    if tied:
        assert "reads with the weights that make its units" in groups[0].blocked
        return
    (group,) = groups
    assert group.name == "table + hidden"
    copy_column(model, "table", 3, 4)
    set_unit(model, "hidden", 3, 4)
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert kept_of(result) == {"table": [3], "hidden": [3]}
    assert changed(model, result, x) < 1e-5


def mobile_block(x, gate):
    """MobileNetV3's: expand, depthwise, squeeze and excite, project, add."""
    wide = kl.Conv2D(12, 1, use_bias=True, name="expand")(x)
    wide = kl.Activation("hard_silu")(kl.BatchNormalization(name="norm")(wide))
    wide = kl.DepthwiseConv2D(3, padding="same", name="depthwise")(wide)
    wide = kl.Activation("hard_silu")(wide)
    pooled = kl.GlobalAveragePooling2D(keepdims=gate == "conv")(wide)
    if gate == "conv":
        low = kl.Conv2D(5, 1, activation="relu", name="squeeze")(pooled)
        high = kl.Conv2D(12, 1, activation="hard_sigmoid", name="excite")(low)
    else:
        low = kl.Dense(5, activation="relu", name="squeeze")(pooled)
        high = kl.Dense(12, activation="sigmoid", name="excite")(low)
        high = kl.Reshape((1, 1, 12))(high)
    thin = kl.Conv2D(4, 1, name="project")(kl.Multiply()([wide, high]))
    return kl.Add()([x, thin])


@pytest.mark.parametrize("gate", ["conv", "dense"])
def test_squeeze_and_excite(rng, gate):
    data = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, name="stem")(data)
    model = keras.Model(data, kl.Dense(2, name="out")(kl.Flatten()(mobile_block(x, gate))))
    fill(model, rng)
    groups = {group.name: group for group in groups_of(trace(model))}
    assert {"expand + excite", "squeeze", "stem + project"} <= set(groups)
    assert not groups["expand + excite"].blocked
    for seed in range(2):
        check(model, seed)
    for weights in (model.get_layer(name) for name in ("norm", "depthwise")):
        weights.set_weights([np.full_like(w, 0.4) for w in weights.get_weights()])
    set_unit(model, "expand", 3, 7)
    set_unit(model, "excite", 3, 7)
    set_unit(model, "squeeze", 1, 2, scale=2.0)
    pictures = rng.normal(size=(60, 8, 8, 3)).astype("float32")
    # A bias above 0 keeps both away from the flat part.
    kernel, bias = model.get_layer("squeeze").get_weights()
    bias[1:3] = 40.0, 20.0
    model.get_layer("squeeze").set_weights([kernel, bias])
    result = tfprune.prune(model, pictures, 0.3, layers=["expand", "excite", "squeeze"])
    gone = kept_of(result)
    assert 3 in gone["expand"] or 7 in gone["expand"]
    assert gone["expand"] == gone["excite"]
    assert {1, 2} & set(gone["squeeze"])
    assert changed(model, result, pictures) < 1e-5
