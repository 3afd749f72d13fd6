"""Trainings that follow one another, each a command in a process of its own.

What is known of a run is a small JSON file among the documents; the run itself, with
its checkpoints, is elsewhere. A run whose file is there is not run again, and one that
was killed goes on.
"""

import base64
import datetime
import os
import pathlib
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from sact_tf import folders

#: Beside the networks, what becomes of a run's standard output.
LOG = "log.txt"


class Runs:
    """The runs of a question."""

    def __init__(self, question: str, folder: pathlib.Path, results: pathlib.Path):
        """Opens them.

        Args:
          question: its name.
          folder: where runs are.
          results: where what is known of them is.
        """
        self.folder = pathlib.Path(folder) / question
        self.results = pathlib.Path(results) / question

    def read(self, name: str) -> dict | None:
        """What is known of a run, if there is anything."""
        path = self.results / f"{name}.json"
        return folders.read_json(path) if path.exists() else None

    def all(self) -> dict[str, dict]:
        """What is known of all runs, by name."""
        return {
            path.stem: folders.read_json(path)
            for path in sorted(self.results.glob("*.json"))
        }

    def run(
        self,
        name: str,
        command: Sequence[str],
        measure: Callable[[pathlib.Path], dict],
    ) -> dict:
        """Runs a command, unless it is known what it gave.

        Args:
          name: of the run, and of its folder.
          command: of sact-tf, with flags; `{folder}` in them becomes the run's.
          measure: what is to be known of a finished run, from its folder, for JSON.

        Returns:
          What is known, and how it came: command, seconds, date, machine.

        Raises:
          RuntimeError: the command failed.
        """
        known = self.read(name)
        if known is not None:
            return known
        folder = self.folder / name
        words = [word.replace("{folder}", str(folder)) for word in command]
        began = time.monotonic()
        self.call(name, words)
        seconds = self._seconds(name, time.monotonic() - began)
        known = {
            **measure(folder),
            "command": " ".join(["sact-tf", *words]),
            "seconds": seconds,
            "date": datetime.date.today().isoformat(),
            "machine": machine(),
        }
        self.results.mkdir(parents=True, exist_ok=True)
        folders.write_json(self.results / f"{name}.json", known)
        return known

    def call(self, name: str, words: Sequence[str]) -> None:
        """Runs a command of sact-tf, whatever is known.

        Raises:
          RuntimeError: it failed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / f"{name}.{LOG}"
        print(f"{name}: see {log}", file=sys.stderr, flush=True)
        began = time.monotonic()
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "sact_tf_command", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            before = signal.signal(signal.SIGTERM, _end)
            try:
                code = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                self._seconds(name, time.monotonic() - began)
                raise
            finally:
                signal.signal(signal.SIGTERM, before)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip()
            last = lines.rpartition("\n")[2]
            raise RuntimeError(f"The run {name} failed ({last}). See {log}")

    def _seconds(self, name, more):
        """Adds to the time that a run has taken, which may have been in parts."""
        path = self.folder / f"{name}.seconds.json"
        before = folders.read_json(path) if path.exists() else 0.0
        folders.write_json(path, round(before + more, 1))
        return round(before + more, 1)


def _end(number, frame):
    raise SystemExit(128 + number)


def machine() -> str:
    """What the numbers were made on."""
    cards = tf.config.list_physical_devices("GPU")
    if cards:
        details = tf.config.experimental.get_device_details(cards[0])
        return details.get("device_name", "a GPU")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores ({platform.machine()})"


def packed(right: np.ndarray) -> str:
    """Bool [N] as text."""
    return base64.b64encode(np.packbits(right)).decode()


def unpacked(text: str, count: int) -> np.ndarray:
    """Bool [count] out of the text of `packed`."""
    return np.unpackbits(
        np.frombuffer(base64.b64decode(text), np.uint8), count=count
    ).astype(bool)
