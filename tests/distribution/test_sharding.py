import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from sact_tf.distribution import sharding
from sact_tf.model_garden import configs, detection_configs, detection_inputs, inputs
from tests.detection import coco_files
from tests.model_garden import records

WORKERS = 2


def synchronous():
    """Contexts of two workers that take a step together."""
    return [tf.distribute.InputContext(WORKERS, i, WORKERS) for i in range(WORKERS)]


def asynchronous():
    """Contexts as the chief makes them: numbers of workers are tensors."""
    return [
        tf.distribute.InputContext(WORKERS, tf.constant(index, tf.int64), 1)
        for index in range(WORKERS)
    ]


@pytest.mark.parametrize("context", [synchronous, asynchronous])
def test_shard(context):
    whole = tf.data.Dataset.range(7)
    parts = [list(sharding.shard(whole, c).as_numpy_iterator()) for c in context()]
    assert parts == [[0, 2, 4, 6], [1, 3, 5]]
    assert sharding.shard(whole, None) is whole


def image_ids(dataset, batches):
    """What identifies the images of some batches: a label, all different."""
    return [int(label) for _, labels in dataset.take(batches) for label in labels]


def write(folder, files, images):
    """TFRecords of small images with labels 0, 1, 2, ..."""
    rng = np.random.default_rng(0)
    for file in range(files):
        labels = range(file * images, (file + 1) * images)
        pixels = [rng.integers(0, 255, (32, 32, 3), np.uint8) for _ in labels]
        records.write(folder / f"train-{file}", pixels, labels, encode=tf.io.encode_png)
    return str(folder / "train-*")


@pytest.mark.parametrize("context", [synchronous, asynchronous])
@pytest.mark.parametrize("files", [1, 4])
@pytest.mark.parametrize("seed", [None, 3])
def test_records(tmp_path, context, files, seed):
    count = 24
    config = configs.ImageData(
        input_path=write(tmp_path, files, count // files),
        preprocessing="cifar",
        global_batch_size=4,
        # File after file: or the first images would be of several epochs.
        shuffle_buffer_size=1,
        cycle_length=1,
        seed=seed,
        first_label=0,
    )
    per_replica = 2 if context is synchronous else 4
    parts = [
        image_ids(
            inputs.dataset(config, num_classes=count, image_size=32, input_context=c),
            count // WORKERS // per_replica,
        )
        for c in context()
    ]
    # An epoch: each image once, on one of the workers.
    assert sorted(parts[0] + parts[1]) == list(range(count))
    evaluated = [
        image_ids(
            inputs.dataset(
                config.replace(is_training=False, drop_remainder=False),
                num_classes=count,
                image_size=32,
                input_context=c,
            ),
            -1,
        )
        for c in context()
    ]
    assert sorted(evaluated[0] + evaluated[1]) == list(range(count))


@pytest.mark.parametrize("context", [synchronous, asynchronous])
def test_tfds(context):
    # The stand-in has one file and gives every worker the same random images.
    with tfds.testing.mock_data(num_examples=8):
        config = configs.ImageData(
            tfds_name="cifar10",
            tfds_split="train",
            preprocessing="cifar",
            global_batch_size=4,
            shuffle_buffer_size=1,
        )
        for c in context():
            part = inputs.dataset(
                config, num_classes=10, image_size=32, input_context=c
            )
            images, labels = next(iter(part))
            assert images.shape[0] == labels.shape[0] == 4 // c.num_replicas_in_sync


def test_workers_that_shuffle_alike_augment_differently(tmp_path):
    config = configs.ImageData(
        input_path=write(tmp_path, 1, 4), global_batch_size=2, seed=1
    )
    first, second = (
        inputs.random_seed(config, context).numpy() for context in asynchronous()
    )
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("context", [synchronous, asynchronous])
@pytest.mark.parametrize("training", [True, False])
def test_annotated_images(tmp_path, context, training):
    file, folder = coco_files.write(tmp_path)
    config = detection_configs.DetectionData(
        annotation_file=str(file),
        image_dir=str(folder),
        is_training=training,
        drop_remainder=False,
        shorter_side=64,
        longer_side=96,
        global_batch_size=WORKERS if context is synchronous else 1,
    )

    def ids(context):
        data = detection_inputs.dataset(config, num_classes=5, input_context=context)
        batches = data.take(4) if training else data
        return {int(i) for _, b in batches for i in b["groundtruths"]["source_id"]}

    whole = ids(None) if not training else None
    first, second = (ids(c) for c in context())
    assert first and second and not first & second
    if not training:
        assert first | second == whole


@pytest.mark.parametrize("context", [synchronous, asynchronous])
def test_detection_scenes(context):
    config = detection_configs.DetectionScenes(
        is_training=False,
        image_size=64,
        num_scenes=8,
        global_batch_size=4,
        drop_remainder=False,
    )

    def ids(context):
        data = detection_inputs.dataset(config, num_classes=11, input_context=context)
        return [int(i) for _, b in data for i in b["groundtruths"]["source_id"]]

    first, second = (ids(c) for c in context())
    assert sorted(first + second) == ids(None) == list(range(1, 9))
