"""What this machine's GPU makes of the networks, in about five minutes.

  device    rates of large products and of a large copy: what there is to reach
  golden    the authors' numbers, without TF32, for each way to execute
  networks  ResNet-101: plain, SACT, ACT, with and without XLA, beside a peer
  training  a step of ResNet-50, in float32 and with bfloat16
  cifar     an update of a CIFAR network, compiled by XLA
  busy      share of the time in which the GPU computes

What is compared takes turns in one process, and the fastest turn counts; every turn
waits for the device. What fails is one line, and the rest goes on; what no time is left
for is named. The last line says what to choose on this device. `--output` is written
after every result. docs/gpu.md says more.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
import tf_keras

from sact_tf.evaluation import report
from tools import command_line, gpu_measurements
from tools.gpu_measurements import FULL, TINY, Case, Check, Result

#: Sections in their order, with their share of the time.
SECTIONS: dict[str, tuple[Callable[[Check], None], float]] = {
    "device": (gpu_measurements.device, 1),
    "golden": (gpu_measurements.golden, 3),
    "networks": (gpu_measurements.networks, 10),
    "training": (gpu_measurements.training, 4),
    "cifar": (gpu_measurements.cifar, 2),
    "busy": (gpu_measurements.busy, 1),
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
    parser.add_argument("--json", action="store_true", help="print JSON")
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
    check = _Run(TINY if flags.tiny else FULL, flags.seconds, flags.output)
    check.run([name for name in SECTIONS if name in (flags.only or SECTIONS)])
    content = check.content()
    if flags.json:
        print(json.dumps(content, indent=1))
        # For who watches: standard output is for machines.
        print(content["choose"], file=sys.stderr)
        return
    print(_table(check.results))
    for line in (*check.failed, *(f"{what}: skipped" for what in check.skipped)):
        print(line)
    print(f"\n{content['device']}\n{content['choose']}")


class _Run:
    """One run of the check: its clock, and all that came out so far."""

    def __init__(self, settings, seconds, output=None):
        self.settings = settings
        self.results: list[Result] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.section = ""
        self._output = output
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._section_end = self._end

    def run(self, names):
        """Runs sections, each with its share of what time there is."""
        for index, name in enumerate(names):
            self.section = name
            measure, weight = SECTIONS[name]
            left = self._end - time.monotonic()
            if left <= 0:
                self.skip()
                continue
            weights = sum(SECTIONS[other][1] for other in names[index:])
            self._section_end = time.monotonic() + left * weight / weights
            with self.guarded():
                measure(self)
        self._write()

    def add(self, what, value, unit, **details):
        """Keeps a result; `details` are for the JSON and the table's last column."""
        self.results.append(Result(self.section, what, float(value), unit, details))
        self._write()

    def skip(self, what="", why="no time left"):
        """Names what was not run."""
        name = f"{self.section}: {what}" if what else self.section
        self.skipped.append(f"{name} ({why})")
        self._write()

    @contextlib.contextmanager
    def guarded(self, what=""):
        """What goes wrong here is a line, and the rest goes on."""
        name = f"{self.section}: {what}" if what else self.section
        try:
            yield
        except Exception as error:
            cause = " ".join((str(error) or type(error).__name__).split())[:300]
            self.failed.append(f"{name}: failed: {cause}")
            self.say(self.failed[-1])
            self._write()

    def say(self, text):
        """Progress: on a terminal one line that changes, else line after line."""
        text = f"{time.monotonic() - self._began:4.0f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def seconds_left(self):
        """Of this section."""
        return self._section_end - time.monotonic()

    def compare(
        self, cases: Sequence[Case], seconds: float | None = None
    ) -> dict[str, float]:
        """Milliseconds of cases that take turns, after each was called twice.

        Args:
          cases: the most important first.
          seconds: to begin cases in; of the section's time by default.
        """
        ready, first = {}, {}
        end = self._section_end
        if seconds is not None:
            end = time.monotonic() + seconds
        for case in cases:
            if time.monotonic() > end:
                self.skip(case.name)
                continue
            self.say(f"{self.section}: {case.name}")
            with self.guarded(case.name):
                began = time.monotonic()
                call = case.make()
                call().numpy()
                first[case.name] = time.monotonic() - began
                call().numpy()
                ready[case.name] = call
        times = {name: [] for name in ready}
        for _ in range(self.settings.turns):
            for name, call in list(ready.items()):
                try:
                    began = time.perf_counter()
                    call().numpy()  # One number: waits for all of the computation.
                    times[name].append(time.perf_counter() - began)
                except Exception:
                    del ready[name]
                    with self.guarded(name):
                        raise
        fastest = {}
        for case in cases:
            if not times.get(case.name):
                continue
            value = fastest[case.name] = 1e3 * min(times[case.name]) / case.updates
            details = dict(case.details)
            if case.images:
                details["images_per_second"] = round(1e3 * case.images / value, 1)
            details["first_call_seconds"] = round(first[case.name], 1)
            self.add(case.name, value, "ms", **details)
        return fastest

    def content(self) -> dict:
        """All of it, for JSON."""
        return {
            "device": gpu_measurements.describe_device(),
            "seconds": round(time.monotonic() - self._began, 1),
            "results": [
                {
                    "section": result.section,
                    "what": result.what,
                    "value": result.value,
                    "unit": result.unit,
                    **result.details,
                }
                for result in self.results
            ],
            "failed": self.failed,
            "skipped": self.skipped,
            "choose": choose(self.results),
        }

    def _write(self):
        if self._output:
            # Never half a file, even if the process is stopped here.
            part = self._output.with_name(f"{self._output.name}.part")
            part.write_text(json.dumps(self.content(), indent=1), encoding="utf-8")
            part.replace(self._output)


def choose(results: Sequence[Result]) -> str:
    """One sentence: what a user of the measured device should choose."""
    parts = [
        part
        for part in (
            _wrong(results),
            _inference(results),
            _act(results),
            _precision(results),
        )
        if part
    ]
    if not parts:
        return "Choose: nothing was measured that would tell."
    return f"Choose: {'; '.join(parts)}."


def _wrong(results):
    """Executions that do not give the authors' numbers."""
    wrong = [
        result.what
        for result in results
        if result.section == "golden" and not result.details["equal"]
    ]
    return f"not {', '.join(wrong)}: other numbers than the authors'" if wrong else ""


def _of_first_group(results):
    """Milliseconds of the networks of what was measured first, and the batch."""
    networks = [result.details for result in results if "network" in result.details]
    group = [(details["size"], details["batch"]) for details in networks]
    times = {
        result.details["network"]: result.value
        for result in results
        if "network" in result.details
        and (result.details["size"], result.details["batch"]) == group[0]
    }
    return times, group[0][1] if group else 0


def _inference(results):
    times, batch = _of_first_group(results)
    ways = {
        "SACT auto": 'execution="auto"',
        "SACT auto, bfloat16": 'execution="auto" with mixed_bfloat16',
        "SACT dense, XLA": 'execution="dense" with jit_compile=True',
    }
    measured = {name: times[name] for name in ways if name in times}
    if not measured:
        return ""
    best = min(measured, key=measured.get)
    # The default, unless something is clearly faster.
    if measured.get("SACT auto", math.inf) < 1.03 * measured[best]:
        best = "SACT auto"
    text = f"for SACT at inference {ways[best]} ({measured[best]:.1f} ms for {batch} "
    plain = [times[name] for name in ("plain", "plain, XLA") if name in times]
    if plain:
        share = measured[best] / min(plain)
        return f"{text}images, {share:.2f} times the fastest plain float32 network)"
    return f"{text}images)"


def _act(results):
    times, _ = _of_first_group(results)
    if not {"plain", "ACT positions"} <= times.keys():
        return ""
    share = times["ACT positions"] / times["plain"]
    if share < 0.97:
        return (
            'to save time, adaptivity="act" with execution="positions" '
            f"({share:.2f} times the plain network)"
        )
    return f"no halting to save time (ACT {share:.2f} times the plain network)"


def _precision(results):
    times = {
        result.what: result.value for result in results if result.section == "training"
    }
    ratios = [
        times[name] / times[name.replace("float32", "mixed_bfloat16")]
        for name in times
        if name.endswith(", float32")
        and name.replace("float32", "mixed_bfloat16") in times
    ]
    if not ratios:
        return ""
    worst = min(ratios)
    if worst > 1.03:
        return f"for training mixed_bfloat16 (at least {worst:.2f} times as fast)"
    return f"for training float32 (mixed_bfloat16 is {worst:.2f} times as fast)"


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
