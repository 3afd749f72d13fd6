"""Where the time of a detector goes, and what SACT leaves of it.

  detector  whole detectors and each of their parts: a plain one, and SACT at the
            paper's operating point with region heads of which a share of the regions
            stops after the first unit
  crops     ways to crop regions and to pool the crops, which give the same numbers

Networks have random weights; units run where they are told to, at full price (see
tools.benchmark). Everything that is compared runs in turns, in one process, and what is
printed is the fastest of all turns. The parts of a detector are functions of their own:
their sum shows what is lost or won where they are one.
"""

import argparse
import functools
import math
import os
import resource
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from sact_tf.cli import command_line
from sact_tf.cli.benchmark import forced, settings, timing
from sact_tf.cli.flags import Parser
from sact_tf.detection.config import NUM_BLOCKS, STRIDE, FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.evaluation import report
from sact_tf.geometry import Extent
from sact_tf.layers import crop_and_resize as cropping
from sact_tf.layers.crop_and_resize import crop_and_resize
from sact_tf.layers.series import Stack
from sact_tf.models.config import BackboneConfig

#: In the order in which they run.
PARTS = (
    "extractor",
    "proposals",
    "crops",
    "block 4",
    "classes and boxes",
    "suppression",
)
#: Further arguments of the networks.
NETWORK: dict = {}
#: Of the crops, each as a whole number of crops at once and of iterations at a time.
CHUNKS = ((1, 1), (2, 1), (2, 2), (4, 1), (5, 1), (8, 1), (16, 1), (16, 2), (64, 1))


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("what", choices=["detector", "crops"], help="see above")
    parser.add_argument(
        "--image_size",
        choices=settings.SIZES,
        default="600x848",
        help="size of the image (600x848)",
    )
    parser.add_argument(
        "--depth", type=int, choices=(50, 101), default=101, help="of the network (101)"
    )
    parser.add_argument(
        "--point",
        choices=settings.DETECTION_POINTS,
        default="tau 0.005",
        help='operating point of the feature extractor ("tau 0.005"); ResNet-101 only',
    )
    parser.add_argument(
        "--stopping",
        type=float,
        nargs="+",
        default=[0.0, 0.5],
        metavar="SHARE",
        help="of the regions, that stop after block 4's first unit; a detector for "
        "each (0.0 0.5)",
    )
    parser.add_argument(
        "--num_proposals", type=int, default=300, help="regions of the image (300)"
    )
    parser.add_argument(
        "--chunk_bytes",
        type=int,
        default=cropping.CHUNK_BYTES,
        help=f"memory of crops before they are pooled ({cropping.CHUNK_BYTES})",
    )
    parser.add_argument("--turns", type=int, default=5, help="turns of each (5)")


def run(flags: argparse.Namespace) -> dict:
    """Measures."""
    command_line.require_at_least(flags, num_proposals=1, turns=1, chunk_bytes=1)
    for share in flags.stopping:
        if not 0 <= share <= 1:
            raise ValueError(f"--stopping must be shares, 0 to 1. Received: {share}")
    tf.get_logger().setLevel("ERROR")
    tf_keras.utils.set_random_seed(0)
    usual = cropping.CHUNK_BYTES, cropping.CHUNK
    try:
        if flags.what == "detector":
            cropping.CHUNK_BYTES = flags.chunk_bytes
        else:  # Crops are compared by their number, whatever memory they take.
            cropping.CHUNK_BYTES = cropping.CHUNK = 2**62
        rows = {"detector": detectors, "crops": crops}[flags.what](flags)
    finally:
        cropping.CHUNK_BYTES, cropping.CHUNK = usual
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"rows": rows, "peak_memory_gib": memory}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    lines = {"detector": _lines_of_detectors, "crops": _lines_of_crops}[flags.what]
    table = report.pipe_table(lines(result["rows"]))
    memory = f"Peak memory of this process: {result['peak_memory_gib']:.1f} GiB."
    return f"{table}\n\nMilliseconds. {memory}"


# --- Detectors and their parts --------------------------------------------------------


class Stopping(NamedTuple):
    """A halting score at its full price that stops the last regions of a batch.

    Attributes:
      logit: the score's own, one for each region.
      share: float32 scalar, of the regions, that stop.
    """

    logit: NamedTuple
    share: tf.Tensor

    def __call__(self, geometry):
        """A score of one for what stops, next to nothing for others."""
        logit = tf.cast(self.logit(geometry), tf.float32)
        count = tf.shape(logit)[0]
        rank = tf.cast(tf.range(count), tf.float32) + 0.5
        stops = rank > (1.0 - self.share) * tf.cast(count, tf.float32)
        # 0 * logit: what is computed must not be optimised away.
        return tf.where(stops, 30.0, -4.595) + 0.0 * logit


def stop_regions(block, share: float) -> None:
    """Makes a share of the regions of an ACT block stop after its first unit."""

    def forced(logits, training=None, valid=None):
        own = logits(training, valid).stacked()
        count = len(own)
        return Stack(Stopping(own.whole, tf.fill([count], share)), count, own.tables)

    block.logits = functools.partial(forced, block.logits)


def make_detector(flags, stopping: float | None = None, execution="auto") -> FasterRCNN:
    """A detector of the flags' size with random weights.

    Args:
      flags: of the command.
      stopping: share of the regions that stops after a unit; None for a detector that
        halts nowhere.
      execution: of its blocks.
    """
    plain = stopping is None
    options = {"units": flags.depth, "freeze_batch_norm": True, **NETWORK}
    backbone = BackboneConfig(
        adaptivity="none" if plain else "sact", execution=execution, **options
    )
    config = FasterRCNNConfig(
        backbone=backbone,
        head_adaptivity="none" if plain else "act",
        num_proposals=flags.num_proposals,
    )
    detector = FasterRCNN(config)
    # What random weights make of a large image is so large that every box would be the
    # whole of it. So boxes are those of the anchors.
    detector.proposal_head.boxes.kernel.assign(
        tf.zeros_like(detector.proposal_head.boxes.kernel)
    )
    if plain:
        return detector
    height, width = settings.SIZES[flags.image_size]
    maps = [
        (math.ceil(height / stride), math.ceil(width / stride)) for stride in (4, 8, 16)
    ]
    means = settings.DETECTION_POINTS[flags.point]
    # Means are of ResNet-101's units: the same shares of those of other depths.
    counts = [len(block.units) for block in detector.extractor.blocks]
    means = [
        1 + (mean - 1) * (count - 1) / (whole - 1)
        for mean, count, whole in zip(means, counts, settings.UNITS, strict=False)
    ]
    forced.force_halting(detector.extractor, maps, means, "blob")
    stop_regions(detector.box_head.block, stopping)
    return detector


def parts_of(detector: FasterRCNN, images: tf.Tensor) -> tuple[dict, dict]:
    """Functions without arguments, one for each part and for all of them together.

    Args:
      detector: the detector.
      images: [1, H, W, 3].

    Returns:
      The functions by name; and what the whole detector says (see FasterRCNN.detect).
    """
    config, heads = detector.config, detector.box_head
    shapes = tf.cast([images.shape[1:3]], tf.float32)
    extent = Extent.of_images(shapes).strided(STRIDE)

    def extract(images):
        maps = detector.extractor(images, training=False)
        return maps[detector.extractor.levels[-1]]

    def propose(features):
        return detector.proposal_head(heads.preactivated(features), shapes).proposals

    def crop(features, boxes):
        return crop_and_resize(
            features,
            boxes,
            stride=STRIDE,
            crop_size=config.crop_size,
            pool_size=config.pool_size,
            crops_at_once=config.crops_at_once,
            extent=extent,
            images=tf.zeros(tf.shape(boxes)[:1], tf.int32),
        )

    def block(crops):
        return heads.block(crops, training=False)["output"]

    def classify(maps):
        x = tf.nn.relu(heads.norm(maps, training=False))
        x = tf.reduce_mean(x, axis=[1, 2])
        return heads.classes(x)[tf.newaxis], heads.boxes(x)[tf.newaxis]

    def suppress(logits, boxes, *proposals):
        first = type(found)(*proposals)
        return detector._filter(logits, boxes, first, shapes)["detection_scores"]

    def function(run, *unknown):
        """As in a detector: sizes of images and numbers of regions are not known."""
        return tf.function(run, input_signature=list(unknown), autograph=False)

    def spec(*shape):
        return tf.TensorSpec(shape)

    run = {"extractor": function(extract, spec(None, None, None, 3))}
    features = run["extractor"](images)
    channels = features.shape[3]
    run["proposals"] = function(propose, spec(None, None, None, channels))
    found = run["proposals"](features)
    count = found.boxes.shape[1]
    boxes = found.boxes[0]
    run["crops"] = function(crop, spec(None, None, None, channels), spec(None, 4))
    made = run["crops"](features, boxes)
    run["block 4"] = function(block, spec(None, *made.shape[1:]))
    out = run["block 4"](made)
    run["classes and boxes"] = function(classify, spec(None, *out.shape[1:]))
    logits, encoded = run["classes and boxes"](out)
    run["suppression"] = tf.function(suppress, autograph=False)
    whole = functools.partial(detector.detect, images, shapes)
    inputs = (
        (images,),
        (features,),
        (features, boxes),
        (made,),
        (out,),
        (logits, encoded, *found),
    )
    candidates = {
        name: functools.partial(_run, run[name], *given)
        for name, given in zip(PARTS, inputs, strict=True)
    }
    candidates["whole"] = lambda: whole()["scores"].numpy()
    said = whole()
    if int(said["record"]["head"]["num_regions"][0]) != count:
        raise ValueError(
            f"The random weights propose {said['record']['head']['num_regions'][0]} "
            f"regions, not the {count} of --num_proposals: that is no fair clock."
        )
    return candidates, said


def _run(function, *inputs):
    # Fetching one number waits for all of the computation, and copies nothing.
    return tf.reshape(tf.nest.flatten(function(*inputs))[0], [-1])[0].numpy()


def detectors(flags) -> list[dict]:
    """Rows of what each detector takes."""
    height, width = settings.SIZES[flags.image_size]
    images = tf.random.uniform([1, height, width, 3], -1, 1)
    made = {"plain": make_detector(flags)}
    for share in flags.stopping:
        name = f"SACT, {share:.0%} of regions stop"
        made[name] = make_detector(flags, share)
    candidates, said = {}, {}
    for name, detector in made.items():
        parts, said[name] = parts_of(detector, images)
        candidates.update({(name, part): run for part, run in parts.items()})
    seconds = timing.fastest(candidates, flags.turns, "detectors")
    rows, plain = [], None
    for name, found in said.items():
        record = found["record"]
        flops = [int(record["flops"][0]), int(record["head"]["flops"][0])]
        row = {
            "what": name,
            "milliseconds": 1e3 * seconds[name, "whole"],
            "parts": {part: 1e3 * seconds[name, part] for part in PARTS},
            "extractor_flops": flops[0],
            "head_flops": flops[1],
        }
        plain = plain or row
        row["share_of_time"] = row["milliseconds"] / plain["milliseconds"]
        before = plain["extractor_flops"] + plain["head_flops"]
        row["share_of_flops"] = sum(flops) / before
        rows.append(row)
    return rows


def _lines_of_detectors(rows):
    lines = [["what", *PARTS, "sum", "whole", "of plain", "FLOPs"]]
    return lines + [
        [
            row["what"],
            *(f"{row['parts'][part]:.0f}" for part in PARTS),
            f"{sum(row['parts'].values()):.0f}",
            f"{row['milliseconds']:.0f}",
            f"{row['share_of_time']:.2f}",
            f"{row['share_of_flops']:.2f}",
        ]
        for row in rows
    ]


# --- Crops ----------------------------------------------------------------------------


def crops(flags) -> list[dict]:
    """Rows of what each way to crop takes."""
    height, width = settings.SIZES[flags.image_size]
    config = FasterRCNNConfig(backbone=BackboneConfig(**NETWORK))
    size = [math.ceil(side / STRIDE) for side in (height, width)]
    features = tf.random.normal([1, *size, config.backbone.channels(NUM_BLOCKS - 1)])
    boxes = _boxes(flags.num_proposals, height, width)
    images = tf.zeros([flags.num_proposals], tf.int32)
    ways = {
        f"{count} crops at once, {iterations} at a time": {
            "crops_at_once": count,
            "parallel_iterations": iterations,
        }
        for count, iterations in CHUNKS
    }
    ways["one call"] = {"crops_at_once": flags.num_proposals}

    def way(name, options):
        def run(features, boxes, images):
            return crop_and_resize(
                features,
                boxes,
                stride=STRIDE,
                crop_size=config.crop_size,
                pool_size=config.pool_size,
                images=images,
                **options,
            )

        count = flags.num_proposals if name == "one call" else None
        specs = [
            tf.TensorSpec([None, None, None, features.shape[3]]),
            tf.TensorSpec([count, 4]),
            tf.TensorSpec([count], tf.int32),
        ]
        return tf.function(run, input_signature=specs, autograph=False)

    functions = {name: way(name, options) for name, options in ways.items()}
    expected = functions["one call"](features, boxes, images)
    differences = {
        name: float(tf.reduce_max(tf.abs(function(features, boxes, images) - expected)))
        for name, function in functions.items()
    }
    seconds = timing.fastest(
        {
            name: functools.partial(_run, function, features, boxes, images)
            for name, function in functions.items()
        },
        flags.turns,
        "crops",
    )
    one = seconds["one call"]
    return [
        {
            "what": name,
            "milliseconds": 1e3 * value,
            "of_one_call": value / one,
            "largest_difference": differences[name],
        }
        for name, value in seconds.items()
    ]


def _lines_of_crops(rows):
    lines = [["what", "ms", "of one call", "largest difference"]]
    return lines + [
        [
            row["what"],
            f"{row['milliseconds']:.0f}",
            f"{row['of_one_call']:.2f}",
            f"{row['largest_difference']:.1g}",
        ]
        for row in rows
    ]


def _boxes(count, height, width):
    """Boxes of all sizes within an image: float32 [count, 4]."""
    first = tf.random.stateless_uniform([count, 2], [1, 2])
    second = tf.random.stateless_uniform([count, 2], [3, 4])
    corners = tf.concat([tf.minimum(first, second), tf.maximum(first, second)], axis=1)
    return corners * tf.constant([height, width] * 2, tf.float32)


COMMAND = command_line.Command("benchmark_detector", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
