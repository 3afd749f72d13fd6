import socket
import threading

import pytest

from sact_tf.cli import benchmark_distributed
from tests.tools.calling import call

needs_linux = pytest.mark.skipif(
    not benchmark_distributed._COUNTERS.exists(), reason="no /proc/net/dev"
)


@needs_linux
def test_bytes_on_loopback_are_those_that_were_sent():
    before = benchmark_distributed._bytes_on_loopback()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def receive():
            connection, _ = server.accept()
            with connection:
                while connection.recv(65536):
                    pass

        receiver = threading.Thread(target=receive)
        receiver.start()
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(bytes(3_000_000))
        receiver.join()
    assert benchmark_distributed._bytes_on_loopback() - before >= 3_000_000


def test_last_step_of_a_log(tmp_path):
    log = tmp_path / "chief-0.log"
    assert benchmark_distributed._last_step(log) == 0
    log.write_text(
        "train | step:     10 | steps/sec:    1.0 | output:\n"
        "train | step:     20 | steps/sec:    1.1 | output:\n"
    )
    assert benchmark_distributed._last_step(log) == 20


def test_bad_input(monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, benchmark_distributed, "--steps", 5)
    assert code == 2 and not out
    assert "--steps must be at least 20. Received: 5" in err.splitlines()[-1]
