import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras

import sact_tf
from sact_tf.data import augmentation, digit_scenes, preprocessing
from sact_tf.model_garden import configs, inputs
from tests.golden import WHOLE
from tests.model_garden import records

TFDS = WHOLE.parent / "data" / "tfds"


def pictures(count, seed=0):
    generator = np.random.default_rng(seed)
    sizes = generator.integers(40, 90, [count, 2])
    return [generator.integers(0, 256, [*size, 3], np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A hundred images with labels 1 to 1000, some with boxes."""
    images = pictures(100)
    labels = np.linspace(1, 1000, 100).astype(int)
    boxes = [
        [[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 0.9, 1.0]][: index % 3]
        for index in range(len(images))
    ]
    folder = tmp_path_factory.mktemp("imagenet")
    for shard in range(2):
        part = slice(shard, None, 2)
        records.write(
            folder / f"train-0000{shard}-of-00002",
            images[part],
            labels[part],
            boxes[part],
        )
    return str(folder / "train-*"), labels


def test_records_for_training(imagenet):
    path, labels = imagenet
    config = configs.ImageData(input_path=path, global_batch_size=50)
    batches = inputs.dataset(config, num_classes=1001, image_size=32)
    seen = []
    for images, classes in batches.take(2):
        assert images.shape == [50, 32, 32, 3] and images.dtype == tf.float32
        assert np.min(images) >= -1 and np.max(images) <= 1
        assert classes.dtype == tf.int32
        seen.extend(classes.numpy())
    # Shuffled, beyond the ends of epochs; labels stay as they are in the records.
    assert set(seen) <= set(labels) and len(set(seen)) > 50
    assert seen != sorted(seen)


def test_records_for_evaluation(imagenet):
    path, labels = imagenet
    config = configs.ImageData(
        input_path=path, global_batch_size=30, is_training=False, drop_remainder=False
    )
    batches = list(inputs.dataset(config, num_classes=1001, image_size=32))
    assert [len(images) for images, _ in batches] == [30, 30, 30, 10]
    got = {}
    for images, classes in batches:
        got.update(zip(classes.numpy(), images.numpy(), strict=True))
    assert sorted(got) == sorted(labels)
    first = tf.io.decode_jpeg(tf.io.encode_jpeg(pictures(100)[0]))
    np.testing.assert_allclose(
        got[labels[0]], preprocessing.imagenet(first, 32), atol=1e-6
    )


def test_boxes_of_records_reach_the_crop(imagenet, monkeypatch):
    path, _ = imagenet
    seen = []

    def spy(shape, boxes, seed, areas):
        tf.py_function(lambda b: seen.append(b.numpy().tolist()), [boxes], [])
        return sample(shape, boxes, seed, areas)

    sample = augmentation.sample_crop
    monkeypatch.setattr(augmentation, "sample_crop", spy)
    config = configs.ImageData(input_path=path, global_batch_size=100)
    for _ in inputs.dataset(config, num_classes=1001, image_size=32).take(1):
        pass
    assert {len(boxes) for boxes in seen} == {0, 1, 2}
    both = next(boxes for boxes in seen if len(boxes) == 2)
    np.testing.assert_allclose(both, [[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 0.9, 1.0]])


@pytest.mark.parametrize(
    ("num_classes", "tfds_name", "first_label", "offset"),
    [
        (1001, "", None, 0),
        (1000, "", None, -1),
        (1001, "imagenet2012", None, 1),
        (1000, "imagenet2012", None, 0),
        (1001, "", 0, 1),
        (10, "", None, 0),
        (10, "", 1, -1),
    ],
)
def test_label_offset(num_classes, tfds_name, first_label, offset):
    config = configs.ImageData(tfds_name=tfds_name, first_label=first_label)
    assert inputs.label_offset(config, num_classes) == offset


def test_labels_that_do_not_fit_are_refused(imagenet):
    config = configs.ImageData(input_path=imagenet[0], global_batch_size=100)
    batches = inputs.dataset(config, num_classes=10, image_size=32, field="task.x")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"task.x.first_label"):
        next(iter(batches))


@pytest.mark.parametrize("training", [True, False])
def test_tfds_imagenet(training):
    config = configs.ImageData(
        tfds_name="imagenet2012",
        tfds_split="train",
        global_batch_size=10,
        is_training=training,
        shuffle_buffer_size=10,
    )
    with tfds.testing.mock_data(num_examples=20):
        raw = tfds.load("imagenet2012", split="train").take(20)
        wanted = [int(example["label"]) + 1 for example in raw]
        batches = inputs.dataset(config, num_classes=1001, image_size=48)
        got = []
        for images, labels in batches.take(2):
            assert images.shape == [10, 48, 48, 3]
            assert np.min(images) >= -1 and np.max(images) <= 1
            got.extend(labels.numpy())
    assert sorted(got) == sorted(wanted)


@pytest.mark.skipif(not TFDS.is_dir(), reason="../shared/data/tfds is not here")
def test_cifar_is_not_encoded_again():
    config = configs.ImageData(
        tfds_name="cifar10",
        tfds_split="test",
        tfds_data_dir=str(TFDS),
        preprocessing="cifar",
        global_batch_size=20,
        is_training=False,
    )
    images, labels = next(iter(inputs.dataset(config, num_classes=10, image_size=32)))
    raw = tfds.load("cifar10", split="test", data_dir=TFDS, download=False)
    for example, image, label in zip(raw, images, labels, strict=False):
        wanted = tf.image.per_image_standardization(example["image"])
        np.testing.assert_allclose(image, wanted, atol=1e-5)
        assert int(label) == int(example["label"])


def test_digit_scenes_go_on_where_they_stopped():
    config = configs.DigitScenes(global_batch_size=4, image_size=64, seed=3)
    options = {"num_classes": 10, "image_size": 128}
    whole = list(inputs.dataset(config, **options).take(3))
    rest = next(iter(inputs.dataset(config, first_step=2, **options)))
    np.testing.assert_array_equal(whole[2][0], rest[0])
    assert rest[0].shape == [4, 64, 64, 3]


def test_digit_scenes_are_shared_out_to_pipelines():
    config = configs.DigitScenes(global_batch_size=4, image_size=64)
    whole = next(iter(digit_scenes.dataset("train", 4, start=4, size=64)))[0]
    for pipeline in range(2):
        context = tf.distribute.InputContext(2, pipeline, 2)
        part = inputs.dataset(
            config,
            num_classes=10,
            image_size=64,
            input_context=context,
            first_step=1,
        )
        np.testing.assert_array_equal(
            next(iter(part))[0], whole[2 * pipeline : 2 * pipeline + 2]
        )


def test_plain_fit(imagenet):
    config = configs.ImageData(input_path=imagenet[0], global_batch_size=8)
    model = sact_tf.ResNet(units=(1, 2, 1, 1), base_channels=2)
    model.compile(
        "sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    batches = inputs.dataset(config, num_classes=1001, image_size=32)
    history = model.fit(batches, steps_per_epoch=2, verbose=0)
    assert np.isfinite(history.history["loss"][0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Set task.train_data.input_path to TFRecord files, or"),
        ({"input_path": "a", "tfds_name": "b"}, "not both"),
        ({"input_path": "/nowhere/train-*"}, "task.train_data.input_path: /nowhere"),
        ({"input_path": "/nowhere/a"}, "there is no file /nowhere/a"),
        ({"input_path": "a", "global_batch_size": 0}, "data.global_batch_size must"),
        ({"input_path": "a", "preprocessing": "x"}, "data.preprocessing must be one"),
        ({"input_path": "a", "cache": True}, "data.cache would keep augmented"),
        (
            {
                "tfds_name": "imagenet2012",
                "tfds_split": "train",
                "tfds_data_dir": "an empty folder",
            },
            "set task.train_data.tfds_data_dir",
        ),
    ],
)
def test_messages(options, message, tmp_path):
    if "tfds_data_dir" in options:  # TFDS makes folders where there are none.
        options = options | {"tfds_data_dir": str(tmp_path)}
    config = configs.ImageData(**{"global_batch_size": 2, **options})
    with pytest.raises(ValueError, match=message):
        inputs.dataset(config, num_classes=10, image_size=32, field="task.train_data")


def test_png_in_records(tmp_path):
    path = records.write(
        tmp_path / "r", pictures(4), [0, 1, 2, 3], encode=tf.io.encode_png
    )
    for training in (True, False):
        config = configs.ImageData(
            input_path=path,
            global_batch_size=4,
            is_training=training,
            shuffle_buffer_size=1,
        )
        images, labels = next(
            iter(inputs.dataset(config, num_classes=4, image_size=32))
        )
        assert sorted(labels.numpy()) == [0, 1, 2, 3] and images.shape[0] == 4
