"""Reference networks by hand arithmetic, the training cache, and model files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from tfprune.data import built_in, network_training, networks
from tfprune.data.splits import Split
from tfprune.errors import TfpruneError
from tfprune.loading.model_files import reason
from tfprune.utils.digests import file_digest


def test_parameters_of_the_reference_networks():
    shape = (28, 28, 1)
    convolutions = (5 * 5 * 1 * 10 + 10) + (5 * 5 * 10 * 20 + 20)
    flat = 4 * 4 * 20
    assert built_in.cnn(shape, 10).count_params() == convolutions + (flat * 64 + 64) + (
        64 * 10 + 10
    )
    wide = built_in.cnn(shape, 10, units=500).count_params()
    assert wide == convolutions + (flat * 500 + 500) + (500 * 10 + 10)
    assert built_in.mlp(shape, 10).count_params() == 784 * 64 + 64 + 64 * 10 + 10
    assert built_in.autoencoder(shape, 1).count_params() == 784 * 400 + 400 + 400 * 784 + 784
    assert built_in.autoencoder(shape, 1).output_shape == (None, *shape)


@pytest.mark.parametrize("shape", [(28, 28), (8, 8, 1), (784,)])
def test_the_cnn_needs_images(shape):
    with pytest.raises(TfpruneError, match="at least 16x16"):
        built_in.cnn(shape, 10)


@pytest.fixture
def parts(rng):
    x = rng.random((120, 6, 6, 1), np.float32)
    y = (x.mean(axis=(1, 2, 3)) > 0.5).astype(int)
    return Split(x[:100], y[:100]), Split(x[100:], y[100:])


@pytest.fixture
def train(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("TFPRUNE_CACHE", str(tmp_path / "cache"))
    said = []

    def run(name="mlp", units=5, data="abc", epochs=1, seed=0, parts=parts):
        said.clear()
        model, path = network_training.trained(
            name, units, *parts, data_digest=data, epochs=epochs, seed=seed, say=said.append
        )
        return model, path, said[0]

    return run


def test_the_second_run_does_not_train(train):
    first, path, said = train()
    assert "training 1 epochs on 100 samples" in said
    second, again, said = train()
    assert "from the cache" in said
    assert again == path
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "other", [{"units": 6}, {"data": "abd"}, {"epochs": 2}, {"seed": 1}, {"name": "autoencoder"}]
)
def test_another_recipe_is_another_model(train, other):
    _, path, _ = train()
    _, changed, said = train(**other)
    assert changed != path
    assert "training" in said


@pytest.mark.trains
def test_a_seed_gives_the_same_weights_again(train):
    first, path, _ = train()
    path.unlink()
    second, _, said = train()
    assert "training" in said
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_damaged_cache_costs_a_training(train):
    _, path, _ = train()
    path.write_bytes(path.read_bytes()[:100])
    _, _, said = train()
    assert "training" in said
    assert "from the cache" in train()[2]
    assert len(list(path.parent.iterdir())) == 2  # The weights and their digest.


def test_a_cache_that_cannot_be_written_is_no_error(train, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFPRUNE_CACHE", str(tmp_path / "file" / "cache"))
    _, path, _ = train()
    assert path is None


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("numpy")])
def test_a_disk_that_fills_up_leaves_no_part_in_the_cache(train, monkeypatch, error):
    """Nor a file that would be taken for a whole one later; what a killed run left goes in time."""
    save = np.savez

    def half(path, **arrays):
        save(path, **arrays)
        assert Path(path).suffix == ".npz"
        Path(path).write_bytes(Path(path).read_bytes()[:1000])
        raise error

    _, whole, _ = train()
    left = whole.with_name(".tfprune-part-123-abc.npz")
    left.touch()
    os.utime(left, (0, 0))
    monkeypatch.setattr(np, "savez", half)
    _, path, _ = train(seed=1)
    assert path is None
    assert set(whole.parent.iterdir()) == {whole, whole.with_suffix(".sha256")}


def other_weights(path):
    """Somebody's weights in a file of the same name."""
    with np.load(path) as archive:
        arrays = {name: archive[name] + 1 for name in archive.files}
    np.savez(path, **arrays)


def no_digest(path):
    path.with_suffix(".sha256").unlink()


def of_other_shapes(path):
    np.savez(path, **{str(place): np.ones(3) for place in range(4)})
    path.with_suffix(".sha256").write_text(file_digest(path))


def not_finite(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] * np.nan for name in archive.files}
    np.savez(path, **arrays)
    path.with_suffix(".sha256").write_text(file_digest(path))


def pickled(path):
    np.savez(path, **{str(place): np.array([print], object) for place in range(4)})
    path.with_suffix(".sha256").write_text(file_digest(path))


def with_more(path):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays, more=np.ones(3))
    path.with_suffix(".sha256").write_text(file_digest(path))


@pytest.mark.parametrize(
    "plant", [other_weights, no_digest, of_other_shapes, not_finite, pickled, with_more]
)
def test_a_planted_file_in_the_cache_is_not_taken(train, plant):
    first, path, _ = train()
    plant(path)
    second, _, said = train()
    assert "training" in said
    for ours, theirs in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_planted_model_in_the_cache_is_not_even_read(train, monkeypatch):
    """As the cache held whole models once."""
    _, path, _ = train()
    path.rename(path.with_suffix(".keras"))
    monkeypatch.setattr(keras.models, "load_model", None)
    assert "training" in train()[2]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX owners and modes")
def test_a_cache_that_others_can_write_is_not_used(train, monkeypatch):
    _, path, _ = train()
    assert path.parent.stat().st_mode & 0o077 == 0
    path.parent.chmod(0o777)
    _, kept, said = train()
    assert kept is None
    assert "can be written by every user; it is not used" in said
    path.parent.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(Path, "stat", lambda self, stat=Path.stat, **kw: _owned(stat(self, **kw)))
    _, kept, said = train()
    assert kept is None
    assert "belongs to another user" in said


def _owned(status):
    """As if another user, not root, owned it."""
    return os.stat_result((*status[:4], 4321, *status[5:]))


@pytest.mark.parametrize(
    "labels", [None, np.zeros(100), np.zeros((100, 3), int), -np.ones(100, int)]
)
def test_networks_that_classify_need_labels(train, parts, labels):
    with pytest.raises(TfpruneError, match="expected (integer )?labels"):
        train(parts=(Split(parts[0].x, labels), parts[1]))
    train("autoencoder", parts=(Split(parts[0].x), Split(parts[1].x)))


@pytest.mark.trains
def test_labels_may_stand_in_a_column(train, parts):
    flat, _, _ = train()
    # Another digest, so that it is not the cache that answers.
    column, _, said = train(data="other", parts=[Split(p.x, p.y[:, None]) for p in parts])
    assert "training" in said
    for ours, theirs in zip(flat.get_weights(), column.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_small_data_is_trained_on_longer():
    assert network_training.epochs_for(55_000) == network_training.EPOCHS
    assert (
        network_training.epochs_for(1000) * 1000
        >= network_training.STEPS * network_training.BATCH_SIZE
    )


@pytest.fixture
def saved(tmp_path):
    model = keras.Sequential([keras.Input((3,)), kl.Dense(2, name="d")], name="saved")
    for suffix in (".keras", ".h5"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras calls .h5 legacy; users still have it.
            model.save(tmp_path / f"saved{suffix}")
    return tmp_path


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_model_files_are_read(saved, suffix):
    assert networks.load_model(saved / f"saved{suffix}").count_params() == 3 * 2 + 2


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_that_are_no_models_are_told_in_a_line(saved, suffix):
    whole = (saved / f"saved{suffix}").read_bytes()
    for content in (b"", b"no model", whole[: len(whole) // 2], whole[:-200], b"\x89PNG" + whole):
        path = saved / f"bad{suffix}"
        path.write_bytes(content)
        if content.startswith(b"\x89PNG") and suffix == ".keras":
            continue  # A zip archive may have something in front.
        with pytest.raises(TfpruneError) as caught:
            networks.load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(TfpruneError, match="no such file, and not one of cnn, mlp, autoencoder"):
        networks.load_model(saved / "missing.keras")
    with pytest.raises(TfpruneError, match="received a folder"):
        networks.load_model(saved)


@pytest.mark.filterwarnings("ignore:.*lambda.*:UserWarning", "ignore:.*legacy.*:UserWarning")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_model_file_is_not_run(tmp_path, suffix):
    marker = tmp_path / "ran"

    def code(x):
        import pathlib

        pathlib.Path(str(marker)).touch()
        return x

    lambdas = keras.Sequential(
        [keras.Input((3,)), kl.Lambda(lambda x: code(x), output_shape=(3,)), kl.Dense(2)]
    )
    path = tmp_path / f"lambda{suffix}"
    lambdas.save(path)
    marker.unlink(missing_ok=True)
    with pytest.raises(TfpruneError, match="would run code on loading.*--unsafe"):
        networks.load_model(path)
    assert not marker.exists()


@keras.saving.register_keras_serializable("elsewhere")
class Unregistered(kl.Layer):
    def call(self, x):
        return x


def test_a_model_of_unknown_classes_says_what_to_do(tmp_path):
    path = tmp_path / "custom.keras"
    keras.Sequential([keras.Input((3,)), Unregistered(name="u"), kl.Dense(2)]).save(path)
    registered = keras.saving.get_custom_objects()
    kept = dict(registered)
    registered.clear()
    try:
        with pytest.raises(TfpruneError, match=r"not Keras' own.*tfprune\.prune"):
            networks.load_model(path)
    finally:
        registered.update(kept)


def test_a_file_that_may_not_be_read_says_so(saved, monkeypatch):
    def refused(self, *args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(TfpruneError, match="saved.h5: .*Permission denied"):
        networks.load_model(saved / "saved.h5")


def test_no_room_for_a_copy_is_one_line(saved, monkeypatch):
    def full(*args, **kwargs):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
    with pytest.raises(TfpruneError, match="saved.keras: .*No usable temporary directory"):
        networks.load_model(saved / "saved.keras")


def test_a_cause_is_whole_and_has_no_configuration():
    config = {"layers": [{"name": "x" * 300}]}
    text = (
        f"<class Dense> cannot be. config={config}.\n\nException encountered: \x1b[1mNo\nsuch {{3}}"
    )
    assert reason(ValueError(text)) == "No such {3}"
    assert reason(ValueError(f"Unknown config={config} here")) == "Unknown config={...} here"
    assert reason(ValueError(str(config)[:-5])) == "{..."
    assert reason(KeyError("offset")) == "offset"
    assert reason(ValueError()) == "ValueError"
    long = "a reason of many words " * 30
    assert reason(ValueError(long)) == long.strip()
    assert len(reason(ValueError("x" * 10_000))) < 3000
