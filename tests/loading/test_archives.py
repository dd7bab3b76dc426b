"""Arrays in files from strangers: nothing of other files, no more than the file can hold."""

from __future__ import annotations

import os
import struct
import time
import zipfile

import h5py
import numpy as np
import pytest
from keras import layers as kl

from tests.support.planted import edited, last_layer, member, obj, replace, small, weights_edited
from tfprune.data.networks import load_model
from tfprune.errors import TfpruneError
from tfprune.loading import file_trial, h5_arrays

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
one_process = pytest.mark.usefixtures("same_process")
SUFFIXES = pytest.mark.parametrize("suffix", [".keras", ".h5"])


def kernel(file):
    """The group and the name of the Dense layer's kernel."""
    names = []
    file.visit(lambda name: names.append(name) if "optimizer" not in name else None)
    ends = ("kernel", "kernel:0", "layers/dense/vars/0")
    name = next(name for name in names if name.endswith(ends))
    group, _, key = name.rpartition("/")
    return file[group], key


def external_link(file, folder):
    group, key = kernel(file)
    del group[key]
    group[key] = h5py.ExternalLink(str(folder / "secret.h5"), "/data")


def link_on_the_way(file, folder):
    group, _ = kernel(file)
    name, parent = group.name.rpartition("/")[2], group.parent
    del parent[name]
    parent[name] = h5py.ExternalLink(str(folder / "secret.h5"), "/")


def soft_link(file, folder):
    group, key = kernel(file)
    del group[key]
    group[key] = h5py.SoftLink(f"{group.name}/{key}")


def external_storage(file, folder):
    group, key = kernel(file)
    del group[key]
    stored = [(str(folder / "secret.txt"), 0, 36)]
    group.create_dataset(key, (3, 3), "float32", external=stored)


def virtual(file, folder):
    group, key = kernel(file)
    del group[key]
    layout = h5py.VirtualLayout((3, 3), "float32")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "data", (3, 3))
    group.create_virtual_dataset(key, layout)


def cycle(file, folder):
    group, _ = kernel(file)
    group["round"] = group.parent


def reference(file, folder):
    group, key = kernel(file)
    del group[key]
    group[key] = np.dtype("float32")


LINKS = [external_link, link_on_the_way, soft_link, external_storage, virtual, cycle, reference]


@SUFFIXES
@pytest.mark.parametrize("edit", LINKS)
@one_process
def test_nothing_of_other_files_is_read(tmp_path, suffix, edit):
    (tmp_path / "secret.txt").write_bytes(b"root:x:0:0:root:/root:/bin/bash 1234")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.full((3, 3), 42, "float32")
    path = weights_edited(small(tmp_path / f"m{suffix}"), lambda file: edit(file, tmp_path))
    with pytest.raises(
        TfpruneError, match=r"link|another file|other files|twice|neither"
    ) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


@SUFFIXES
@pytest.mark.parametrize("size", [10**4, 10**6])
@one_process
def test_arrays_that_declare_more_than_the_file_holds(tmp_path, suffix, size):
    """A few bytes, compressed, that say 400 MB and 4 TB; the layer says so as well."""

    def edit(file):
        group, key = kernel(file)
        del group[key]
        group.create_dataset(key, (3, size * 10), "float32", chunks=(1, 1000), compression="gzip")
        group.create_dataset("spare", (size, size), "float32", chunks=(10, 10), compression="gzip")

    path = weights_edited(small(tmp_path / f"m{suffix}"), edit)
    start = time.process_time()
    with pytest.raises(TfpruneError, match="declare more than"):
        load_model(edited(path, last_layer(obj("Dense", name="d2", units=size * 10))))
    assert time.process_time() - start < 20


@SUFFIXES
@one_process
def test_a_chunk_larger_than_its_array(tmp_path, suffix):
    def edit(file):
        group, _ = kernel(file)
        group.create_dataset(
            "spare", (2, 2), "float32", maxshape=(None, None), chunks=(2**14, 2**14),
            compression="gzip",
        )  # fmt: skip

    with pytest.raises(TfpruneError, match="declare more than"):
        load_model(weights_edited(small(tmp_path / f"m{suffix}"), edit))


def declared(path, name, size):
    """Makes a zip archive declare another size of a member, in both of its places."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    struct.pack_into("<I", data, info.header_offset + 22, size)
    at = data.rindex(name.encode(), 0, len(data)) - 46
    struct.pack_into("<I", data, at + 24, size)
    path.write_bytes(data)
    return path


@one_process
def test_zip_members_that_unpack_to_more(tmp_path):
    path = small(tmp_path / "m.keras")
    bomb = b'{"a": "' + b" " * (200 * 2**20) + b'"}'
    replace(path, "config.json", bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    with pytest.raises(TfpruneError, match="declares more than"):
        load_model(path)
    # Where it declares less than it unpacks to, no more than that is read.
    with pytest.raises(TfpruneError, match=r"damaged zip|size that it declares"):
        load_model(declared(path, "config.json", 1000))
    with pytest.raises(TfpruneError, match=r"damaged zip|size that it declares|declares more"):
        load_model(declared(small(tmp_path / "n.keras"), "config.json", 2**31 - 1))


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../outside", "assets/../../outside", "assets/x\\..\\y", "model.weights.npz",
     "config.json/x", "assets/./x", "C:/x", "extra.py", "assets//x"],
)  # fmt: skip
@one_process
def test_other_members(tmp_path, name):
    with pytest.raises(TfpruneError, match="Keras does not write|Keras' own|Keras never"):
        load_model(replace(small(tmp_path / "m.keras"), name, "x"))
    assert not (tmp_path.parent / "outside").exists()


@one_process
def test_files_that_no_layer_reads(tmp_path):
    path = replace(small(tmp_path / "m.keras"), "assets/layers/dense/x.txt", "x")
    with pytest.raises(TfpruneError, match="none of its layers reads.*--unsafe"):
        load_model(path)
    load_model(path, unsafe=True)


@one_process
def test_other_kinds_of_members(tmp_path):
    path = small(tmp_path / "m.keras")
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("assets/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(TfpruneError, match="a link or encrypted"):
        load_model(path)
    config = member(small(tmp_path / "n.keras"), "config.json")
    replace(tmp_path / "n.keras", "config.json", config, compression=zipfile.ZIP_LZMA)
    with pytest.raises(TfpruneError, match="packed in a way"):
        load_model(tmp_path / "n.keras")
    path = small(tmp_path / "o.keras")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
        archive.writestr("config.json", "{}")
    with pytest.raises(TfpruneError, match="twice"):
        load_model(path)


@one_process
def test_archives_that_were_packed_again(tmp_path):
    """What somebody compressed after Keras saved it still loads."""
    path = small(tmp_path / "m.keras")
    replace(path, "metadata.json", member(path, "metadata.json"), compression=zipfile.ZIP_DEFLATED)
    assert load_model(path).count_params() == 12
    edit = {"compression": "gzip", "shuffle": True, "chunks": True}

    def compressed(file):
        group, key = kernel(file)
        value = group[key][()]
        del group[key]
        group.create_dataset(key, data=value, **edit)

    assert load_model(weights_edited(small(tmp_path / "n.h5"), compressed)).count_params() == 12


@SUFFIXES
@one_process
def test_weights_alone_say_so(tmp_path, suffix):
    path = small(tmp_path / f"m{suffix}")
    if suffix == ".h5":
        with h5py.File(path, "r+") as file:
            del file.attrs["model_config"]
        why = "weights alone"
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model.weights.h5", b"")
        why = r"expected config\.json"
    with pytest.raises(TfpruneError, match=why):
        load_model(path)


def test_what_hangs_or_crashes_ends_in_the_other_process(tmp_path, monkeypatch):
    path = small(tmp_path / "m.h5", kl.Dense(3))
    file_trial.check(path)
    file_trial.check(small(tmp_path / "m.keras"))
    (tmp_path / "no.h5").write_bytes(path.read_bytes()[:2000])
    with pytest.raises(TfpruneError, match="damaged"):
        load_model(tmp_path / "no.h5")
    monkeypatch.setattr(file_trial, "SECONDS", 0.01)
    load_model(path)  # It was read so already.
    os.utime(path, (1, 1))
    with pytest.raises(TfpruneError, match="took more than"):
        load_model(path)
    monkeypatch.setattr(file_trial, "SECONDS", 30)
    crash = "import os; os.kill(os.getpid(), 11); "
    monkeypatch.setattr(file_trial, "CODE", crash)
    with pytest.raises(TfpruneError, match="SIGSEGV"):
        load_model(path)
    monkeypatch.setattr(file_trial, "CODE", "raise MemoryError; ")
    with pytest.raises(TfpruneError, match="exit code 1, MemoryError"):
        load_model(path)


@one_process
def test_names_are_bounded(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["layer_names"] = np.array([b"a", b"b"])
        file.attrs["weight_names0"] = np.array([b"c"])
        file.attrs["weight_names1"] = np.array([b"d"])
        assert h5_arrays.names_in(file, "layer_names") == ["a", "b"]
        assert h5_arrays.names_in(file, "weight_names") == ["c", "d"]
        assert h5_arrays.names_in(file, "nothing") == []
