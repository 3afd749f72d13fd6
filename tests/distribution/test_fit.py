"""model.fit on several processes."""

import json
import pathlib
import re
import runpy
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from sact_tf import training
from tests.distribution.processes import Processes, steps

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "distributed.md"
EPOCHS, STEPS = 3, 2

SYNCHRONOUS = textwrap.dedent(
    f"""
    import sys
    import tensorflow as tf
    import tf_keras
    import sact_tf
    from sact_tf import training
    from sact_tf.data import digit_scenes
    from sact_tf.distribution import cluster, strategies

    here = cluster.from_environment()
    strategy = strategies.synchronous(here) if here else tf.distribute.get_strategy()
    tf_keras.utils.set_random_seed(0)
    with strategy.scope():
        model = sact_tf.ResNet(
            family="cifar", units=(1, 2, 1), num_classes=10, base_channels=4
        )
        model.compile(
            tf_keras.optimizers.SGD(0.001, momentum=0.9),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    training.fit(
        model,
        lambda step: digit_scenes.dataset("train", 4, start=4 * step, size=64),
        epochs={EPOCHS},
        steps_per_epoch={STEPS},
        directory=sys.argv[1],
        verbose=2,
    )
    """
)


def history(folder):
    return json.loads((folder / "history.json").read_text())


def test_synchronous_workers(tmp_path, monkeypatch):
    script = tmp_path / "fit.py"
    script.write_text(SYNCHRONOUS)
    folder, whole = tmp_path / "two", tmp_path / "one"
    with Processes(tmp_path / "logs", script, folder, worker=2) as processes:
        processes.start()
        processes.until_checkpoint(folder, STEPS)
        processes.kill("worker 1")
        assert processes.end("worker 0") != 0
        kept = max(steps(folder))
        processes.start()
        assert [processes.end(name) for name in processes.names] == [0, 0]
    assert kept >= STEPS and max(steps(folder)) == EPOCHS * STEPS
    monkeypatch.setattr(sys, "argv", [str(script), str(whole)])
    runpy.run_path(str(script))
    for row, expected in zip(history(folder), history(whole), strict=True):
        np.testing.assert_allclose(row["loss"], expected["loss"], rtol=2e-3)


def test_the_documents_example_of_parameter_servers(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    changes = {
        "units=(2, 2, 2, 2)": 'family="cifar", units=(1, 2, 1)',
        "base_channels=16": "base_channels=4",
        "global_batch_size=32": "global_batch_size=4",
        "epochs=10": "epochs=2",
        "steps_per_epoch=100": "steps_per_epoch=4",
        "runs/fit": str(tmp_path / "fit"),
    }
    for old, new in changes.items():
        assert old in example
        example = example.replace(old, new)
    script = tmp_path / "fit.py"
    script.write_text(example)
    with Processes(tmp_path / "logs", script, chief=1, ps=1, worker=2) as processes:
        processes.start()
        assert processes.end("chief 0") == 0, processes.log("chief 0")[-2000:]
        assert "Epoch 2/2" in processes.log("chief 0")
        assert "ponder_cost" in processes.log("chief 0")


def test_parameter_servers_and_every_step():
    class Model:
        optimizer = "sgd"
        distribute_strategy = tf.distribute.ParameterServerStrategy.__new__(
            tf.distribute.ParameterServerStrategy
        )

    with pytest.raises(ValueError, match=r"Use model.fit with .*BackupAndRestore"):
        training.fit(Model(), None, epochs=1, steps_per_epoch=1, directory="nowhere")
