import json
import subprocess
import sys
import types

import pytest
import tensorflow as tf
from official.core import exp_factory, train_utils

from sact_tf.cli import compare_runs
from sact_tf.cli import train as train_tool

TINY = {
    "task": {
        "model": {
            "backbone": {
                "sact_resnet": {
                    "family": "cifar",
                    "units": [1, 2, 1],
                    "base_channels": 4,
                    "root_channels": 4,
                }
            }
        },
        "train_data": {"global_batch_size": 4},
        "validation_data": {"num_scenes": 8, "global_batch_size": 4},
    },
    "trainer": {
        "train_steps": 2,
        "steps_per_loop": 1,
        "summary_interval": 1,
        "checkpoint_interval": 1,
        "validation_interval": 2,
    },
}


def train(folder, experiment="sact_resnet_digit_scenes", overrides=TINY):
    return subprocess.run(
        [
            *(sys.executable, "-m", "sact_tf.cli.train"),
            f"--experiment={experiment}",
            "--mode=train_and_eval",
            f"--model_dir={folder}",
            f"--params_override={json.dumps(overrides)}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def compare(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["compare_runs", *map(str, arguments)])
    compare_runs.COMMAND()


def test_train_then_compare(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    result = train(folder)
    assert result.returncode == 0, result.stderr
    assert "train | step:      2" in result.stdout and "units_block2" in result.stdout
    assert (folder / "params.yaml").exists() and (folder / "ckpt-2.index").exists()

    output = tmp_path / "comparison"
    compare(monkeypatch, folder, "--output", output, "--json")
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["name"] == "run" and row["num_images"] == 8
    assert {path.name for path in output.iterdir()} == {
        "table.md",
        "results.json",
        "accuracy_against_flops.png",
        "training_curves.png",
    }
    curves = compare_runs.training_curves(str(folder))
    assert [step for step, _ in curves["accuracy, train"]] == [1, 2]
    assert len(curves["ponder cost, validation"]) == 1
    with pytest.raises(ValueError, match=r"has table.md already"):
        compare(monkeypatch, folder, "--output", output)

    params = exp_factory.get_exp_config("sact_resnet_digit_scenes")
    params.override(TINY)
    train_tool._claim(str(folder), params)  # The same network may go on.
    # Earlier versions had fewer fields.
    text = (folder / "params.yaml").read_text()
    assert "        tile_size: 1\n" in text
    (folder / "params.yaml").write_text(text.replace("        tile_size: 1\n", ""))
    train_tool._claim(str(folder), params)
    params.task.model.backbone.sact_resnet.units = [1, 1, 1]
    message = (
        r"holds a run of another network \(task.model.*units: .*, \[1, 1, 1\] here"
    )
    with pytest.raises(ValueError, match=message):
        train_tool._claim(str(folder), params)


def test_compare_runs_says_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="has no checkpoint; give the folder"):
        compare(monkeypatch, tmp_path)
    tf.train.Checkpoint(step=tf.Variable(1)).save(str(tmp_path / "ckpt"))
    with pytest.raises(FileNotFoundError, match=r"There is no params.yaml beside"):
        compare(monkeypatch, tmp_path)
    (tmp_path / "params.yaml").write_text("task: {model: {depth: 3}}")
    with pytest.raises(ValueError, match="is not of a classification run"):
        compare(monkeypatch, tmp_path)


def test_what_is_wrong_is_said_in_one_line(tmp_path):
    overrides = {"task": {"train_data": {"image_dir": 2017}}}
    result = train(tmp_path / "run", "sact_fasterrcnn_coco", overrides)
    assert result.returncode == 2
    said = "error: task.train_data.image_dir must be a string. Received: 2017"
    assert result.stderr.splitlines()[-1] == said
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("overrides", "content", "message"),
    [
        ("task.modle.depth=3", None, "'modle' does not exist"),
        ("no.yaml", None, "There is none that is called no.yaml"),
        ("file", "a: [", "file is no YAML"),
        ("file", "- task", r"file must hold fields .* Received: \['task'\]"),
        ("file", "", "file must hold fields .* Received: None"),
        ("file", "task: {seed: 1} # \xe4", "file is not in UTF-8"),
        ("file", "task: {seed: one}", "task.seed must be an integer or null"),
    ],
)
def test_overrides_and_files_of_them(
    tmp_path, monkeypatch, overrides, content, message
):
    options = {"config_file": [], "params_override": overrides}
    where = [options]
    if content is not None:
        (tmp_path / "file").write_bytes(content.encode("latin-1"))
        path = str(tmp_path / "file")
        where = [
            {"config_file": [path], "params_override": ""},
            {"config_file": [], "params_override": path},
        ]
    for options in where:
        parsed = train_utils.ParseConfigOptions("sact_fasterrcnn_coco", **options)
        monkeypatch.setattr(train_tool.flags, "FLAGS", parsed)
        with pytest.raises(ValueError, match=message):
            train_tool._experiment()


def test_a_folder_that_is_a_pattern_is_refused_before_the_training(
    tmp_path, monkeypatch
):
    folder = tmp_path / "tau=[0.1]"
    parsed = types.SimpleNamespace(mode="train_and_eval", model_dir=str(folder))
    monkeypatch.setattr(train_tool.flags, "FLAGS", parsed)
    params = exp_factory.get_exp_config("sact_resnet_digit_scenes")
    monkeypatch.setattr(train_tool, "_experiment", lambda: params)
    with pytest.raises(ValueError, match=r"model_dir.*takes \[ for a pattern"):
        train_tool._train()
    assert not folder.exists()


def test_only_what_goes_on_says_so(tmp_path, monkeypatch, capsys):
    def interrupted(mode):
        def train():
            raise KeyboardInterrupt

        parsed = types.SimpleNamespace(mode=mode, model_dir=str(tmp_path))
        monkeypatch.setattr(train_tool.flags, "FLAGS", parsed)
        with pytest.raises(SystemExit, match="130"):
            train_tool._interruptible(train)
        return capsys.readouterr().err

    assert "begins anew: there is no checkpoint yet" in interrupted("train")
    path = tf.train.Checkpoint(step=tf.Variable(1)).save(str(tmp_path / "ckpt"))
    assert f"The same command goes on from {path}." in interrupted("train_and_eval")
    assert "evaluates from the beginning" in interrupted("eval")
