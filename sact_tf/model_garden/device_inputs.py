"""Training sets that are small enough for the memory of the device, for the task."""

import os

import numpy as np
import tensorflow as tf

from sact_tf.data import augmentation, decoding
from sact_tf.device_data import DeviceData
from sact_tf.model_garden import configs, inputs

_READ_AT_ONCE = 1000  # images


def device_data(
    config: configs.ImageData, *, num_classes: int, image_size: int, field: str = "data"
) -> DeviceData:
    """All images of a training, in the memory of the device that computes.

    Args:
      config: with `on_device`.
      num_classes: of the network.
      image_size: side of its images.
      field: name of the config, for messages.

    Raises:
      ValueError: other data than small images, or see `inputs.dataset`.
    """
    size = config.image_size or image_size
    if config.preprocessing != "cifar" or size != augmentation.CIFAR_SIZE:
        raise ValueError(
            f"{field}.on_device is for images of {augmentation.CIFAR_SIZE} pixels with "
            f"preprocessing 'cifar'. Received: preprocessing={config.preprocessing!r}, "
            f"size {size}"
        )
    offset = inputs.label_offset(config, num_classes)

    def decode(example):
        image = decoding.decode(example["image"])
        return tf.ensure_shape(image, [size, size, 3]), example["label"] + offset

    # In the order of the files, each image once, and smaller batches than of training.
    whole = config.replace(
        is_training=False,
        global_batch_size=_READ_AT_ONCE,
        drop_remainder=False,
        cache=False,
        cycle_length=1,
        deterministic=True,
        seed=None,
    )
    with tf.init_scope(), tf.device("cpu:0"):
        batches = inputs.read(
            whole,
            field=field,
            decoder=inputs.decoder(config),
            parser=decode,
        )
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    images, labels = np.concatenate(images), np.concatenate(labels)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"{field}: labels of the data give classes {labels.min()} to "
            f"{labels.max()} of a network that has {num_classes}; see "
            f"{field}.first_label and task.model.num_classes"
        )
    device = tf.distribute.get_strategy().extended.worker_devices[0]
    with tf.init_scope():
        return DeviceData(
            images,
            labels,
            batch_size=config.global_batch_size,
            augment=augmentation.cifar_batch,
            # As everywhere, None is another order each time.
            seed=int.from_bytes(os.urandom(3)) if config.seed is None else config.seed,
            device=device,
        )
