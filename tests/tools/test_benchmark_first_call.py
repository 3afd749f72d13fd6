import json

import pytest

from sact_tf.cli import benchmark_first_call
from tests.tools.calling import call


def test_a_small_network(monkeypatch, capsys):
    monkeypatch.setenv(benchmark_first_call._ONE, "1")
    flags = ["--kinds", "auto", "--units", "2,1,1,1", "--base_channels", 2, "--json"]
    code, out, _ = call(monkeypatch, capsys, benchmark_first_call, "network", *flags)
    assert code == 0
    laps = json.loads(out)
    for name in ("first predict", "first step of fit", "export", "its first answer"):
        assert laps[name] > 0, name
    assert 0 < laps["saved_model.pb, MB"] < 5


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--kinds", "peer"], "--kinds of detector are plain, dense, auto. Received: "),
        (["--units", "3,x,2,2"], "--units: numbers are expected, such as 3 4 6 3."),
        (["--units", "3,2,2"], "--units must be four numbers, as 3,4,23,3. Received"),
    ],
)
def test_bad_input(monkeypatch, capsys, flags, message):
    code, _, error = call(monkeypatch, capsys, benchmark_first_call, "detector", *flags)
    assert code == 2
    assert message in error
