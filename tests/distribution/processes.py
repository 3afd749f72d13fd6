"""Trainings of several processes on this machine, some of which are killed."""

import json
import os
import pathlib
import subprocess
import sys
import time

import tensorflow as tf

from sact_tf.cli.launch_local import free_ports

LIMIT = 600  # seconds that anything may take; on a free machine it is a tenth


class Processes:
    """Processes of one cluster; leaving the context kills those that are left."""

    def __init__(self, logs, *command, **roles):
        self._logs = logs
        logs.mkdir(exist_ok=True)
        self._command = [sys.executable, *map(str, command)]
        ports = iter(free_ports(sum(roles.values())))
        self._cluster = {
            role: [f"127.0.0.1:{next(ports)}" for _ in range(number)]
            for role, number in roles.items()
        }
        self._running = {}
        self.names = [f"{role} {i}" for role in roles for i in range(roles[role])]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._running.values():
            process.kill()
            process.wait()

    def start(self, *names, more=()):
        """Starts processes by name, all by default, with more arguments."""
        for name in names or self.names:
            role, index = name.split()
            task = {"type": role, "index": int(index)}
            config = json.dumps({"cluster": self._cluster, "task": task})
            with self._log(name).open("ab") as log:
                self._running[name] = subprocess.Popen(
                    [*self._command, *more],
                    env={
                        **os.environ,
                        "TF_CONFIG": config,
                        "TF_NUM_INTRAOP_THREADS": "1",
                        "PYTHONUNBUFFERED": "1",
                        "PYTHONPATH": str(pathlib.Path(__file__).parents[2]),
                    },
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )

    def kill(self, name):
        """Ends a process as a machine that fails does: kill -9."""
        process = self._running.pop(name)
        assert process.poll() is None, self.log(name)
        process.kill()
        process.wait()

    def end(self, name):
        """Waits for a process to end by itself; its exit code."""
        return self._running.pop(name).wait(LIMIT)

    def log(self, name):
        """What a process has printed."""
        path = self._log(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def until_checkpoint(self, folder, step):
        """Waits for the checkpoint of a step or of a later one."""
        deadline = time.monotonic() + LIMIT
        while max(steps(folder), default=-1) < step:
            assert time.monotonic() < deadline
            for name, process in self._running.items():
                assert not process.poll(), f"{name}: {self.log(name)[-2000:]}"
            time.sleep(0.1)

    def until_printed(self, name, text):
        """Waits until a process has printed a text."""
        deadline = time.monotonic() + LIMIT
        while text not in self.log(name):
            assert time.monotonic() < deadline, self.log(name)
            assert not self._running[name].poll(), self.log(name)
            time.sleep(0.1)

    def _log(self, name):
        return self._logs / f"{name.replace(' ', '-')}.log"


def kept(folder):
    """Step of the checkpoint that a training goes on from.

    Not the latest one that there are files of: a parameter server completes the
    files that a chief asked for, also when the chief was killed meanwhile.
    """
    return int(tf.train.latest_checkpoint(folder).rpartition("-")[2])


def steps(folder):
    """Steps of the checkpoints in a folder."""
    return [
        int(path.stem.removeprefix("ckpt-")) for path in folder.glob("ckpt-*.index")
    ]
