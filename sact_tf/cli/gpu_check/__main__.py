"""What this machine's GPU makes of the networks, in about five minutes.

  device    rates of large products and of a large copy: what there is to reach
  golden    the authors' numbers, without TF32, for each way to execute
  graphs    operations on the device, and how often the host waits for it; counted
  networks  ResNet-101: plain, SACT, ACT, with and without XLA, beside a peer
  training  a step of ResNet-50, in float32 and with bfloat16
  cifar     an update of a CIFAR network, compiled by XLA
  busy      share of the time in which the GPU computes

What is compared takes turns in one process, and the fastest turn counts; every turn
waits for the device. What fails is one line, and the rest goes on; what no time is left
for is named. The last line says what to choose on this device. `--output` is written
after every result. docs/gpu.md says more.
"""

import json
import os
import pathlib
import sys
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from sact_tf.cli import command_line
from sact_tf.cli.gpu_check import device, golden, graphs, networks, training
from sact_tf.cli.gpu_check.run import Run
from sact_tf.cli.gpu_check.settings import FULL, TINY, Check
from sact_tf.evaluation import report

#: Sections in their order, with their share of the time.
SECTIONS: dict[str, tuple[Callable[[Check], None], float]] = {
    "device": (device.rates, 1),
    "golden": (golden.golden, 3),
    "graphs": (graphs.graphs, 1),
    "networks": (networks.networks, 10),
    "training": (training.training, 4),
    "cifar": (training.cifar, 2),
    "busy": (device.busy, 1),
}


def main() -> None:
    """Parses the flags and runs the sections."""
    parser = command_line.parser("gpu_check", __doc__)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, metavar="SECTION", help="sections to run"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=300.0,
        help="nothing new is begun after so many seconds (300)",
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="networks so small that a CPU runs them in seconds; the numbers mean "
        "nothing",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, and the table to standard error",
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="JSON file to write, after every result"
    )
    flags = parser.parse_args()
    if not flags.seconds > 0:
        raise ValueError(f"--seconds must be above zero. Received: {flags.seconds}")
    tf.get_logger().setLevel("ERROR")
    tf_keras.utils.set_random_seed(0)
    if flags.output:
        flags.output.parent.mkdir(parents=True, exist_ok=True)
    check = Run(TINY if flags.tiny else FULL, flags.seconds, flags.output)
    wanted = flags.only or SECTIONS
    check.sections({name: SECTIONS[name] for name in SECTIONS if name in wanted})
    content = check.content()
    # With --json, standard output is for machines.
    people = sys.stderr if flags.json else sys.stdout
    lines = [_table(check.results), *check.failed]
    lines += [f"{what}: skipped" for what in check.skipped]
    print(*lines, f"\n{content['device']}", content["choose"], sep="\n", file=people)
    if flags.json:
        print(json.dumps(content, indent=1))


def _table(results):
    rows = [
        [
            result.section,
            result.what,
            f"{result.value:.4g} {result.unit}",
            ", ".join(
                f"{name.replace('_', ' ')} {value:.4g}"
                if isinstance(value, float)
                else f"{name.replace('_', ' ')} {value}"
                for name, value in result.details.items()
                if name not in ("network", "batch", "size")
            ),
        ]
        for result in results
    ]
    return report.pipe_table([["section", "what", "value", "details"], *rows])


if __name__ == "__main__":
    command_line.run(main)
