"""TF_CONFIG: the processes that train together, and which of them this one is.

```json
{
  "cluster": {
    "chief": ["10.0.0.1:2222"],
    "ps": ["10.0.0.2:2222"],
    "worker": ["10.0.0.3:2222", "10.0.0.4:2222"]
  },
  "task": {"type": "worker", "index": 0}
}
```

The variable is TensorFlow's own, and Kubernetes' training operator sets it. TensorFlow
takes it as it is and stops with a traceback, or waits for ever, when it is wrong; here
it is checked first.
"""

import collections
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

#: What a process can be. An evaluator is no part of the cluster: nobody talks to it.
ROLES = ("chief", "worker", "ps", "evaluator")
_VARIABLE = "TF_CONFIG"


@dataclass(frozen=True)
class Cluster:
    """The processes that train together, as one of them sees it.

    Attributes:
      addresses: for each role its processes, as host:port.
      role: of this process, one of `ROLES`.
      index: of this process among those of its role.
    """

    addresses: Mapping[str, tuple[str, ...]]
    role: str
    index: int

    def count(self, role: str) -> int:
        """How many processes have a role."""
        return len(self.addresses.get(role, ()))

    @property
    def name(self) -> str:
        """Of this process, for messages and files: "worker 1"."""
        return f"{self.role} {self.index}"

    @property
    def members(self) -> list[str]:
        """Names of all processes that talk to each other."""
        return [
            f"{role} {index}"
            for role in ROLES
            if role != "evaluator"
            for index in range(self.count(role))
        ]

    @property
    def leads(self) -> bool:
        """Whether this process writes what a run leaves: the chief, or worker 0."""
        if self.role == "chief":
            return True
        return self.role == "worker" and not self.index and not self.count("chief")

    @property
    def asynchronous(self) -> bool:
        """Whether there are parameter servers."""
        return self.count("ps") > 0

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """The cluster as tf.distribute takes it; an evaluator is not in it."""
        addresses = {
            role: list(hosts)
            for role, hosts in self.addresses.items()
            if role != "evaluator"
        }
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(addresses),
            task_type=self.role,
            task_id=self.index,
            # TensorFlow asks the resolver how many devices this worker has.
            num_accelerators={"GPU": len(tf.config.list_physical_devices("GPU"))},
            rpc_layer="grpc",
        )

    def check_port(self) -> None:
        """Makes sure that this process can listen where the others will look for it.

        TensorFlow would share a port with another process, and then both hang.

        Raises:
          ValueError: another process has the port, or this one may not have it.
        """
        address = self.addresses[self.role][self.index]
        port = int(address.rpartition(":")[2])
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # As a server does: a port that was used until just now is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("", port))
            except OSError as error:
                raise ValueError(
                    f"Port {port} of {self.name} ({address} in {_VARIABLE}) cannot be "
                    f"used: {error.strerror}. End the process that has it (`ss -ltnp` "
                    f"names it), or give another port to all processes"
                ) from error


def from_environment(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """Reads TF_CONFIG.

    Args:
      environment: os.environ by default.

    Returns:
      The cluster; None if there is no TF_CONFIG, or an empty one.

    Raises:
      ValueError: TF_CONFIG is malformed; the message says where.
    """
    text = (os.environ if environment is None else environment).get(_VARIABLE, "")
    if not text.strip():
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(
            f"is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        ) from error
    if config == {}:
        return None
    if not isinstance(config, dict):
        raise _malformed(f"must be an object. Received: {_shown(config)}")
    for key in ("cluster", "task"):
        if not isinstance(config.get(key), dict):
            raise _malformed(
                f'needs an object "{key}". Received: {_shown(config.get(key))}'
            )
    addresses = _addresses(config["cluster"])
    role, index = _task(config["task"], addresses)
    return Cluster(addresses, role, index)


def _addresses(jobs):
    unknown = sorted(set(jobs) - set(ROLES))
    if unknown:
        raise _malformed(
            f'has an unknown role in "cluster": {_shown(unknown[0])}; there are '
            f"{', '.join(ROLES)}"
        )
    addresses = {}
    for role, hosts in jobs.items():
        if not isinstance(hosts, list):
            raise _malformed(
                f"needs a list of host:port for {role}. Received: {_shown(hosts)}"
            )
        for host in hosts:
            _check_address(role, host)
        addresses[role] = tuple(hosts)
    if len(addresses.get("chief", ())) > 1:
        raise _malformed(f"has {len(addresses['chief'])} chiefs; at most one can lead")
    talking = [
        host
        for role, hosts in addresses.items()
        if role != "evaluator"
        for host in hosts
    ]
    if not talking:
        raise _malformed('names no process in "cluster"')
    (twice, times), *_ = collections.Counter(talking).most_common(1)
    if times > 1:
        raise _malformed(f"gives the address {twice} to {times} processes")
    return addresses


def _check_address(role, address):
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("",) * 3
    whole = host and port.isascii() and port.isdigit()
    if not whole or not 0 < int(port) < 2**16:
        raise _malformed(
            f"needs host:port, port 1 to 65535, for {role}. Received: {_shown(address)}"
        )


def _task(task, addresses):
    role, index = task.get("type"), task.get("index")
    if role not in ROLES:
        raise _malformed(
            f'needs one of {", ".join(ROLES)} as "type" of "task". Received: '
            f"{_shown(role)}"
        )
    if isinstance(index, str) and index.isascii() and index.isdigit():
        index = int(index)  # Some schedulers write every value as a string.
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise _malformed(
            f'needs a number from 0 as "index" of "task". Received: {_shown(index)}'
        )
    # An evaluator need not be in the cluster, so there is nothing to count.
    count = len(addresses.get(role, ()))
    if role != "evaluator" and index >= count:
        raise _malformed(
            f"says that this process is {role} {index}, and its cluster has "
            f"{count or 'no'} {role}{'s' if count != 1 and role != 'ps' else ''}"
        )
    return role, index


def _malformed(what):
    return ValueError(
        f"{_VARIABLE} {what}. See docs/distributed.md for how it must look"
    )


def _shown(value):
    return json.dumps(value)
