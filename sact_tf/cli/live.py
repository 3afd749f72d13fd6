r"""Shows a network at work in the browser: an image, a slider, where it computes.

An image by file, camera or example; a slider for the halting bias; beside it what is on
the image, the ponder cost map over it, and what the answer cost in FLOPs and
milliseconds, with the plain network beside it. MODEL is what other commands take
(classification networks, and runs of detectors), the folder of a SavedModel that
`export-saved-model` wrote, or a model of a TensorFlow Serving. The page is on this
machine only unless --host says otherwise; it loads nothing from elsewhere.

    sact-tf live sact.keras
    sact-tf live runs/detector --images photographs/
    sact-tf live served/sact
    sact-tf live http://localhost:8501 --name sact
"""

import argparse
import pathlib
import sys

import tensorflow as tf

from sact_tf import errors, text_files
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser
from sact_tf.data import image_files
from sact_tf.live import page, photographs, server, sources
from sact_tf.models.config import FAMILIES
from sact_tf.models.options import has_halting_scores
from sact_tf.serving import checks, classification, detection

_PORT = 8610
_MAX_EXAMPLES = 24
_PREPROCESSING = ("central_crop", "whole_image")


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"{networks.KINDS}; the folder of an export, of one version or of all; or "
        "http://host:port (REST) or grpc://host:port of a TensorFlow Serving",
    )
    parser.add_argument(
        "--name", default="sact", help="of the model on a server (default: sact)"
    )
    parser.add_argument(
        "--labels",
        type=pathlib.Path,
        metavar="FILE",
        help="names of the classes, one on each line, for a detector that of the "
        "background first; or a COCO JSON with categories (default: those of the run "
        "or export, or numbers)",
    )
    parser.add_argument(
        "--image_size",
        type=int,
        help="side in pixels that a classification network's images are brought to "
        "(default: that of the run, or of the family)",
    )
    parser.add_argument(
        "--preprocessing",
        choices=_PREPROCESSING,
        help="central_crop: as photographs are evaluated (supplement A.1); "
        "whole_image: resized only; default: that of the run, or central_crop",
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="show detections from this score on (default: 0.5)",
    )
    parser.add_argument(
        "--images",
        type=pathlib.Path,
        metavar="FOLDER",
        help=f"images to offer, the first {_MAX_EXAMPLES} of those in a folder "
        "(default: digit scenes and photographs that scikit-learn has)",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to serve at; 0.0.0.0 lets other machines in (default: 127.0.0.1)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=_PORT,
        help=f"0 takes any that is free (default: {_PORT})",
    )


def run(flags: argparse.Namespace) -> dict:
    """Opens the network, serves the page until it is stopped."""
    command_line.require_at_least(flags, port=0, image_size=1)
    if not 0 <= flags.score <= 1:
        raise ValueError(f"--score must be 0 to 1. Received: {flags.score}")
    examples = _examples(flags.images)
    source, title = _open(flags)
    shown = page.Page(source, title, examples, flags.score)
    with server.Server(shown, flags.host, flags.port) as serving:
        print(f"{title}\n{serving.url} shows it; Ctrl+C ends it.", flush=True)
        if serving.is_open:
            print(
                "Whoever reaches this machine over the network can use the page.",
                file=sys.stderr,
            )
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
        finally:
            shown.close()
        return {"title": title, "url": serving.url}


def show(result: dict, flags: argparse.Namespace) -> str:
    """Says that it has ended."""
    return f"{result['url']} is closed."


def _examples(folder):
    """Image files by name; those that cannot be read are reported and left out."""
    if folder is None:
        return photographs.own_examples()
    if not folder.is_dir():
        raise ValueError(f"--images is to be a folder of images. Received: {folder}")
    found = {}
    for path, name in list(image_files.find_named([folder]).items())[:_MAX_EXAMPLES]:
        try:
            encoded = path.read_bytes()
            photographs.read(encoded, str(path))
        except (ValueError, OSError) as error:
            print(f"skipped: {errors.cause(error)}", file=sys.stderr)
            continue
        found[name] = encoded
    return found


def _open(flags):
    """The source, and what it is in a few words."""
    if sources.is_address(flags.model):
        _refuse(flags, "which is asked as it was exported")
        source = sources.Server(flags.model, flags.name)
        return source, f"{flags.name} at {flags.model}"
    folder = sources.version_folder(pathlib.Path(flags.model))
    if (folder / "saved_model.pb").exists() and not _is_of_keras(folder):
        _refuse(flags, "an export, which brings its own")
        return sources.Export(folder), str(folder)
    title = pathlib.Path(flags.model).name or flags.model
    if networks.is_run(flags.model):
        # Slow to import, and needed here only.
        from sact_tf.model_garden import detectors

        if detectors.is_run(flags.model):
            return _detector(flags), f"{title}, a detector"
    return _classifier(flags, title)


def _is_of_keras(folder):
    return (folder / "keras_metadata.pb").exists()


def _refuse(flags, what):
    names = ("labels", "image_size", "preprocessing")
    given = [f"--{name}" for name in names if getattr(flags, name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)} cannot be said of {flags.model}, {what}")


def _classifier(flags, title):
    found = networks.open_network(flags.model)
    network, size, crop = found.network, found.image_size, found.crop
    if flags.image_size is not None:
        size = flags.image_size
    if flags.preprocessing:
        crop = flags.preprocessing == "central_crop"
    labels = found.classes
    if flags.labels:
        labels = text_files.lines(flags.labels)
    limits = checks.Limits(min_side=FAMILIES[network.family].stride)

    def served(network):
        return classification.Classifier(
            network, size, crop=crop, labels=labels, limits=limits
        )

    config = network.config
    is_plain = config.adaptivity == "none" and config.sampling is None
    source = sources.Network(
        served(network),
        has_halting_scores(network.adaptivity),
        None if is_plain else served(sources.plain(network)),
    )
    kind = "plain" if is_plain else (config.sampling or config.adaptivity).upper()
    units = ", ".join(map(str, config.units))
    return source, f"{title}, {kind}, units {units}, {size} x {size} pixels"


def _detector(flags):
    from sact_tf.model_garden import detection_configs, detectors, labels

    given = [f for f in ("image_size", "preprocessing") if getattr(flags, f)]
    if given:
        raise ValueError(f"{flags.model} is a detector, which knows no --{given[0]}")
    run = detectors.load(flags.model)
    data, count = run.task.validation_data, run.task.model.num_classes
    scenes = isinstance(data, detection_configs.DetectionScenes)
    sides = [data.image_size] * 2 if scenes else [data.shorter_side, data.longer_side]
    names = labels.read(flags.labels, count) if flags.labels else run.class_names
    limits = checks.Limits(min_side=detection.MIN_SIDE)

    def served(detector):
        return detection.Detector(
            detector,
            count,
            shorter_side=sides[0],
            longer_side=sides[1],
            labels=names,
            limits=limits,
        )

    halts = has_halting_scores(run.detector.halting_adaptivity)
    plain = served(sources.plain(run.detector)) if halts else None
    return sources.Network(served(run.detector), halts, plain)


COMMAND = command_line.Command("live", __doc__, add_flags, run, show)

if __name__ == "__main__":
    # Every signature is traced once: TensorFlow's warnings of retracing mean others.
    tf.get_logger().setLevel("ERROR")
    COMMAND.main()
