import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sact_tf.data import augmentation, decoding, image_files, image_folder

SIZE = 8


def write(folder, **classes):
    """Grey images by class; the number is how grey each one is."""
    for name, greys in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for grey in greys:
            image = Image.fromarray(np.full([SIZE, SIZE, 3], grey, np.uint8))
            image.save(folder / name / f"{grey:03d}.png")
    return folder


@pytest.fixture
def plainly(monkeypatch):
    """Training images without any augmentation: whole, unchanged."""

    def whole(encoded, boxes, size, seed, areas):
        return tf.ensure_shape(decoding.decode(encoded), [size, size, 3])

    monkeypatch.setattr(augmentation, "imagenet", whole)


def greys(batches):
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]


def test_train_and_val(tmp_path):
    write(tmp_path / "train", cat=[1, 2], dog=[3, 4, 5])
    write(tmp_path / "val", dog=[6], cat=[])
    images = image_folder.open_folder(tmp_path)
    assert images.classes == ["cat", "dog"] and not images.held_out
    assert images.train_images.labels == [0, 0, 1, 1, 1]
    (batch,) = images.validation(SIZE, 4, family="cifar")
    assert batch[0].shape == [1, SIZE, SIZE, 3] and batch[1].numpy().tolist() == [1]


def test_some_of_each_class_are_held_out_and_stay_so(tmp_path):
    write(tmp_path, cat=range(10), dog=range(10, 40))
    images = image_folder.open_folder(tmp_path, validation_share=0.2)
    assert images.held_out
    assert np.bincount(images.validation_images.labels).tolist() == [2, 6]
    both = {*images.train_images.paths}, {*images.validation_images.paths}
    assert not both[0] & both[1] and len(both[0] | both[1]) == 40
    assert image_folder.open_folder(tmp_path) == images
    other = image_folder.open_folder(tmp_path, seed=1)
    assert {*other.validation_images.paths} != both[1]
    assert other.fingerprint() != images.fingerprint()
    write(tmp_path, dog=[40])
    more = {*image_folder.open_folder(tmp_path).validation_images.paths}
    assert len(more ^ both[1]) <= 2


def test_every_epoch_has_each_image_once_in_another_order(tmp_path, plainly):
    write(tmp_path / "train", a=range(4), b=range(4, 7))
    write(tmp_path / "val", a=[9])
    images = image_folder.open_folder(tmp_path)
    assert images.steps_per_epoch(7) == 1 and images.steps_per_epoch(2) == 4
    epochs = [greys([b]) for b in images.training(SIZE, 7).take(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    for pixels, labels in images.training(SIZE, 7).take(1):
        assert labels.numpy().tolist() == [int(g >= 4) for g in pixels[:, 0, 0, 0]]
    other = greys(images.training(SIZE, 7, seed=1).take(1))
    assert other != epochs[0]


@pytest.mark.parametrize("family", ["imagenet", "cifar"])
def test_a_run_that_is_taken_up_sees_what_it_would_have_seen(tmp_path, family):
    noise = np.random.default_rng(0).integers(0, 256, [2, 12, 10, 3], np.uint8)
    for name, pixels in zip("ab", noise, strict=True):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.png")
    write(tmp_path / "val", a=[9])
    images = image_folder.open_folder(tmp_path)
    options = {"image_size": SIZE, "batch_size": 3, "family": family}
    whole = list(images.training(**options).take(4))
    rest = list(images.training(**options, first_step=2).take(2))
    for (expected, labels), (found, others) in zip(whole[2:], rest, strict=True):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(others, labels)
    assert whole[0][0].dtype == tf.float32 and whole[0][1].dtype == tf.int32
    assert not np.array_equal(whole[0][0], whole[1][0])


def test_crops_show_at_least_the_area_that_is_wanted(tmp_path):
    # White on the left, black on the right: the mean tells how much of each is seen.
    pixels = np.zeros([64, 64, 3], np.uint8)
    pixels[:, :32] = 255
    write(tmp_path / "val", a=[9])
    for name in "ab":
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "train" / name / "1.png")
    images = image_folder.open_folder(tmp_path)

    def one_sided(min_area):
        batch, _ = next(iter(images.training(16, 64, min_area=min_area)))
        spread = np.ptp(np.asarray(batch)[..., 0], axis=(1, 2))
        return int((spread < 0.5).sum())

    assert one_sided(0.01) > 0 and one_sided(0.95) == 0


def test_whatever_files_there_are(tmp_path):
    write(tmp_path / "train", a=[1], b=[2])
    write(tmp_path / "val", a=[9])
    # TensorFlow decodes no TIFF.
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "train/a/002.jpg", "TIFF")
    images = image_folder.open_folder(tmp_path)
    seen = []
    images.check(seen.append)
    assert sum(seen) == 4
    assert next(iter(images.training(SIZE, 3)))[0].shape == [3, SIZE, SIZE, 3]


def test_images_that_cannot_be_read_are_named(tmp_path):
    write(tmp_path, a=[1, 2, 3], b=[4, 5])
    broken = tmp_path / "a" / "002.png"
    broken.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a/002\.png is no readable image"):
        image_folder.open_folder(tmp_path).check()
    cut = tmp_path / "b" / "004.png"
    cut.write_bytes(cut.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"2 of 5 images cannot be read: ") as error:
        image_folder.open_folder(tmp_path).check()
    assert str(broken) in str(error.value) and str(cut) in str(error.value)


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        ({}, {}, "a folder of images for each class, and at least two.*none"),
        ({"a": [1, 2]}, {}, "at least two. Received: a"),
        ({"a": [1, 2], "b": []}, {}, "no images in b: no file ends in .jpg"),
        ({"a": [1, 2], "b": [3]}, {}, "b has one image, and one of each"),
        ({"a": [1], "b": [2]}, {"c": [3]}, "no class is called c"),
        ({"a": [1], "b": [2]}, {"a": []}, "val has no images"),
        ({"a": [1], "b": [2]}, {".": [3]}, "val has images of its own"),
    ],
)
def test_folders_that_are_wrong(tmp_path, train, val, words):
    (tmp_path / "train").mkdir()
    write(tmp_path / "train", **train)
    if val:
        write(tmp_path / "val", **val)
    with pytest.raises(ValueError, match=words):
        image_folder.open_folder(tmp_path)


def test_other_things_that_are_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nothing"):
        image_folder.open_folder(tmp_path / "nothing")
    write(tmp_path / "val", a=[1], b=[2])
    with pytest.raises(ValueError, match="val, but no folder train"):
        image_folder.open_folder(tmp_path)
    write(tmp_path / "train", a=[1], b=[2])
    (tmp_path / "valid").mkdir()
    with pytest.raises(ValueError, match="several folders of validation images"):
        image_folder.open_folder(tmp_path)
    (tmp_path / "valid").rmdir()
    with pytest.raises(ValueError, match=r"validation_share .* Received: 1\.0"):
        image_folder.open_folder(tmp_path, validation_share=1.0)
    images = image_folder.open_folder(tmp_path)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        images.training(SIZE, 0)
    with pytest.raises(ValueError, match="min_area must be in"):
        images.training(SIZE, 1, min_area=2.0)
    with pytest.raises(ValueError, match="min_area is for networks of photographs"):
        images.training(SIZE, 1, min_area=0.5, family="cifar")


def test_errors_of_files_name_them(tmp_path):
    write(tmp_path, a=[1, 2], b=[4, 5])
    images = image_folder.open_folder(tmp_path)
    for path in images.train_images.paths:
        path.write_bytes(b"")
    with pytest.raises(tf.errors.OpError, match="is no readable image"):
        next(iter(images.training(SIZE, 1)))
    with pytest.raises(image_files.UnreadableError):
        image_files.read(images.train_images.paths[0])
