import json
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from sact_tf.cli.gpu_check import __main__ as gpu_check
from sact_tf.cli.gpu_check import run
from sact_tf.cli.gpu_check.advice import choose
from sact_tf.cli.gpu_check.device import covered
from sact_tf.cli.gpu_check.settings import Case, Result
from tests.tools.calling import call

# What machines with a GPU may lack.
_WITHOUT = """
import sys
for name in ("official", "tensorflow_datasets", "pycocotools", "pytest"):
    sys.modules[name] = None
from sact_tf.cli.gpu_check.__main__ import main
main()
"""


@pytest.fixture
def checks(monkeypatch, capsys):
    """Runs the check with other sections; (exit code, output, errors)."""

    def check(sections, *arguments):
        monkeypatch.setattr(gpu_check, "SECTIONS", sections)
        return call(monkeypatch, capsys, gpu_check, "--tiny", *arguments)

    return check


def test_every_section_tiny_and_without_what_other_machines_lack(tmp_path):
    output = tmp_path / "new" / "check.json"
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, "--tiny", "--json", "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert json.loads(output.read_text())["results"] == content["results"]
    assert content["failed"] == []
    gpu = tf.config.list_physical_devices("GPU")
    assert gpu or content["skipped"] == ["busy (no GPU)"]
    results = content["results"]
    sections = {result["section"] for result in results}
    assert sections - {"busy"} == {
        *("device", "golden", "graphs", "networks", "training", "cifar")
    }
    assert all(result["value"] > 0 for result in results)
    counted = {r["what"]: r for r in results if r["section"] == "graphs"}
    assert counted["SACT dense"]["value"] > 100
    assert counted["SACT dense"]["host_waits"] == 0
    golden = [result for result in results if result["section"] == "golden"]
    assert len(golden) == 2 and all(result["equal"] for result in golden)
    # Every number has its line for people, and the advice is the last one.
    lines = done.stderr.splitlines()
    assert lines[-1] == content["choose"]
    assert sum(line.startswith("| ") for line in lines) == len(results) + 2
    for part in ("for SACT at inference execution=", "ACT ", "for training "):
        assert part in content["choose"]


def test_what_fails_is_a_line_and_the_rest_goes_on(checks, tmp_path):
    def broken(check):
        check.add("first", 1.0, "ms")
        raise RuntimeError("out of\n memory")

    def half_broken(check):
        calls = iter([0.0, 0.0])
        cases = [
            Case("unmade", lambda: 1 / 0),
            Case("breaks later", lambda: lambda: tf.constant(next(calls))),
            Case("whole", lambda: lambda: tf.constant(0.0), images=4, updates=2),
        ]
        assert check.compare(cases).keys() == {"whole"}

    output = tmp_path / "check.json"
    sections = {"one": (broken, 1), "two": (half_broken, 1)}
    code, out, _ = checks(sections, "--output", output)
    assert code == 0
    assert "one: failed: out of memory\n" in out
    assert "two: unmade: failed: division by zero\n" in out
    assert "two: breaks later: failed: StopIteration\n" in out
    first, whole = json.loads(output.read_text())["results"]
    assert first["what"] == "first" and whole["what"] == "whole"
    assert whole["images_per_second"] == pytest.approx(4e3 / whole["value"], rel=0.01)


def test_what_no_time_is_left_for_is_named(checks):
    def slow(check):
        check.compare([Case("never begun", None)], seconds=-1)
        while check.seconds_left() > -0.1:
            pass

    sections = {"one": (slow, 1), "two": (slow, 0.01), "three": (slow, 1)}
    code, out, _ = checks(sections, "--seconds", 0.05, "--only", "one", "three")
    assert code == 0
    assert "one: never begun (no time left): skipped\nthree (no time left): ski" in out
    assert "two" not in out


def test_slow_cases_take_fewer_turns(checks, monkeypatch):
    monkeypatch.setattr(run, "_SECONDS_FOR_TURNS", 0.0)
    ran = []

    def slow(check):
        case = Case(
            "slow", lambda: lambda: ran.append(time.sleep(0.001)) or tf.constant(0.0)
        )
        check.compare([case], seconds=0.0005)

    checks({"one": (slow, 1)})
    assert len(ran) == 3  # Twice to warm up, and one turn of the two.


def _networks(**times):
    names = {"auto": "SACT auto", "xla": "SACT dense, XLA", "act": "ACT positions"}
    return [
        Result(
            "networks",
            "",
            value,
            "ms",
            {"network": names.get(name, name), "size": size, "batch": 8},
        )
        for size, factor in (("224x224", 1), ("600x848", 1000))
        for name, value in ((name, factor * time) for name, time in times.items())
    ]


@pytest.mark.parametrize(
    "results, advice",
    [
        ([], "Choose: nothing was measured that would tell."),
        (
            _networks(plain=8, auto=10, xla=5, act=6),
            'Choose: for SACT at inference execution="dense" with jit_compile=True (5.0'
            " ms for 8 images, 0.62 times the fastest plain float32 network); to save "
            'time, adaptivity="act" with execution="positions" (0.75 times the plain '
            "network).",
        ),
        (
            _networks(auto=5.1, xla=5),
            'Choose: for SACT at inference execution="auto" (5.1 ms for 8 images).',
        ),
        (_networks(plain=8, act=8), "Choose: ACT saves no time (1.00 times the plain"),
        (
            [Result("golden", "sact tiles", 0.1, "", {"equal": False})],
            "Choose: not sact tiles: other numbers than the authors'.",
        ),
        (
            [
                Result("training", f"{name}, {precision}", value, "ms", {})
                for name, precision, value in (
                    ("SACT, live", "float32", 30.0),
                    ("SACT, live", "mixed_bfloat16", 20.0),
                    ("plain, live", "float32", 24.0),
                    ("plain, live", "mixed_bfloat16", 20.0),
                    ("plain, frozen", "float32", 24.0),
                )
            ],
            "Choose: for training mixed_bfloat16 (at least 1.20 times as fast).",
        ),
    ],
)
def test_advice(results, advice):
    assert choose(results).startswith(advice)


def test_kernels_that_overlap_count_once():
    assert covered([(6, 8), (0, 2), (1, 3), (1, 2)]) == 5 / 8


def test_bad_input(checks):
    code, out, err = checks(gpu_check.SECTIONS, "--seconds", 0)
    assert code == 2 and not out
    assert "--seconds must be above zero. Received: 0.0" in err
