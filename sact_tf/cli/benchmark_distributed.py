"""How training speeds up with workers on this machine, and the bytes that it moves.

Trains a network on digit scenes in one process, with synchronous workers and with
asynchronous ones, each process with one thread for its operations. Steps per second and
bytes per step are taken between the first and the last line of the training log, so
that starting and tracing are not in them. The bytes are those of the loopback
interface: keep everything else off it (Linux only).
"""

import argparse
import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import sact_tf
from sact_tf import folders
from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser
from sact_tf.evaluation import report

#: Strategy, parameter servers and workers of each line.
RUNS = (
    ("one process", 0, 0),
    ("multi_worker_mirrored", 0, 1),
    ("multi_worker_mirrored", 0, 2),
    ("parameter_server", 1, 1),
    ("parameter_server", 1, 2),
)
_NETWORK = {"units": [2, 2, 2, 2], "base_channels": 32, "root_channels": 32}
_BATCH = 16  # Images of one worker.
_EVERY = 10  # Steps between two lines of the log.
_COUNTERS = pathlib.Path("/proc/net/dev")


@dataclasses.dataclass
class Line:
    """What one run reached."""

    strategy: str
    workers: int
    steps_per_second: float
    images_per_second: float
    bytes_per_step: float


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument(
        "--steps", type=int, default=100, help="of each run (default: 100)"
    )


def run(flags: argparse.Namespace) -> dict:
    """Trains."""
    if flags.steps < 2 * _EVERY:
        raise ValueError(
            f"--steps must be at least {2 * _EVERY}. Received: {flags.steps}"
        )
    if not _COUNTERS.exists():
        raise ValueError(f"{_COUNTERS} is not there; this tool needs Linux.")
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            _measure(pathlib.Path(folder) / str(number), flags.steps, *run)
            for number, run in enumerate(RUNS)
        ]
    model = sact_tf.ResNet("imagenet", adaptivity="sact", num_classes=10, **_NETWORK)
    parameters = 4 * sum(v.shape.num_elements() for v in model.trainable_variables)
    content = [dataclasses.asdict(line) for line in lines]
    return {"runs": content, "parameter_bytes": parameters}


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    lines = [Line(**run) for run in result["runs"]]
    parameters = result["parameter_bytes"]
    head = ["strategy", "workers", "steps/s", "images/s", "MB per step", "of P"]
    rows = [
        [
            line.strategy,
            str(line.workers),
            f"{line.steps_per_second:.2f}",
            f"{line.images_per_second:.1f}",
            f"{line.bytes_per_step / 1e6:.2f}",
            f"{line.bytes_per_step / parameters:.2f}",
        ]
        for line in lines
    ]
    table = report.pipe_table([head, *rows])
    return f"{table}\n\nP, the parameters: {parameters / 1e6:.2f} MB."


def _measure(folder, steps, strategy, servers, workers) -> Line:
    """Trains once and watches the log and the interface."""
    synchronous = strategy == "multi_worker_mirrored"
    batch = _BATCH * (workers if synchronous else 1)
    overrides = {
        "task": {
            "model": {
                "input_size": [128, 128, 3],
                "backbone": {"sact_resnet": {"adaptivity": "sact", **_NETWORK}},
            },
            "train_data": {"global_batch_size": batch},
            "allow_image_summary": False,
        },
        "trainer": {
            "train_steps": steps,
            "steps_per_loop": _EVERY,
            "summary_interval": steps,
            "checkpoint_interval": steps,
            "validation_interval": steps,
        },
    }
    if workers:
        overrides["runtime"] = {"distribution_strategy": strategy}
    folder.mkdir()
    settings = folder / "settings.json"  # Which is YAML, too.
    folders.write_json(settings, overrides)
    command = [sys.executable, "-m", "sact_tf.cli.train", "--mode=train"]
    command += ["--experiment=sact_resnet_digit_scenes", f"--config_file={settings}"]
    command += [f"--model_dir={folder / 'run'}"]
    log = folder / "output.log"
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": "1"}
    if workers:
        launch = [sys.executable, "-m", "sact_tf.cli.launch_local", "--threads=1"]
        launch += [f"--workers={workers}", f"--ps={servers}", f"--logs={folder}"]
        command = [*launch, "--", *command]
        log = folder / ("chief-0.log" if servers else "worker-0.log")
    print(f"{strategy}, {workers} workers ...", file=sys.stderr)
    seen = []
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while process.poll() is None:
                step = _last_step(log)
                if step and (not seen or step > seen[-1][0]):
                    seen.append((step, time.monotonic(), _bytes_on_loopback()))
                time.sleep(0.05)
        finally:
            process.terminate()
            process.wait()
    if process.returncode or len(seen) < 2:
        words = (folder / "output.log").read_text(errors="replace").splitlines()
        raise RuntimeError(
            f"{strategy} with {workers} workers ended with code {process.returncode}: "
            f"{words[-1] if words else 'it printed nothing'}"
        )
    (first, began, before), (last, ended, after) = seen[0], seen[-1]
    rate = (last - first) / (ended - began)
    return Line(
        strategy, max(workers, 1), rate, rate * batch, (after - before) / (last - first)
    )


def _last_step(log):
    if not log.exists():
        return 0
    found = re.findall(r"train \| step: +(\d+) ", log.read_text(errors="replace"))
    return int(found[-1]) if found else 0


def _bytes_on_loopback():
    """Bytes that the loopback interface has received, which are those it has sent."""
    for line in _COUNTERS.read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    raise ValueError(f"{_COUNTERS} has no interface lo.")


COMMAND = command_line.Command(
    "benchmark_distributed", __doc__, add_flags, run, show, "print JSON"
)

if __name__ == "__main__":
    COMMAND.main()
