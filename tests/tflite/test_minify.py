"""Compact files: the same signatures, tensors and outputs, bit by bit, in fewer bytes."""

from __future__ import annotations

from collections import Counter

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers as kl

from tests.support.graphs import fill
from tfprune.tflite import converter
from tfprune.tflite.minify import minify
from tfprune.tflite.reader import shares, weight_bytes
from tfprune.utils.console import quiet

ALL = ("float32", "float16", "dynamic", "int8", "int16x8")
KERNELS = [OpResolverType.AUTO, OpResolverType.BUILTIN_REF]


def picture():
    return keras.Sequential(
        [
            keras.Input((9, 9, 1), name="image"),
            kl.Conv2D(6, 3, activation="relu"),
            kl.MaxPooling2D(),
            kl.Flatten(),
            kl.Dense(6, activation="relu"),
            kl.Dense(11, activation="softmax"),
        ],
        name="picture",
    )


def several():
    """Two inputs, two outputs, a layer that is read twice, and shapes that meet again."""
    first, second = keras.Input((6,), name="zeta"), keras.Input((6,), name="alpha")
    shared = kl.Dense(6, activation="tanh")
    both = kl.Add()([shared(first), shared(second)])
    heads = {"b": kl.Dense(3)(both), "a": kl.Dense(3, activation="sigmoid")(both)}
    return keras.Model([first, second], heads, name="several")


def loop():
    """A WHILE with graphs of its own."""
    data = keras.Input((4, 3), name="data")
    return keras.Model(data, kl.Dense(2)(kl.GRU(5)(data)), name="loop")


CASES = {
    "picture": (picture, ALL, 1),
    "several": (several, ALL, 1),
    "several, batch 4": (several, ("float32", "int8"), 4),
    "open batch": (picture, ("float32", "int8"), None),
    "loop": (loop, ("float32", "dynamic"), 1),
}


@pytest.fixture(scope="module")
def made():
    """Each case's files as the converter made them and as they are exported."""
    files = {}
    rng = np.random.default_rng(3)
    before: list[bytes] = []
    patch = pytest.MonkeyPatch()
    patch.setattr(converter, "minify", lambda data: before.append(data) or minify(data))
    for case, (build, schemes, batch) in CASES.items():
        model = fill(build(), rng)
        x = [rng.normal(0, 1, (60, *t.shape[1:])).astype("float32") for t in model.inputs]
        before.clear()
        after = dict(converter.convert(model, schemes, x, batch))
        for (scheme, data), raw in zip(after.items(), before, strict=True):
            files[case, scheme] = raw, data
    patch.undo()
    return files


FILES = [(case, scheme) for case, (_, schemes, _) in CASES.items() for scheme in schemes]


def computed(data, kernels, batch):
    """Every output of a file for random inputs, and its signatures, by the interpreter alone."""
    with quiet():
        lite = Interpreter(model_content=data, experimental_op_resolver_type=kernels)
        details = sorted(lite.get_input_details(), key=lambda detail: detail["index"])
        for detail in details:
            shape = [batch if batch else detail["shape"][0], *detail["shape"][1:]]
            lite.resize_tensor_input(detail["index"], shape)
        lite.allocate_tensors()
    rng = np.random.default_rng(5)
    outputs = []
    for _ in range(6):
        for detail in details:
            shape = lite.get_tensor(detail["index"]).shape
            value = rng.normal(0, 60 if detail["dtype"] == np.int8 else 1, shape)
            lite.set_tensor(detail["index"], np.clip(value, -128, 127).astype(detail["dtype"]))
        lite.invoke()
        outputs += [lite.get_tensor(detail["index"]) for detail in lite.get_output_details()]
    return outputs, lite.get_signature_list()


@pytest.mark.parametrize(("case", "scheme"), FILES)
def test_outputs_and_signatures_are_the_same_to_the_bit(made, case, scheme):
    raw, small = made[case, scheme]
    for kernels in KERNELS:
        batch = 3 if case == "open batch" else None
        (expected, signatures), (received, ours) = (
            computed(data, kernels, batch) for data in (raw, small)
        )
        assert ours == signatures
        for out, theirs in zip(received, expected, strict=True):
            assert out.dtype == theirs.dtype
            np.testing.assert_array_equal(out, theirs)
        assert len({out.tobytes() for out in received}) > 1


@pytest.mark.parametrize(("case", "scheme"), FILES)
def test_tensors_and_operators_are_those_of_the_converter(made, case, scheme):
    raw, small = (schema.ModelT.InitFromPackedBuf(data) for data in made[case, scheme])
    assert len(small.subgraphs) == len(raw.subgraphs) == (3 if case == "loop" else 1)
    for graph, old in zip(small.subgraphs, raw.subgraphs, strict=True):
        np.testing.assert_array_equal([*graph.inputs, *graph.outputs], [*old.inputs, *old.outputs])
        for ours, theirs in zip(graph.tensors, old.tensors, strict=True):
            assert (ours.type, ours.isVariable) == (theirs.type, theirs.isVariable)
            np.testing.assert_array_equal(ours.shape, theirs.shape)
            contents = [model.buffers[t.buffer].data for model, t in ((small, ours), (raw, theirs))]
            assert len({b"" if c is None else c.tobytes() for c in contents}) == 1
            scales = getattr(theirs.quantization, "scale", None)
            if scales is not None and len(scales):
                np.testing.assert_array_equal(ours.quantization.scale, scales)
                zeros = theirs.quantization.zeroPoint
                np.testing.assert_array_equal(ours.quantization.zeroPoint, zeros)
                axis = theirs.quantization.quantizedDimension if len(scales) > 1 else 0
                assert ours.quantization.quantizedDimension == axis
        for ours, theirs in zip(graph.operators, old.operators, strict=True):
            codes = [
                (c.version, max(c.builtinCode, c.deprecatedBuiltinCode))
                for c in (
                    small.operatorCodes[ours.opcodeIndex],
                    raw.operatorCodes[theirs.opcodeIndex],
                )
            ]
            assert codes[0] == codes[1]
            np.testing.assert_array_equal(ours.inputs, theirs.inputs)
            options = [vars(o.builtinOptions) if o.builtinOptions else {} for o in (ours, theirs)]
            assert options[0].keys() == options[1].keys()
            for key, value in options[0].items():
                np.testing.assert_array_equal(value, options[1][key])


@pytest.mark.parametrize(("case", "scheme"), FILES)
def test_buffers_are_aligned_and_there_once(made, case, scheme):
    _, small = made[case, scheme]
    start = np.frombuffer(small, np.uint8).ctypes.data
    model = schema.Model.GetRootAs(small)
    assert model.Buffers(0).DataIsNone()
    contents = [model.Buffers(number).DataAsNumpy() for number in range(1, model.BuffersLength())]
    assert contents
    assert len({content.tobytes() for content in contents}) == len(contents)
    assert {(content.ctypes.data - start) % 16 for content in contents} == {0}


@pytest.mark.parametrize(("case", "scheme"), FILES)
def test_the_same_file_gives_the_same_bytes_and_a_compact_one_is_left_alone(made, case, scheme):
    raw, small = made[case, scheme]
    assert minify(bytes(bytearray(raw))) == small
    assert minify(small) == small


def test_what_is_beside_the_weights_by_hand(made, tmp_path):
    raw, small = made["picture", "int8"]
    sizes = []
    for data in (raw, small):
        path = tmp_path / "file.tflite"
        path.write_bytes(data)
        sizes.append(weight_bytes(path))
        kinds = Counter()
        for share in shares(path):
            kinds[share.kind] += share.bytes
        assert sum(kinds.values()) == len(data)
    # Kernels of a byte, biases of four, and the shape that Flatten makes.
    flat = 3 * 3 * 6
    kernels, units = 9 * 6 + flat * 6 + 6 * 11, 6 + 6 + 11
    assert sizes == [kernels + 4 * units + 8] * 2
    # Scales of all kernels and biases, zero points for 6 and for 11 channels; scales of the input,
    # of both ReLUs, of what softmax takes and gives; zero points: -128, the input's, the logits'.
    assert kinds["quantisation"] == 2 * 4 * units + 8 * (6 + 11) + 4 * 5 + 8 * 3
    assert kinds["names"] == len("image") + len("output_0")
    assert kinds["metadata"] == 0
    assert len(small) - sizes[1] < 0.6 * (len(raw) - sizes[0])


def packed(model):
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_what_is_not_understood_stays_as_it_is(made):
    raw, _ = made["picture", "float32"]
    assert minify(b"not a TFLite file") == b"not a TFLite file"
    for change in (
        lambda model: setattr(model.buffers[2], "offset", 2**32),
        lambda model: setattr(model.subgraphs[0].operators[0], "largeCustomOptionsOffset", 64),
        lambda model: setattr(model, "version", 4),
    ):
        model = schema.ModelT.InitFromPackedBuf(raw)
        change(model)
        strange = packed(model)
        assert minify(strange) == strange


def test_data_behind_the_flatbuffer_moves_into_it(made):
    raw, small = made["picture", "int8"]
    model = schema.ModelT.InitFromPackedBuf(raw)
    behind = [buffer for buffer in model.buffers if buffer.data is not None][1:4]
    contents = [buffer.data.tobytes() for buffer in behind]
    for buffer in behind:
        buffer.data, buffer.offset, buffer.size = None, 2, 2
    place = len(packed(model))
    for buffer, content in zip(behind, contents, strict=True):
        buffer.offset, buffer.size = place, len(content)
        place += len(content)
    assert minify(packed(model) + b"".join(contents)) == small


def test_metadata_of_others_and_names_without_a_signature_stay(made):
    raw, small = made["picture", "float32"]
    model = schema.ModelT.InitFromPackedBuf(raw)
    mine, buffer = schema.MetadataT(), schema.BufferT()
    mine.name, mine.buffer, buffer.data = b"labels", len(model.buffers), np.array([7, 8], np.uint8)
    model.metadata.append(mine)
    model.buffers.append(buffer)
    model.signatureDefs = None
    names = [model.subgraphs[0].tensors[n].name for n in (model.subgraphs[0].inputs[0],)]
    kept = schema.ModelT.InitFromPackedBuf(minify(packed(model)))
    (entry,) = kept.metadata
    assert entry.name == b"labels"
    assert kept.buffers[entry.buffer].data.tolist() == [7, 8]
    graph = kept.subgraphs[0]
    assert [graph.tensors[graph.inputs[0]].name] == names
    assert [t.name for t in schema.ModelT.InitFromPackedBuf(small).subgraphs[0].tensors].count(
        None
    ) == len(graph.tensors) - 2
