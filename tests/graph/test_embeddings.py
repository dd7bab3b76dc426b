"""Columns of embeddings, and channels behind a gate (squeeze and excite): planted units."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
from keras import layers as kl

import tfprune
from tests.graph.test_filters import changed, set_unit
from tests.graph.test_shrink import check
from tests.support.graphs import fill, outputs
from tfprune.core.fold import Fold
from tfprune.graph.groups import groups_of
from tfprune.graph.in_place import InPlace
from tfprune.graph.shrink import Cut, shrink
from tfprune.graph.tied import with_tied_tables
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


def language_model(rng, tied=True, middle=()):
    table = kl.ReversibleEmbedding(WORDS, 8, tie_weights=tied, name="table")
    data = keras.Input((7,), dtype="int32")
    x = table(data)
    for layer in middle:
        x = layer(x)
    hidden = kl.Dense(8, activation="relu", name="hidden")(x)
    return fill(keras.Model(data, table(hidden, reverse=True)), rng)


@pytest.mark.parametrize("tied", [False, True])
def test_an_embedding_read_in_reverse(rng, x, tied):
    """As wide as what it reads; a table for both ways stays one, and is exact for copies."""
    model = language_model(rng, tied, [kl.Dropout(0.1)])
    (group,) = groups_of(trace(model))
    assert (group.name, group.blocked) == ("table + hidden", None)
    copy_column(model, "table", 3, 4, 2.0 if tied else 1.0)
    set_unit(model, "hidden", 3, 4)
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert kept_of(result) == {"table": [3], "hidden": [3]}
    assert changed(model, result, x) < 1e-5
    table = result.model.get_layer("table")
    assert (table.tie_weights, len(table.weights)) == (tied, 1 if tied else 2)
    assert ("table keeps one table for both ways" in result.layers[0].note) == tied


@pytest.mark.parametrize("fold", ["least-squares", "drop"])
def test_a_shared_table_is_that_of_the_fold_in_reverse(rng, x, fold):
    """By plain lstsq: the table from what is read in reverse, then what reads the words."""
    model = language_model(rng)
    result = tfprune.prune(model, x, remove=0.25, fold=fold, refit=0, layers="all")
    kept = sorted(map(int, result.layers[0].kept))
    table = model.get_layer("table").get_weights()[0].astype(float)
    folded = result.model.get_layer("table").get_weights()[0]
    kernel = model.get_layer("hidden").get_weights()[0][:, kept].astype(float)
    if fold == "drop":
        np.testing.assert_allclose(folded, table[:, kept], rtol=1e-6)
        words = np.eye(8)[kept]
    else:
        features = outputs(keras.Model(model.input, model.get_layer("hidden").output), x)[0]
        features = features.reshape(-1, 8).astype(float)
        matrix = np.linalg.lstsq(features[:, kept], features, rcond=None)[0]
        np.testing.assert_allclose(folded, table @ matrix.T, rtol=0.02, atol=0.02)
        words = np.linalg.lstsq(folded.astype(float), table, rcond=None)[0]
        off = 100 * np.linalg.norm(folded @ words - table) / np.linalg.norm(table)
        assert result.layers[0].note.endswith(f"words off by {off:.2g} %")
    hidden = result.model.get_layer("hidden").get_weights()[0]
    np.testing.assert_allclose(hidden, words @ kernel, rtol=1e-3, atol=1e-3)


def test_a_trial_in_place_says_the_same_of_a_shared_table(rng, x):
    model = language_model(rng)
    traced = trace(model)
    (group,) = groups_of(traced)
    matrix = np.eye(8)[:6]
    matrix[:, 6:] = rng.normal(size=(6, 2))
    fold = Fold(np.arange(6), matrix, np.zeros(8))
    cut = Cut(group, np.arange(6), np.eye(8)[:, :6], [(one, fold) for one in group.consumers])
    cuts = with_tied_tables(traced, [cut])
    with InPlace(model, traced, [group]).without(cuts) as trial:
        np.testing.assert_allclose(trial(x), shrink(model, traced, cuts)(x), atol=1e-4)


@pytest.mark.parametrize(
    ("middle", "reason"),
    [([kl.ReLU(name="positive")], r"positive \(ReLU\) is no layer that reads them"),
     ([lambda x: kl.Add(name="sum")([x, kl.Dense(8, name="more")(x)])], r"sum \(Add\) is no")],
)  # fmt: skip
def test_words_that_are_not_read_by_weights_alone_keep_a_shared_table(rng, middle, reason):
    blocked = groups_of(trace(language_model(rng, True, middle)))[0].blocked
    assert re.search("reads with the weights that make its units, and " + reason, blocked)


def test_recurrent_units_go_with_a_shared_table(rng, x):
    table = kl.ReversibleEmbedding(WORDS, 6, name="table")
    data = keras.Input((7,), dtype="int32")
    hidden = kl.GRU(6, return_sequences=True, name="hidden")(table(data))
    model = fill(keras.Model(data, table(hidden, reverse=True)), rng)
    copy_column(model, "table", 2, 5)
    weights = model.get_layer("hidden").get_weights()
    for weight in weights:
        weight[..., 2::6] = weight[..., 5::6]
    model.get_layer("hidden").set_weights(weights)
    result = tfprune.prune(model, x, 0.5, layers="all")
    assert kept_of(result)["table"] in ([2], [5])
    assert changed(model, result, x) < 1e-5


class Back(keras.layers.Layer):
    def __init__(self, table, **more):
        super().__init__(**more)
        self.table = table

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(self.table.embeddings))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_layer_of_ones_own_that_reads_with_the_table_is_named(rng, x):
    table, data = kl.Embedding(WORDS, 8, name="table"), keras.Input((7,), dtype="int32")
    hidden = kl.Dense(8, activation="relu", name="hidden")(table(data))
    model = keras.Model(data, Back(table, name="back")(hidden))
    with pytest.raises(tfprune.TfpruneError, match=r"layer back \(Back\): uses .* of table"):
        tfprune.prune(model, x, 0.5, layers="all")


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
