"""How much time sparse execution saves on this machine.

  units      the units of one block of ResNet-101, under masks of given active shares
  extractor  root and blocks 1-3 (or as many as --blocks says) of ResNet-101 at the
             paper's operating points
  network    the whole ResNet-101, beside tf_keras.applications.ResNet101V2
  masks      root and blocks 1-3 (or --blocks) of a plain ResNet-101 under given masks
  training   a step of training, with live and with frozen batch norm
  calibrate  measures where packing begins to pay, and saves it for "auto"

Everything that is compared runs in turns, in one process, on the same weights and
inputs; every turn waits for the device, and what is printed is the fastest of all
turns: other work on the machine only ever adds time. efficiency = speed-up x share of
FLOPs left: 1.00 means that the time falls exactly as the FLOPs do. The last column is
the share of the rate of a large matrix product that the FLOPs left are computed at.

    sact-tf benchmark units --device gpu --dtype tf32 --jit --batch_size 1 8 32
"""

import argparse
import dataclasses
import json
import os
import pathlib
import resource

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from sact_tf import visualization
from sact_tf.cli import command_line
from sact_tf.cli.benchmark import calibrate, networks, units
from sact_tf.cli.benchmark.device import DEVICES, DTYPES, Device
from sact_tf.cli.benchmark.settings import SIZES
from sact_tf.cli.benchmark.timing import Result, table
from sact_tf.cli.flags import Parser
from sact_tf.geometry import calibration

_MEASURES = {
    "units": units.units,
    "extractor": networks.extractor,
    "network": networks.network,
    "masks": networks.given_masks,
    "training": networks.training,
}


def run(flags: argparse.Namespace) -> dict:
    """Runs one benchmark."""
    _check(flags)
    tf.get_logger().setLevel("ERROR")
    tf_keras.utils.set_random_seed(0)
    with Device(flags.device, flags.dtype).used() as device:
        if flags.what == "calibrate":
            return _calibrate(flags)
        results = []
        for size in flags.batch_sizes:
            flags.batch_size = size
            measured = _MEASURES[flags.what](flags)
            if len(flags.batch_sizes) > 1:
                for result in measured:
                    result.note = f"{size} images, {result.note}"
            results += measured
        product, copy = device.product_rate(), device.copy_rate()
        about = device.describe()
    for result in results:
        result.share = result.flops / (1e-3 * result.milliseconds) / product
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if flags.plot:
        lines = [dataclasses.asdict(result) for result in results]
        visualization.save(visualization.speed_up_against_flops(lines), flags.plot)
    return {
        "results": [
            {**dataclasses.asdict(r), "efficiency": r.efficiency} for r in results
        ],
        "device": about,
        "matmul_gflops": product / 1e9,
        "copy_gigabytes_per_second": copy / 1e9,
        "peak_memory_gib": memory,
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    if flags.what == "calibrate":
        return (
            f"{json.dumps(result)}\nMeasured on a {result['device']}; in "
            f"{calibration.path()}"
        )
    lines = [
        Result(**{key: value for key, value in line.items() if key != "efficiency"})
        for line in result["results"]
    ]
    return (
        f"{table(lines)}\n\n{result['device']}. A large matrix product there: "
        f"{result['matmul_gflops']:.0f} GFLOP/s; a large copy: "
        f"{result['copy_gigabytes_per_second']:.0f} GB/s. Peak memory of this process "
        f"on the host: {result['peak_memory_gib']:.1f} GiB."
    )


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "what",
        choices=[*_MEASURES, "calibrate"],
        help="what to measure; see above",
    )
    parser.add_argument(
        "--image_size",
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
        "--new_masks",
        action="store_true",
        help="for extractor and network: other masks at every turn, as other images "
        "have them, with 3 %% more or less units; what is printed are medians, and "
        "FLOPs left are about those",
    )
    parser.add_argument(
        "--batch_size",
        dest="batch_sizes",
        type=int,
        nargs="+",
        default=[1],
        help="images at once; several numbers are measured one after the other",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        help="where to compute (default: the GPU, if TensorFlow sees one)",
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        help="float32, the same with products rounded to TF32 by a GPU, or mixed "
        "precision (default: float32, as TensorFlow has it on the device)",
    )
    parser.add_argument(
        "--jit",
        action="store_true",
        help="XLA compiles what does not pack: plain and dense networks, and the peer",
    )
    parser.add_argument("--turns", type=int, default=7, help="turns of each candidate")
    parser.add_argument(
        "--plot", type=pathlib.Path, help="PNG of speed-up against FLOPs left to write"
    )


def _check(flags):
    if not 1 <= flags.block <= 4:
        raise ValueError(f"--block must be 1 to 4. Received: {flags.block}")
    if not 1 <= flags.blocks <= 3:
        raise ValueError(f"--blocks must be 1 to 3. Received: {flags.blocks}")
    for name, value in (("batch_size", min(flags.batch_sizes)), ("turns", flags.turns)):
        if value < 1:
            raise ValueError(f"--{name} must be at least 1. Received: {value}")
    if flags.what == "calibrate" and (flags.jit or flags.dtype):
        raise ValueError(
            "calibrate measures float32 without XLA, for which packing is decided: "
            "leave --dtype and --jit out"
        )
    if flags.what == "training" and flags.dtype == "float16":
        raise ValueError(
            "training measures steps without a scaled loss: give --dtype bfloat16, or "
            "float32. Received: float16"
        )


def _calibrate(flags):
    measured = calibrate.calibrate(flags.turns)
    calibration.save(measured)
    return calibration.as_dict(measured)


COMMAND = command_line.Command("benchmark", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
