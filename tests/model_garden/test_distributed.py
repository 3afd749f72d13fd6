import json

import numpy as np
import pytest
from official.core import exp_factory

from sact_tf.distribution.cluster import Cluster
from sact_tf.model_garden import distributed
from tests.distribution.processes import Processes, kept, steps
from tests.model_garden.test_detection_tasks import MODEL, NETWORK
from tests.model_garden.test_tasks import run, summaries
from tests.replicas import mirrored

TINY = {
    "task": {
        "model": {
            "input_size": [64, 64, 3],
            "backbone": {
                "sact_resnet": {
                    "family": "cifar",
                    "units": [1, 2, 1],
                    "base_channels": 4,
                    "root_channels": 4,
                }
            },
        },
        "train_data": {"global_batch_size": 4},
        "validation_data": {"num_scenes": 12, "global_batch_size": 4},
        "allow_image_summary": False,
    },
}
DETECTOR = {
    "task": {
        "model": {
            **MODEL,
            "num_classes": 11,
            "num_sampled": 24,  # All proposals and boxes: nothing is left to chance.
            "backbone": {"sact_resnet": NETWORK},
        },
        "train_data": {"global_batch_size": 4, "image_size": 64},
        "validation_data": {
            "global_batch_size": 2,
            "image_size": 64,
            "num_scenes": 10,
        },
        "reference_units": [1, 1, 2],
        "seed": 1,
        "allow_image_summary": False,
    },
}


def intervals(steps, every):
    return {
        "trainer": {
            "train_steps": steps,
            "steps_per_loop": every,
            "summary_interval": every,
            "checkpoint_interval": every,
            "validation_interval": steps,
            # Slow, so that rounding does not grow into another course.
            "optimizer_config": {
                "learning_rate": {
                    "type": "constant",
                    "constant": {"learning_rate": 1e-3},
                }
            },
        }
    }


def experiment(name, overrides, steps=1, every=1):
    params = exp_factory.get_exp_config(name)
    params.override(overrides)
    params.override(intervals(steps, every))
    return params


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("sact_resnet_digit_scenes", TINY),
        ("sact_fasterrcnn_digit_scenes", DETECTOR),
    ],
)
def test_a_batch_has_the_same_gradient_on_one_replica_and_on_two(
    tmp_path, name, overrides
):
    params = experiment(name, overrides)
    # The step is the gradient then, and small enough for one like the next.
    rate = {"type": "constant", "constant": {"learning_rate": 1e-3}}
    optimizer = {"type": "sgd", "sgd": {"momentum": 0.0}}
    params.trainer.optimizer_config.override(
        {"optimizer": optimizer, "learning_rate": rate}, is_strict=False
    )
    moved, logs = {}, {}
    for replicas in (1, 2):
        folder = tmp_path / str(replicas)
        model = run(params, folder, "train_and_eval", mirrored(replicas))
        moved[replicas] = {v.name: v.numpy() for v in model.variables}
        logs[replicas] = {
            part: summaries(folder, part) for part in ("train", "validation")
        }
    for variable, value in moved[1].items():
        np.testing.assert_allclose(
            moved[2][variable], value, rtol=1e-4, atol=2e-6, err_msg=variable
        )
    for part, tags in logs[1].items():
        for tag in tags.keys() - {"steps_per_second"}:
            ((_, expected),) = tags[tag]
            ((_, got),) = logs[2][part][tag]
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5, err_msg=tag)


def training(folder, strategy, name, overrides, **roles):
    """Processes that run an experiment."""
    overrides = {**overrides, "runtime": {"distribution_strategy": strategy}}
    return Processes(
        folder.with_name(f"{folder.name}-logs"),
        *("-m", "sact_tf.cli.train", f"--experiment={name}", "--mode=train"),
        *(f"--model_dir={folder}", f"--params_override={json.dumps(overrides)}"),
        **roles,
    )


def test_two_synchronous_workers(tmp_path):
    """Their loss curve is that of one process, also when one of them is killed."""
    name = "sact_resnet_digit_scenes"
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run(experiment(name, TINY, steps=12, every=2), whole)
    overrides = {**TINY, **intervals(12, 2)}
    with training(
        folder, "multi_worker_mirrored", name, overrides, worker=2
    ) as processes:
        processes.start()
        processes.until_checkpoint(folder, 4)
        processes.kill("worker 1")
        assert processes.end("worker 0") == 138
        assert "error: worker 0: Another worker has ended" in processes.log("worker 0")
        restored = f"restored model from {folder}/ckpt-{kept(folder)}"
        processes.start(more=["--mode=train_and_eval"])
        assert [processes.end(worker) for worker in processes.names] == [0, 0]
        assert restored in processes.log("worker 0")
    for part, tag in (("train", "training_loss"), ("validation", "ponder_cost")):
        expected, got = (dict(summaries(f, part)[tag]) for f in (whole, folder))
        assert expected.keys() == got.keys()
        for step, value in expected.items():
            np.testing.assert_allclose(got[step], value, rtol=2e-3, err_msg=step)


def test_workers_that_were_started_differently(tmp_path):
    name = "sact_resnet_digit_scenes"
    strategy = {"runtime": {"distribution_strategy": "multi_worker_mirrored"}}
    with training(
        tmp_path / "run", "multi_worker_mirrored", name, TINY, worker=2
    ) as processes:
        processes.start("worker 0")
        other = json.dumps({**TINY, **strategy, "trainer": {"train_steps": 7}})
        processes.start("worker 1", more=[f"--params_override={other}"])
        assert [processes.end(worker) for worker in processes.names] == [2, 2]
        assert (
            "error: worker 1 and worker 0 were started differently: "
            "settings.trainer.train_steps is 7 here and 3000 there. Start all"
        ) in processes.log("worker 1")


def test_asynchronous_workers(tmp_path):
    """Any of the processes may be killed; nothing but the last few updates is lost."""
    total, every = 60, 5
    folder = tmp_path / "run"
    with training(
        folder,
        "parameter_server",
        "sact_resnet_digit_scenes",
        {**TINY, **intervals(total, every)},
        chief=1,
        ps=1,
        worker=2,
    ) as processes:
        processes.start()
        processes.until_checkpoint(folder, every)
        # The others go on without a worker.
        processes.kill("worker 1")
        processes.until_checkpoint(folder, max(steps(folder)) + 2 * every)
        processes.start("worker 1")
        # Another chief goes on with the same parameter server and workers.
        processes.kill("chief 0")
        restored = f"restored model from {folder}/ckpt-{kept(folder)}"
        processes.start("chief 0")
        processes.until_printed("chief 0", restored)
        processes.until_checkpoint(folder, max(steps(folder)) + every)
        # Without the parameter server there is no going on, but from the checkpoint.
        processes.kill("ps 0")
        assert processes.end("chief 0") == 138
        assert "A parameter server has ended" in processes.log("chief 0")
        processes.start("ps 0", "chief 0", "evaluator 0")
        assert processes.end("chief 0") == 0
        assert processes.end("evaluator 0") == 0
    # What a worker had begun when it was killed may have been counted twice.
    last = max(steps(folder))
    assert total <= last < total + every
    logged = summaries(folder, "train")
    updates = [
        {step: int(value) for step, value in logged[f"updates_worker{worker}"]}
        for worker in range(2)
    ]
    # Both were at work in the same loop.
    assert any(updates[0][step] and updates[1][step] for step in updates[0])
    assert all(value >= 0 for _, value in logged["staleness"])
    assert last in dict(summaries(folder, "validation")["accuracy"])


@pytest.mark.parametrize(
    ("strategy", "roles"),
    [
        ("multi_worker_mirrored", {"worker": 2}),
        # That there may be several workers is seen with the classifier.
        ("parameter_server", {"chief": 1, "ps": 1, "worker": 1}),
    ],
)
def test_the_detector(tmp_path, strategy, roles):
    folder = tmp_path / "run"
    overrides = {**DETECTOR, **intervals(4, 2)}
    with training(
        folder, strategy, "sact_fasterrcnn_digit_scenes", overrides, **roles
    ) as processes:
        processes.start()
        for name in ("chief 0",) if "chief" in roles else processes.names:
            assert processes.end(name) == 0, processes.log(name)[-2000:]
    losses = summaries(folder, "train")["total_loss"]
    assert [step for step, _ in losses] == [2, 4]
    assert np.isfinite([loss for _, loss in losses]).all()


def test_parameter_servers_do_not_evaluate(tmp_path):
    cluster = Cluster(
        {"chief": ("a:1",), "ps": ("a:2",), "worker": ("a:3",)}, "chief", 0
    )
    params = experiment("sact_resnet_digit_scenes", TINY)
    params.runtime.distribution_strategy = "parameter_server"
    with pytest.raises(ValueError, match="--mode=eval needs no parameter servers"):
        distributed.run(cluster, params, "eval", str(tmp_path))
