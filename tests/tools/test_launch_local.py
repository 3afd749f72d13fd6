import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sact_tf.cli import launch_local
from tests.tools.calling import call

# Stands in for tools.train: says who it is, then does as a file named after it and the
# number of its start tells it: end with a code, when others have started so many times.
PROGRAM = textwrap.dedent(
    r"""
    import json, os, pathlib, sys, time
    config = json.loads(os.environ["TF_CONFIG"])
    task = "{type}-{index}".format(**config["task"])
    folder = pathlib.Path(sys.argv[1])
    starts = folder / f"{task}.starts"
    with starts.open("a") as file:
        print(os.getpid(), os.environ["TF_CONFIG"], file=file)
    count = len(starts.read_text().splitlines())
    print("train | step:      0 | training until step 30...")
    print("train | step:      7 | steps/sec:    2.5 | output:")
    print("     'training_loss': np.float32(0.25),")
    order = folder / f"{task}.{count}"
    while not order.exists():
        if (folder / "end").exists() and task.split("-")[0] in sys.argv[2:]:
            sys.exit(0)
        time.sleep(0.05)
    code, *awaited = order.read_text().split()
    for item in awaited:
        name, times = item.split(":")
        others = folder / f"{name}.starts"
        while not others.exists() or len(others.read_text().split("\n")) <= int(times):
            time.sleep(0.05)
    print(f"error: {task} could not go on", file=sys.stderr)
    if int(code) < 0:
        os.kill(os.getpid(), -int(code))
    sys.exit(int(code))
    """
)


def command(folder, *ending):
    return ["--", sys.executable, "-c", PROGRAM, str(folder), *ending]


def started(folder, name):
    """(pid, TF_CONFIG) of every start of a process."""
    path = folder / f"{name}.starts"
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = [line.split(" ", 1) for line in lines]
    return [(int(pid), json.loads(config)) for pid, config in pairs]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def pids(folder):
    names = [path.stem for path in folder.glob("*.starts")]
    return [pid for name in names for pid, _ in started(folder, name)]


def test_all_are_started_and_none_is_left(tmp_path, monkeypatch, capsys):
    (tmp_path / "end").touch()
    code, out, errors = call(
        monkeypatch,
        capsys,
        launch_local,
        *("--ps", 2, "--workers", 2, "--evaluator", "--threads", 1),
        *("--logs", tmp_path / "logs", "--json"),
        *command(tmp_path, "chief", "evaluator"),
    )
    assert code == 0, errors
    result = json.loads(out)
    assert result["steps"] == 7 and result["restarts"] == 0
    assert "7/30" in errors and "loss 0.25" in errors
    for role, count in {"chief": 1, "ps": 2, "worker": 2, "evaluator": 1}.items():
        for index in range(count):
            assert "step:      7" in (tmp_path / f"logs/{role}-{index}.log").read_text()
            ((_, config),) = started(tmp_path, f"{role}-{index}")
            assert config["task"] == {"type": role, "index": index}
            cluster = config["cluster"]
    assert {role: len(hosts) for role, hosts in cluster.items()} == {
        "chief": 1,
        "ps": 2,
        "worker": 2,
    }
    ports = [host for hosts in cluster.values() for host in hosts]
    assert len(set(ports)) == 5
    assert not any(alive(pid) for pid in pids(tmp_path))


def test_one_that_ends_stops_all(tmp_path, monkeypatch, capsys):
    (tmp_path / "worker-1.1").write_text("2")
    code, _, errors = call(
        monkeypatch,
        capsys,
        launch_local,
        *("--logs", tmp_path / "logs", "--restarts", 3),
        *command(tmp_path),
    )
    assert code == 2
    last = errors.splitlines()[-1]
    assert "worker 1 ended with code 2, and all were stopped" in last
    assert "error: worker-1 could not go on (its log:" in last
    assert not any(alive(pid) for pid in pids(tmp_path))


@pytest.mark.parametrize(
    ("ps", "killed", "again"),
    [
        (1, "worker-1", {"worker-1"}),
        (1, "chief-0", {"chief-0"}),
        (1, "ps-0", {"chief-0", "ps-0", "worker-0", "worker-1"}),
        (0, "worker-1", {"worker-0", "worker-1"}),
    ],
)
def test_what_is_killed_starts_again(tmp_path, monkeypatch, capsys, ps, killed, again):
    names = [*(("chief-0", "ps-0") if ps else ()), "worker-0", "worker-1"]
    all_there = " ".join(f"{name}:1" for name in names)
    (tmp_path / f"{killed}.1").write_text(f"-9 {all_there}")
    all_again = " ".join(f"{name}:2" for name in again)
    for trainer in ["chief-0"] if ps else ["worker-0", "worker-1"]:
        start = 2 if trainer in again else 1
        (tmp_path / f"{trainer}.{start}").write_text(f"0 {all_again}")
    code, out, errors = call(
        monkeypatch,
        capsys,
        launch_local,
        *("--ps", ps, "--logs", tmp_path / "logs", "--restarts", 1, "--json"),
        *command(tmp_path),
    )
    assert code == 0, errors
    assert json.loads(out)["restarts"] == 1
    name = killed.replace("-", " ")
    assert f"{name} was killed (SIGKILL) and is started again." in errors
    for path in tmp_path.glob("*.starts"):
        expected = 2 if path.stem in again else 1
        assert len(started(tmp_path, path.stem)) == expected, path.stem


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_leaves_no_process(tmp_path, number):
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "sact_tf.cli.launch_local", "--ps", "1"),
            *("--logs", str(tmp_path / "logs")),
            *command(tmp_path),
        ],
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background is deaf to Ctrl-C, and its children are.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    names = ("chief-0", "ps-0", "worker-0", "worker-1")
    deadline = time.monotonic() + 240
    while not all(started(tmp_path, name) for name in names):
        assert time.monotonic() < deadline and launcher.poll() is None
        time.sleep(0.1)
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=60)
    expected = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}
    assert launcher.returncode == expected[number], errors
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give the command of the processes after --"),
        (["--workers", 0, "--", "true"], "--workers must be at least 1. Received: 0"),
        (["--ps", -1, "--", "true"], "--ps must be at least 0. Received: -1"),
        (["--", "/nowhere/program"], "No such file or directory: '/nowhere/program'"),
    ],
)
def test_messages(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call(monkeypatch, capsys, launch_local, *arguments)
    assert code == 2
    assert message in errors.splitlines()[-1]
