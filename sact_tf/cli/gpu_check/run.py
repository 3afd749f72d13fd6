"""One run of the check: its clock, and all that came out so far."""

import contextlib
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from sact_tf.cli.gpu_check import device
from sact_tf.cli.gpu_check.advice import choose
from sact_tf.cli.gpu_check.settings import Case, Check, Result, Settings

#: That what was made ready may take in any case.
_SECONDS_FOR_TURNS = 10.0


class Run:
    """One run of the check; implements Check."""

    def __init__(
        self, settings: Settings, seconds: float, output: pathlib.Path | None = None
    ):
        """Starts the clock.

        Args:
          settings: how large everything is.
          seconds: after which nothing new is begun.
          output: JSON file to write after every result.
        """
        self.settings = settings
        self.results: list[Result] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []
        self.section = ""
        self._output = output
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._section_end = self._end

    def sections(self, sections: dict[str, tuple[Callable[[Check], None], float]]):
        """Runs sections, each with its share of what time there is."""
        names = list(sections)
        for index, name in enumerate(names):
            self.section = name
            measure, weight = sections[name]
            left = self._end - time.monotonic()
            if left <= 0:
                self.skip()
                continue
            weights = sum(sections[other][1] for other in names[index:])
            self._section_end = time.monotonic() + left * weight / weights
            with self.guarded():
                measure(self)
        self._write()

    def add(self, what: str, value: float, unit: str, **details) -> None:
        """Keeps a result; `details` are for the JSON and the table's last column."""
        self.results.append(Result(self.section, what, float(value), unit, details))
        self._write()

    def skip(self, what: str = "", why: str = "no time left") -> None:
        """Names what was not run."""
        name = f"{self.section}: {what}" if what else self.section
        self.skipped.append(f"{name} ({why})")
        self._write()

    @contextlib.contextmanager
    def guarded(self, what: str = "") -> Iterator[None]:
        """What goes wrong here is a line, and the rest goes on."""
        name = f"{self.section}: {what}" if what else self.section
        try:
            yield
        except Exception as error:
            cause = " ".join((str(error) or type(error).__name__).split())[:300]
            self.failed.append(f"{name}: failed: {cause}")
            self.say(self.failed[-1])
            self._write()

    def say(self, text: str) -> None:
        """Progress: on a terminal one line that changes, else line after line."""
        text = f"{time.monotonic() - self._began:4.0f} s  {text}"
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def seconds_left(self) -> float:
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
        # Where everything is slow, as without a GPU, fewer turns; but one at least.
        end = max(end, time.monotonic() + _SECONDS_FOR_TURNS)
        for turn in range(self.settings.turns):
            if turn and time.monotonic() > end:
                break
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
            "device": device.describe(),
            "seconds": round(time.monotonic() - self._began, 1),
            "results": [
                {
                    "section": result.section,
                    "what": result.what,
                    "value": result.value if math.isfinite(result.value) else None,
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
