import json
import socket

import pytest

from sact_tf.distribution import cluster, strategies

JOBS = {
    "chief": ["a:1"],
    "ps": ["a:2", "b:2"],
    "worker": ["a:3", "b:3"],
}


def read(jobs, role="worker", index=0):
    config = {"cluster": jobs, "task": {"type": role, "index": index}}
    return cluster.from_environment({"TF_CONFIG": json.dumps(config)})


def test_a_cluster():
    found = read(JOBS, "ps", "1")
    assert (found.name, found.count("worker"), found.leads) == ("ps 1", 2, False)
    assert found.members == ["chief 0", "worker 0", "worker 1", "ps 0", "ps 1"]
    assert found.asynchronous
    spec = found.resolver().cluster_spec().as_dict()
    assert spec == JOBS


def test_who_leads():
    assert read(JOBS, "chief").leads
    assert not read(JOBS, "worker").leads
    workers = {"worker": ["a:1", "b:1"]}
    assert [read(workers, "worker", index).leads for index in (0, 1)] == [True, False]


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_alone(text):
    assert cluster.from_environment({"TF_CONFIG": text}) is None
    assert cluster.from_environment({}) is None


def test_an_evaluator_is_not_in_the_cluster():
    found = read(JOBS, "evaluator")
    assert found.name == "evaluator 0" and "evaluator 0" not in found.members
    found = read({**JOBS, "evaluator": ["a:9"]}, "evaluator")
    assert "evaluator" not in found.resolver().cluster_spec().jobs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{worker: a:1}", r"TF_CONFIG is no JSON \(line 1, column 2"),
        ("[1]", r"must be an object. Received: \[1\]"),
        ('{"task": {}}', 'needs an object "cluster". Received: null'),
        ('{"cluster": {"worker": ["a:1"]}}', 'needs an object "task"'),
    ],
)
def test_malformed(text, message):
    with pytest.raises(ValueError, match=message):
        cluster.from_environment({"TF_CONFIG": text})


@pytest.mark.parametrize(
    ("jobs", "task", "message"),
    [
        ({"slave": ["a:1"]}, (), 'unknown role in "cluster": "slave"; there are chief'),
        ({"worker": "a:1"}, (), 'a list of host:port for worker. Received: "a:1"'),
        ({"worker": ["a"]}, (), 'needs host:port, port 1 to 65535.*Received: "a"'),
        ({"worker": ["a:99999"]}, (), 'Received: "a:99999"'),
        ({"worker": ["a:x"]}, (), 'Received: "a:x"'),
        ({"worker": [":1"]}, (), 'Received: ":1"'),
        ({"worker": [5]}, (), "Received: 5"),
        ({"worker": []}, (), 'names no process in "cluster"'),
        ({"chief": ["a:1", "b:1"]}, ("chief",), "has 2 chiefs"),
        ({"worker": ["a:1", "a:1"]}, (), "gives the address a:1 to 2 processes"),
        (JOBS, ("boss",), '"type" of "task". Received: "boss"'),
        (JOBS, ("worker", -1), '"index" of "task". Received: -1'),
        (JOBS, ("worker", "x"), '"index" of "task". Received: "x"'),
        (JOBS, ("worker", True), "Received: true"),
        (JOBS, ("worker", 2), "is worker 2, and its cluster has 2 workers"),
        ({"worker": ["a:1"]}, ("ps",), "is ps 0, and its cluster has no ps"),
    ],
)
def test_malformed_clusters(jobs, task, message):
    with pytest.raises(ValueError, match=message) as error:
        read(jobs, *task)
    assert "\n" not in str(error.value)


def test_a_port_in_use():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = read({"worker": [f"127.0.0.1:{port}"]})
        with pytest.raises(ValueError, match=f"Port {port} of worker 0 .* in use"):
            found.check_port()
    found.check_port()


@pytest.mark.parametrize(
    ("name", "jobs", "message"),
    [
        ("parameter_server", None, "needs several processes, each with its TF_CONFIG"),
        ("multi_worker_mirrored", None, "sact-tf launch-local"),
        ("parameter_server", {"worker": ["a:1"]}, "has no chief and no ps"),
        ("multi_worker_mirrored", JOBS, "Set it to parameter_server, or take ps out"),
        (
            "mirrored",
            {"worker": ["a:1", "b:1"]},
            "each of them would train for itself. Set it to multi_worker_mirrored",
        ),
    ],
)
def test_strategies_that_do_not_fit(name, jobs, message):
    with pytest.raises(ValueError, match=message):
        strategies.check(name, jobs and read(jobs))


def test_strategies_that_fit():
    strategies.check("mirrored", None)
    strategies.check("mirrored", read({"worker": ["a:1"]}))
    strategies.check("multi_worker_mirrored", read({"worker": ["a:1", "b:1"]}))
    strategies.check("parameter_server", read(JOBS, "chief"))
