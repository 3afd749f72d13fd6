"""Where the time of dense SACT goes that a plain network does not take.

For a unit of each block of ResNet-101: the plain unit; the same unit with its mask, its
weighted sum and the score of its input, as dense execution runs it; and each of these
by itself. All run in turns, in one process, on the same inputs; what is printed is the
fastest of all turns. "passes" is how often the map's features are read or written, and
"floor" what so many passes take at the rate at which this machine copies features.
"""

import argparse
import functools
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from sact_tf.cli import command_line
from sact_tf.cli.benchmark.settings import SIZES
from sact_tf.cli.benchmark.timing import fastest
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import report
from sact_tf.geometry import Dense
from sact_tf.geometry.maps import linear_score
from sact_tf.layers.maker import Maker
from sact_tf.layers.residual_units import BottleneckUnit

_MAKE = Maker()
#: What a unit of dense SACT does beside a plain one, and passes over features of each:
#: the residual times the mask; the residual times what is left, and its sum with the
#: output; the score. (The sum of features and residual is in both.)
PASSES = {"mask": 2, "weight": 2, "sum": 3, "score": 1}


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--image_size",
        choices=SIZES,
        default="600x848",
        help="size of the images (600x848)",
    )
    parser.add_argument("--batch_size", type=int, default=1, help="images at once")
    parser.add_argument("--turns", type=int, default=20, help="turns of each (20)")


def run(flags: argparse.Namespace) -> list[dict]:
    """Measures."""
    command_line.require_at_least(flags, batch_size=1, turns=1)
    tf_keras.utils.set_random_seed(0)
    return [row for block in (1, 2, 3, 4) for row in _of_block(flags, block)]


def show(result: list[dict], flags: argparse.Namespace) -> str:
    """The result for people."""
    head = ["block", "what", "ms", "of the plain unit", "passes", "floor, ms"]
    lines = [
        [
            str(row["block"]),
            row["what"],
            f"{row['milliseconds']:.2f}",
            f"{row['share']:.3f}",
            str(row["passes"] or ""),
            f"{row['floor']:.2f}" if row["passes"] else "",
        ]
        for row in result
    ]
    return report.pipe_table([head, *lines])


def _of_block(flags, block):
    stride, width = 2 ** (block + 1), 64 * 2 ** (block - 1)
    size = [-(-side // stride) for side in SIZES[flags.image_size]]
    shape = [flags.batch_size, *size]
    unit = BottleneckUnit(4 * width, width, make=_MAKE, name="unit")
    features = tf.random.normal([*shape, 4 * width])
    residual = tf.random.normal(features.shape)
    active = tf.random.uniform(shape) < 0.5
    left = tf.where(active, tf.random.uniform(shape), 0.0)
    kernel, offset = tf.random.normal([10, 4 * width]), tf.zeros([10])

    def dense(features, output, active, left):
        geometry = Dense(features)
        geometry.state = geometry.state._replace(output=output)
        logits = geometry.linear_score(kernel, offset)
        # The score decides about the unit: here by as much as nothing.
        left += 1e-9 * logits
        geometry.halt(active, left)
        geometry.add(unit.branch(training=False)(geometry))
        return geometry.state

    mask = tf.cast(active, tf.float32)[..., tf.newaxis]
    runs = {
        "plain unit": (functools.partial(unit, training=False), features),
        "dense unit": (dense, features, residual, active, left),
        "mask": (tf.multiply, residual, mask),
        "weight": (tf.multiply, residual, left[..., tf.newaxis]),
        "sum": (tf.add, features, residual),
        "score": (linear_score, features, kernel, offset),
        "a copy": (lambda maps: maps * 1.5, features),
    }
    candidates = {
        name: functools.partial(_run, tf.function(run, autograph=False), *inputs)
        for name, (run, *inputs) in runs.items()
    }
    seconds = fastest(candidates, flags.turns, f"block {block}")
    one_pass = seconds["a copy"] / 2
    return [
        {
            "block": block,
            "what": name,
            "milliseconds": 1e3 * value,
            "share": value / seconds["plain unit"],
            "passes": PASSES.get(name),
            "floor": 1e3 * one_pass * PASSES.get(name, 0),
        }
        for name, value in seconds.items()
    ]


def _run(function, *inputs):
    # Fetching one number waits for all of the computation, and copies nothing.
    return tf.reshape(tf.nest.flatten(function(*inputs))[0], [-1])[0].numpy()


COMMAND = command_line.Command(
    "benchmark_dense", __doc__, add_flags, run, show, "print JSON"
)

if __name__ == "__main__":
    COMMAND.main()
