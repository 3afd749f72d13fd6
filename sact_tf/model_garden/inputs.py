"""Images and labels for the task, and for plain `model.fit`.

```python
data = configs.ImageData(
    tfds_name="cifar10",
    tfds_split="train",
    preprocessing="cifar",
    global_batch_size=128,
)
model.fit(inputs.dataset(data, num_classes=10, image_size=32), steps_per_epoch=390)
```
"""

import tensorflow as tf
from official.core import config_definitions as cfg
from official.core import input_reader

from sact_tf.data import augmentation, decoding, digit_scenes, preprocessing
from sact_tf.distribution import sharding
from sact_tf.model_garden import configs

_BOX_SIDES = ("ymin", "xmin", "ymax", "xmax")
_IMAGENET_CLASSES = 1000


def dataset(
    config: cfg.DataConfig,
    *,
    num_classes: int,
    image_size: int,
    input_context: tf.distribute.InputContext | None = None,
    first_step: int = 0,
    field: str = "data",
) -> tf.data.Dataset:
    """Batches of (images float32 [B, S, S, 3], labels int32 [B]).

    Endless, augmented and shuffled for training; each image once otherwise.

    Args:
      config: `configs.ImageData` or `configs.DigitScenes`.
      num_classes: of the network.
      image_size: S, unless the config says another one.
      input_context: under a tf.distribute strategy; workers get different images.
      first_step: number of the first batch, for a run that is taken up. Digit scenes go
        on exactly; of other data, which are shuffled, it changes the seed, if there is
        one.
      field: name of the config, for messages: "task.train_data".

    Raises:
      ValueError: the config names no data, or wrong ones; the message says which field
        to set.
    """
    size = config.image_size or image_size
    if config.global_batch_size < 1:
        raise ValueError(
            f"{field}.global_batch_size must be at least 1. Received: "
            f"{config.global_batch_size}"
        )
    if isinstance(config, configs.DigitScenes):
        return _digit_scenes(config, size, input_context, first_step)
    return _images(config, num_classes, size, input_context, first_step, field)


def label_offset(config: configs.ImageData, num_classes: int) -> int:
    """What to add to the labels of the data to get the classes of the network.

    ImageNet has labels 1 to 1000 in the Garden's TFRecords and 0 to 999 in TFDS; a
    network of 1001 classes wants 1 to 1000 (0 is the background), one of 1000 classes
    0 to 999. Other data are taken to have the labels that the network has, unless
    `first_label` says otherwise: then it becomes class 0.
    """
    imagenet = config.preprocessing == "imagenet" and num_classes in (
        _IMAGENET_CLASSES,
        _IMAGENET_CLASSES + 1,
    )
    if not imagenet:
        return -(config.first_label or 0)
    first_label = config.first_label
    if first_label is None:
        first_label = 0 if config.tfds_name else 1
    return num_classes - _IMAGENET_CLASSES - first_label


def _digit_scenes(config, size, context, first_step):
    return digit_scenes.dataset(
        "train" if config.is_training else "validation",
        replica_batch_size(config, context),
        num_scenes=None if config.is_training else config.num_scenes,
        start=first_step * config.global_batch_size,
        seed=config.seed or 0,
        size=size,
        shard=(sharding.count(context), sharding.index(context)),
    )


def _images(config, num_classes, size, context, first_step, field):
    if config.preprocessing not in configs.PREPROCESSING:
        raise ValueError(
            f"{field}.preprocessing must be one of {', '.join(configs.PREPROCESSING)}. "
            f"Received: {config.preprocessing!r}"
        )
    if config.cache and config.is_training:
        raise ValueError(
            f"{field}.cache would keep augmented images, the same in every epoch. "
            "Set it to false"
        )
    config = seeded(config, context, first_step)
    offset = label_offset(config, num_classes)

    def prepare(example):
        label = tf.cast(example["label"] + offset, tf.int32)
        check = tf.debugging.Assert(
            (label >= 0) & (label < num_classes),
            [
                f"{field}: a label of the data gives class",
                label,
                f"of a network that has {num_classes}; see {field}.first_label and "
                "task.model.num_classes",
            ],
        )
        with tf.control_dependencies([check]):
            label = tf.identity(label)
        return _prepare(example, config, size, context), label

    return read(
        config,
        field=field,
        decoder=decoder(config),
        parser=prepare,
        context=context,
    )


def replica_batch_size(
    config: cfg.DataConfig, context: tf.distribute.InputContext | None
) -> int:
    """How many images of a batch come to each replica."""
    size = config.global_batch_size
    return context.get_per_replica_batch_size(size) if context else size


def seeded(
    config: cfg.DataConfig, context: tf.distribute.InputContext | None, first_step: int
) -> cfg.DataConfig:
    """A config whose seed gives other orders from `first_step` on, in training.

    Workers that share the data must shuffle alike before each takes its part: they get
    a seed, if there is none.
    """
    if not config.is_training:
        return config
    seed = config.seed
    if seed is None and sharding.count(context) > 1:
        seed = 0
    return config if seed is None else config.replace(seed=seed + first_step)


def random_seed(
    config: cfg.DataConfig, context: tf.distribute.InputContext | None
) -> tf.Tensor:
    """A seed, int32 [2], for what is random about an image: a new one at each call.

    Workers that shuffle alike still augment differently.
    """
    seed = tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32, seed=config.seed)
    return tf.bitwise.bitwise_xor(seed, tf.cast(sharding.index(context), tf.int32))


def read(
    config: cfg.DataConfig, *, field: str, decoder, parser, batcher=None, context=None
) -> tf.data.Dataset:
    """Reads TFRecords or TFDS with the Garden's reader.

    Args:
      config: with `input_path` or `tfds_name`.
      field: name of the config, for messages.
      decoder: of a record or an element of TFDS; images of TFDS come encoded.
      parser: of what the decoder gives.
      batcher: of a data set and a context; plain batches by default.
      context: tf.distribute.InputContext or None.

    Raises:
      ValueError: there are no such data.
    """
    _check_source(config, field)
    if config.tfds_name:
        # Decoding comes after shuffling, and JPEG only decodes the crop.
        config = config.replace(tfds_skip_decoding_feature="image")
    reader = input_reader.InputReader(
        config,
        decoder_fn=decoder,
        parser_fn=parser,
        transform_and_batch_fn=batcher,
    )
    try:
        return reader.read(input_context=context)
    except (AssertionError, OSError, ValueError) as error:
        if not config.tfds_name:
            raise
        where = config.tfds_data_dir or "~/tensorflow_datasets"
        raise ValueError(
            f"TFDS cannot give {config.tfds_name}, split {config.tfds_split}, from "
            f"{where}. Prepare it there, or set {field}.tfds_data_dir (for instance "
            f"with --params_override={field}.tfds_data_dir=FOLDER). "
            f"({str(error).strip().splitlines()[0] if str(error) else error!r})"
        ) from error


def _check_source(config, field):
    if bool(config.input_path) == bool(config.tfds_name):
        raise ValueError(
            f"Set {field}.input_path to TFRecord files, or {field}.tfds_name to a data "
            f"set of TFDS, not both: for instance with --params_override={field}."
            f"input_path=FOLDER/train-*. Received: input_path={config.input_path!r}, "
            f"tfds_name={config.tfds_name!r}"
        )
    if not config.input_path:
        return
    try:
        files = input_reader.match_files(config.input_path)
    except ValueError as error:
        raise ValueError(f"{field}.input_path: {error}") from error
    missing = [file for file in files if not tf.io.gfile.exists(file)]
    if missing:
        raise ValueError(
            f"{field}.input_path: there is no file {missing[0]}. Give TFRecord files, "
            "comma-separated, or a pattern such as FOLDER/train-*"
        )


def decoder(config: configs.ImageData):
    """What `read` makes of a record or an element of TFDS: image, label and boxes."""
    return _decode_tfds if config.tfds_name else _record_decoder(config)


def _decode_tfds(example):
    return {
        "image": example["image"],
        "label": tf.cast(example["label"], tf.int64),
        "boxes": tf.zeros([0, 4]),
    }


def _record_decoder(config):
    features = {
        config.image_field_key: tf.io.FixedLenFeature([], tf.string),
        config.label_field_key: tf.io.FixedLenFeature([], tf.int64),
        **{
            f"image/object/bbox/{side}": tf.io.VarLenFeature(tf.float32)
            for side in _BOX_SIDES
        },
    }

    def decode(record):
        example = tf.io.parse_single_example(record, features)
        sides = [
            tf.sparse.to_dense(example[f"image/object/bbox/{side}"])
            for side in _BOX_SIDES
        ]
        return {
            "image": example[config.image_field_key],
            "label": example[config.label_field_key],
            "boxes": tf.stack(sides, axis=1),
        }

    return decode


def _prepare(example, config, size, context):
    if config.is_training:
        seed = random_seed(config, context)
        if config.preprocessing == "imagenet":
            return augmentation.imagenet(example["image"], example["boxes"], size, seed)
    image = decoding.decode(example["image"])
    if not config.is_training:
        return preprocessing.EVALUATION[config.preprocessing](image, size)
    return augmentation.cifar(image, seed)
