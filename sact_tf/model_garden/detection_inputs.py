"""Images and boxes for the detection task (supplement A.2).

Elements are pairs of images, float32 [B, H, W, 3] in [-1, 1], and a dict:

    image_shapes: float32 [B, 2], height and width without padding.
    image_info: float32 [B, 4, 2], as in the Model Garden: original size, size, scale
      (y, x), offset (zero).
    boxes: float32 [B, M, 4], [ymin, xmin, ymax, xmax] in pixels; rows of -1 for none.
    classes: int32 [B, M]; -1 for none.
    boxes_left_out: int32 [B], boxes of the image that are not among these M.
    groundtruths: all boxes, crowds too, in pixels of the original image, for the
      evaluator.

M is `max_num_instances` in training. In an evaluation, where every object counts, it is
more if an image has more.

Images keep their aspect ratios, so each has a size of its own: a batch of one has no
padding; images of a larger batch are padded at the bottom and on the right to the size
of the largest, with zeros.
"""

import os

import tensorflow as tf
from absl import logging
from official.core import config_definitions as cfg
from official.vision.dataloaders import tf_example_decoder, tfds_detection_decoders

from sact_tf.data import coco, decoding, digit_scenes, image_files, preprocessing
from sact_tf.distribution import sharding
from sact_tf.model_garden import detection_configs, inputs


def dataset(
    config: cfg.DataConfig,
    *,
    num_classes: int,
    input_context: tf.distribute.InputContext | None = None,
    first_step: int = 0,
    field: str = "data",
) -> tf.data.Dataset:
    """Batches of images and labels; see the module.

    Endless, mirrored at random and shuffled for training, without boxes of crowds; each
    image once otherwise.

    Args:
      config: `detection_configs.DetectionData` or `.DetectionScenes`.
      num_classes: of the detector, background included.
      input_context: under a tf.distribute strategy; workers get different images.
      first_step: number of the first batch, for a run that is taken up. Digit scenes go
        on exactly; of other data it changes the seed, if there is one.
      field: name of the config, for messages: "task.train_data".

    Raises:
      ValueError: the config names no data, or wrong ones; the message says which field
        to set.
    """
    if config.global_batch_size < 1:
        raise ValueError(
            f"{field}.global_batch_size must be at least 1. Received: "
            f"{config.global_batch_size}"
        )
    if isinstance(config, detection_configs.DetectionScenes):
        return _scenes(config, input_context, first_step)
    sources = {
        "input_path": config.input_path,
        "tfds_name": config.tfds_name,
        "annotation_file": config.annotation_file,
    }
    given = [name for name, value in sources.items() if value]
    if len(given) != 1 or bool(config.annotation_file) != bool(config.image_dir):
        raise ValueError(
            f"Set one of {field}.input_path (TFRecord files), {field}.tfds_name "
            f"(coco/2014, coco/2017), or {field}.annotation_file and {field}.image_dir "
            f"together. Received: {', '.join(given) or 'none'}"
        )
    if not 0 < config.shorter_side <= config.longer_side:
        raise ValueError(
            f"{field}.shorter_side must be positive and not above longer_side. "
            f"Received: {config.shorter_side}, {config.longer_side}"
        )
    if config.max_num_instances < 1:
        raise ValueError(
            f"{field}.max_num_instances must be at least 1. Received: "
            f"{config.max_num_instances}"
        )
    config = inputs.seeded(config, input_context, first_step)

    def prepare(example):
        return _prepare(example, config, num_classes, input_context, field)

    def batch(examples, context):
        return examples.padded_batch(
            inputs.replica_batch_size(config, context),
            drop_remainder=config.drop_remainder,
            padding_values=_fills(examples.element_spec),
        )

    if config.annotation_file:
        examples = _annotated(config, num_classes, input_context, field)
        examples = examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
        return batch(examples, input_context).prefetch(tf.data.AUTOTUNE)
    return inputs.read(
        config,
        field=field,
        decoder=_tfds_decoder(config, field)
        if config.tfds_name
        else _RecordDecoder().decode,
        parser=prepare,
        batcher=batch,
        context=input_context,
    )


def _prepare(example, config, num_classes, context, field):
    image, boxes = example["image"], example["groundtruth_boxes"]
    classes = tf.cast(example["groundtruth_classes"], tf.int32)
    check = tf.debugging.Assert(
        tf.reduce_all((classes > 0) & (classes < num_classes)),
        [
            f"{field}: the data have classes",
            classes,
            f"but the detector has 1 to {num_classes - 1}; see task.model.num_classes",
        ],
    )
    source_id = example["source_id"]
    numbered = tf.debugging.Assert(
        tf.strings.regex_full_match(source_id, "-?[0-9]+"),
        [f"{field}: source ids of images must be whole numbers, not", source_id],
    )
    with tf.control_dependencies([check, numbered]):
        classes, source_id = tf.identity(classes), tf.identity(source_id)
    original = tf.cast(tf.shape(image)[:2], tf.float32)
    crowd = example["groundtruth_is_crowd"]
    truth = {
        "source_id": tf.strings.to_number(source_id, tf.int64),
        "height": example["height"],
        "width": example["width"],
        "num_detections": tf.shape(classes)[0],
        "boxes": boxes * tf.tile(original, [2]),
        "classes": classes,
        "areas": example["groundtruth_area"],
        "is_crowds": tf.cast(crowd, tf.int32),
    }
    if config.is_training:
        kept = tf.logical_not(crowd) & tf.reduce_all(boxes[:, 2:] > boxes[:, :2], 1)
        boxes, classes = boxes[kept], classes[kept]
        if config.horizontal_flip:
            seed = inputs.random_seed(config, context)
            mirrored = tf.random.stateless_uniform([], seed) < 0.5
            image = tf.where(mirrored, image[:, ::-1], image)
            ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
            flipped = tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1)
            boxes = tf.where(mirrored, flipped, boxes)
    image = preprocessing.detection(image, config.shorter_side, config.longer_side)
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    return image, _labels(
        size, original, boxes * tf.tile(size, [2]), classes, truth, config
    )


def _labels(size, original, boxes, classes, truth, config):
    count = tf.shape(classes)[0]
    kept = config.max_num_instances if config.is_training else count

    def widened(values):
        missing = tf.maximum(config.max_num_instances - count, 0)
        paddings = [[0, missing], *[[0, 0]] * (values.shape.rank - 1)]
        values = tf.pad(values[:kept], paddings, constant_values=-1)
        # Sampling must know how many there can be.
        width = config.max_num_instances if config.is_training else None
        return tf.ensure_shape(values, [width, *values.shape[1:]])

    return {
        "image_shapes": size,
        "image_info": tf.stack([original, size, size / original, [0.0, 0.0]]),
        "boxes": widened(boxes),
        "classes": widened(classes),
        "boxes_left_out": tf.maximum(count - kept, 0),
        "groundtruths": truth,
    }


class _RecordDecoder(tf_example_decoder.TfExampleDecoder):
    """The Garden's, but for what a file means (see `decoding`)."""

    def _decode_image(self, parsed_tensors):
        size = [parsed_tensors["image/height"], parsed_tensors["image/width"]]
        return decoding.decode(parsed_tensors["image/encoded"], tf.stack(size))


def _fills(spec):
    """What a batch is filled with, where images or their numbers of objects differ."""
    images, labels = tf.nest.map_structure(lambda part: tf.zeros([], part.dtype), spec)
    for objects in (labels, labels["groundtruths"]):
        for key in ("boxes", "classes"):
            objects[key] -= 1
    return images, labels


def _tfds_decoder(config, field):
    if not str(config.tfds_name).startswith("coco/"):
        raise ValueError(
            f"{field}.tfds_name must be coco/2014 or coco/2017; for other data there "
            f"are annotation_file and image_dir. Received: {config.tfds_name!r}"
        )
    ids = tf.constant(coco.CATEGORY_IDS, tf.int64)
    garden = tfds_detection_decoders.MSCOCODecoder()

    def decode(example):
        image = decoding.decode(example["image"])
        decoded = garden.decode({**example, "image": image})
        decoded["groundtruth_classes"] = tf.gather(ids, decoded["groundtruth_classes"])
        return decoded

    return decode


def _annotated(config, num_classes, context, field):
    """Examples as the Garden's decoders give them, from a COCO JSON and a folder."""
    try:
        annotations = coco.load(config.annotation_file, config.image_dir)
        coco.check_images(annotations)
    except (OSError, ValueError) as error:
        raise ValueError(f"{field}: {error}") from error
    if annotations.num_dropped:
        logging.warning(
            "%s: %d boxes have no area within their images and are left out.",
            field,
            annotations.num_dropped,
        )
    if annotations.num_classes > num_classes:
        raise ValueError(
            f"task.model.num_classes must be {annotations.num_classes} or more for the "
            f"categories of {config.annotation_file}. Received: {num_classes}"
        )
    boxes = [annotations.boxes[image["id"]] for image in annotations.images]
    if config.is_training:
        _say_what_is_left_out(boxes, config.max_num_instances, field)
    lengths = [len(of_image) for of_image in boxes]
    flat = [box for of_image in boxes for box in of_image]

    native = [image_files.is_native(annotations.path(i)) for i in annotations.images]

    def ragged(values, dtype, shape=()):
        values = tf.reshape(tf.constant(values, dtype), [-1, *shape])
        return tf.RaggedTensor.from_row_lengths(values, lengths)

    examples = tf.data.Dataset.from_tensor_slices(
        {
            "path": [os.fsencode(annotations.path(i)) for i in annotations.images],
            "size": [[image["height"], image["width"]] for image in annotations.images],
            "native": native,
            "source_id": [str(image["id"]) for image in annotations.images],
            "boxes": ragged([box["bbox"] for box in flat], tf.float32, (4,)),
            "classes": ragged([box["category_id"] for box in flat], tf.int64),
            "areas": ragged([box["area"] for box in flat], tf.float32),
            "crowds": ragged([bool(box["iscrowd"]) for box in flat], tf.bool),
        }
    )
    examples = sharding.shard(examples, context)
    if config.is_training:
        examples = examples.shuffle(len(annotations.images), seed=config.seed).repeat()

    def encoded(example):
        if all(native):  # Then all of the graph is TensorFlow's own.
            return tf.io.read_file(example["path"])
        return tf.cond(
            example["native"],
            lambda: tf.io.read_file(example["path"]),
            lambda: tf.ensure_shape(
                tf.numpy_function(
                    lambda path: image_files.contents(os.fsdecode(path)),
                    [example["path"]],
                    tf.string,
                ),
                [],
            ),
        )

    def decode(example):
        image = decoding.decode(encoded(example), example["size"])
        shape = tf.shape(image)
        size = tf.tile(tf.cast(shape[:2], tf.float32), [2])
        left, top, width, height = tf.unstack(example["boxes"], axis=1)
        corners = tf.stack([top, left, top + height, left + width], axis=1)
        return {
            "source_id": example["source_id"],
            "image": image,
            "height": tf.cast(shape[0], tf.int64),
            "width": tf.cast(shape[1], tf.int64),
            "groundtruth_classes": example["classes"],
            "groundtruth_is_crowd": example["crowds"],
            "groundtruth_area": example["areas"],
            "groundtruth_boxes": corners / size,
        }

    return examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _say_what_is_left_out(boxes, max_num_instances, field):
    counts = [sum(not box["iscrowd"] for box in of_image) for of_image in boxes]
    left_out = [
        count - max_num_instances for count in counts if count > max_num_instances
    ]
    if left_out:
        logging.warning(
            "%s: %d of %d images have more than max_num_instances=%d boxes, one of "
            "them %d. %d boxes are left out in training.",
            field,
            len(left_out),
            len(counts),
            max_num_instances,
            max(counts),
            sum(left_out),
        )


def _scenes(config, context, first_step):
    size = inputs.replica_batch_size(config, context)
    workers, worker = sharding.count(context), sharding.index(context)
    start = first_step * config.global_batch_size
    batches = digit_scenes.dataset(
        "train" if config.is_training else "validation",
        size,
        num_scenes=None if config.is_training else config.num_scenes,
        start=start,
        seed=config.seed or 0,
        max_digits=config.max_digits,
        size=config.image_size,
        supervised=False,
        shard=(workers, worker),
    )

    def labelled(number, scene):
        count = tf.shape(scene["image"])[0]
        first = (number * workers + worker) * size
        there = scene["classes"] >= 0
        boxes = tf.where(there[..., tf.newaxis], scene["boxes"], -1.0)
        classes = tf.where(there, scene["classes"] + 1, -1)
        # Digits that are there come first, except where one found no place.
        order = tf.argsort(tf.cast(~there, tf.int32), axis=1, stable=True)
        boxes, classes = (
            tf.gather(values, order, batch_dims=1) for values in (boxes, classes)
        )
        side = float(config.image_size)
        shapes = tf.fill([count, 2], side)
        sides = boxes[..., 2:] - boxes[..., :2]
        return scene["image"], {
            "image_shapes": shapes,
            "image_info": tf.stack(
                [shapes, shapes, tf.ones_like(shapes), tf.zeros_like(shapes)], axis=1
            ),
            "boxes": boxes,
            "classes": classes,
            "boxes_left_out": tf.zeros([count], tf.int32),
            "groundtruths": {
                "source_id": first + tf.range(count, dtype=tf.int64) + 1,
                "height": tf.fill([count], tf.constant(config.image_size, tf.int64)),
                "width": tf.fill([count], tf.constant(config.image_size, tf.int64)),
                "num_detections": tf.reduce_sum(tf.cast(there, tf.int32), axis=1),
                "boxes": boxes,
                "classes": classes,
                "areas": tf.reduce_prod(sides, axis=-1),
                "is_crowds": tf.zeros_like(classes),
            },
        }

    return batches.enumerate().map(labelled, num_parallel_calls=tf.data.AUTOTUNE)
