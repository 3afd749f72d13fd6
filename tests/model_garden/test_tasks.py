import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
import tf_keras
from official.core import task_factory
from official.modeling import hyperparams, performance
from tensorboard.backend.event_processing import event_accumulator

from sact_tf.model_garden import configs, experiments, labels, numerics, runs
from tests.model_garden import records
from tests.replicas import mirrored

STEPS = 6


def experiment(**backbone):
    """The digit scenes, made tiny."""
    params = experiments.sact_resnet_digit_scenes()
    params.override(
        {
            "task": {
                "model": {
                    "backbone": {
                        "sact_resnet": {
                            "family": "cifar",
                            "units": [1, 2, 2],
                            "base_channels": 4,
                            "root_channels": 4,
                            **backbone,
                        }
                    }
                },
                "train_data": {"global_batch_size": 4},
                "validation_data": {"global_batch_size": 4, "num_scenes": 6},
            },
            "trainer": {
                "train_steps": STEPS,
                "steps_per_loop": 2,
                "summary_interval": 2,
                "checkpoint_interval": 2,
                "validation_interval": STEPS,
            },
        }
    )
    return params


def test_masks_cool_down_while_they_are_trained(tmp_path):
    params = experiment(family="resnet_d_small", units=[1, 1, 1, 1])
    params.task.model.backbone.sact_resnet.adaptivity = "ssin"
    params.task.model.input_size = [64, 64, 3]
    run(params, tmp_path / "ssin", "train")
    network = runs.load(tmp_path / "ssin").network
    # Of the last step, counted from zero.
    expected = 0.03 ** ((STEPS - 1) / STEPS)
    for block in network.blocks:
        np.testing.assert_allclose(block.temperature, expected, rtol=1e-5)
        assert block.step == STEPS


def run(params, folder, mode="train_and_eval", strategy=None):
    return runs.train(params, folder, mode, strategy=strategy)


def untrained(params, folder, change=None):
    """Leaves what a run leaves, but with random weights: training takes long.

    Or with what `change` makes of the model.
    """
    folder.mkdir(exist_ok=True)
    labels.keep(params.task, folder)
    model = task_factory.get_task(params.task).build_model()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype.is_floating:
            variable.assign_add(0.02 * rng.normal(size=variable.shape))
    if change:
        change(model)
    hyperparams.save_params_dict_to_yaml(params, str(folder / "params.yaml"))
    step = tf.Variable(0, dtype=tf.int64)
    parts = {"model": model, "global_step": step, **model.checkpoint_items}
    tf.train.Checkpoint(**parts).save(str(folder / "ckpt"))


def cut(folder, step, target):
    """Leaves what a run would have left if it had been killed after a step."""
    target.mkdir(exist_ok=True)
    for file in (folder / "params.yaml", *folder.glob(f"ckpt-{step}.*")):
        shutil.copy(file, target)
    state = f'model_checkpoint_path: "ckpt-{step}"\n'
    (target / "checkpoint").write_text(state)
    assert runs.steps_done(str(target)) == step


def summaries(folder, part):
    events = event_accumulator.EventAccumulator(str(folder / part)).Reload()
    return {
        tag: [(e.step, tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of a plain network, deeper than the others."""
    folder = tmp_path_factory.mktemp("plain")
    run(experiment(adaptivity="none", units=[1, 3, 2]), folder, "train")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, plain):
    """An uninterrupted run of SACT, from the plain network's weights."""
    folder = tmp_path_factory.mktemp("whole")
    params = experiment()
    params.task.init_checkpoint = str(plain)
    return folder, run(params, folder), params


def test_taking_up_gives_the_numbers_of_an_uninterrupted_run(whole, tmp_path):
    folder, model, params = whole
    cut(folder, 4, tmp_path)
    again = run(params, tmp_path)
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.name)
    expected, got = (summaries(place, "validation") for place in (folder, tmp_path))
    for tag in ("accuracy", "validation_loss", "flops", "ponder_cost", "units_block2"):
        assert got[tag] == expected[tag]


def test_logs_and_pictures(whole):
    folder, _, _ = whole
    for part in ("train", "validation"):
        logged = summaries(folder, part)
        assert {
            "accuracy",
            "top_5_accuracy",
            "ponder_cost",
            "units_block1",
            "units_block3",
            "flops",
        } <= set(logged)
        steps = [step for step, _ in logged["flops"]]
        assert steps == ([2, 4, 6] if part == "train" else [6])
        assert 2 * 3 <= logged["ponder_cost"][-1][1] <= 5 + 3
    (step, picture), *_ = summaries(folder, "validation")["image/ponder_cost_maps"]
    width, height, png = picture
    assert step == STEPS and int(width) > 500
    assert tf.io.decode_png(png).shape[0] == int(height)


def test_costs_are_those_of_the_validation_data(whole):
    folder, _, _ = whole
    opened = runs.load(folder)
    records = [
        opened.network.introspect(images) for images, _ in opened.validation_batches()
    ]
    assert [len(record["flops"]) for record in records] == [4, 2]
    logged = summaries(folder, "validation")
    flops = np.concatenate([record["flops"] for record in records])
    np.testing.assert_allclose(logged["flops"][-1][1], np.mean(flops), rtol=1e-5)
    cost = np.concatenate([record["ponder_cost"] for record in records])
    np.testing.assert_allclose(logged["ponder_cost"][-1][1], cost.mean(), rtol=1e-5)


def test_first_stage_reaches_the_second(plain, tmp_path):
    params = experiment()
    params.task.init_checkpoint = str(plain)
    task = task_factory.get_task(params.task)
    model = task.build_model()
    fresh = model.network.blocks[1].halting_scores[0].local_conv.kernel.numpy()
    task.initialize(model)
    source = runs.load(plain).network
    assert source.adaptivity == "none" and source.units == (1, 3, 2)
    np.testing.assert_array_equal(
        model.network.blocks[2].units[1].conv2.kernel,
        source.blocks[2].units[1].conv2.kernel,
    )
    np.testing.assert_array_equal(
        model.network.head.logits.kernel, source.head.logits.kernel
    )
    scores = model.network.blocks[1].halting_scores[0]
    np.testing.assert_array_equal(scores.local_conv.kernel, fresh)


def test_backbone_alone_for_other_classes(plain):
    params = experiment()
    params.task.model.num_classes = 7
    params.task.init_checkpoint = str(plain)
    task = task_factory.get_task(params.task)
    with pytest.raises(ValueError, match=r"task.init_checkpoint: .* another shape"):
        task.initialize(task.build_model())
    params.task.init_checkpoint_modules = "backbone"
    model = task.build_model()
    task.initialize(model)
    np.testing.assert_array_equal(
        model.network.root_layer.conv.kernel,
        runs.load(plain).network.root_layer.conv.kernel,
    )


def test_the_loss_has_the_ponder_cost_once():
    params = experiment(tau=0.7)
    params.task.losses.label_smoothing = 0.1
    task = task_factory.get_task(params.task)
    model = task.build_model()
    images, labels = next(iter(task.build_inputs(params.task.train_data)))
    network = model.network
    record = network.introspect(images)
    logs = task.validation_step((images, labels), model)
    targets = tf.one_hot(labels, 10) * 0.9 + 0.01
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits(targets, record["logits"])
    kernels = [v for v in model.trainable_variables if "kernel" in v.name]
    penalty = sum(0.5 * 1e-4 * np.sum(np.square(kernel)) for kernel in kernels)
    expected = np.mean(cross_entropy) + 0.7 * np.mean(record["ponder_cost"]) + penalty
    np.testing.assert_allclose(logs["loss"], expected, rtol=1e-4)


def test_two_replicas_of_which_one_gets_no_image_of_the_last_batch(whole, tmp_path):
    folder, _, params = whole
    shutil.copytree(folder, tmp_path / "run")
    strategy = mirrored()
    run(params, tmp_path / "run", "eval", strategy)
    expected, got = (
        summaries(place, "validation") for place in (folder, tmp_path / "run")
    )
    for tag in ("accuracy", "ponder_cost", "units_block2", "flops"):
        (_, one), (_, two) = got[tag]
        np.testing.assert_allclose(two, one, rtol=1e-6)
        assert one == expected[tag][-1][1]


def test_imagenet_from_records_and_from_tfds(tmp_path):
    """Trains on records with boxes, as the Garden has them, and evaluates on TFDS."""
    pixels = np.random.default_rng(0).integers(0, 256, [8, 40, 60, 3], np.uint8)
    box = [[0.1, 0.1, 0.9, 0.9]]
    path = records.write(tmp_path / "r", pixels, range(993, 1001), [box] * 8)
    params = experiments.sact_resnet_imagenet()
    params.override(
        {
            "task": {
                "model": {
                    "input_size": [32, 32, 3],
                    "backbone": {
                        "sact_resnet": {"units": [1, 1, 2, 1], "base_channels": 2}
                    },
                },
                "train_data": {"input_path": path, "global_batch_size": 4},
                "validation_data": {
                    "tfds_name": "imagenet2012",
                    "global_batch_size": 4,
                    "image_size": 48,
                },
            },
            "trainer": {
                "train_steps": 2,
                "steps_per_loop": 2,
                "summary_interval": 2,
                "checkpoint_interval": 2,
                "validation_interval": 2,
            },
        }
    )
    with tfds.testing.mock_data(num_examples=6):
        run(params, tmp_path / "run")
    logged = summaries(tmp_path / "run", "validation")
    assert np.isfinite(logged["validation_loss"][-1][1])
    rate = summaries(tmp_path / "run", "train")["learning_rate"][-1][1]
    np.testing.assert_allclose(rate, 0.05)


def test_messages():
    params = experiment()
    params.task.init_checkpoint = "/nowhere"
    task = task_factory.get_task(params.task)
    model = task.build_model()
    with pytest.raises(ValueError, match=r"task.init_checkpoint: /nowhere has no"):
        task.initialize(model)
    params.task.init_checkpoint_modules = "head"
    with pytest.raises(ValueError, match="init_checkpoint_modules must be 'all' or"):
        task.initialize(model)
    params.task.model.input_size = [64, 32, 3]
    with pytest.raises(ValueError, match="input_size must be square"):
        task.build_inputs(params.task.train_data)
    params.task.model.backbone.sact_resnet.num_blocks = 2
    with pytest.raises(ValueError, match="num_blocks is for tasks that add"):
        task.build_model()
    params.task.model.backbone.type = "resnet"
    with pytest.raises(ValueError, match=r"backbone.type must be 'sact_resnet'"):
        task.build_model()


def test_metrics_are_not_shared_between_training_and_evaluation():
    task = task_factory.get_task(configs.ClassificationTask())
    names = [metric.name for metric in task.build_metrics(training=True)]
    assert names.count("ponder_cost") == 1 and "units_block4" in names
    assert not task_factory.get_task(experiment().task).build_model().metrics


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_step_in_mixed_precision(dtype):
    """Gradients that float16 has no numbers for arrive, since the loss is scaled."""
    params = experiment(tau=1e-9)
    params.task.losses.override({"loss_weight": 1e-7, "l2_weight_decay": 0.0})
    params.runtime.mixed_precision_dtype = dtype
    task = task_factory.get_task(params.task)
    optimizer = performance.configure_optimizer(
        tf_keras.optimizers.legacy.SGD(1e5), use_float16=dtype == "float16"
    )
    batch = next(iter(task.build_inputs(params.task.train_data)))
    with numerics.precision(params.runtime):
        model = task.build_model()
    before = [variable.numpy() for variable in model.trainable_variables]
    task.train_step(batch, model, optimizer)
    changed = 0
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert new.dtype == tf.float32 and np.isfinite(new).all()
        changed += (old != new.numpy()).any()
        # Not by the loss scale.
        assert np.abs(old - new.numpy()).max() < 1.0, new.name
    # But for the biases in front of a batch norm.
    assert changed >= 0.8 * len(before)
    assert model(batch[0], training=False)["logits"].dtype == tf.float32


def write_cifar(path):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, 12)
    images = rng.integers(0, 256, [12, 32, 32, 3]).astype(np.uint8)
    return records.write(path, images, labels, encode=tf.io.encode_png)


def on_device(path, **fields):
    params = experiment()
    params.override(
        {
            "task": {
                "model": {"input_size": [32, 32, 3], "num_classes": 3},
                "evaluation": {"top_k": 2},
            }
        }
    )
    data = {
        "input_path": path,
        "preprocessing": "cifar",
        "first_label": 1,
        "global_batch_size": 4,
    }
    # Small steps: large ones of so small a network amplify how XLA rounds.
    rate = {"cosine": {"initial_learning_rate": 1e-4}}
    params.override({"trainer": {"optimizer_config": {"learning_rate": rate}}})
    params.task.train_data = configs.ImageData(on_device=True, seed=5, **data, **fields)
    params.task.validation_data = configs.ImageData(is_training=False, **data)
    return params


def test_data_on_the_device_and_steps_by_xla(tmp_path):
    """Killed and taken up, compiled or not: the same training."""
    params = on_device(write_cifar(tmp_path / "train"))
    folders = [tmp_path / name for name in ("ordinary", "compiled", "killed")]
    ordinary = run(params, folders[0], "train")
    params.runtime.enable_xla = True
    compiled = run(params, folders[1], "train")
    folders[2].mkdir()
    cut(folders[1], 4, folders[2])
    again = run(params, folders[2], "train")
    for one, other in zip(compiled.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.name)
    for one, other in zip(compiled.variables, ordinary.variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=one.name)
    logged = [summaries(folder, "train") for folder in folders[:2]]
    for name in ("training_loss", "accuracy", "ponder_cost", "flops"):
        for one, other in zip(*(log[name] for log in logged), strict=True):
            np.testing.assert_allclose(one[1], other[1], rtol=1e-4, err_msg=name)


def test_data_that_cannot_be_on_the_device_are_refused(tmp_path):
    path = write_cifar(tmp_path / "train")
    params = on_device(path)
    with pytest.raises(ValueError, match=r"on_device keeps the data on one.*2 replica"):
        run(params, tmp_path / "a", "train", mirrored())
    params.task.train_data.preprocessing = "imagenet"
    task = task_factory.get_task(params.task)
    with pytest.raises(ValueError, match=r"train_data.on_device is for images of 32"):
        task.build_inputs(params.task.train_data)
    params = on_device(path)
    params.task.train_data.first_label = 2
    task = task_factory.get_task(params.task)
    with pytest.raises(ValueError, match=r"classes -1 to 1 of .*has 3.*first_label"):
        task.build_inputs(params.task.train_data)
