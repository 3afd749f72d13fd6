r"""A COCO annotation file and its folder of images as TFRecords.

Checks the annotations and every image first, and says what is wrong; then the Model
Garden's own script writes the records. Images that are stored rotated, or are neither
JPEG nor PNG, become upright PNGs. For `task.train_data.input_path`:

    sact-tf coco-to-tfrecord --annotations instances_train2017.json \
        --images train2017 --output records/train --shards 64
"""

import argparse
import hashlib
import pathlib
import shutil
import tempfile

from official.vision.data import create_coco_tf_record as garden
from official.vision.data import tfrecord_lib
from tqdm import tqdm

from sact_tf.checkpoints.files import refuse_existing
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.data import coco, image_files


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--annotations", required=True, help="COCO JSON, such as instances_val2017.json"
    )
    parser.add_argument("--images", required=True, help="folder of the images")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        required=True,
        help="beginning of the files' names: OUTPUT-00000-of-00064.tfrecord, ...",
    )
    parser.add_argument("--shards", type=int, default=1, help="number of files")


def run(flags: argparse.Namespace) -> dict:
    """Checks and writes."""
    command_line.require_at_least(flags, shards=1)
    annotations = coco.load(flags.annotations, flags.images)
    coco.check_images(annotations, _bar(annotations, "checking"))
    return {
        "files": _write(annotations, flags.output, flags.shards),
        "images": len(annotations.images),
        "boxes": sum(map(len, annotations.boxes.values())),
        "boxes_dropped": annotations.num_dropped,
        "num_classes": annotations.num_classes,
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return (
        f"{result['images']} images with {result['boxes']} boxes in {flags.shards} "
        f"files {flags.output}-*; {result['boxes_dropped']} boxes beyond their images "
        f"left out. The detector needs num_classes={result['num_classes']}."
    )


def _bar(annotations, what):
    return lambda images: tqdm(
        images, desc=what, total=len(annotations.images), unit="image", leave=False
    )


def _write(annotations, output, shards):
    """Writes the records, all of them or none; returns the files."""
    names = [
        f"{output.name}-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)
    ]
    for name in names:
        refuse_existing(output.parent / name)
    output.parent.mkdir(parents=True, exist_ok=True)
    examples = garden.generate_annotations(
        _bar(annotations, "writing")(annotations.images),
        [str(annotations.image_folder)],
        img_to_obj_annotation=annotations.boxes,
        id_to_name_map=annotations.categories,
    )
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".writing-") as folder:
        tfrecord_lib.write_tf_record_dataset(
            str(pathlib.Path(folder) / output.name),
            examples,
            lambda image, *rest: _example(annotations, image, *rest),
            shards,
            multiple_processes=0,
        )
        for name in names:
            shutil.move(pathlib.Path(folder) / name, output.parent / name)
    return [str(output.parent / name) for name in names]


def _example(annotations, image, *rest):
    """The Garden's example, with a file that all readers of records take alike."""
    example, skipped = garden.create_tf_example(image, *rest)
    path = annotations.path(image)
    size = image["height"], image["width"]
    encoded = image_files.plain(path, size)
    features = example.features.feature
    if [encoded] != list(features["image/encoded"].bytes_list.value):
        digest = hashlib.sha256(encoded).hexdigest().encode()
        for key, value in (
            ("image/encoded", encoded),
            ("image/format", b"png"),
            ("image/key/sha256", digest),
        ):
            features[key].bytes_list.value[:] = [value]
    return example, skipped


COMMAND = command_line.Command("coco_to_tfrecord", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
