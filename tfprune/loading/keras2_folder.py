"""Reads the layers and weights of SavedModels of Keras 2, and never their graph.

A SavedModel is a program for TensorFlow, which may read and write files. Keras 2 put beside it the
configuration of the layers and a checkpoint, from which tf_keras builds the model anew.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from tfprune.errors import TfpruneError
from tfprune.loading import allow_list, keras2, model_config
from tfprune.loading.keras2_in_tf_keras import by_tf_keras
from tfprune.utils.console import quiet
from tfprune.utils.digests import file_digest, text_digest

METADATA, GRAPH = "keras_metadata.pb", "saved_model.pb"
INDEX, DATA = "variables/variables.index", "variables/variables.data-00000-of-00001"
NETWORKS = ("_tf_keras_network", "_tf_keras_sequential", "_tf_keras_model")


def is_saved_model(path: Path) -> bool:
    """Whether a folder is a SavedModel."""
    return path.is_dir() and (path / GRAPH).exists()


def digest(path: Path) -> str:
    """SHA-256 of a model file; of a SavedModel, that of the digests of what is read of it."""
    if not path.is_dir():
        return file_digest(path)
    files = [path / name for name in (METADATA, GRAPH, INDEX, DATA)]
    return text_digest(" ".join(file_digest(file) for file in files if file.is_file()))


def as_h5(path: Path, target: Path) -> None:
    """Writes the model in a folder as an ``.h5`` file of Keras 2.

    Parameters
    ----------
    path : Path
        A folder with ``saved_model.pb``.
    target : Path

    Raises
    ------
    TfpruneError
        If it has no layers, or something that is not Keras' own.
    """
    for name in (METADATA, GRAPH, INDEX, DATA):
        file = path / name
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise TfpruneError(f"expected {name} to be a file, not a link to one")
    for name in (INDEX, DATA):
        if not (path / name).is_file():
            raise TfpruneError(f"expected {name} in the folder of a SavedModel")
    metadata = _metadata(path)
    config = {key: metadata.get(key) for key in ("class_name", "config")}
    # What tf_keras is to build is gone through as every configuration is.
    try:
        allow_list.trusted(keras2.adapted(config).config)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, TfpruneError):
            raise
        raise TfpruneError(f"its configuration is not as Keras writes it ({error})") from None
    weights = _variables(path)
    with quiet():
        model = _built(config)
        shapes = [tuple(weight.shape) for weight in model.weights]
        if shapes != [value.shape for value in weights]:
            raise TfpruneError(
                f"expected {len(shapes)} weights as its layers have them, received {len(weights)}"
            )
        model.set_weights(weights)
        model.save(target, save_format="h5")
    training = metadata.get("training_config")
    if training is not None:
        with h5py.File(target, "r+") as file:
            file.attrs["training_config"] = json.dumps(training)


def _built(config: dict[str, Any]) -> Any:
    try:
        return by_tf_keras(config)
    except TfpruneError:
        raise
    except Exception as error:  # tf_keras raises of many kinds.
        # Before this mark stands the configuration, whole.
        line = " ".join(str(error).rpartition("Exception encountered:")[2].split())
        raise TfpruneError(f"tf_keras cannot build it ({line[:500]})") from None


def _metadata(path: Path) -> dict[str, Any]:
    """What Keras 2 noted of the outermost model."""
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    nodes = {}
    try:
        if (path / METADATA).exists():
            message = saved_metadata_pb2.SavedMetadata()
            message.ParseFromString((path / METADATA).read_bytes())
            nodes = {node.node_id: (node.identifier, node.metadata) for node in message.nodes}
        else:  # TensorFlow up to 2.4 had it in the graph's file.
            saved = saved_model_pb2.SavedModel()
            saved.ParseFromString((path / GRAPH).read_bytes())
            for place, entry in enumerate(saved.meta_graphs[0].object_graph_def.nodes[:1]):
                nodes[place] = (entry.user_object.identifier, entry.user_object.metadata)
    except (DecodeError, IndexError) as error:
        raise TfpruneError(f"its description of layers is damaged ({error})") from None
    identifier, text = nodes.get(0, ("", ""))
    if identifier not in NETWORKS:
        raise TfpruneError(
            "this SavedModel holds a graph and no layers (made by model.export, tf.saved_model?); "
            "save the model itself, as .keras"
        )
    metadata = model_config.parsed(text, "description of layers")
    if not isinstance(metadata, dict):
        raise TfpruneError("expected its description of layers to name a class")
    return metadata


def _variables(path: Path) -> list[npt.NDArray[Any]]:
    """The model's variables in the order of ``model.weights``, from the checkpoint alone."""
    import tensorflow as tf

    # The description of objects in a checkpoint has no public reader.
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    try:
        reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
        # A checkpoint is not compressed.
        size = sum(math.prod(shapes[key]) * max(dtypes[key].size, 1) for key in shapes)
        if size > (path / DATA).stat().st_size + 2**20:
            raise TfpruneError(f"its variables declare {size:,} bytes, more than there are")
        graph = trackable_object_graph_pb2.TrackableObjectGraph()
        graph.ParseFromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
        children = {child.local_name: child.node_id for child in graph.nodes[0].children}
        listed = graph.nodes[children["variables"]].children
        order = sorted(listed, key=lambda child: int(child.local_name))
        keys = [graph.nodes[child.node_id].attributes[0].checkpoint_key for child in order]
        return [np.asarray(reader.get_tensor(key)) for key in keys]
    except TfpruneError:
        raise
    except Exception as error:  # TensorFlow and protobuf each raise their own for a bad file.
        line = " ".join(str(error).split())
        raise TfpruneError(f"its checkpoint cannot be read ({line})") from None
