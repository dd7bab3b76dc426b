"""Where data comes from, how it is split, and what is refused."""

from __future__ import annotations

import http.server
import os
import socket
import threading
import time

import numpy as np
import pytest

from tests.support.hostile_data import HOSTILE_DATA
from tfprune.data import sources
from tfprune.data.array_files import read_npz
from tfprune.data.scales import InputSpec
from tfprune.data.splits import prepare
from tfprune.errors import TfpruneError
from tfprune.utils import archives
from tfprune.utils.digests import file_digest


@pytest.fixture
def said():
    return []


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No MNIST on this machine, and a network that takes a connection and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("TFPRUNE_MNIST", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "keras").mkdir()
    monkeypatch.setattr(sources, "PATIENCE", 1.0)
    yield
    listener.close()


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def pixels(rng, count, shape=(28, 28)):
    return rng.integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def like_mnist(rng, tmp_path):
    return save(
        tmp_path / "mnist.npz",
        x_train=pixels(rng, 60), y_train=rng.integers(0, 10, 60),
        x_test=pixels(rng, 20), y_test=rng.integers(0, 10, 20),
    )  # fmt: skip


def rows(part):
    return {row.tobytes() for row in part.x}


def test_digits_are_like_mnist_and_their_parts_share_nothing():
    raw = sources.digits(seed=3)
    assert raw.train.x.shape[1:] == (28, 28, 1)
    assert raw.train.x.dtype == np.uint8
    assert len(raw.train) + len(raw.test) == 1797
    assert raw.train.x.max() > 200
    assert not raw.train.x[:, :4].any()
    data = prepare(raw, "auto", None, 500, seed=3)
    parts = [rows(part) for part in (data.train, data.validation, data.test)]
    for i in range(3):
        for j in range(i):
            assert not parts[i] & parts[j]
    assert rows(data.calibration) <= parts[0]
    assert len(data.calibration) == 500
    assert sum(len(p) for p in (data.train, data.validation, data.test)) == 1797
    assert data.train.x.dtype == np.float32
    assert data.train.x.max() == 1


def test_the_seed_splits_the_same_way_again():
    first, second, other = (sources.digits(seed).test.x for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_auto_falls_back_within_seconds_and_says_so(nowhere, said):
    start = time.monotonic()
    raw = sources.load("auto", None, 0, said.append)
    assert time.monotonic() - start < 10
    assert raw.name == "digits"
    assert raw.fallback_from == "mnist"
    assert "FALLING BACK" in said[-1]


def test_mnist_without_mnist_names_the_places(nowhere, said):
    with pytest.raises(TfpruneError) as caught:
        sources.load("mnist", None, 0, said.append)
    for place in ("--data", "TFPRUNE_MNIST", "Keras' cache", "Keras' download"):
        assert place in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_download_that_answers_with_nonsense_is_no_data(monkeypatch, nowhere, said):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    monkeypatch.setattr(server.RequestHandlerClass, "log_message", lambda *_: None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.server_port}")
    assert sources.load("auto", None, 0, said.append).fallback_from == "mnist"
    server.shutdown()
    server.server_close()


def test_mnist_is_looked_for_in_order(nowhere, like_mnist, monkeypatch, tmp_path, rng, said):
    cache = tmp_path / "keras" / "datasets"
    cache.mkdir()
    save(cache / "mnist.npz", x_train=pixels(rng, 5), x_test=pixels(rng, 7))
    assert len(sources.load("auto", None, 0, said.append).train) == 5
    monkeypatch.setenv("TFPRUNE_MNIST", str(like_mnist))
    for dataset in ("auto", "mnist"):
        raw = sources.load(dataset, None, 0, said.append)
        assert (raw.name, len(raw.train), raw.sha256) == ("mnist", 60, file_digest(like_mnist))
    mine = save(tmp_path / "mine.npz", x=pixels(rng, 10))
    assert sources.load("auto", str(mine), 0, said.append).name == "mine"
    assert said == []


def test_uint8_is_scaled_and_a_channel_added_and_both_are_said(like_mnist):
    raw = read_npz(like_mnist, 0)
    data = prepare(raw, "auto", [InputSpec("image", (28, 28, 1))], 10, 0)
    assert data.test.x.shape == (20, 28, 28, 1)
    np.testing.assert_allclose(data.test.x[..., 0], raw.test.x / 255, atol=1e-7)
    assert data.notes == (
        "uint8 scaled from 0..255 to 0..1",
        "channel axis added: (28, 28) to (28, 28, 1)",
    )
    data = prepare(raw, "none", [InputSpec("image", (28, 28))], 10, 0)
    np.testing.assert_array_equal(data.test.x, raw.test.x)
    assert data.notes == ()


def test_x_and_y_are_split_by_seed(tmp_path, rng):
    path = save(tmp_path / "own.npz", x=np.arange(100.0), y=np.arange(100))
    raw = read_npz(path, seed=1)
    assert (len(raw.train), len(raw.test)) == (80, 20)
    assert sorted([*raw.train.x, *raw.test.x]) == list(range(100))
    np.testing.assert_array_equal(raw.test.x, raw.test.y)
    assert "split by seed 1" in raw.notes[0]


def test_labels_may_lack(tmp_path, rng):
    raw = read_npz(save(tmp_path / "a.npz", x=pixels(rng, 20)), 0)
    assert raw.train.y is None
    both = {"x_train": pixels(rng, 20), "x_test": pixels(rng, 5)}
    raw = read_npz(save(tmp_path / "b.npz", **both, y_test=np.zeros(5, int)), 0)
    assert raw.test.y is None
    assert "labels ignored" in raw.notes[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros(3)}, "expected arrays x_train, .* received images"),
        ({"x": np.zeros((0, 4))}, "at least one sample"),
        ({"x": np.zeros((1, 4))}, "at least 2 samples"),
        ({"x": np.full((9, 4), np.nan)}, "NaN or infinity"),
        ({"x": np.full((9, 4), np.inf)}, "NaN or infinity"),
        ({"x": np.zeros((9, 4)), "y": np.zeros(8)}, "a label for each of 9 samples, received 8"),
        ({"x": np.array([["a"] * 4] * 9)}, "expected numbers"),
        ({"x": np.array(5.0)}, "received a scalar"),
    ],
)
def test_bad_arrays_are_told(tmp_path, arrays, message):
    with pytest.raises(TfpruneError, match=message):
        read_npz(save(tmp_path / "bad.npz", **arrays), 0)


SEVERAL = ("image", "age")


def images_and_ages(rng, count, end=""):
    return {f"x{end}_image": pixels(rng, count, (8, 8)), f"x{end}_age": rng.random((count, 2))}


def test_several_inputs_are_read_by_their_names_and_split_together(tmp_path, rng):
    both = {**images_and_ages(rng, 20, "_train"), **images_and_ages(rng, 5, "_test")}
    path = save(tmp_path / "a.npz", **both, y_train=np.arange(20), y_test=np.arange(5), meta=[1])
    raw = read_npz(path, 0, inputs=SEVERAL)
    for part, end in ((raw.train, "train"), (raw.test, "test")):
        assert list(part.x) == list(SEVERAL)
        for name in SEVERAL:
            np.testing.assert_array_equal(part.x[name], both[f"x_{end}_{name}"])
    count = np.arange(100)
    path = save(tmp_path / "b.npz", x_age=count, x_image=count + 100, y=count)
    raw = read_npz(path, 1, inputs=SEVERAL)
    assert (len(raw.train), len(raw.test)) == (80, 20)
    for part in (raw.train, raw.test, raw.train.take([3, 1])):
        np.testing.assert_array_equal(part.x["age"], part.y)
        np.testing.assert_array_equal(part.x["image"], part.y + 100)
    data = prepare(raw, "auto", [InputSpec("image", ()), InputSpec("age", ())], 7, 1)
    np.testing.assert_array_equal(data.calibration.x["image"], data.calibration.x["age"] + 100)
    whole = [part.x["age"] for part in (data.train, data.validation, data.test)]
    assert sorted(np.concatenate(whole)) == list(range(100))


def test_names_that_look_like_parts_are_told_apart(tmp_path):
    zeros, ones = np.zeros((9, 2)), np.ones((9, 3))
    path = save(tmp_path / "a.npz", x_train_a=zeros, x_a=ones)
    raw = read_npz(path, 0, inputs=("train_a", "a"))
    assert [data.shape[1] for data in raw.train.arrays] == [2, 3]
    path = save(tmp_path / "b.npz", x_train_a=zeros, x_test_a=ones[:, :2])
    assert len(read_npz(path, 0, inputs=("a",)).test) == 9


@pytest.mark.parametrize(
    "arrays",
    [
        {"x_image": np.zeros(9)},
        {"x_image": np.zeros(9), "x_age": np.zeros(9), "x_size": np.zeros(9)},
        {"x_train_image": np.zeros(9), "x_train_age": np.zeros(9), "x_test_age": np.zeros(9)},
        {"x_train": np.zeros(9), "x_test": np.zeros(9)},
        {"x": np.zeros(9)},
    ],
)
def test_missing_and_surplus_names_are_told(tmp_path, arrays):
    with pytest.raises(TfpruneError) as caught:
        read_npz(save(tmp_path / "bad.npz", **arrays), 0, inputs=SEVERAL)
    assert "x_train_NAME and x_test_NAME (or x_NAME)" in str(caught.value)
    assert "(image, age)" in str(caught.value)
    assert f"received {', '.join(arrays)}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_are_not_used_are_named(tmp_path, rng):
    x, y = pixels(rng, 20), np.zeros(20, int)
    both = {"x_train": x, "x_test": x, "y_train": y, "y_test": y}
    path = save(tmp_path / "a.npz", **both, y_train_age=y, y=y, weights=y)
    raw = read_npz(path, 0, inputs=("image",))
    assert raw.notes == ("arrays not used: y_train_age, y, weights",)
    assert read_npz(save(tmp_path / "b.npz", **both), 0).notes == ()
    raw = read_npz(save(tmp_path / "c.npz", x_train=x, y_train=y, y_test=y), 0)
    assert "arrays not used: y_test" in raw.notes


def test_inputs_of_different_lengths_are_told(tmp_path):
    path = save(tmp_path / "bad.npz", x_image=np.zeros(9), x_age=np.zeros(8))
    with pytest.raises(TfpruneError, match="as many samples for every input, received 9, 8"):
        read_npz(path, 0, inputs=SEVERAL)


def test_every_input_is_scaled_and_shaped_as_it_is_taken(tmp_path, rng):
    words = rng.integers(0, 9, (50, 4), np.uint8)
    images = pixels(rng, 50, (8, 8))
    path = save(tmp_path / "a.npz", x_image=images, x_words=words, x_age=rng.random(50))
    raw = read_npz(path, 0, inputs=("image", "words", "age"))
    wanted = [
        InputSpec("image", (8, 8, 1)),
        InputSpec("words", (4,), floats=False),
        InputSpec("age", (1,)),
    ]
    data = prepare(raw, "auto", wanted, 7, 0)
    np.testing.assert_allclose(data.test.x["image"][..., 0], raw.test.x["image"] / 255, atol=1e-7)
    np.testing.assert_array_equal(data.test.x["words"], raw.test.x["words"])
    assert data.test.x["age"].shape == (10, 1)
    assert data.notes[1:] == (
        "input image: uint8 scaled from 0..255 to 0..1",
        "input image: channel axis added: (8, 8) to (8, 8, 1)",
        "input words: uint8 left as it is, the model takes whole numbers",
        "input age: channel axis added: () to (1,)",
    )
    with pytest.raises(TfpruneError, match=r"arrays for 3 inputs \(image, words, age\), digits is"):
        prepare(sources.digits(0), "auto", wanted, 7, 0)


def test_shapes_that_differ_between_the_parts_are_told(tmp_path, rng):
    path = save(tmp_path / "two.npz", x_train=pixels(rng, 9), x_test=pixels(rng, 9, (8, 8)))
    with pytest.raises(TfpruneError, match=r"one shape, received \(28, 28\) and \(8, 8\)"):
        prepare(read_npz(path, 0), "auto", None, 5, 0)


def test_files_that_are_none_are_told(tmp_path, like_mnist):
    with pytest.raises(TfpruneError, match="no such file"):
        read_npz(tmp_path / "missing.npz", 0)
    whole = like_mnist.read_bytes()
    for name, content in {
        "empty.npz": b"",
        "text.npz": b"x_train, y_train",
        "truncated.npz": whole[: len(whole) // 2],
        "header.npz": whole[:20],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TfpruneError, match=f"{name}: expected a readable .npz") as caught:
            read_npz(tmp_path / name, 0)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "single.npy", np.zeros(4))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}, 1], object))
    for name in ("single.npy", "pickled.npz"):
        with pytest.raises(TfpruneError, match="expected a readable .npz"):
            read_npz(tmp_path / name, 0)
    with pytest.raises(TfpruneError, match="expected a readable .npz"):
        read_npz(tmp_path, 0)


def test_a_file_that_is_no_mnist_is_named_as_that(tmp_path, monkeypatch):
    (tmp_path / "text.npz").write_text("no archive")
    monkeypatch.setenv("TFPRUNE_MNIST", str(tmp_path / "text.npz"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(sources, "_download", lambda: None)
    said = []
    with pytest.raises(TfpruneError, match=r"TFPRUNE_MNIST \(no MNIST: .*cache \(no such file\)"):
        sources.load("mnist", None, 0, said.append)
    assert not said


@pytest.mark.parametrize(
    "name", ["objects", "absurd shape", "overflowing shape", "negative shape", "no array"]
)
def test_arrays_that_are_not_what_they_say_are_refused(tmp_path, name):
    path = tmp_path / "data.npz"
    path.write_bytes(HOSTILE_DATA[name])
    with pytest.raises(TfpruneError, match="data.npz: expected"):
        read_npz(path, 0)


def test_an_archive_that_unpacks_to_far_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS", 1000)
    x, y = np.zeros((2000, 28, 28), np.uint8), np.zeros(2000)
    np.savez_compressed(tmp_path / "zeros.npz", x=x, y=y)
    monkeypatch.setattr(np, "load", None)  # Nothing may be read any more.
    with pytest.raises(TfpruneError, match=r"bytes that unpack to 1,584,\d\d\d"):
        read_npz(tmp_path / "zeros.npz", 0)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "data.npz")
    with pytest.raises(TfpruneError, match="expected a readable .npz file"):
        read_npz(tmp_path / "data.npz", 0)
