"""SavedModels of Keras 2: their layers and weights are read, their graph never."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.support.keras2_files import L, chain, same, shuffled, tf_keras
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError
from tfprune.loading.keras2_folder import DATA, GRAPH, METADATA, digest

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning"),
    pytest.mark.usefixtures("same_process"),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory, seed):
    """A folder that Keras 2 wrote, which takes seconds, and its model."""
    rng = np.random.default_rng(seed)
    inner = tf_keras.Sequential([L.Dense(3, input_shape=(4,)), L.LeakyReLU(0.2)])
    inner.trainable = False
    layers = [L.Conv2D(4, 3, name="c/x"), L.BatchNormalization(), L.DepthwiseConv2D(3),
              L.GlobalAveragePooling2D(), inner, L.Reshape((3, 1)), L.Bidirectional(L.GRU(2)),
              L.Dense(2)]  # fmt: skip
    model = shuffled(chain((8, 8, 3), *layers), rng)
    model.compile("sgd", "mae")
    path = tmp_path_factory.mktemp("keras2") / "saved"
    model.save(path, save_format="tf")
    return path, model


@pytest.fixture
def folder(tmp_path, written):
    """A copy of it."""
    path, model = written
    return shutil.copytree(path, tmp_path / "saved"), model


def test_it_computes_the_same(folder, rng):
    path, model = folder
    x = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    assert "its graph is not read" in same(model, x, path, compiled=True)
    assert load_model(path, compiled=True).loss == "mae"
    assert len(digest(path)) == 64


def test_the_description_of_older_versions(folder, rng):
    """TensorFlow up to 2.4 had it in the graph's file."""
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    path, model = folder
    message = saved_metadata_pb2.SavedMetadata()
    message.ParseFromString((path / METADATA).read_bytes())
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString((path / GRAPH).read_bytes())
    saved.meta_graphs[0].object_graph_def.nodes[0].user_object.metadata = message.nodes[0].metadata
    (path / GRAPH).write_bytes(saved.SerializeToString())
    (path / METADATA).unlink()
    same(model, rng.normal(size=(2, 8, 8, 3)).astype("float32"), path)


def test_a_graph_without_layers_is_named(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "saved"))
    (tmp_path / "saved" / DATA).touch()
    (tmp_path / "saved" / "variables").mkdir(exist_ok=True)
    (tmp_path / "saved" / "variables" / "variables.index").touch()
    with pytest.raises(TfpruneError, match=r"a graph and no layers.*as \.keras"):
        load_model(tmp_path / "saved")


def test_code_is_not_run(tmp_path):
    """Not the function of the Lambda, nor what the graph does when it is loaded."""
    marker = tmp_path / "ran"
    name = str(marker)

    def written(x):
        tf.io.write_file(name, "ran")
        return x

    model = chain((3,), L.Dense(3), L.Lambda(written))
    model.save(tmp_path / "saved", save_format="tf")
    marker.unlink(missing_ok=True)
    with pytest.raises(TfpruneError, match="it would run code on loading"):
        load_model(tmp_path / "saved")
    assert not marker.exists()


@pytest.mark.parametrize("change", ["link", "missing", "truncated", "index", "metadata"])
def test_folders_of_strangers(folder, tmp_path, change):
    path, _ = folder
    data = path / DATA
    if change == "link":
        data.rename(tmp_path / "elsewhere")
        data.symlink_to(tmp_path / "elsewhere")
    elif change == "missing":
        data.unlink()
    elif change == "truncated":
        data.write_bytes(data.read_bytes()[:100])
    elif change == "index":
        (path / "variables" / "variables.index").write_bytes(b"no index")
    else:
        (path / METADATA).write_bytes(b"no message")
    with pytest.raises(TfpruneError) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_other_folders_are_none(tmp_path):
    with pytest.raises(TfpruneError, match="expected a file or a SavedModel"):
        load_model(tmp_path)


@pytest.mark.parametrize("hidden", ["Lambda", "no number"])
def test_what_keras_3_is_not_given_is_held_back_from_tf_keras_too(tmp_path, hidden):
    """Arguments that the adapted configuration has no more; and tf_keras' own errors are a line."""

    from tf_keras.protobuf import saved_metadata_pb2

    path = tmp_path / "saved"
    chain((3,), L.Dense(3)).save(path, save_format="tf")
    message = saved_metadata_pb2.SavedMetadata()
    message.ParseFromString((path / METADATA).read_bytes())
    for node in message.nodes:
        metadata = json.loads(node.metadata)
        for layer in metadata.get("config", {}).get("layers", []):
            if layer["class_name"] == "Dense" and hidden == "Lambda":
                layer["config"]["input_spec"] = {"class_name": "Lambda", "config": {}}
            elif layer["class_name"] == "Dense":
                layer["config"]["units"] = "three"
        node.metadata = json.dumps(metadata)
    (path / METADATA).write_bytes(message.SerializeToString())
    why = "'Lambda'.*no list for tf_keras" if hidden == "Lambda" else "tf_keras cannot build it"
    with pytest.raises(TfpruneError, match=why) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)
