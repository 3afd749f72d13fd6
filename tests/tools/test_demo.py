import json
import subprocess
import sys

import pytest
import tf_keras

import sact_tf
from sact_tf.cli.demo import __main__ as demo
from sact_tf.cli.demo import beside as beside_module
from sact_tf.cli.demo import clock, recipe


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "output"
    demo.run_recipe(recipe.QUICK, folder)
    return folder


def test_everything_is_there(output):
    names = {path.name for path in output.iterdir()}
    assert names == {
        "recipe.json",
        "training",
        "table.md",
        "results.json",
        "ponder_cost_maps.png",
        "accuracy_against_flops.png",
        "first_look.png",
        "saved_model",
        "sact.keras",
    }
    result = json.loads((output / "results.json").read_text())
    assert [row["name"] for row in result["rows"]][1] == "SACT"
    assert 0 <= result["digit_auc"] <= 1
    assert result["reloaded_model_differs_by"] < 1e-3
    assert tf_keras.models.load_model(output / "sact.keras").adaptivity == "sact"


def test_again_uses_what_is_there(output, monkeypatch):
    before = json.loads((output / "results.json").read_text())

    def no_training(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(sact_tf.ResNet, "train_step", no_training)
    # Some of it is gone: that is made again, from networks that are trained.
    (output / "first_look.png").unlink()
    after = demo.run_recipe(recipe.QUICK, output)
    for old, new in zip(before["rows"], after["rows"], strict=True):
        assert old["accuracy"] == new["accuracy"] and old["flops"] == new["flops"]
    # Nothing is gone: nothing is made.
    monkeypatch.setattr(demo, "Trainer", no_training)
    assert demo.run_recipe(recipe.QUICK, output) == after


def test_another_recipe_is_refused(output):
    with pytest.raises(ValueError, match="holds demo output with other settings"):
        demo.run_recipe(recipe.Recipe(), output)


def test_json_is_all_there_is_on_standard_output(output, monkeypatch, capsys):
    arguments = ["demo", "--quick", "--json", "--output", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    demo.COMMAND()
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows"][1]["name"] == "SACT"


def tool(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sact_tf.cli.demo", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    result = tool("--output", str(tmp_path))
    assert result.returncode == 2
    assert "holds no demo output" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_failure_beside_is_told(output):
    beside = beside_module.Beside(
        recipe.QUICK, output, "5-none", (0, 1, 1, 1), sys.stdout.write
    )
    with beside, pytest.raises(RuntimeError, match=r"5-none failed.*5-none\.log"):
        beside.wait()
    log = (output / "training" / "5-none.log").read_text()
    assert "ValueError: " in log and "units" in log.splitlines()[-1]


def test_a_slower_network_has_its_reason_in_the_next_line(output):
    result = json.loads((output / "results.json").read_text())
    for speeds, told in (((10.0, 9.0, 8.0), True), ((10.0, 11.0, 8.0), False)):
        for row, speed in zip(result["rows"], speeds, strict=True):
            row["images_per_second"] = speed
        last = demo._table(result).splitlines()[-1]
        assert ("than it takes to leave it out" in last) == told


@pytest.mark.parametrize(
    ("sparse", "words"),
    [(50.0, "is 2.00 times as fast as"), (200.0, "2.00 times as long as the plain")],
)
def test_the_clock_says_what_it_measured(sparse, words):
    times = {"plain": 100.0, "dense": 110.0, "sparse": sparse}
    about = {"flops_left": 0.5, "height": 600, "width": 848}
    text = clock.show({"milliseconds": times, **about})
    assert words in text.splitlines()[-1] and "50 % of the FLOPs" in text
