r"""What a network costs on a fixed camera's video if it looks where something moved.

Every frame runs twice, whole and with a mask of what has changed since the frame before
(or since the first): beyond the first unit of each block, only changed positions are
computed. Printed are FLOPs and time of both, frame by frame. Where nothing moved,
features are only those of the first units: answers are those of such a network, not the
ones of whole frames (docs/networks.md, "Given masks").

    sact-tf fixed-camera --model sact.keras street.mp4
    sact-tf fixed-camera --model runs/detector --threshold 0.2 frames/
"""

import argparse
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from sact_tf import masks
from sact_tf.cli import command_line, networks
from sact_tf.cli.flags import Parser
from sact_tf.data import image_files, preprocessing
from sact_tf.evaluation import comparison, report
from sact_tf.layers.adaptive_blocks import EXECUTIONS

_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "frames",
        nargs="+",
        help=f"a video ({', '.join(_VIDEOS)}), or image files, folders (searched) or "
        "glob patterns, in order",
    )
    parser.add_argument(
        "--model",
        required=True,
        help=f"{networks.KINDS}; runs of classification or of detection",
    )
    parser.add_argument(
        "--execution",
        choices=EXECUTIONS,
        help="where units are computed; by default as the model was made",
    )
    parser.add_argument(
        "--reference_frame",
        choices=("previous", "first"),
        default="previous",
        help="the frame that others are compared with (default: previous)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.1,
        help="difference from which on a pixel has changed, of values in [-1, 1] "
        "(default: 0.1)",
    )
    parser.add_argument(
        "--dilation",
        type=int,
        default=8,
        help="pixels around a change that are computed, too (default: 8)",
    )
    parser.add_argument(
        "--tile_size",
        type=int,
        default=1,
        help="side in pixels of tiles that are computed as a whole (default: 1)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.0,
        help="of a tile that must have changed, more than this (default: 0)",
    )
    parser.add_argument(
        "--longer_side",
        type=int,
        default=0,
        help="pixels that frames are resized to, for classification; default: as they "
        "are",
    )
    parser.add_argument(
        "--max_frames", type=int, default=50, help="frames to run (default: 50)"
    )
    parser.add_argument(
        "--turns",
        type=int,
        default=2,
        help="runs of each frame, of which the fastest counts (default: 2)",
    )
    parser.renamed(reference="reference_frame", tile="tile_size")


def run(flags: argparse.Namespace) -> dict:
    """Runs the frames."""
    command_line.require_at_least(
        flags, tile_size=1, longer_side=0, max_frames=2, turns=1
    )
    tf.get_logger().setLevel("ERROR")
    frames, count = _frames(flags)
    rows = _measure(_opened(flags), frames, count, flags)
    return {"frames": rows, "mean": _mean(rows)}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return _table([*result["frames"], result["mean"]])


class _Seen(NamedTuple):
    """A frame.

    Attributes:
      images: float32 [1, H, W, 3], as the network takes it.
      compared: [1, H, W, 3], as it is compared with others.
    """

    images: tf.Tensor
    compared: tf.Tensor


class _Model(NamedTuple):
    """A network or a detector.

    Attributes:
      see: makes a _Seen of a frame, uint8 [H, W, 3].
      run: gives the cost record of images under a mask, or None.
    """

    see: Callable[[np.ndarray], _Seen]
    run: Callable[[tf.Tensor, tf.Tensor | None], dict]


def _opened(flags) -> _Model:
    if networks.is_run(flags.model):
        # Slow to import, and needed here only.
        from sact_tf.model_garden import detectors

        if detectors.is_run(flags.model):
            return _detector(detectors.load(flags.model, flags.execution))
    return _classifier(networks.load(flags.model), flags)


def _classifier(network, flags):
    if flags.execution:
        network = comparison.with_execution(network, flags.execution)

    def see(pixels):
        if flags.longer_side:
            pixels = _resized(pixels, flags.longer_side)
        frame = pixels[np.newaxis]
        return _Seen(preprocessing.normalize(frame, network.family), frame)

    @tf.function(autograph=False)
    def run(images, mask=None):
        return network(images, training=False, with_record=True, active_mask=mask)

    return _Model(see, run)


def _detector(run):
    data = run.task.validation_data

    def see(pixels):
        if hasattr(data, "shorter_side"):
            seen = preprocessing.detection(pixels, data.shorter_side, data.longer_side)
        else:  # Digit scenes are taken as they are.
            seen = preprocessing.normalize(pixels, "imagenet")
        return _Seen(seen[tf.newaxis], seen[tf.newaxis])

    def detect(images, mask=None):
        return run.detector.detect(images, active_mask=mask)["record"]

    return _Model(see, detect)


def _resized(pixels, longer_side):
    scale = longer_side / max(pixels.shape[:2])
    sides = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    image = Image.fromarray(pixels).resize(sides, Image.Resampling.BILINEAR)
    return np.asarray(image)


def _frames(flags) -> tuple[Iterator[tuple[str, np.ndarray]], int]:
    """Names and pixels, uint8 [H, W, 3], of at most so many frames; how many, about."""
    videos = [path for path in flags.frames if path.lower().endswith(_VIDEOS)]
    if not videos:
        found = image_files.find(flags.frames)[: flags.max_frames]
        if len(found) < 2:
            raise ValueError(
                f"Two frames are needed to see what moves. Received: {found[0]}"
            )
        return ((path.name, image_files.read(path)) for path in found), len(found)
    if len(flags.frames) > 1:
        raise ValueError(
            "Give one video, or images. Received: " + ", ".join(flags.frames)
        )
    if not pathlib.Path(videos[0]).is_file():
        raise FileNotFoundError(f"There is no video {videos[0]}.")
    return _video(videos[0], flags.max_frames)


def _video(path, at_most):
    """Frames of a video, and how many there are, as far as the file says."""
    try:
        import cv2
    except ImportError as error:
        raise ValueError(
            "Videos are read by OpenCV, which is not installed (pip install "
            "opencv-python-headless). Or give a folder of frames"
        ) from error
    capture = cv2.VideoCapture(path)
    count = min(at_most, max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))))

    def frames():
        for number in range(at_most):
            there, pixels = capture.read()
            if not there:
                if number < 2:
                    raise ValueError(
                        f"{path} is no video that OpenCV can read, or has fewer than "
                        f"two frames. Received: {number} frames"
                    )
                return
            yield str(number), cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)

    return frames(), count


def _measure(model, frames, count, flags):
    rows, reference, shape = [], None, None
    bar = tqdm(frames, "running", total=count or None, unit="frame", file=sys.stderr)
    for name, pixels in bar:
        if shape not in (None, pixels.shape):
            raise ValueError(
                f"All frames must have one size. Received: frame {name} with "
                f"{pixels.shape[1]} x {pixels.shape[0]} pixels after {shape[1]} x "
                f"{shape[0]}"
            )
        shape, seen = pixels.shape, model.see(pixels)
        if reference is None:  # Traced, and compiled for, before anything is timed.
            for mask in (None, tf.ones(seen.images.shape[:3], tf.bool)):
                model.run(seen.images, mask)
        else:
            mask = masks.changed(
                reference, seen.compared, flags.threshold, flags.dilation
            )
            if flags.tile_size > 1:
                mask = masks.in_tiles(mask, flags.tile_size, "average", flags.share)
            rows.append({"frame": name, **_costs(model.run, seen.images, mask, flags)})
        if reference is None or flags.reference_frame == "previous":
            reference = seen.compared
    return rows


def _costs(run, images, mask, flags):
    """Of one frame: both ways in turns, the fastest of each."""
    ways = {"whole": None, "masked": mask}
    seconds, flops = dict.fromkeys(ways, np.inf), {}
    for _ in range(flags.turns):
        for name, given in ways.items():
            began = time.perf_counter()
            record = run(images, given)
            # Fetching a number waits for all of the computation.
            tf.reshape(record["blocks"][-1]["output"], [-1])[0].numpy()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            flops[name] = int(record["flops"][0])
    return {
        "active": float(tf.reduce_mean(tf.cast(mask, tf.float32))),
        "flops": flops["whole"],
        "flops_masked": flops["masked"],
        "flops_left": flops["masked"] / flops["whole"],
        "milliseconds": 1e3 * seconds["whole"],
        "milliseconds_masked": 1e3 * seconds["masked"],
        "time_left": seconds["masked"] / seconds["whole"],
    }


def _mean(rows):
    mean = {
        key: float(np.mean([row[key] for row in rows]))
        for key in rows[0]
        if key != "frame"
    }
    for name, of in (("flops", "flops"), ("time", "milliseconds")):
        mean[f"{name}_left"] = mean[f"{of}_masked"] / mean[of]
    return {"frame": "mean", **mean}


def _table(rows):
    head = ["frame", "active", "FLOPs", "masked", "left", "ms", "masked", "left"]
    table = [
        [
            row["frame"],
            f"{row['active']:.3f}",
            f"{row['flops']:.3g}",
            f"{row['flops_masked']:.3g}",
            f"{row['flops_left']:.3f}",
            f"{row['milliseconds']:.1f}",
            f"{row['milliseconds_masked']:.1f}",
            f"{row['time_left']:.3f}",
        ]
        for row in rows
    ]
    return report.pipe_table([head, *table])


COMMAND = command_line.Command("fixed_camera", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
