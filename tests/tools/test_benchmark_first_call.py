import json

from tests.tools.calling import call
from tools import benchmark_first_call


def test_a_small_network(monkeypatch, capsys):
    monkeypatch.setenv(benchmark_first_call._ONE, "1")
    flags = ["--kinds", "auto", "--units", "2,1,1,1", "--base_channels", 2, "--json"]
    code, out, _ = call(monkeypatch, capsys, benchmark_first_call, "network", *flags)
    assert code == 0
    laps = json.loads(out.strip().splitlines()[-1])
    for name in ("first predict", "first step of fit", "export", "its first answer"):
        assert laps[name] > 0, name
    assert 0 < laps["saved_model.pb, MB"] < 5


def test_unknown_kinds(monkeypatch, capsys):
    code, _, error = call(
        monkeypatch, capsys, benchmark_first_call, "detector", "--kinds", "peer"
    )
    assert code == 2
    assert "--kinds of detector are plain, dense, auto. Received: peer" in error
