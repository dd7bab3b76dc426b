"""Folders of pictures are what Keras reads of them, and what is no picture is refused."""

from __future__ import annotations

import shutil

import keras
import numpy as np
import pytest
from PIL import Image

from tfprune.data import picture_folders, sources
from tfprune.errors import TfpruneError

CLASSES = ("ant", "bee", "cat")


def picture(rng, size=(8, 6), channels=3):
    pixels = rng.integers(0, 256, (*size, channels), np.uint8)
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


def fill(folder, rng, count=7, **how):
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            # TensorFlow reads no BMP as grey.
            suffix = ("png", "jpg", "BMP" if how.get("channels") != 1 else "jpeg")[number % 3]
            picture(rng, **how).save(folder / name / f"{number}.{suffix}")
    return folder


def load(path, shape=None, seed=3):
    return sources.load("auto", str(path), seed, print, shape=shape)


def by_keras(folder, size, mode="rgb"):
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=size, color_mode=mode, shuffle=False, batch_size=100, verbose=False
    )
    x, y = next(iter(batches))
    return x.numpy(), y.numpy()


@pytest.mark.parametrize("mode", ["rgb", "grayscale"])
@pytest.mark.parametrize("size", [(8, 6), (5, 9)])
def test_pictures_are_those_that_keras_reads(tmp_path, rng, size, mode):
    for part in ("train", "test"):
        fill(tmp_path / part, rng, channels=3 if mode == "rgb" else 1)
    raw = load(tmp_path, (*size, 3 if mode == "rgb" else 1))
    for part, name in ((raw.train, "train"), (raw.test, "test")):
        x, y = by_keras(tmp_path / name, size, mode)
        np.testing.assert_array_equal(part.y, y)
        # Whole numbers here; and two decoders of JPEG differ by a step or two.
        assert np.abs(part.x - x).max() <= 4
        assert np.abs(part.x - x).mean() < 0.6
    assert raw.classes == CLASSES
    assert raw.notes[:2] == (
        "pictures in train to train, in test to test",
        "42 pictures in 3 classes: ant, bee, cat",
    )
    assert any("brought to 5x9" in note for note in raw.notes) == (size == (5, 9))


def test_the_same_pictures_in_an_npz_are_the_same_data(tmp_path, rng):
    pixels = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    labels = np.arange(30) // 10
    for number, (one, label) in enumerate(zip(pixels, labels, strict=True)):
        path = tmp_path / "own" / CLASSES[label] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(path)
    np.savez(tmp_path / "own.npz", x=pixels, y=labels)
    raw, other = load(tmp_path / "own", (8, 8, 3)), load(tmp_path / "own.npz")
    for one, two in ((raw.train, other.train), (raw.test, other.test)):
        np.testing.assert_array_equal(one.x, two.x)
        np.testing.assert_array_equal(one.y, two.y)
    assert raw.name == other.name == "own"
    again = load(tmp_path / "own")  # The size of the pictures.
    np.testing.assert_array_equal(again.train.x, raw.train.x)
    assert again.sha256 == raw.sha256
    picture(rng, (8, 8)).save(tmp_path / "own" / "ant" / "00.png")
    assert load(tmp_path / "own").sha256 != raw.sha256


def test_a_size_that_is_open_is_that_of_the_pictures(tmp_path, rng):
    fill(tmp_path / "a", rng)
    assert load(tmp_path / "a", (None, None, 3)).train.x.shape[1:] == (8, 6, 3)
    assert load(tmp_path / "a", (None, None, 1)).train.x.shape[1:] == (8, 6, 1)
    assert load(tmp_path / "a", (4, 4)).train.x.shape[1:] == (4, 4)
    fill(tmp_path / "b", rng, channels=1)
    Image.new("1", (6, 8)).save(tmp_path / "b" / "bee" / "black.png")
    assert load(tmp_path / "b").train.x.shape[1:] == (8, 6, 1)
    picture(rng, (9, 9)).save(tmp_path / "a" / "ant" / "other.png")
    with pytest.raises(TfpruneError, match="one size, .* 2 sizes such as 8x6 and 9x9"):
        load(tmp_path / "a", (None, None, 3))


def test_16_bits_and_palettes_are_read(tmp_path):
    for name in CLASSES:
        (tmp_path / name).mkdir()
        deep = np.full((4, 4), 256 * 100, np.uint16)
        Image.fromarray(deep).save(tmp_path / name / "deep.png")
        flat = Image.new("RGB", (4, 4), (100, 100, 100)).convert("P")
        flat.save(tmp_path / name / "palette.png")
    raw = load(tmp_path, (4, 4, 1))
    assert (np.abs(np.concatenate([raw.train.x, raw.test.x]).astype(int) - 100) <= 4).all()


def unreadable(folder):
    for name in CLASSES:
        (folder / name / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))


def cut_short(folder):
    path = folder / "ant" / "0.png"
    path.write_bytes(path.read_bytes()[:60])


BROKEN = {
    "no classes": (
        lambda f: [p.rename(f.parent / p.name) for p in list(f.iterdir())] and None,
        "received an empty folder",
    ),
    "a picture beside classes": (
        lambda f: Image.new("L", (4, 4)).save(f / "9.png"),
        "folders of classes alone, or pictures alone, received 9.png beside ant, bee, cat",
    ),
    "a picture that is not read": (
        lambda f: (f / "bee" / "a.webp").write_bytes(b""),
        "bee: expected PNG, JPEG, BMP, received a.webp; convert or remove",
    ),
    "one class": (
        lambda f: [shutil.rmtree(f / name) for name in ("ant", "bee")] and None,
        "two classes or more, received cat alone; pictures without labels",
    ),
    "a folder in a class": (lambda f: (f / "bee" / "more").mkdir(), "received the folder more"),
    "an empty class": (lambda f: (f / "dog").mkdir(), "dog: expected pictures of this class"),
    "unreadable": (
        unreadable,
        r"3 of 24 pictures cannot be read: ant/bad.png \(.*, bee/bad.png \(.*mend or remove them",
    ),
    "cut short": (cut_short, "1 of 21 pictures cannot be read: ant/0.png"),
    "another format": (
        lambda f: Image.new("L", (4, 4)).save(f / "ant" / "9.png", "GIF"),
        r"ant/9.png \(no PNG, JPEG, BMP\)",
    ),
    "a link out": (
        lambda f: (f / "ant" / "9.png").symlink_to("/etc/hostname"),
        "a link that leads out",
    ),
    "a class that is a link out": (lambda f: (f / "dog").symlink_to("/etc"), "a link that leads"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_folder_of_pictures_is_told(tmp_path, rng, kind):
    change, message = BROKEN[kind]
    change(fill(tmp_path / "own", rng))
    with pytest.raises(TfpruneError, match=message) as caught:
        load(tmp_path / "own", (8, 6, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("divided", [True, False])
def test_pictures_alone_have_no_labels(tmp_path, rng, divided):
    pixels = rng.integers(0, 256, (20, 8, 8, 3), np.uint8)
    for number, one in enumerate(pixels):
        part = ("train" if number < 15 else "test") if divided else ""
        (tmp_path / part).mkdir(exist_ok=True)
        Image.fromarray(one).save(tmp_path / part / f"{number:02}.png")
    raw = load(tmp_path, (8, 8, 3))
    assert (raw.classes, raw.train.y, raw.test.y) == ((), None, None)
    assert "20 pictures without labels, as there are no folders of classes" in raw.notes
    read = np.concatenate([raw.train.x, raw.test.x])
    assert sorted(one.tobytes() for one in read) == sorted(one.tobytes() for one in pixels)
    if divided:
        np.testing.assert_array_equal(raw.test.x, pixels[15:])
        fill(tmp_path / "validation", rng)
        (tmp_path / "test").rename(tmp_path / "other")
        with pytest.raises(TfpruneError, match="both to train and to test, or in neither"):
            load(tmp_path, (8, 8, 3))


def test_files_that_are_no_pictures_are_left_out_and_said(tmp_path, rng):
    fill(tmp_path, rng)
    (tmp_path / "README.txt").write_text("")
    for number in range(4):
        (tmp_path / "bee" / f"{number}.xml").write_text("")
    raw = load(tmp_path, (8, 6, 3))
    assert len(raw.train) + len(raw.test) == 21
    said = "not used, as no pictures: README.txt, bee/0.xml, bee/1.xml and 2 others"
    assert said in raw.notes


def test_a_model_of_no_pictures_and_foreign_classes_are_told(tmp_path, rng):
    for part in ("train", "test"):
        fill(tmp_path / part, rng)
    with pytest.raises(TfpruneError, match=r"a model of pictures .* takes \(48,\)"):
        load(tmp_path, (48,))
    (tmp_path / "test" / "ant").rename(tmp_path / "test" / "ape")
    with pytest.raises(TfpruneError, match="ape is in the test folder alone"):
        load(tmp_path, (8, 6, 3))


def test_links_within_hidden_files_and_other_folders_are_no_harm(tmp_path, rng):
    fill(tmp_path / "train", rng)
    fill(tmp_path / "val", rng)
    fill(tmp_path / "extra", rng)
    (tmp_path / "train" / "ant" / ".DS_Store").write_bytes(b"")
    (tmp_path / "train" / "ant" / "link.png").symlink_to(tmp_path / "extra" / "ant" / "0.png")
    raw = load(tmp_path, (8, 6, 3))
    assert (len(raw.train), len(raw.test)) == (22, 21)
    assert "folders not used: extra" in raw.notes


def test_pictures_that_unpack_to_far_too_much_are_not_unpacked(tmp_path, rng, monkeypatch):
    fill(tmp_path, rng)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48)
    load(tmp_path, (8, 6, 3))
    Image.new("L", (7, 7)).save(tmp_path / "ant" / "large.png")
    with pytest.raises(TfpruneError, match=r"large.png \(49 pixels, at most 48 are read\)"):
        load(tmp_path, (8, 6, 3))
    (tmp_path / "ant" / "large.png").unlink()
    monkeypatch.setattr(picture_folders, "ALWAYS", 1000)
    monkeypatch.setattr(picture_folders, "RATIO", 0.1)
    with pytest.raises(TfpruneError, match="bytes that unpack to 3,024, refused"):
        load(tmp_path)
