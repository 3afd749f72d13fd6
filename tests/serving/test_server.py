"""The client against a server: the loopback one, and a real one where there is one."""

import base64
import concurrent.futures
import contextlib
import functools
import shutil
import socket
import struct
import subprocess
import time
import zlib

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf

from sact_tf.serving import checks, classification, client, export, warmup
from tests.serving import pictures, test_detection
from tests.serving.loopback_server import RequestError, Server
from tests.serving.test_export import SIDE, network

NAME = "tiny"
LIMIT = 8
BINARY = shutil.which("tensorflow_model_server")


def make(kind):
    limits = checks.Limits(max_batch_size=LIMIT, min_side=32)
    if kind == "detector":
        return test_detection.servable_of(test_detection.network(), limits=limits)
    return classification.Classifier(network(), SIDE, top_k=3, limits=limits)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Makes, exports and serves of each kind one; whatever the order of tests is."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def of(kind):
            servable = make(kind)
            folder = tmp_path_factory.mktemp(kind)
            path = export.write(servable, folder, NAME, version=3).folder.parent
            return servable, path, servers.enter_context(Server(NAME, path))

        yield of


@pytest.fixture(params=["classifier", "detector"])
def kind(request):
    return request.param


@pytest.fixture
def servable(served, kind):
    return served(kind)[0]


@pytest.fixture
def base_path(served, kind):
    return served(kind)[1]


@pytest.fixture
def loopback(served, kind):
    return served(kind)[2]


@pytest.fixture(params=["loopback", *(["tensorflow_model_server"] if BINARY else [])])
def server(request, loopback, base_path):
    if request.param == "loopback":
        yield loopback
    else:
        with real_server(base_path) as server:
            yield server


def test_with_a_real_server():
    """Says in the report whether all that follows was done with one, too."""
    if BINARY is None:
        pytest.skip("there is no tensorflow_model_server on the PATH")


class real_server:
    def __init__(self, base_path):
        self._base_path = base_path

    def __enter__(self):
        ports = [free_port(), free_port()]
        self.grpc, self.rest = (f"127.0.0.1:{port}" for port in ports)
        self._process = subprocess.Popen(
            [
                BINARY,
                f"--port={ports[0]}",
                f"--rest_api_port={ports[1]}",
                f"--model_name={NAME}",
                f"--model_base_path={self._base_path}",
            ]
        )
        for _ in range(120):
            try:
                with client.Client(self.grpc, NAME) as asking:
                    if asking.versions() == {3: "AVAILABLE"}:
                        return self
            except client.ServingError:
                time.sleep(0.5)
        raise RuntimeError("tensorflow_model_server does not come up")

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(params=["grpc", "rest"])
def asking(request, server):
    address = getattr(server, request.param)
    with client.Client(
        address, NAME, protocol=request.param, timeout=60.0
    ) as connected:
        yield connected


FILES = [
    pictures.jpeg(pictures.image(70, 100)),
    pictures.png(pictures.image(64, 64)),
    pictures.png(pictures.image(40, 150)),
]


@pytest.mark.parametrize("signature", ["serving_default", "explain"])
def test_answers_are_those_of_the_model(asking, servable, signature):
    for bias in (0.0, [1.0, -1.0, 1.0]):
        inputs = {"images": FILES, "halting_bias": bias}
        answer = asking.predict(signature, inputs)
        expected = servable.signatures[signature](
            tf.constant(FILES), tf.constant(bias, tf.float32)
        )
        assert set(answer) == set(expected)
        for key, value in expected.items():
            value = value.numpy()
            if value.dtype == object:
                value = np.char.decode(value.astype("S"))
            np.testing.assert_array_equal(answer[key], value, key)


def test_tensors(asking, servable):
    images = np.stack([pictures.image(50, 90, seed) for seed in range(2)])
    answer = asking.predict("tensors", {"images": images})
    expected = servable.tensors(images)
    assert set(answer) == set(expected)
    for key in set(expected) - {"names"}:
        np.testing.assert_array_equal(answer[key], expected[key], key)


def test_halting_bias_is_optional_in_grpc(server, servable):
    request = warmup.predict_request(
        NAME, "serving_default", {"images": np.array(FILES, object)}
    )
    with client.Client(server.grpc, NAME) as asking:
        response = asking._transport._call(
            asking._transport._predictions.Predict, request
        )
    expected = servable.serving_default(tf.constant(FILES))
    np.testing.assert_array_equal(
        tf.make_ndarray(response.outputs["flops"]), expected["flops"]
    )


def test_rest_by_hand(server, servable):
    """As docs/serving.md shows it for curl."""
    url = f"http://{server.rest}/v1/models/{NAME}"
    rows = [
        {"images": {"b64": base64.b64encode(file).decode()}, "halting_bias": 0.0}
        for file in FILES
    ]
    answer = requests.post(f"{url}:predict", json={"instances": rows}, timeout=60)
    expected = servable.serving_default(tf.constant(FILES))["flops"].numpy().tolist()
    assert [row["flops"] for row in answer.json()["predictions"]] == expected
    status = requests.get(url, timeout=60).json()["model_version_status"]
    assert status[0]["version"] == "3" and status[0]["state"] == "AVAILABLE"


def bomb():
    """A valid PNG of 12,000 x 12,000 pixels."""

    def chunk(kind, content):
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + _crc(checked)

    def _crc(content):
        return struct.pack(">I", zlib.crc32(content))

    header = struct.pack(">IIBBBBB", 12000, 12000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * (1501 * 12000), 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


GOOD = FILES[0]
NO_IMAGE = "Image 0 of the request, counted from zero, is no JPEG or PNG file"
HOSTILE = {
    "empty bytes": ([b""], NO_IMAGE),
    "text": ([b"To be, or not to be: that is the question."], NO_IMAGE),
    "gif": ([b"GIF89a" + bytes(100)], NO_IMAGE),
    "png header only": ([b"\x89PNG\r\n\x1a\n"], NO_IMAGE),
    "1 x 1": ([pictures.png(np.zeros([1, 1, 3], np.uint8))], "has 1 x 1 pixels"),
    "bomb": ([bomb()], "has 12000 x 12000 pixels"),
    "truncated JPEG": ([GOOD[: len(GOOD) // 2]], "Invalid JPEG data"),
    "truncated PNG": ([FILES[1][: len(FILES[1]) // 2]], "Invalid PNG data"),
    "one bad of three": ([GOOD, b"bad", GOOD], "Image 1 of the request"),
    "ten times the limit": ([GOOD] * 10 * LIMIT, f"1 to {LIMIT} images. Received: 80"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_images(asking, case):
    files, message = HOSTILE[case]
    assert sum(map(len, files)) < 10**6
    for signature in ("serving_default", "explain"):
        with pytest.raises(client.ServingError, match="refused the request") as caught:
            asking.predict(signature, {"images": files})
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert asking.predict("serving_default", {"images": [GOOD]})["flops"][0] > 0


NOT_FINITE = "halting_bias must be finite"
IMAGES = np.zeros([2, 40, 40, 3], np.uint8)
WRONG = {
    "NaN": ("serving_default", [GOOD], float("nan"), NOT_FINITE),
    "infinite": ("tensors", IMAGES, [0.0, float("inf")], NOT_FINITE),
    "three for two": ("tensors", IMAGES, [0.0, 1.0, 2.0], "3 numbers for 2 images"),
    "empty batch": ("tensors", IMAGES[:0], [], "1 to 8 images. Received: 0"),
    "no files": ("serving_default", np.array([], "S1"), [], "Received: 0"),
    "dtype": ("tensors", IMAGES.astype(np.float32), 0.0, "to be uint8"),
    "numbers as files": ("serving_default", np.zeros([2], np.float32), 0.0, "string"),
    "files as rows": ("serving_default", np.array([[GOOD]], object), 0.0, ""),
    "rank": ("tensors", IMAGES[0], 0.0, ""),
    "channels": ("tensors", IMAGES[..., :2], 0.0, ""),
    "small": ("tensors", IMAGES[:, :20], 0.0, "All images has 20 x 40 pixels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_hostile_arrays(server, case):
    signature, images, bias, message = WRONG[case]
    inputs = {"images": images, "halting_bias": np.array(bias, np.float32)}
    with client.Client(server.grpc, NAME, timeout=60.0) as asking:
        request = warmup.predict_request(NAME, signature, inputs)
        transport = asking._transport
        with pytest.raises(client.ServingError) as caught:
            transport._call(transport._predictions.Predict, request)
        assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
        assert message in str(caught.value)
        assert asking.predict("serving_default", {"images": [GOOD]})["flops"][0] > 0


def test_what_is_not_there(server, base_path):
    for protocol in ("grpc", "rest"):
        address = getattr(server, protocol)
        options = {"protocol": protocol, "timeout": 60.0}
        with client.Client(address, NAME, **options) as asking:
            assert asking.versions() == {3: "AVAILABLE"}
        for name, version in (("other", None), (NAME, 9)):
            with (
                client.Client(address, name, version=version, **options) as asking,
                pytest.raises(client.ServingError, match=f"serves no model {name}"),
            ):
                asking.predict("serving_default", {"images": [GOOD]})


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_unavailable_servers_are_asked_again(loopback, protocol, monkeypatch):
    attempts, failures = [], client.ATTEMPTS - 1

    def version(name, number):
        attempts.append(name)
        if len(attempts) <= failures:
            raise RequestError(grpc.StatusCode.UNAVAILABLE, "Loading")
        return 3, loopback.versions[3]

    monkeypatch.setattr(loopback, "version", version)
    address = getattr(loopback, protocol)
    with client.Client(address, NAME, protocol=protocol, timeout=30.0) as asking:
        assert asking.predict("tensors", {"images": IMAGES})["flops"].shape == (2,)
        assert len(attempts) == client.ATTEMPTS
        failures = 1000
        with pytest.raises(client.ServingError, match="is not there, or") as caught:
            asking.predict("tensors", {"images": IMAGES})
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        assert len(attempts) == 2 * client.ATTEMPTS


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_a_server_that_is_not_there(protocol):
    address = f"127.0.0.1:{free_port()}"
    with client.Client(address, NAME, protocol=protocol, timeout=20.0) as asking:
        with pytest.raises(client.ServingError, match="is not there") as caught:
            asking.versions()
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE


def test_warm_up_requests_are_answered_when_a_version_loads(loopback, servable):
    asked = loopback.versions[3].warmed_up
    assert set(asked) == set(servable.signatures)
    assert len(asked) == len(list(servable.warmup_requests()))


def test_a_deadline_is_kept():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for protocol in ("grpc", "rest"):
            with client.Client(address, NAME, protocol=protocol, timeout=0.5) as asking:
                began = time.monotonic()
                with pytest.raises(client.ServingError, match=r"in 0\.5 seconds"):
                    asking.predict("serving_default", {"images": [GOOD]})
                assert time.monotonic() - began < 3


# Detectors alone, for speed: their images also have sizes of their own. Batches of the
# classifier are in test_export.
@pytest.mark.parametrize("kind", ["detector"])
def test_batching_mixes_requests_and_keeps_answers_apart(base_path, servable):
    alone = {
        (index, bias): servable.serving_default(tf.constant([file]), bias)["flops"][0]
        for index, file in enumerate(FILES)
        for bias in (0.0, 2.0)
    }
    with (
        Server(NAME, base_path, batching=(LIMIT, 0.05)) as server,
        client.Client(server.grpc, NAME, timeout=60.0) as asking,
        concurrent.futures.ThreadPoolExecutor(6) as pool,
    ):
        jobs = {
            key: pool.submit(
                asking.predict,
                "serving_default",
                {"images": [FILES[key[0]]], "halting_bias": key[1]},
            )
            for key in alone
        }
        answers = {key: int(job.result()["flops"][0]) for key, job in jobs.items()}
    assert answers == alone


def test_bad_addresses():
    for server in ("localhost", "http://localhost:8500", ":8500"):
        with pytest.raises(ValueError, match="must be host:port"):
            client.Client(server, NAME)
    with pytest.raises(ValueError, match="timeout must be above zero"):
        client.Client("localhost:8500", NAME, timeout=0)
    with pytest.raises(ValueError, match="protocol must be"):
        client.Client("localhost:8500", NAME, protocol="http")
