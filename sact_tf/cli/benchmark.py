"""How much time sparse execution saves on this machine.

  units      the units of one block of ResNet-101, under masks of given active shares
  extractor  root and blocks 1-3 (or as many as --blocks says) of ResNet-101 at the
             paper's operating points
  network    the whole ResNet-101, beside tf_keras.applications.ResNet101V2
  masks      root and blocks 1-3 (or --blocks) of a plain ResNet-101 under given masks
  training   a step of training, with live and with frozen batch norm
  calibrate  measures where packing begins to pay, and saves it for "auto"

Everything that is compared runs in turns, in one process, on the same weights and
inputs, and what is printed is the fastest of all turns: other work on the machine only
ever adds time. efficiency = speed-up x share of FLOPs left: 1.00 means that the time
falls exactly as the FLOPs do.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
import resource
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras
from tqdm import tqdm

import sact_tf
from sact_tf import visualization
from sact_tf.cli import command_line
from sact_tf.evaluation import report
from sact_tf.geometry import Dense, Packed, calibration, winograd
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.control_flow import gpu_is_visible
from sact_tf.geometry.dense import all_tiles
from sact_tf.geometry.grid import Grid
from sact_tf.geometry.maps import dilate
from sact_tf.layers.maker import Maker
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit
from sact_tf.layers.series import Stack
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig

#: Units of each block that SACT uses on average (supplement, table 1), by tau.
OPERATING_POINTS = {
    "224": {
        "tau 0.01": (2.6, 2.4, 4.0, 2.7),
        "tau 0.005": (2.3, 3.8, 13.1, 2.7),
        "tau 0.001": (3.0, 3.9, 19.6, 2.9),
        # Between the first two, where the authors' code was measured.
        "at 63 %": (2.4, 3.4, 10.4, 2.7),
    },
    "352": {
        "tau 0.01": (2.6, 2.5, 4.1, 2.8),
        "tau 0.005": (2.3, 3.9, 13.4, 2.8),
        "tau 0.001": (3.0, 4.0, 19.9, 3.0),
    },
}
#: For detection the paper says what is left of the extractor's FLOPs (table 1), not the
#: units: these means, in the proportions of the classification networks, give it.
DETECTION_POINTS = {
    "tau 0.005": (1.9, 2.9, 10.6, 2.7),
    "tau 0.001": (2.6, 3.3, 14.7, 2.9),
}
UNITS = (3, 4, 23, 3)
#: Units in a row that calibrations run.
_CALIBRATION_UNITS = 6
#: Turns before those that count where masks change: every shape is compiled for once.
_WARM_UP = 10
SHARES = (1.0, 0.9, 0.7, 0.5, 0.3, 0.15, 0.05, 0.0)
#: The same for whole networks.
MASK_SHARES = (1.0, 0.5, 0.3, 0.15)
#: Height and width of images by name.
SIZES = {
    "224": (224, 224),
    "352": (352, 352),
    "600x848": (600, 848),
    "600x1000": (600, 1000),
}


@dataclasses.dataclass
class Result:
    """One line of a table.

    Attributes:
      what: what was run.
      milliseconds: the fastest of all turns.
      flops_left: FLOPs over those of the plain network.
      speed_up: time of the plain network over this one's.
      note: whatever else there is to say.
    """

    what: str
    milliseconds: float
    flops_left: float
    speed_up: float
    note: str = ""

    @property
    def efficiency(self) -> float:
        """1 where the time falls exactly as the FLOPs do."""
        return self.speed_up * self.flops_left


def main() -> None:
    """Parses the flags and runs one benchmark."""
    parser = command_line.parser("benchmark", __doc__)
    parser.add_argument(
        "what",
        choices=["units", "extractor", "network", "masks", "training", "calibrate"],
        help="what to measure; see above",
    )
    parser.add_argument(
        "--image-size",
        choices=SIZES,
        default=None,
        help="size of the images (600x848 for units, extractor and masks, else 224)",
    )
    parser.add_argument("--block", type=int, default=3, help="block for units, 1 to 4")
    parser.add_argument(
        "--blocks",
        type=int,
        default=3,
        help="blocks of the extractor, 1 to 3: differences tell what each one takes",
    )
    parser.add_argument(
        "--masks",
        choices=["blob", "blobs", "scattered", "shrinking"],
        default="blob",
        help="shape of the active set for units and masks",
    )
    parser.add_argument(
        "--tiles", default="2,4,8,16", help="sides of the tiles to try for units"
    )
    parser.add_argument(
        "--points",
        nargs="+",
        help='operating points for extractor and network, as "tau 0.005" (all)',
    )
    parser.add_argument(
        "--new-masks",
        action="store_true",
        help="for extractor and network: other masks at every turn, as other images "
        "have them, with 3 %% more or less units; what is printed are medians, and "
        "FLOPs left are about those",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images at once")
    parser.add_argument("--turns", type=int, default=7, help="turns of each candidate")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot", type=pathlib.Path, help="PNG of speed-up against FLOPs left to write"
    )
    flags = parser.parse_args()
    if not 1 <= flags.block <= 4:
        raise ValueError(f"--block must be 1 to 4. Received: {flags.block}")
    if not 1 <= flags.blocks <= 3:
        raise ValueError(f"--blocks must be 1 to 3. Received: {flags.blocks}")
    for name in ("batch_size", "turns"):
        if getattr(flags, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be at least 1. Received: "
                f"{getattr(flags, name)}"
            )
    tf.get_logger().setLevel("ERROR")
    tf_keras.utils.set_random_seed(0)
    if flags.what == "calibrate":
        measured = calibrate(flags.turns)
        where = calibration.save(measured)
        content = json.dumps(calibration.as_dict(measured))
        print(
            content
            if flags.json
            else f"{content}\nMeasured on a {measured.device}; in {where}"
        )
        return
    measure = {
        "units": units,
        "extractor": extractor,
        "network": network,
        "masks": given_masks,
        "training": training,
    }[flags.what]
    results = measure(flags)
    rate = matmul_rate()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if flags.json:
        content = [
            {**dataclasses.asdict(r), "efficiency": r.efficiency} for r in results
        ]
        print(
            json.dumps(
                {"results": content, "matmul_gflops": rate, "peak_memory_gib": memory},
                indent=1,
            )
        )
    else:
        print(_table(results))
        print(
            f"\nMatrix products on this machine: {rate:.0f} GFLOP/s. "
            f"Peak memory of this process: {memory:.1f} GiB."
        )
    if flags.plot:
        lines = [dataclasses.asdict(result) for result in results]
        visualization.save(visualization.speed_up_against_flops(lines), flags.plot)


def fastest(
    candidates: dict[str, Callable[[], object]],
    turns: int,
    title: str,
    renew: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Seconds of each candidate: the fastest of its turns, taken in rotation.

    With `renew`, which is called before every turn to change the inputs, the median.
    """
    for _ in range(2 if renew is None else _WARM_UP):
        if renew:
            renew()
        for candidate in candidates.values():
            candidate()
    times = {name: [] for name in candidates}
    for _ in tqdm(range(turns), title, unit="turn", leave=False, file=sys.stderr):
        if renew:
            renew()
        for name, candidate in candidates.items():
            began = time.perf_counter()
            candidate()
            times[name].append(time.perf_counter() - began)
    typical = np.median if renew else min
    return {name: float(typical(values)) for name, values in times.items()}


def matmul_rate(size: int = 2048) -> float:
    """GFLOP/s of a large float32 matrix product."""
    matrix = tf.random.normal([size, size])
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix * 1.0)))
    seconds = fastest({"product": lambda: product().numpy()}, 5, "matrix product")
    return 2 * size**3 / seconds["product"] / 1e9


# --- Units under given masks --------------------------------------------------------


def units(flags) -> list[Result]:
    """The units of a block that keep its shape, under masks of given shares."""
    height, width = SIZES[flags.image_size or "600x848"]
    stride = 2 ** (flags.block + 1)
    shape = (flags.batch_size, -(-height // stride), -(-width // stride))
    narrow = 64 * 2 ** (flags.block - 1)
    layers = _bottlenecks(narrow, UNITS[flags.block - 1] - 1)
    features = tf.random.normal([*shape, 4 * narrow])
    sides = [int(side) for side in flags.tiles.split(",") if side]
    known = calibration.resolved(None) or calibration.Calibration()
    packing = known.packing_cost(1, narrow, 4 * narrow, layers[-1].flops_per_position)
    functions = {
        "plain": _plain_units(layers),
        "masked": _masked_units(layers),
        "positions": _packed_units(layers),
        **{f"tiles {side}": _packed_units(layers, side) for side in sides},
        "auto": _packed_units(layers, packing=packing),
    }
    functions = {
        name: tf.function(run, autograph=False) for name, run in functions.items()
    }
    results = []
    for share in SHARES:
        masks = tf.constant(_masks(flags.masks, shape, share, len(layers)))
        left = _flops_left(masks, narrow)
        candidates = {
            name: functools.partial(_run, function, features, masks)
            for name, function in functions.items()
        }
        seconds = fastest(candidates, flags.turns, f"{share:.0%} active")
        note = f"{share:.0%} active"
        for name, value in seconds.items():
            results.append(
                Result(name, 1e3 * value, left, seconds["plain"] / value, note)
            )
        results[-len(seconds)].flops_left = 1.0
    return results


_MAKE = Maker()


def _bottlenecks(width, count=_CALIBRATION_UNITS):
    layers = [
        BottleneckUnit(4 * width, width, make=_MAKE, name=f"unit{index}")
        for index in range(count)
    ]
    for layer in layers:
        _make_small(layer.conv3)
    return layers


def _basic_units(width, count=_CALIBRATION_UNITS):
    layers = [
        BasicUnit(width, width, make=_MAKE, name=f"unit{index}")
        for index in range(count)
    ]
    for layer in layers:
        _make_small(layer.conv2)
    return layers


def _make_small(convolution):
    """Small residuals: features stay of one size through many units."""
    convolution.kernel.assign(0.1 * convolution.kernel)


def _run(function, *inputs):
    # Fetching one number waits for all of the computation, and copies nothing.
    return tf.reshape(function(*inputs), [-1])[0].numpy()


def _plain_units(layers):
    def run(features, masks):
        del masks
        for layer in layers:
            features = layer(features, training=False)
        return features

    return run


def _masked_units(layers, **options):
    """Units on the map, under one mask, or one for each."""

    def run(features, masks):
        geometry = Dense(features, **options)
        for index, layer in enumerate(layers):
            if index < masks.shape[0]:
                # Each position gives what it has when it halts: nothing to add up.
                geometry.halt(masks[index])
            geometry.add(layer.branch()(geometry))
        return geometry.leave()

    return run


def _packed_units(layers, side=1, packing=None):
    """Units on rows, packed where the mask leaves some out, and that pays."""
    radius, width = layers[0].radius, layers[0].conv1.filters
    by_tiles = side == 1 and radius == 1 and winograd.may_pay(width)

    def run(features, masks):
        layout = Layout(Grid.of(features), radius, side, winograd=by_tiles)
        most = layout.most_rows()
        cells = layout.grid.any_in_cell(masks[0], side)
        running = tf.math.count_nonzero(cells, dtype=tf.int32)
        rows = layout.rows_for(running, most)
        pays = rows < most
        if packing:
            pays, _ = packing.repays(most, rows, 0.0, len(layers))

        def packed():
            geometry = Packed.from_map(layout, features, masks[0])
            for index, layer in enumerate(layers):
                if 0 < index < masks.shape[0]:
                    geometry.halt(masks[index])
                    geometry.shrink()
                geometry.add(layer.branch()(geometry))
            return geometry.leave()

        def on_map():
            tiles = all_tiles(features) if by_tiles else None
            return _masked_units(layers, tiles=tiles)(features, masks)

        return tf.cond(
            running > 0, lambda: tf.cond(pays, packed, on_map), lambda: features
        )

    return run


def _masks(kind, shape, share, count):
    """Masks [count, B, H, W], or [1, B, H, W] where all units have the same one."""
    level = spread(kind, shape)
    if kind != "shrinking":
        return (level < share)[np.newaxis]
    # From everything to twice the share's complement, so that the mean is the share.
    first, last = min(1.0, 2 * share), max(0.0, 2 * share - 1)
    shares = np.linspace(first, last, count)
    return np.stack([level < value for value in shares])


def spread(kind: str, shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """A rank in [0, 1) for every position: the lower, the longer it is active.

    Args:
      kind: "scattered", "blobs", or one blob in the middle for everything else.
      shape: [B, H, W].
      seed: of the random kinds.
    """
    rng = np.random.default_rng(seed)
    batch, height, width = shape
    if kind == "scattered":
        level = rng.uniform(size=shape)
    else:
        count = 5 if kind == "blobs" else 1
        centres = rng.uniform(size=(batch, count, 2)) if count > 1 else [[[0.5, 0.5]]]
        rows = (np.arange(height) + 0.5) / height
        columns = (np.arange(width) + 0.5) / width
        level = np.stack(
            [
                np.min(
                    [
                        np.hypot(*np.meshgrid(rows - y, columns - x, indexing="ij"))
                        for y, x in image
                    ],
                    axis=0,
                )
                for image in np.broadcast_to(centres, (batch, count, 2))
            ]
        )
    order = np.argsort(np.argsort(level.reshape(batch, -1), axis=1), axis=1)
    return (order / (height * width)).reshape(shape)


def _flops_left(masks, narrow):
    """Of bottleneck units: conv1 at the dilated positions, the rest at the active."""
    outer, inner = 4 * narrow**2, 9 * narrow**2 + 4 * narrow**2
    left = [
        outer * np.mean(dilate(mask, 1)) + inner * np.mean(mask)
        for mask in tf.unstack(masks)
    ]
    return float(np.mean(left) / (outer + inner))


# --- Networks at the paper's operating points ---------------------------------------


class ForcedLogit(NamedTuple):
    """A halting score at its full price that halts where it is told to.

    Attributes:
      logit: the score's own.
      unit: int32 scalar, whose score it is, counted from one.
      num_units: gives int32 [B, H, W], the units to run at each position.
    """

    logit: Callable
    unit: tf.Tensor
    num_units: Callable

    def __call__(self, geometry):
        """A score of one at the last unit of a position, next to nothing before."""
        logit = tf.cast(self.logit(geometry), tf.float32)
        stops = self.num_units() <= self.unit
        # 0 * logit: what is computed must not be optimised away.
        return tf.where(stops, 30.0, -4.595) + 0.0 * logit


def force_halting(model, maps: list[tuple[int, int]], means, kind, batch=1) -> Callable:
    """Makes the positions of a network halt at units with given means.

    Ranked positions use units evenly spread around the mean, from as few to as many as
    the block allows, so that some halt at almost every unit.

    Returns:
      A function that, given a random generator, changes the masks a little.
    """
    blocks = list(zip(model.blocks, maps, means, strict=False))
    chosen = []
    for block, (height, width), mean in blocks:
        count, shape = len(block.units), (batch, height, width)
        chosen.append(tf.Variable(_num_units(kind, shape, mean, count)))
        block.logits = functools.partial(
            _forced, block.logits, len(block.halting_scores), chosen[-1]
        )

    def change(rng: np.random.Generator) -> None:
        for (block, (height, width), mean), variable in zip(
            blocks, chosen, strict=True
        ):
            count, shape = len(block.units), (batch, height, width)
            other = np.clip(mean * rng.uniform(0.97, 1.03), 1, count)
            variable.assign(_num_units(kind, shape, other, count))

    return change


def _forced(logits, count, num_units, training=None, valid=None):
    """A block's logits, forced."""
    own = logits(training, valid)
    if not isinstance(own, Stack):
        own = own.stacked()
    forced = ForcedLogit(own.whole, tf.range(1, count + 1), num_units.read_value)
    return Stack(forced, count, own.tables)


def _num_units(kind, shape, mean, count):
    """Units of each position, int32 of a shape [B, H, W], with a mean over all."""
    reach = min(mean - 1, count - mean)
    wanted = mean + reach * (1 - 2 * spread(kind, shape))
    # Rounded all alike, so that contours stay smooth, and so that the mean stays.
    rounded = [np.floor(wanted + offset) for offset in np.linspace(0, 1, 101)]
    num_units = min(rounded, key=lambda units: abs(units.mean() - mean))
    return np.clip(num_units, 1, count).astype(np.int32)


def _maps(height, width):
    sizes = []
    for stride in (4, 8, 16, 32):
        sizes.append((-(-height // stride), -(-width // stride)))
    return sizes


def _extract(model, images, blocks):
    """Features and FLOPs after the root and some blocks."""
    record = model.run(images, num_blocks=blocks)
    return record["blocks"][-1]["output"], record["flops"]


def extractor(flags) -> list[Result]:
    """Root and first blocks of ResNet-101, plain and SACT at each operating point."""
    return _networks(flags, blocks=flags.blocks, default_size="600x848", peer=False)


def network(flags) -> list[Result]:
    """The whole ResNet-101, and its peer from tf_keras.applications."""
    return _networks(flags, blocks=4, default_size="224", peer=True)


def _networks(flags, blocks, default_size, peer):
    size = flags.image_size or default_size
    height, width = SIZES[size]
    points = OPERATING_POINTS.get(size, DETECTION_POINTS)
    if unknown := set(flags.points or ()) - set(points):
        raise ValueError(
            f"--points for {size} are {', '.join(points)}. Received: "
            f"{', '.join(sorted(unknown))}"
        )
    points = {name: points[name] for name in flags.points or points}
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)

    def network_of(adaptivity, execution="auto"):
        return sact_tf.ResNet(units=101, adaptivity=adaptivity, execution=execution)

    def function_of(model):
        @tf.function(autograph=False)
        def features_of(images):
            if blocks == len(UNITS):
                return model(images, training=False)
            return _extract(model, images, blocks)[0]

        return features_of

    plain = network_of("none")
    whole = float(_flops_of(plain, images, blocks))
    functions = {"plain": function_of(plain)}
    shares = {"plain": 1.0}
    if peer:
        other = tf_keras.applications.ResNet101V2(
            weights=None,
            input_shape=(height, width, 3),
            include_top=True,
        )
        functions["ResNet101V2"] = tf.function(
            lambda images: other(images, training=False), autograph=False
        )
        shares["ResNet101V2"] = 1.0
    changes = []
    for point, means in points.items():
        for execution in ("dense", "auto"):
            model = network_of("sact", execution)
            changes.append(
                force_halting(
                    model, _maps(height, width), means, "blob", flags.batch_size
                )
            )
            name = f"SACT {point} {execution}"
            functions[name] = function_of(model)
            shares[name] = float(_flops_of(model, images, blocks)) / whole
    candidates = {
        name: functools.partial(_run, function, images)
        for name, function in functions.items()
    }
    rng = np.random.default_rng(0)

    def renew():
        for change in changes:
            change(rng)

    seconds = fastest(candidates, flags.turns, size, renew if flags.new_masks else None)
    return [
        Result(name, 1e3 * value, shares[name], seconds["plain"] / value, size)
        for name, value in seconds.items()
    ]


def given_masks(flags) -> list[Result]:
    """Root and first blocks of a plain ResNet-101 under masks of given shares."""
    height, width = SIZES[flags.image_size or "600x848"]
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)
    functions = {}
    for execution in ("dense", "positions", "auto"):
        config = BackboneConfig(units=UNITS, adaptivity="none", execution=execution)
        model = Backbone(config, flags.blocks)

        @tf.function(autograph=False)
        def run(images, mask=None, model=model):
            record = model.run(images, active_mask=mask)
            return record["blocks"][-1]["output"], record["flops"]

        functions[execution] = run
    _, whole = functions["dense"](images)
    level = spread(flags.masks, (flags.batch_size, *_maps(height, width)[0]))
    results = []
    for share in MASK_SHARES:
        mask, flops = tf.constant(level < share), {}
        ways = {"plain": (functions["dense"], None)}
        ways.update({name: (function, mask) for name, function in functions.items()})

        def candidate(name, ways=ways, flops=flops):
            function, given = ways[name]
            output, flops[name] = function(images, given)
            return tf.reshape(output, [-1])[0].numpy()

        seconds = fastest(
            {name: functools.partial(candidate, name) for name in ways},
            flags.turns,
            f"{share:.0%} active",
        )
        for name, value in seconds.items():
            left = float(flops[name][0] / whole[0])
            speed_up, note = seconds["plain"] / value, f"{share:.0%} active"
            results.append(Result(name, 1e3 * value, left, speed_up, note))
    return results


@tf.function(autograph=False)
def _flops_of(model, images, blocks):
    if blocks == len(UNITS):
        return model(images, training=False, with_record=True)["flops"][0]
    return _extract(model, images, blocks)[1][0]


# --- Training -----------------------------------------------------------------------


def training(flags) -> list[Result]:
    """A step of SGD of ResNet-50: plain and SACT, live and frozen batch norm."""
    height, width = SIZES[flags.image_size or "224"]
    images = tf.random.uniform([flags.batch_size, height, width, 3], -1, 1)
    labels = tf.zeros([flags.batch_size], tf.int32)
    models = {}
    for frozen in (False, True):
        state = "frozen" if frozen else "live"
        options = {"units": 50, "num_classes": 10, "freeze_batch_norm": frozen}
        models[f"plain, {state}"] = sact_tf.ResNet(adaptivity="none", **options)
        for execution in ("dense", "auto") if frozen else ("auto",):
            model = sact_tf.ResNet(adaptivity="sact", execution=execution, **options)
            if frozen:
                half = [(count + 1) / 2 for count in (3, 4, 6, 3)]
                force_halting(
                    model, _maps(height, width), half, "blob", flags.batch_size
                )
            models[f"SACT {execution}, {state}"] = model
    candidates, shares = {}, {}
    for name, model in models.items():
        model.compile(
            tf_keras.optimizers.SGD(1e-4),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        step = model.make_train_function()
        data = tf.data.Dataset.from_tensors((images, labels)).repeat()
        candidates[name] = functools.partial(step, iter(data))
        shares[name] = float(_flops_of(model, images, len(UNITS)))
    seconds = fastest(candidates, flags.turns, "training step")
    return [
        Result(
            name,
            1e3 * value,
            shares[name] / shares["plain, live"],
            seconds[f"plain, {name.rpartition(', ')[2]}"] / value,
        )
        for name, value in seconds.items()
    ]


# --- Calibration --------------------------------------------------------------------


def calibrate(turns: int) -> calibration.Calibration:
    """When packing pays on this machine."""
    # Maps of an image of 600 x 848, or their like for the networks of small images.
    thresholds = {
        width: _packing_threshold(
            _bottlenecks(width), (1, *[max(16, 9600 // max(width, 64))] * 2), turns
        )
        for width in (16, 32, 64, 128, 256, 512)
    }
    # Batches of small images.
    basic_thresholds = {
        width: _packing_threshold(_basic_units(width), (32, 16, 16), turns)
        for width in (16, 32, 64, 128)
    }
    # Block 3 of a small image and block 1 of a large one, for what is fixed and what
    # grows.
    (small, few), (large, many) = (
        _packing_seconds(shape, turns) for shape in ((14, 14, 1024), (150, 212, 256))
    )
    per_value = max((large - small) / (many - few), 1e-12)
    return calibration.Calibration(
        thresholds,
        basic_thresholds,
        flops_per_second=1e9 * matmul_rate(),
        seconds=max(small - per_value * few, 1e-6),
        seconds_per_value=per_value,
        device=calibration.GPU if gpu_is_visible() else calibration.CPU,
    )


def _packing_threshold(layers, shape, turns):
    """Active share below which packed units are faster than masked ones."""
    run = _masked_and_packed(layers, shape)
    width = layers[0].conv1.filters
    shares, times = (0.3, 0.5, 0.7, 0.9), []
    for share in shares:
        masks = tf.constant(_masks("blob", shape, share, _CALIBRATION_UNITS))
        candidates = {name: functools.partial(f, masks) for name, f in run.items()}
        times.append(fastest(candidates, turns, f"width {width}, {share:.0%}"))
    # Packed time is a straight line in the share, masked time a constant.
    slope, start = np.polyfit(shares, [t["positions"] for t in times], 1)
    masked = np.median([t["masked"] for t in times])
    threshold = (masked - start) / slope if slope > 0 else 1.0
    return round(float(np.clip(threshold, 0.05, 1.0)), 3)


def _packing_seconds(shape, turns):
    """Seconds to pack half of a map, and to unpack it; and how many values it has."""
    features = tf.random.normal([1, *shape])
    half = tf.constant(_masks("blob", (1, *shape[:2]), 0.5, 1)[0])

    def pack(features, active):
        left = tf.cast(active, tf.float32) / 2

        def packed():
            layout = Layout(Grid.of(features), radius=1)
            geometry = Packed.from_map(layout, features, active, features, left)
            return geometry.leave()

        return tf.cond(tf.reduce_all(active), lambda: features, packed)

    run = functools.partial(_run, tf.function(pack, autograph=False), features)
    candidates = {
        "half": functools.partial(run, half),
        "all": functools.partial(run, tf.ones_like(half)),
    }
    seconds = fastest(candidates, turns, f"packing {shape[0]} x {shape[1]}")
    return seconds["half"] - seconds["all"], math.prod(shape)


def _masked_and_packed(layers, shape):
    """Functions that run units under masks, one for each way."""
    features = tf.random.normal([*shape, _channels(layers)])
    ways = {"masked": _masked_units(layers), "positions": _packed_units(layers)}
    return {
        name: functools.partial(_run, tf.function(run, autograph=False), features)
        for name, run in ways.items()
    }


def _channels(layers):
    return layers[0].preact.gamma.shape[0]


def _table(results: list[Result]) -> str:
    rows = [
        [
            result.what,
            result.note,
            f"{result.milliseconds:.1f}",
            f"{result.flops_left:.3f}",
            f"{result.speed_up:.2f}",
            f"{result.efficiency:.2f}",
        ]
        for result in results
    ]
    head = ["what", "where", "ms", "FLOPs left", "speed-up", "efficiency"]
    return report.pipe_table([head, *rows])


if __name__ == "__main__":
    command_line.run(main)
