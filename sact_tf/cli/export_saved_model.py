r"""A network becomes a SavedModel for TensorFlow Serving.

Takes JPEG and PNG files of any size, decodes and preprocesses them as in evaluation,
and answers with what is on them - classes and probabilities, or the boxes of a detector
in pixels of the image - and with what each image cost. Written as OUTPUT/NAME/VERSION
with warm-up requests, the label map and documentation in it, and the configuration
files of a server beside it (docs/serving.md).

    sact-tf export-saved-model --model sact.keras --output served
    sact-tf export-saved-model --model runs/digits --output served --name digits
    sact-tf export-saved-model --model sact.keras --output served \
        --image_size 352 --labels imagenet_labels.txt
    sact-tf export-saved-model --model runs/detector --output served \
        --name objects --labels instances_val2017.json
"""

import argparse
import pathlib

import tensorflow as tf

from sact_tf import text_files
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser
from sact_tf.data import preprocessing
from sact_tf.models.config import FAMILIES
from sact_tf.serving import checks, classification, detection, export, servable

_PREPROCESSING = ("central_crop", "whole_image")
_TOP_K = 5
_OF_CLASSIFICATION = ("image_size", "preprocessing", "top_k")
_SIDES = ("shorter_side", "longer_side")
_OF_DETECTION = (*_SIDES, "num_proposals", "proposal_threshold")


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--model",
        required=True,
        help=networks.KINDS,
    )
    parser.add_argument(
        "--output", type=pathlib.Path, required=True, help="folder of a server's models"
    )
    parser.add_argument(
        "--name", default="sact", help="of the model on the server (default: sact)"
    )
    parser.add_argument(
        "--version", type=int, help="default: one more than the highest there is"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the version if it is there"
    )
    parser.add_argument(
        "--image_size",
        type=int,
        help="side in pixels that every image is brought to; default: that of the run, "
        f"or {_sizes()}",
    )
    for side in _SIDES:
        parser.add_argument(
            f"--{side}",
            type=int,
            help=f"of a detector's images, in pixels: the {side.replace('_', ' ')} is "
            "brought to this, unless the other one says less; default: as in the run",
        )
    parser.add_argument(
        "--num_proposals",
        type=int,
        help="how many regions of an image a detector looks at, unless a request says "
        "otherwise (default: all)",
    )
    parser.add_argument(
        "--proposal_threshold",
        type=float,
        help="regions of a lower score are not looked at, unless a request says "
        "otherwise (default: as in the run)",
    )
    parser.add_argument(
        "--preprocessing",
        choices=_PREPROCESSING,
        help="central_crop: as photographs are evaluated (supplement A.1); "
        "whole_image: resized only; default: that of the run, or central_crop",
    )
    parser.add_argument(
        "--labels",
        type=pathlib.Path,
        metavar="FILE",
        help="names of the classes, one on each line, for a detector that of the "
        "background first; or a COCO JSON with categories; default: those that the "
        "run has kept of its data, or numbers",
    )
    parser.add_argument(
        "--top_k", type=int, help=f"classes in an answer (default: {_TOP_K})"
    )
    parser.add_argument(
        "--max_batch_size",
        type=int,
        help=f"images in a request (default: {checks.Limits.max_batch_size}; for a "
        f"detector {detection.MAX_BATCH_SIZE})",
    )
    parser.add_argument(
        "--max_pixels",
        type=int,
        default=checks.Limits.max_pixels,
        help=f"height times width of an image (default: {checks.Limits.max_pixels})",
    )


def run(flags: argparse.Namespace) -> dict:
    """Loads the network, writes the SavedModel."""
    if flags.labels and not flags.labels.is_file():
        raise ValueError(f"There is no file of labels {flags.labels}")
    exported = _servable(flags)
    written = export.write(
        exported,
        flags.output,
        flags.name,
        version=flags.version,
        overwrite=flags.overwrite,
    )
    configs = export.write_server_configs(flags.output, flags.name, exported.limits)
    return {
        "folder": str(written.folder),
        "name": written.name,
        "version": written.version,
        "signatures": list(written.signatures),
        "ops": list(written.ops),
        "warmup_requests": written.warmup_requests,
        "server_configs": [str(path) for path in configs],
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    folder = pathlib.Path(result["folder"])
    client = command_line.called("serving_client")
    return f"""{folder}: signatures {", ".join(result["signatures"])};
{len(result["ops"])} kinds of operations, all of them stock; \
{result["warmup_requests"]} warm-up requests. Inputs and outputs: \
{folder / export.DOCUMENTATION}

To serve:
  tensorflow_model_server --port=8500 --rest_api_port=8501 \\
    --model_config_file={flags.output.absolute() / export.MODELS}
To ask:
  {client} --server localhost:8500 --name {result["name"]} IMAGE"""


def _servable(flags: argparse.Namespace) -> servable.ImageServable:
    """What is to be exported: here another kind of model is added."""
    if networks.is_run(flags.model):
        # Slow to import, and needed here only.
        from sact_tf.model_garden import detectors, fpn_export

        if detectors.is_run(flags.model):
            _refuse(flags, _OF_CLASSIFICATION, "a detector")
            return _detector(flags, detectors.load(flags.model))
        if fpn_export.is_run(flags.model):
            others = (*_OF_CLASSIFICATION, *_OF_DETECTION, "labels")
            _refuse(flags, others, "a detector of the Model Garden's")
            limits = _limits(flags, detection.MAX_BATCH_SIZE, detection.MIN_SIDE)
            return fpn_export.PyramidDetector(flags.model, limits)
    _refuse(flags, _OF_DETECTION, "a classification network")
    return _classifier(flags)


def _refuse(flags, names, what):
    given = [f"--{name}" for name in names if getattr(flags, name) is not None]
    if given:
        raise ValueError(f"{flags.model} is {what}, which knows no {', '.join(given)}")


def _limits(flags, max_batch_size, min_side):
    if flags.max_batch_size is not None:
        max_batch_size = flags.max_batch_size
    return checks.Limits(max_batch_size, flags.max_pixels, min_side)


def _classifier(flags):
    network, image_size, crop, labels = networks.open_network(flags.model)
    if flags.preprocessing:
        crop = flags.preprocessing == "central_crop"
    if flags.labels:
        labels = text_files.lines(flags.labels)
    return classification.Classifier(
        network,
        image_size if flags.image_size is None else flags.image_size,
        crop=crop,
        labels=labels,
        top_k=_TOP_K if flags.top_k is None else flags.top_k,
        limits=_limits(
            flags, checks.Limits.max_batch_size, FAMILIES[network.family].stride
        ),
    )


def _detector(flags, run):
    from sact_tf.model_garden import detection_configs, labels

    data, count = run.task.validation_data, run.task.model.num_classes
    scenes = isinstance(data, detection_configs.DetectionScenes)
    sides = [data.image_size] * 2 if scenes else [data.shorter_side, data.longer_side]
    for index, name in enumerate(_SIDES):
        if getattr(flags, name) is not None:
            sides[index] = getattr(flags, name)
    return detection.Detector(
        run.detector,
        count,
        shorter_side=sides[0],
        longer_side=sides[1],
        labels=labels.read(flags.labels, count) if flags.labels else run.class_names,
        limits=_limits(flags, detection.MAX_BATCH_SIZE, detection.MIN_SIDE),
        num_proposals=flags.num_proposals,
        proposal_threshold=flags.proposal_threshold,
    )


def _sizes():
    sizes = preprocessing.SIZES.items()
    return ", ".join(f"{size} ({family})" for family, size in sizes)


COMMAND = command_line.Command("export_saved_model", __doc__, add_flags, run, show)

if __name__ == "__main__":
    # Every signature is traced once: TensorFlow's warnings of retracing mean others.
    tf.get_logger().setLevel("ERROR")
    COMMAND.main()
