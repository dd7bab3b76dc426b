"""Files of 4-bit Dense weights: what is in them, what they compute, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import layers as kl

import tfprune
from tests.support.graphs import fill, outputs
from tests.support.paths import ROOT
from tfprune import TfpruneError
from tfprune.core.metrics import disagreement
from tfprune.tflite import converter, verification
from tfprune.tflite.interpreter import LiteModel
from tfprune.tflite.minify import minify
from tfprune.utils.console import quiet

TYPE = schema.TensorType
needs_package = pytest.mark.skipif(
    find_spec("ai_edge_quantizer") is None,
    reason="needs ai-edge-quantizer: pip install -r requirements-int4.txt",
)


def test_without_the_package_it_is_a_line_before_the_work(tmp_path):
    code = (
        "import sys; sys.modules['ai_edge_quantizer'] = None\n"
        "from tools.export import main\n"
        f"sys.exit(main(['--schemes', 'int8,int4', '--output', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "int4 needs ai-edge-quantizer" in line
    assert "pip install -r requirements-int4.txt" in line
    assert not list(tmp_path.iterdir())


def dense(rng, width, hidden, out):
    data = keras.Input((width,), name="data")
    inner = kl.Dense(hidden, activation="relu", name="hidden")(data)
    return fill(keras.Model(data, kl.Dense(out, name="out")(inner), name="dense"), rng)


def picture(rng):
    layers = [
        keras.Input((9, 9, 1), name="data"),
        kl.Conv2D(3, 3, activation="relu", name="conv"),
        kl.MaxPooling2D(),
        kl.Flatten(),
        kl.Dense(13, activation="relu", name="hidden"),
        kl.Dense(10, name="out"),
    ]
    return fill(keras.Sequential(layers, name="picture"), rng)


def samples(rng, model, count=120):
    return [rng.normal(0, 1, (count, *t.shape[1:])).astype("float32") for t in model.inputs]


def made(model, x, batch=1):
    ((_, data),) = converter.convert(model, ["int4"], x, batch)
    return data


def unpacked(model, tensor):
    """The weights of an INT4 tensor in real units, two to a byte, the low half first."""
    halves = model.buffers[tensor.buffer].data
    values = np.stack([halves & 15, halves >> 4], axis=1).reshape(-1).astype(int)
    values = np.where(values > 7, values - 16, values)[: np.prod(tensor.shape)]
    assert len(halves) == (np.prod(tensor.shape) + 1) // 2
    return values.reshape(tensor.shape) * np.array(tensor.quantization.scale)[:, None]


@needs_package
@pytest.mark.parametrize("sizes", [(40, 24, 10), (7, 5, 3), (33, 17, 1)])
def test_dense_weights_are_those_of_keras_as_near_as_4_bits_can_be(rng, sizes):
    model = dense(rng, *sizes)
    (x,) = samples(rng, model)
    data = made(model, [x])
    file = schema.ModelT.InitFromPackedBuf(data)
    tensors = file.subgraphs[0].tensors
    weights = [unpacked(file, tensor) for tensor in tensors if tensor.type == TYPE.INT4]
    kernels = [model.get_layer(name).get_weights()[0].T for name in ("hidden", "out")]
    assert {w.shape for w in weights} == {k.shape for k in kernels}
    for kernel in kernels:
        (ours,) = (w for w in weights if w.shape == kernel.shape)
        # Nearest of 15 levels, but for large weights that may be cut off.
        scale = np.abs(np.diff(np.sort(ours, axis=1), axis=1))
        step = np.where(scale > 1e-6, scale, np.inf).min(axis=1, keepdims=True)
        cut = np.clip(kernel, ours.min(axis=1, keepdims=True), ours.max(axis=1, keepdims=True))
        assert (np.abs(ours - cut) <= 0.51 * step).all()
        assert np.sqrt(np.mean((ours - kernel) ** 2)) < 0.2 * kernel.std()
    # And what the file computes is what these weights compute.
    (w1, w2) = (next(w for w in weights if w.shape == k.shape) for k in kernels)
    b1, b2 = (model.get_layer(name).get_weights()[1] for name in ("hidden", "out"))
    expected = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    for delegate in (True, False):
        (received,) = LiteModel(data, delegate=delegate).predict([x])
        assert np.sqrt(np.mean((received - expected) ** 2)) < 0.02 * expected.std()
        assert disagreement(received, outputs(model, x)[0]) > 0.02


@needs_package
@pytest.mark.parametrize("batch", [1, 4, None])
def test_convolutions_and_ends_are_of_8_bits_and_the_file_runs_on_every_kernel(rng, batch):
    model = picture(rng)
    (x,) = samples(rng, model)
    raw = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "minify", lambda data: raw.append(data) or minify(data))
        data = made(model, [x], batch)
    assert len(data) < len(raw[0])
    file = schema.ModelT.InitFromPackedBuf(data)
    graph = file.subgraphs[0]
    kinds = {tuple(t.shape): t.type for t in graph.tensors if t.buffer}
    assert kinds[3, 3, 3, 1] == TYPE.INT8
    assert kinds[13, 27] == kinds[10, 13] == TYPE.INT4
    ends = [graph.tensors[n].type for n in (*graph.inputs, *graph.outputs)]
    assert ends == [TYPE.INT8, TYPE.INT8]
    results = [
        run(content, x, kernels, batch or 1)
        for kernels in (OpResolverType.AUTO, OpResolverType.BUILTIN_REF)
        for content in (raw[0], data)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[2], results[3])
    assert np.abs(results[0] - results[2]).max() <= 2
    assert len(np.unique(results[0])) > 10


def run(data, x, kernels, batch):
    with quiet():
        lite = Interpreter(model_content=data, experimental_op_resolver_type=kernels)
        lite.allocate_tensors()
    (inside,), (outside,) = lite.get_input_details(), lite.get_output_details()
    scale, zero = inside["quantization"]
    rows = []
    for start in range(0, len(x), batch):
        value = np.round(x[start : start + batch] / scale) + zero
        lite.set_tensor(inside["index"], np.clip(value, -128, 127).astype(np.int8))
        lite.invoke()
        rows.append(lite.get_tensor(outside["index"]).astype(int))
    return np.concatenate(rows)


@needs_package
def test_ranges_hold_what_is_rare(rng):
    """A moving average of ranges would cut off the largest inputs."""
    model = dense(rng, 40, 24, 10)
    (x,) = samples(rng, model)
    x[3] *= 4
    with quiet():
        (detail,) = Interpreter(model_content=made(model, [x])).get_input_details()
    scale, zero = detail["quantization"]
    assert (127 - zero) * scale >= x.max() - scale
    assert (-128 - zero) * scale <= x.min() + scale


@needs_package
def test_it_is_smaller_than_int8_by_half_the_dense_weights(rng, tmp_path):
    model = dense(rng, 40, 60, 30)
    (x,) = samples(rng, model)
    paths = tfprune.export(model, tmp_path, ["int8", "int4"], x)
    size = {scheme: path.stat().st_size for scheme, path in paths.items()}
    saved = (40 * 60 + 60 * 30) // 2
    assert abs(size["int8"] - size["int4"] - saved) < 100


@needs_package
def test_a_file_that_needs_xnnpack_to_be_right_is_refused(rng):
    from ai_edge_quantizer import qtyping, quantizer

    model = dense(rng, 64, 64, 10)
    (x,) = samples(rng, model)
    raw = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converter, "minify", lambda data: raw.append(data) or data)
        list(converter.convert(model, ["float32"], [x]))
    maker = quantizer.Quantizer(raw[0])
    maker.add_dynamic_config(
        ".*",
        qtyping.TFLOperationName.FULLY_CONNECTED,
        num_bits=4,
        granularity=qtyping.QuantGranularity.BLOCKWISE_32,
    )
    blocks = bytes(maker.quantize(enable_progress_report=False).quantized_model)
    with pytest.raises(TfpruneError, match="the int4 file computes something else without XNNPACK"):
        verification.verify(blocks, "int4", [x], outputs(model, x))


@needs_package
def test_several_inputs_and_outputs(rng):
    first, second = keras.Input((6,), name="zeta"), keras.Input((6,), name="alpha")
    both = kl.Subtract()([kl.Dense(8, activation="relu")(first), second[:, :1]])
    model = fill(keras.Model([first, second], [kl.Dense(n)(both) for n in (3, 2)]), rng)
    x = samples(rng, model)
    received = LiteModel(made(model, x), ["zeta", "alpha"]).predict(x)
    for ours, theirs in zip(received, outputs(model, x), strict=True):
        assert disagreement(ours, theirs) < 0.3


@needs_package
def test_long_recurrent_models_are_refused_with_the_reason(rng, tmp_path):
    data = keras.Input((300, 6), name="data")
    model = fill(keras.Model(data, kl.Dense(3)(kl.GRU(5, name="loop")(data))), rng)
    with pytest.raises(TfpruneError, match=r"int4 failed: .* no file .* recurrent layers \(loop\)"):
        tfprune.export(model, tmp_path, ["int4"], samples(rng, model)[0])


def weights_of_four_bits(data, shape):
    file = schema.ModelT.InitFromPackedBuf(data)
    (tensor,) = (
        t for t in file.subgraphs[0].tensors if t.type == TYPE.INT4 and tuple(t.shape) == shape
    )
    return unpacked(file, tensor)


@needs_package
def test_the_better_of_two_ways_to_scale_is_taken(rng):
    """A single large weight of a channel takes all levels from the others, unless it is cut.

    Weights of one size are exact where the largest sets the scale. Beside a weight of 9 they would
    all be zero then: a step would be 9 / 7.
    """
    model = dense(rng, 40, 24, 10)
    kernel, bias = model.get_layer("hidden").get_weights()
    kernel = rng.choice([-0.5, 0.5], kernel.shape)
    (x,) = samples(rng, model)
    x[:, 0] /= 20
    model.get_layer("hidden").set_weights([kernel, bias])
    exact = weights_of_four_bits(made(model, [x]), (24, 40))
    np.testing.assert_allclose(exact, kernel.T, atol=1e-6)
    kernel[0] += 9
    model.get_layer("hidden").set_weights([kernel, bias])
    cut = weights_of_four_bits(made(model, [x]), (24, 40))
    assert cut[:, 0].max() < 8
    assert (np.sign(cut[:, 1:]) == np.sign(kernel.T[:, 1:])).all()
