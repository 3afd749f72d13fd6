import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from sact_tf.cli import coco_to_tfrecord
from sact_tf.data import digit_scenes
from sact_tf.model_garden import detection_configs, detection_inputs
from tests.data import pictures
from tests.detection import coco_files
from tests.tools.calling import call

SMALL = {"shorter_side": 96, "longer_side": 128}


def annotated(tmp_path, training=False, **options):
    return annotated_files(*coco_files.write(tmp_path), training, **options)


def annotated_files(file, folder, training=False, **options):
    config = detection_configs.DetectionData(
        annotation_file=str(file),
        image_dir=str(folder),
        is_training=training,
        drop_remainder=training,
        **{**SMALL, **options},
    )
    return detection_inputs.dataset(config, num_classes=5)


def test_images_have_their_own_sizes_and_boxes_follow(tmp_path):
    examples = list(annotated(tmp_path))
    assert [images.shape[1:3] for images, _ in examples] == [
        [96, 128],
        [128, 85],
        [96, 96],
        [128, 91],
    ]
    images, labels = examples[1]
    for box, category in zip(labels["boxes"][0], labels["classes"][0], strict=True):
        if category < 0:
            assert (box.numpy() == -1).all()
            continue
        ymin, xmin, ymax, xmax = np.round(box).astype(int)
        inside = images[0, ymin + 2 : ymax - 2, xmin + 2 : xmax - 2]
        # Its colour, unless another rectangle covers it.
        colour = {1: 0, 3: 1, 4: 2}[int(category)]
        assert np.median(inside[..., colour]) == 1.0 or category < 4
    assert labels["classes"].numpy()[0, :4].tolist() == [1, 3, 4, -1]
    truth = labels["groundtruths"]
    scale = labels["image_info"][0, 2].numpy()
    np.testing.assert_allclose(
        truth["boxes"][0, :3] * np.tile(scale, 2), labels["boxes"][0, :3], rtol=1e-5
    )
    assert int(truth["source_id"][0]) == 20 and int(truth["num_detections"][0]) == 3
    assert int(examples[3][1]["groundtruths"]["num_detections"][0]) == 0


def test_crowds_are_for_the_evaluation_only(tmp_path):
    (_, labels), *_ = annotated(tmp_path)
    assert labels["groundtruths"]["is_crowds"][0, :5].numpy().tolist() == [
        0,
        0,
        0,
        1,
        0,
    ]
    training = annotated(tmp_path / "training", True).take(12)
    first = [t for _, t in training if int(t["groundtruths"]["source_id"][0]) == 10]
    assert first
    for labels in first:
        assert labels["classes"][0, :5].numpy().tolist() == [1, 3, 4, 3, -1]


def test_some_images_are_mirrored_with_their_boxes(tmp_path):
    seen = set()
    for _, labels in annotated(tmp_path, True, seed=1).take(24):
        if int(labels["groundtruths"]["source_id"][0]) == 20:
            seen.add(tuple(labels["boxes"][0, 0].numpy().round(2)))
    (ymin, xmin, ymax, xmax), (_, other, _, end) = seen
    np.testing.assert_allclose([85 - xmax, 85 - xmin], [other, end], atol=0.02)
    assert ymax > ymin


def test_larger_batches_are_padded(tmp_path):
    images, labels = next(iter(annotated(tmp_path, global_batch_size=2)))
    assert images.shape == [2, 128, 128, 3]
    np.testing.assert_array_equal(labels["image_shapes"], [[96, 128], [128, 85]])
    assert not images[0, 96:].numpy().any() and not images[1, :, 85:].numpy().any()


def test_records_hold_the_same(tmp_path, monkeypatch, capsys):
    file, folder = coco_files.write(tmp_path / "data")
    arguments = ["--annotations", file, "--images", folder, "--shards", 2]
    arguments += ["--output", tmp_path / "records" / "train"]
    code, out, _ = call(monkeypatch, capsys, coco_to_tfrecord, *arguments)
    assert code == 0 and "4 images with 11 boxes" in out and "num_classes=5" in out
    config = detection_configs.DetectionData(
        input_path=str(tmp_path / "records" / "train-*"),
        is_training=False,
        drop_remainder=False,
        **SMALL,
    )
    by_id = {}
    for images, labels in detection_inputs.dataset(config, num_classes=5):
        by_id[int(labels["groundtruths"]["source_id"][0])] = images, labels
    for images, labels in annotated(tmp_path / "again"):
        other, others = by_id[int(labels["groundtruths"]["source_id"][0])]
        np.testing.assert_array_equal(images, other)
        for key in ("boxes", "classes", "image_info"):
            np.testing.assert_allclose(labels[key], others[key], rtol=1e-5)
        tf.nest.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
            labels["groundtruths"],
            others["groundtruths"],
        )
    code, _, errors = call(monkeypatch, capsys, coco_to_tfrecord, *arguments)
    assert code == 2 and "exists already" in errors
    arguments[arguments.index("--shards") + 1] = 0
    code, _, errors = call(monkeypatch, capsys, coco_to_tfrecord, *arguments)
    assert code == 2 and "--shards must be at least 1" in errors


def rotate(folder, orientation, kind="PNG"):
    """Puts the images of a data set down as a camera would that was held so."""
    for path in folder.glob("*.png"):
        upright = np.asarray(Image.open(path))
        path.write_bytes(pictures.rotated(upright, orientation, kind))


def same(examples, others):
    for (images, labels), (other_images, other_labels) in zip(
        examples, others, strict=True
    ):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_allclose(labels["boxes"], other_labels["boxes"], rtol=1e-5)


@pytest.mark.parametrize(("orientation", "kind"), [(3, "PNG"), (6, "TIFF")])
def test_rotated_images_are_upright(orientation, kind, tmp_path, monkeypatch, capsys):
    upright = list(annotated(tmp_path / "upright"))
    file, folder = coco_files.write(tmp_path / "rotated")
    rotate(folder, orientation, kind)
    options = {**SMALL, "is_training": False, "drop_remainder": False}
    config = detection_configs.DetectionData(
        annotation_file=str(file), image_dir=str(folder), **options
    )
    same(detection_inputs.dataset(config, num_classes=5), upright)
    output = tmp_path / "records" / "train"
    arguments = ["--annotations", file, "--images", folder, "--output", output]
    assert call(monkeypatch, capsys, coco_to_tfrecord, *arguments)[0] == 0
    config = detection_configs.DetectionData(input_path=f"{output}-*", **options)
    same(detection_inputs.dataset(config, num_classes=5), upright)
    # Readers who know nothing of EXIF find the same.
    for record in tf.data.TFRecordDataset(tf.io.gfile.glob(f"{output}-*")):
        example = tf.train.Example.FromString(record.numpy()).features.feature
        image = tf.io.decode_image(example["image/encoded"].bytes_list.value[0])
        assert image.shape[0] == example["image/height"].int64_list.value[0]


def test_annotations_of_what_is_stored_keep_it(tmp_path, monkeypatch, capsys):
    file, folder = coco_files.write(tmp_path, sizes=[(60, 80), (60, 90)])
    stored = list(annotated_files(file, folder))
    for path in folder.glob("*.png"):
        pixels = np.asarray(Image.open(path))
        path.write_bytes(pictures.encode(pixels, orientation=6))
    same(annotated_files(file, folder), stored)
    arguments = ["--annotations", file, "--images", folder]
    arguments += ["--output", tmp_path / "train"]
    assert call(monkeypatch, capsys, coco_to_tfrecord, *arguments)[0] == 0
    config = detection_configs.DetectionData(
        input_path=str(tmp_path / "train-*"), is_training=False, **SMALL
    )
    same(detection_inputs.dataset(config, num_classes=5), stored)


def test_files_that_cannot_be_used_are_named_before(tmp_path, monkeypatch, capsys):
    file, folder = coco_files.write(tmp_path)
    (folder / "000020.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ValueError, match=r"000020.png \(none of JPEG, PNG"):
        annotated_files(file, folder)
    arguments = ["--annotations", file, "--images", folder]
    arguments += ["--output", tmp_path / "train"]
    code, _, errors = call(monkeypatch, capsys, coco_to_tfrecord, *arguments)
    assert code == 2 and "000020.png (none of JPEG" in errors
    assert not list(tmp_path.glob("train*"))


def test_tfds_labels_become_category_ids():
    config = detection_configs.DetectionData(
        tfds_name="coco/2017",
        tfds_split="validation",
        is_training=False,
        drop_remainder=False,
        **SMALL,
    )
    # TFDS' own mock gives objects of unequal lengths.
    image = tf.io.encode_jpeg(tf.zeros([60, 80, 3], tf.uint8))
    example = {
        "image": image,
        "image/id": tf.constant(139, tf.int64),
        "objects": {
            "area": tf.constant([9, 9, 9], tf.int64),
            "bbox": tf.constant([[0.1, 0.2, 0.5, 0.6]] * 3),
            "is_crowd": tf.constant([False] * 3),
            "label": tf.constant([0, 11, 79], tf.int64),
        },
    }

    def as_dataset(builder, *args, **kwargs):
        assert isinstance(kwargs["decoders"]["image"], tfds.decode.SkipDecoding)
        return tf.data.Dataset.from_tensors(example)

    with tfds.testing.mock_data(as_dataset_fn=as_dataset):
        ((images, labels),) = detection_inputs.dataset(config, num_classes=91)
    assert images.shape == [1, 96, 128, 3]
    # Person, stop sign and toothbrush.
    assert labels["classes"][0, :4].numpy().tolist() == [1, 13, 90, -1]
    assert labels["groundtruths"]["source_id"].numpy().tolist() == [139]
    np.testing.assert_allclose(
        labels["boxes"][0, 0], [0.1 * 96, 0.2 * 128, 0.5 * 96, 0.6 * 128], rtol=1e-5
    )


def test_digit_scenes():
    config = detection_configs.DetectionScenes(
        is_training=False, num_scenes=6, global_batch_size=4, drop_remainder=False
    )
    batches = list(detection_inputs.dataset(config, num_classes=11))
    assert [images.shape[0] for images, _ in batches] == [4, 2]
    scene = next(
        iter(digit_scenes.dataset("validation", 4, max_digits=4, supervised=False))
    )
    images, labels = batches[0]
    np.testing.assert_array_equal(images, scene["image"])
    for boxes, classes, theirs, digits in zip(
        labels["boxes"],
        labels["classes"],
        scene["boxes"],
        scene["classes"],
        strict=True,
    ):
        there = digits >= 0
        count = int(tf.reduce_sum(tf.cast(there, tf.int32)))
        np.testing.assert_array_equal(boxes[:count], theirs[there])
        np.testing.assert_array_equal(classes[:count], digits[there] + 1)
        assert (classes[count:].numpy() == -1).all()
    ids = [int(i) for _, t in batches for i in t["groundtruths"]["source_id"]]
    assert ids == [1, 2, 3, 4, 5, 6]


def test_messages(tmp_path):
    file, folder = coco_files.write(tmp_path)

    def complain(match, num_classes=5, **options):
        config = detection_configs.DetectionData(**options)
        with pytest.raises(ValueError, match=match):
            detection_inputs.dataset(config, num_classes=num_classes, field="F")

    both = {"annotation_file": str(file), "image_dir": str(folder)}
    complain("Set one of F.input_path.*Received: none")
    complain("Set one of F.input_path", annotation_file=str(file))
    complain("Received: input_path, annotation_file", input_path="a", **both)
    complain("coco/2014 or coco/2017.*'voc'", tfds_name="voc")
    complain("num_classes must be 5 or more", 4, **both)
    complain("shorter_side must be positive", shorter_side=9, longer_side=8, **both)
    complain("global_batch_size must be at least 1", global_batch_size=0, **both)
    complain("max_num_instances must be at least 1", max_num_instances=0, **both)
    (folder / "000010.png").write_bytes(b"")
    complain(r"F: 1 of 4 images .*000010.png \(cannot be read: .+\)", **both)
    config = detection_configs.DetectionScenes(is_training=False)
    assert detection_inputs.dataset(config, num_classes=3)


def test_records_that_do_not_fit_the_detector(tmp_path, monkeypatch, capsys):
    file, folder = coco_files.write(tmp_path)
    arguments = ["--annotations", file, "--images", folder]
    arguments += ["--output", tmp_path / "train"]
    assert call(monkeypatch, capsys, coco_to_tfrecord, *arguments)[0] == 0
    config = detection_configs.DetectionData(
        input_path=str(tmp_path / "train-*"), is_training=False, **SMALL
    )
    # What is wrong and what it should be are said with the classes between them.
    with pytest.raises(tf.errors.InvalidArgumentError, match="data have classes") as e:
        list(detection_inputs.dataset(config, num_classes=3))
    assert "1 to 2; see task.model.num_classes" in str(e.value)
    # Ids of images are numbers in COCO, and often names elsewhere.
    (path,) = map(str, tmp_path.glob("train-*"))
    example = tf.train.Example.FromString(
        next(iter(tf.data.TFRecordDataset(path))).numpy()
    )
    example.features.feature["image/source_id"].bytes_list.value[:] = [b"street"]
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(example.SerializeToString())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"whole numbers, not"):
        list(detection_inputs.dataset(config, num_classes=5))


def test_no_boxes_at_all(tmp_path):
    file, folder = coco_files.write(tmp_path, annotations=[])
    config = detection_configs.DetectionData(
        annotation_file=str(file), image_dir=str(folder), **SMALL
    )
    for _, labels in detection_inputs.dataset(config, num_classes=5).take(2):
        assert (labels["boxes"].numpy() == -1).all()
        assert (labels["classes"].numpy() == -1).all()


def test_boxes_beyond_their_images_are_counted(tmp_path, caplog):
    beyond = [coco_files.box(10, 1, 500, 5, 10, 10), coco_files.box(10, 1, 5, 5, 9, 9)]
    file, folder = coco_files.write(tmp_path, annotations=beyond)
    config = detection_configs.DetectionData(
        annotation_file=str(file), image_dir=str(folder), **SMALL
    )
    with caplog.at_level("WARNING"):
        detection_inputs.dataset(config, num_classes=5, field="F")
    assert "F: 1 boxes have no area within their images" in caplog.text


def crowded(tmp_path, training, **options):
    """An image with 150 boxes and a crowd, and one with two boxes."""
    many = [
        coco_files.box(10, 1 + 2 * (n % 2), 4 * (n % 15), 4 * (n // 15), 3, 3)
        for n in range(150)
    ]
    few = [coco_files.box(20, 4, 5, 5 + n, 20, 20) for n in range(2)]
    crowd = {**coco_files.box(10, 1, 0, 0, 60, 40), "iscrowd": 1}
    file, folder = coco_files.write(
        tmp_path, ((60, 80), (90, 60)), annotations=[*many, crowd, *few]
    )
    config = detection_configs.DetectionData(
        annotation_file=str(file),
        image_dir=str(folder),
        is_training=training,
        global_batch_size=2,
        drop_remainder=training,
        **{**SMALL, **options},
    )
    return config, many


@pytest.mark.parametrize("max_num_instances", [100, 1])
def test_every_object_counts_in_an_evaluation(tmp_path, max_num_instances):
    config, many = crowded(tmp_path, False, max_num_instances=max_num_instances)
    ((_, labels),) = detection_inputs.dataset(config, num_classes=5)
    truth = labels["groundtruths"]
    assert truth["num_detections"].numpy().tolist() == [151, 2]
    assert labels["boxes_left_out"].numpy().tolist() == [0, 0]
    left, top, width, height = np.transpose([box["bbox"] for box in many])
    corners = np.stack([top, left, top + height, left + width], axis=1)
    np.testing.assert_allclose(truth["boxes"][0, :150], corners, atol=1e-4)
    for classes in (truth["classes"], labels["classes"]):
        assert classes.shape == [2, 151]
        assert classes[0, :150].numpy().tolist() == [b["category_id"] for b in many]
        assert classes[1].numpy().tolist() == [4, 4] + 149 * [-1]
    assert (truth["boxes"][1, 2:].numpy() == -1).all()


def test_what_training_leaves_out_is_counted_and_said(tmp_path, caplog):
    config, _ = crowded(tmp_path, True)
    with caplog.at_level("WARNING"):
        ((_, labels),) = detection_inputs.dataset(config, num_classes=5).take(1)
    assert "1 of 2 images have more than max_num_instances=100" in caplog.text
    assert "50 boxes are left out" in caplog.text  # The crowd would be anyway.
    assert sorted(labels["boxes_left_out"].numpy()) == [0, 50]
    assert labels["boxes"].shape == [2, 100, 4]
    config, _ = crowded(tmp_path / "enough", True, max_num_instances=150)
    caplog.clear()
    ((_, labels),) = detection_inputs.dataset(config, num_classes=5).take(1)
    assert not caplog.text and not labels["boxes_left_out"].numpy().any()
