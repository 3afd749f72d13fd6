r"""Starts all processes of a distributed training on this machine.

    sact-tf launch-local --workers 2 --ps 1 --evaluator -- \
        sact-tf train --experiment=sact_resnet_digit_scenes --mode=train \
        --model_dir=runs/digits \
        --params_override=runtime.distribution_strategy=parameter_server

What follows -- is the command of every process; what each of them is, TF_CONFIG tells
it, on free ports of this machine. With --ps there are also a chief and parameter
servers (asynchronous training); without, only workers (synchronous training).

When the training ends, or one process does that must not, all are stopped; nothing is
left behind, whatever ends this tool. With --restarts, processes that were killed are
started again: an asynchronous worker, the chief or the evaluator by itself, all
together otherwise. The output of each is in --logs. The same command goes on after an
interruption.
"""

import argparse
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

from tqdm import tqdm

from sact_tf.cli import command_line
from sact_tf.cli.flags import Parser

#: Exit code of a process that asks to be started again, together with the others.
_RESTART = 138
_KILLED = range(-64, 0)
_POLL_SECONDS = 0.2
_SECONDS_TO_END = 5.0


def add_flags(parser: Parser) -> None:
    """Adds the command's flags."""
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--ps", type=int, default=0, help="parameter servers (default: 0, none)"
    )
    parser.add_argument(
        "--evaluator", action="store_true", help="a process that evaluates checkpoints"
    )
    parser.add_argument(
        "--threads",
        type=int,
        help="of each operation of a process (default: as many as there are cores)",
    )
    parser.add_argument(
        "--restarts",
        type=int,
        default=0,
        help="how often to start again what was killed (default: 0)",
    )
    parser.add_argument(
        "--logs",
        type=pathlib.Path,
        default=pathlib.Path("launch_logs"),
        help="folder for a log of each process, appended to (default: launch_logs)",
    )
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="-- and the command of every process"
    )


def run(flags: argparse.Namespace) -> dict:
    """Looks after the processes until all have ended."""
    _check(flags)
    command_line.goes_on()
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, _end)
    try:
        with _Cluster(flags) as cluster:
            cluster.watch()
    finally:
        signal.signal(signal.SIGTERM, before)
    return {
        "steps": cluster.progress.n,
        "seconds": round(time.monotonic() - started, 1),
        "restarts": cluster.restarts,
        "logs": str(flags.logs),
    }


def show(result: dict, flags: argparse.Namespace) -> str:
    """The result for people."""
    return f"{result['steps']} steps in {result['seconds']} s; logs in {result['logs']}"


def _check(flags):
    if flags.command[:1] == ["--"]:
        del flags.command[0]
    if not flags.command:
        raise ValueError(
            "Give the command of the processes after --, such as -- sact-tf train "
            "--experiment=..."
        )
    command_line.require_at_least(flags, workers=1, ps=0, restarts=0, threads=1)


def _end(number, frame):
    raise SystemExit(128 + number)


class _Process:
    """One process of the cluster, with its log."""

    def __init__(self, role, index, arguments, environment):
        self.role = role
        self.name = f"{role} {index}"
        self.log = arguments.logs / f"{role}-{index}.log"
        self._command = arguments.command
        self._environment = environment
        self._reader = None
        self._popen = None

    def start(self):
        with self.log.open("ab") as log:
            if self._reader is None:
                # What follows, not what an earlier run has left.
                self._reader = self.log.open(encoding="utf-8", errors="replace")
                self._reader.seek(0, os.SEEK_END)
            self._popen = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this tool, which then stops them in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    @property
    def code(self):
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    @property
    def started(self):
        return self._popen is not None

    def signal(self, number):
        """Sends a signal to the process and what it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def wait(self, seconds):
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def new_lines(self):
        return self._reader.readlines()

    def close(self):
        if self._reader:
            self._reader.close()

    def last_words(self):
        """What is most telling at the end of the log."""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in collections.deque(file, 50)]
        lines = [line for line in lines if line]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or ["it printed nothing"])[-1]


class _Cluster:
    """All processes; leaving the context stops those that still run."""

    def __init__(self, arguments):
        self._asynchronous = arguments.ps > 0
        self._restarts_left = arguments.restarts
        self.restarts = 0
        roles = {"worker": arguments.workers}
        if self._asynchronous:
            roles = {"chief": 1, "ps": arguments.ps, **roles}
        ports = iter(free_ports(sum(roles.values())))
        addresses = {
            role: [f"127.0.0.1:{next(ports)}" for _ in range(count)]
            for role, count in roles.items()
        }
        if arguments.evaluator:
            roles["evaluator"] = 1
        self._processes = [
            _Process(
                role, index, arguments, _environment(arguments, addresses, role, index)
            )
            for role, count in roles.items()
            for index in range(count)
        ]
        self._trainers = self._of("chief") or self._of("worker")
        self.progress = None
        arguments.logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        self.progress = tqdm(unit="step", desc=self._trainers[0].name)
        try:
            self._start(self._processes)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self._stop(self._processes)
        self.progress.close()
        for process in self._processes:
            process.close()

    def watch(self):
        """Returns when the training is over, and raises when it cannot go on."""
        over = [*self._trainers, *self._of("evaluator")]
        while True:
            self._show()
            for process in self._processes:
                code = process.code
                if code is not None and (code or process not in over):
                    self._replace(process)
            if all(process.code == 0 for process in over):
                return
            time.sleep(_POLL_SECONDS)

    def _replace(self, process):
        """Starts a process again that has ended and must not, or gives up."""
        code = process.code
        how = (
            f"ended with code {code}"
            if code >= 0
            else f"was killed ({signal.Signals(-code).name})"
        )
        if code not in (_RESTART, *_KILLED) or not self._restarts_left:
            raise RuntimeError(
                f"{process.name} {how}, and all were stopped: {process.last_words()} "
                f"(its log: {process.log})"
            )
        tqdm.write(f"{process.name} {how} and is started again.", file=sys.stderr)
        self._restarts_left -= 1
        self.restarts += 1
        alone = process.role == "evaluator" or (
            self._asynchronous and process.role in ("worker", "chief")
        )
        if alone and code != _RESTART:
            again = [process]
        else:
            again = [p for p in self._processes if p.role != "evaluator"]
        self._stop(again)
        self._start(again)

    def _of(self, role):
        return [process for process in self._processes if process.role == role]

    def _start(self, processes):
        for process in processes:
            process.start()

    def _stop(self, processes):
        processes = [process for process in processes if process.started]
        for process in processes:
            process.signal(signal.SIGTERM)
        deadline = time.monotonic() + _SECONDS_TO_END
        for process in processes:
            if process.code is None:
                process.wait(max(deadline - time.monotonic(), 0.0))
        for process in processes:
            process.signal(signal.SIGKILL)
            process.wait(_SECONDS_TO_END)

    def _show(self):
        """Brings the progress line up to date with what the logs say."""
        for line in self._trainers[0].new_lines():
            if found := re.search(r"training until step (\d+)", line):
                self.progress.total = max(int(found[1]), self.progress.total or 0)
            if found := re.search(
                r"train \| step: +(\d+) \| steps/sec: +([\d.]+)", line
            ):
                self.progress.n = int(found[1])
            if found := re.search(r"'training_loss': \D*32\(([\d.e+-]+|nan)\)", line):
                self.progress.set_postfix_str(f"loss {found[1]}", refresh=False)
        self.progress.refresh()


def _environment(arguments, addresses, role, index):
    environment = {
        **os.environ,
        "TF_CONFIG": json.dumps(
            {"cluster": addresses, "task": {"type": role, "index": index}}
        ),
        "PYTHONUNBUFFERED": "1",
    }
    if arguments.threads:
        # Not those that start operations: with one of them, a process that waits for
        # another could do nothing else.
        environment["TF_NUM_INTRAOP_THREADS"] = str(arguments.threads)
    return environment


def free_ports(count: int) -> list[int]:
    """Ports of this machine on which nobody listens."""
    with contextlib.ExitStack() as stack:
        # All at once, or the system may give the same one twice.
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


def _die_with_parent():
    """Runs in a new process: it is killed when this tool is, by whatever."""
    if sys.platform == "linux":
        prctl_set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(prctl_set_parent_death_signal, signal.SIGKILL)


COMMAND = command_line.Command("launch_local", __doc__, add_flags, run, show)

if __name__ == "__main__":
    COMMAND.main()
