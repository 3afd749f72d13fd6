"""How much time SSBNet's sampling and SSIN's masks save on this machine.

  networks  ResNet-D-50: plain, and with the samplers of SSBNet
  units     one unit of each sampled block: plain, sampled, and the parts of that
  masks     a unit of SSIN: plain, masked, and computed at sampled positions

Everything that is compared runs in turns, in one process, on the same inputs; what is
printed is the fastest of all turns.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras
from tqdm import tqdm

import sact_tf
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser, add_units
from sact_tf.evaluation import report
from sact_tf.layers import adaptive_sampling
from sact_tf.layers.maker import Maker
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.layers.sampled_blocks import SampledUnit
from sact_tf.layers.stochastic_blocks import StochasticUnit
from sact_tf.layers.stochastic_sampling import Sampling

SIZES = (16, 8, 4)
_MAKE = Maker(momentum=0.9)


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("what", choices=list(_MEASURES), help="what to measure")
    add_units(parser, "default: 50", default=50)
    parser.add_argument(
        "--samplers",
        nargs="+",
        choices=adaptive_sampling.NAMES,
        default=["uniform", "adaptive"],
        help="samplers of the networks (uniform and adaptive)",
    )
    parser.add_argument("--image_size", default="224", help="side, or HEIGHTxWIDTH")
    parser.add_argument("--batch_size", type=int, default=1, help="images at once")
    parser.add_argument("--turns", type=int, default=10, help="turns of each candidate")
    parser.add_argument(
        "--density", type=float, default=0.5, help="sampled share of SSIN's masks"
    )


def run(flags: argparse.Namespace) -> list[dict]:
    """Runs one benchmark."""
    command_line.require_at_least(flags, batch_size=1, turns=1)
    if not 0 < flags.density < 1:
        raise ValueError(f"--density must be in (0, 1). Received: {flags.density}")
    tf.get_logger().setLevel("ERROR")
    tf_keras.utils.set_random_seed(0)
    return _MEASURES[flags.what](flags, _size(flags.image_size))


def show(result: list[dict], flags: argparse.Namespace) -> str:
    """The result for people."""
    head = ["where", "what", "ms", "time left", "FLOPs left"]
    table = [
        [
            row["where"],
            row["what"],
            f"{row['milliseconds']:.2f}",
            f"{row['time_left']:.3f}",
            "" if row["flops_left"] is None else f"{row['flops_left']:.3f}",
        ]
        for row in result
    ]
    return report.pipe_table([head, *table])


def _size(text):
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
        raise ValueError(
            f"--image_size must be a side, or HEIGHTxWIDTH. Received: {text!r}"
        )
    return int(sides[0]), int(sides[-1])


def networks(flags, size) -> list[dict]:
    """Whole networks, plain and sampled."""
    images = tf.random.uniform([flags.batch_size, *size, 3], -1, 1)
    functions, costs = {}, {}
    for name in ("plain", *flags.samplers):
        sampling = None if name == "plain" else name
        given = sampling and name != "depthwise" and size == (224, 224)
        model = sact_tf.ResNet(
            "resnet_d",
            flags.units,
            "none",
            num_classes=1000,
            sampling=sampling,
            sampling_sizes=SIZES if given else None,
        )
        run = tf.function(functools.partial(model, training=False), autograph=False)
        functions[name] = functools.partial(run, images)
        cost = tf.function(
            functools.partial(model, training=False, with_record=True), autograph=False
        )
        costs[name] = float(cost(images)["flops"][0])
    return _rows("network", functions, costs, flags.turns)


def units(flags, size) -> list[dict]:
    """A unit of each sampled block, and its parts."""
    rows = []
    for index, samples in enumerate(SIZES):
        stride, width = 8 * 2**index, 128 * 2**index
        sides = [-(-side // stride) for side in size]
        shape = [flags.batch_size, *sides, 4 * width]
        features = tf.nn.relu(tf.random.normal(shape))
        if size != (224, 224):
            samples = 4 / 7
        plain = PostActivationUnit(4 * width, width, make=_MAKE, name="plain")
        sampled = {
            name: SampledUnit(
                4 * width,
                width,
                sampling=name,
                size=samples,
                make=_MAKE,
                name=name,
            )
            for name in ("uniform", "adaptive")
        }
        sampler = sampled["adaptive"].sampler
        small = sampler(features).maps

        def both_ways(maps, sampler=sampler):
            seen = sampler(maps)
            return seen.restore(seen.maps)

        functions = {
            "plain": functools.partial(_compiled(plain), features),
            "uniform": functools.partial(_compiled(sampled["uniform"]), features),
            "adaptive": functools.partial(_compiled(sampled["adaptive"]), features),
            "its convolutions": functools.partial(_compiled(plain), small),
            "its sampling, both ways": functools.partial(
                _compiled(both_ways), features
            ),
            "its saliency and matrices": functools.partial(
                _compiled(lambda x, sampler=sampler: sampler(x).restore[:2]),
                features,
            ),
        }
        costs = {
            "plain": int(plain.flops_on_map(sides[0] * sides[1], sides[0] * sides[1])),
            **{n: int(layer.seen(features).flops[0]) for n, layer in sampled.items()},
        }
        where = f"unit, {sides[0]} x {sides[1]}"
        rows += _rows(where, functions, costs, flags.turns)
    return rows


def masks(flags, size) -> list[dict]:
    """A unit of SSIN in each block, masked and at sampled positions."""
    rows = []
    for index in range(4):
        stride, width = 4 * 2**index, 64 * 2**index
        sides = [-(-side // stride) for side in size]
        features = tf.nn.relu(
            tf.random.normal([flags.batch_size, *sides, 4 * width], seed=1)
        )
        plain = PostActivationUnit(4 * width, width, make=_MAKE, name="plain")
        positions = sides[0] * sides[1]
        functions = {"plain": functools.partial(_compiled(plain), features)}
        costs = {"plain": int(plain.flops_on_map(positions, positions))}
        for execution, name in (("dense", "masked"), ("positions", "sampled")):
            layer = StochasticUnit(
                4 * width,
                width,
                sampling=Sampling(grid=10**6),
                execution=execution,
                make=_MAKE,
                name=name,
            )
            odds = flags.density / (1 - flags.density)
            for mask in (layer.mask1, layer.mask2):
                mask.logits.bias.assign([float(tf.math.log(odds))])
            functions[name] = functools.partial(_compiled(layer), features)
            costs[name] = int(layer.drawn(features).flops[0])
        rows += _rows(f"unit, {sides[0]} x {sides[1]}", functions, costs, flags.turns)
    return rows


_MEASURES = {"networks": networks, "units": units, "masks": masks}


def _compiled(layer):
    return tf.function(layer, autograph=False)


def _rows(where, functions, costs, turns):
    seconds = _fastest(functions, turns, where)
    return [
        {
            "where": where,
            "what": name,
            "milliseconds": 1e3 * value,
            "time_left": value / seconds["plain"],
            "flops_left": costs[name] / costs["plain"] if name in costs else None,
        }
        for name, value in seconds.items()
    ]


def _fastest(
    candidates: dict[str, Callable[[], object]], turns: int, title: str
) -> dict[str, float]:
    """Seconds of each candidate: the fastest of its turns, taken in rotation."""
    times = {name: [] for name in candidates}
    for turn in tqdm(range(turns + 2), title, leave=False, file=sys.stderr):
        for name, candidate in candidates.items():
            began = time.perf_counter()
            # Fetching one number waits for all of the computation.
            tf.reshape(tf.nest.flatten(candidate())[0], [-1])[0].numpy()
            if turn > 1:
                times[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in times.items()}


COMMAND = command_line.Command(
    "benchmark_sampling", __doc__, add_flags, run, show, "print JSON"
)

if __name__ == "__main__":
    COMMAND.main()
