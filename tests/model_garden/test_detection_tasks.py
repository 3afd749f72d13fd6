import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.core import exp_factory, task_factory
from official.modeling import performance
from pycocotools import coco as pycoco
from pycocotools import cocoeval

from sact_tf import training
from sact_tf.data import coco
from sact_tf.detection import proposals, regions, targets
from sact_tf.evaluation import detection
from sact_tf.model_garden import (
    detection_configs,
    detection_experiments,
    detection_tasks,
    detectors,
    experiments,
    numerics,
    runs,
)
from tests.detection import coco_files, tiny
from tests.model_garden.test_tasks import cut, run, summaries, untrained
from tests.replicas import mirrored

STEPS = 4
NETWORK = {"units": [1, 1, 2, 2], "base_channels": 4, "root_channels": 4}
MODEL = {
    "num_classes": 5,
    "proposal_filters": 16,
    "anchor_sizes": [16.0, 32.0],
    "num_proposals": 20,
    "crop_size": 8,
    "pool_size": 4,
    "num_sampled": 16,
    "max_detections": 10,
}


def experiment(data, **backbone):
    """COCO's experiment, made tiny."""
    params = detection_experiments.sact_fasterrcnn_coco()
    file, folder = data
    source = {
        "annotation_file": str(file),
        "image_dir": str(folder),
        "shorter_side": 64,
        "longer_side": 96,
    }
    params.override(
        {
            "task": {
                "model": {
                    **MODEL,
                    "backbone": {"sact_resnet": {**NETWORK, **backbone}},
                },
                "train_data": source,
                "validation_data": source,
                "reference_units": [1, 1, 2],
                "seed": 1,
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


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return coco_files.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("trained")
    params = experiment(data)
    return folder, run(params, folder), params


def test_the_papers_schedule():
    params = exp_factory.get_exp_config("sact_fasterrcnn_coco")
    schedule = params.trainer.optimizer_config.learning_rate.stepwise
    assert schedule.boundaries == [800000, 1000000]
    np.testing.assert_allclose(schedule.values, [3e-4, 3e-5, 3e-6])
    assert params.trainer.train_steps == 1200000
    assert params.trainer.optimizer_config.optimizer.sgd.momentum == 0.9
    model = params.task.model
    assert model.num_proposals == 300 and model.num_classes == 91
    assert (model.crop_size, model.pool_size) == (28, 7)
    assert model.anchor_sizes == [64, 128, 256, 512]
    assert model.backbone.sact_resnet.freeze_batch_norm
    assert params.task.train_data.global_batch_size == 1


def test_logs_and_pictures(trained):
    folder, _, _ = trained
    costs = {"ponder_cost", "units_block1", "units_block3", "flops", "flops_share"}
    costs |= {"head_ponder_cost", "head_flops"}
    losses = {"proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss"}
    training = summaries(folder, "train")
    assert costs | losses | {"auxiliary_loss", "total_loss"} <= set(training)
    assert [value for _, value in training["boxes_left_out"]] == [0, 0]
    validation = summaries(folder, "validation")
    assert costs | {"AP", "AP50", "AP75", "APs", "ARmax100"} <= set(validation)
    assert 0 < validation["flops_share"][0][1] <= 1.1
    (_, picture), *_ = validation["image/detections"]
    assert int(picture[0]) > 500
    total = training["total_loss"][-1][1]
    parts = sum(training[name][-1][1] for name in (*losses, "auxiliary_loss"))
    np.testing.assert_allclose(total, parts, rtol=1e-5)


def test_batch_norm_is_fixed(trained):
    _, model, _ = trained
    norms = [v for v in model.variables if "moving" in v.name or "gamma" in v.name]
    assert norms and all(np.isin(norm, (0.0, 1.0)).all() for norm in norms)


def test_the_network_is_trained(trained, data):
    _, model, params = trained
    fresh = task_factory.get_task(params.task).build_model()
    changed = [
        np.any(one.numpy() != other.numpy())
        for one, other in zip(
            model.trainable_variables, fresh.trainable_variables, strict=True
        )
    ]
    assert all(changed)


def test_batch_norm_learns_along_on_images_of_several_sizes(data):
    params = experiment(data, freeze_batch_norm=False)
    params.task.train_data.global_batch_size = 4
    task = task_factory.get_task(params.task)
    model = task.build_model()
    optimizer = tf_keras.optimizers.SGD(1e-3)
    inputs = next(iter(task.build_inputs(params.task.train_data)))
    assert len(np.unique(inputs[1]["image_shapes"], axis=0)) > 1
    for _ in range(2):  # The first step's statistics are the second's proposals'.
        loss = task.train_step(inputs, model, optimizer)[task.loss]
        assert np.isfinite(loss)
    assert all(np.isfinite(variable).all() for variable in model.variables)
    moved = [v for v in model.extractor.variables if "moving_mean" in v.name]
    assert all(np.abs(mean).max() > 0 for mean in moved)


def test_taking_up(trained, data, tmp_path):
    folder, _, params = trained
    cut(folder, 2, tmp_path)
    first = runs.steps_done(str(tmp_path))
    run(params, tmp_path, "train")
    assert isinstance(first, int)  # Configs take no other integers.
    assert (first, runs.steps_done(str(tmp_path))) == (2, STEPS)


class Guessing:
    """A detector that knows the objects, more or less."""

    def __init__(self, detector, dataset):
        self._detector, self._rng = detector, np.random.default_rng(0)
        self._truth = iter([labels for _, labels in dataset])
        self.extractor = detector.extractor

    def __call__(self, images, **kwargs):
        outputs = self._detector(images, **kwargs)
        labels = next(self._truth)
        objects = labels["boxes"][0].numpy()
        objects = np.concatenate([objects[:4], objects[:4] + 7])
        boxes = objects + self._rng.normal(scale=2.0, size=objects.shape)
        scores = -np.sort(-self._rng.uniform(size=8))
        classes = np.tile(labels["classes"][0, :4], 2)
        there = classes > 0
        outputs["detection_boxes"] = tf.constant(
            np.where(there[:, None], boxes, 0.0)[None], tf.float32
        )
        outputs["detection_scores"] = tf.constant((scores * there)[None], tf.float32)
        outputs["detection_classes"] = tf.constant(
            np.where(there, classes, 1)[None], tf.int32
        )
        outputs["num_detections"] = tf.constant([there.sum()])
        return outputs


def test_metrics_equal_pycocotools_on_the_same_detections(trained, data):
    _, model, params = trained
    annotations = coco.load(*data)
    task = task_factory.get_task(params.task)
    task.build_metrics(training=False)
    dataset = task.build_inputs(params.task.validation_data)
    guessing = Guessing(model, dataset)
    state, images, found = None, [], []
    for images_here, labels in dataset:
        logs = task.validation_step((images_here, labels), guessing)
        # As the trainer hands them over: a tuple of replicas.
        state = task.aggregate_logs(
            state, tf.nest.map_structure(lambda value: (value,), logs)
        )
        detections = logs["detections"]
        images.append({"id": int(labels["groundtruths"]["source_id"][0])})
        count = int(detections["num_detections"][0])
        there = detections["detection_scores"][0].numpy() > 0
        assert there.sum() == count
        scale = np.tile(labels["image_info"][0, 2], 2)
        found.append(
            {
                "boxes": detections["detection_boxes"][0].numpy()[there] / scale,
                "scores": detections["detection_scores"][0].numpy()[there],
                "classes": detections["detection_classes"][0].numpy()[there],
            }
        )
    metrics = task.reduce_aggregated_logs(state)
    truth = pycoco.COCO(str(data[0]))
    entries = coco.as_json(images, found, annotations.categories)
    evaluation = cocoeval.COCOeval(truth, truth.loadRes(entries), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "ARmax1", "ARmax10", "ARmax100")
    names += ("ARs", "ARm", "ARl")
    for name, value in zip(names, evaluation.stats, strict=True):
        np.testing.assert_allclose(metrics[name], value, atol=2e-3, err_msg=name)
    assert 0.1 < metrics["AP"] < 0.9 < metrics["AP50"] + 0.4


class Repeating:
    """A detector that finds some of the objects, exactly."""

    def __init__(self, detector, labels, chosen):
        self._detector, self.extractor = detector, detector.extractor
        self._found = labels["boxes"][:, chosen], labels["classes"][:, chosen]

    def __call__(self, images, **kwargs):
        boxes, classes = self._found
        count = boxes.shape[1]
        return {
            **self._detector(images, **kwargs),
            "detection_boxes": boxes,
            "detection_classes": classes,
            "detection_scores": tf.linspace([0.9], [0.5], count, axis=1),
            "num_detections": tf.constant([count]),
        }


# What pycocotools says of 100 and 50 of 150 objects.
@pytest.mark.parametrize(
    ("chosen", "precision"), [(slice(100), 0.663), (slice(100, 150), 0.337)]
)
def test_objects_beyond_max_num_instances_count(trained, tmp_path, chosen, precision):
    _, model, _ = trained
    boxes = [
        coco_files.box(10, 1, 5 * (n % 15), 5 * (n // 15), 4, 4) for n in range(150)
    ]
    params = experiment(coco_files.write(tmp_path, ((60, 80),), annotations=boxes))
    params.task.validation_data.max_num_instances = 100
    task = task_factory.get_task(params.task)
    task.build_metrics(training=False)
    ((images, labels),) = task.build_inputs(params.task.validation_data)
    repeating = Repeating(model, labels, chosen)
    logs = task.validation_step((images, labels), repeating)
    state = task.aggregate_logs(None, tf.nest.map_structure(lambda v: (v,), logs))
    assert task.reduce_aggregated_logs(state)["AP"] == pytest.approx(
        precision, abs=1e-3
    )
    found = repeating(images, image_shapes=labels["image_shapes"], training=False)
    names = ("boxes", "scores", "classes")
    evaluation = detection.Evaluation()
    evaluation.add(
        {key: value[0].numpy() for key, value in labels["groundtruths"].items()},
        {
            **{name: found[f"detection_{name}"] for name in names},
            "count": found["num_detections"],
            "record": found["record"],
        },
        scale=labels["image_info"][0, 2].numpy(),
        reference_flops=1,
    )
    row = evaluation.row("repeating")
    assert row.metrics["AP"] == pytest.approx(precision, abs=1e-3)


def test_replicas_whose_images_have_different_numbers_of_objects():
    strategy = mirrored()

    def step(context):
        count = 3 if context.replica_id_in_sync_group else 5
        return {
            "source_id": tf.constant([count], tf.int64),
            "boxes": tf.fill([1, count, 4], float(count)),
            "classes": tf.fill([1, count], count),
        }

    per_replica = strategy.experimental_distribute_values_from_function(step)

    @tf.function
    def gathered(truth):
        def gather(truth):
            replicas = tf.distribute.get_replica_context()
            truth = detection_tasks._as_wide_as_all(truth, replicas)
            return {key: replicas.all_gather(v, axis=0) for key, v in truth.items()}

        return strategy.experimental_local_results(strategy.run(gather, (truth,)))[0]

    truth = gathered(per_replica)
    assert truth["source_id"].numpy().tolist() == [5, 3]
    assert truth["classes"].numpy().tolist() == [[5] * 5, [3, 3, 3, 0, 0]]
    assert truth["boxes"].shape == [2, 5, 4]


def test_start_from_classification(data, tmp_path):
    classification = experiments.sact_resnet_digit_scenes()
    classification.override(
        {
            "task": {
                "model": {
                    "backbone": {"sact_resnet": {**NETWORK, "adaptivity": "none"}}
                },
            },
        }
    )
    untrained(classification, tmp_path / "plain")
    source = runs.load(tmp_path / "plain").network
    params = experiment(data)
    for path in (tmp_path / "plain", tmp_path / "network.keras"):
        params.task.init_checkpoint = str(path)
        if path.suffix:
            source.save(path)
        task = task_factory.get_task(params.task)
        model = task.build_model()
        fresh = model.proposal_head.conv.kernel.numpy()
        task.initialize(model)
        extractor, block = model.extractor, model.box_head.block
        for ours, theirs in (
            (extractor.root_layer.conv.kernel, source.root_layer.conv.kernel),
            (
                extractor.blocks[2].units[1].conv2.kernel,
                source.blocks[2].units[1].conv2.kernel,
            ),
            (
                block.units[1].conv2_norm.moving_variance,
                source.blocks[3].units[1].conv2_norm.moving_variance,
            ),
            (model.box_head.norm.moving_mean, source.head.postnorm.moving_mean),
        ):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(model.proposal_head.conv.kernel, fresh)


def test_start_from_a_plain_detector(data, tmp_path):
    untrained(experiment(data, adaptivity="none"), tmp_path)
    source = detectors.load(tmp_path).detector
    detector = detectors.build(experiment(data).task.model)
    kept = detectors.initialize(detector, str(tmp_path))
    assert kept and all("/halting" in name for name in kept)
    for one, other in (
        (detector.box_head.classes, source.box_head.classes),
        (detector.proposal_head.conv, source.proposal_head.conv),
        (
            detector.extractor.blocks[2].units[1],
            source.extractor.blocks[2].units[1],
        ),
    ):
        for ours, theirs in zip(one.weights, other.weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    other_classes = experiment(data).task.model
    other_classes.num_classes = 7
    kept = detectors.initialize(detectors.build(other_classes), str(tmp_path))
    assert any("classes" in name for name in kept)
    assert not any("scores" in name for name in kept)


def test_start_from_a_detector_whose_head_halts_otherwise(trained, data):
    folder, source, _ = trained
    params = experiment(data)
    params.task.model.head_adaptivity = "act"
    detector = detectors.build(params.task.model)
    kept = detectors.initialize(detector, str(folder))
    assert kept and all(name.startswith("block4/halting") for name in kept)
    score = detector.extractor.blocks[2].halting_scores[0]
    theirs = source.extractor.blocks[2].halting_scores[0]
    np.testing.assert_array_equal(score.local_conv.kernel, theirs.local_conv.kernel)


def test_a_run_is_the_network_that_was_trained(trained):
    folder, model, _ = trained
    loaded = detectors.load(folder)
    for one, other in zip(model.variables, loaded.detector.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.task.model.num_classes == 5
    again = json.loads(json.dumps(loaded.task.as_dict()))
    assert again["reference_units"] == [1, 1, 2]


def test_a_run_of_digit_scenes(tmp_path):
    """Of its training, see test_distributed."""
    params = detection_experiments.sact_fasterrcnn_digit_scenes()
    model = {**MODEL, "num_classes": 11, "backbone": {"sact_resnet": NETWORK}}
    params.override({"task": {"model": model, "reference_units": [1, 1, 2]}})
    untrained(params, tmp_path)
    loaded = detectors.load(tmp_path)
    assert isinstance(loaded.task.validation_data, detection_configs.DetectionScenes)


def test_one_trace_for_images_of_many_sizes(data):
    params = experiment(data)
    task = task_factory.get_task(params.task)
    model = task.build_model()
    traces = []

    @tf.function
    def step(images, labels):
        traces.append(1)
        outputs = model(
            images,
            image_shapes=labels["image_shapes"],
            boxes=labels["boxes"],
            classes=labels["classes"],
            training=True,
        )
        return task.build_losses(labels, outputs, model.losses)["total_loss"]

    dataset = task.build_inputs(params.task.train_data)
    step = step.get_concrete_function(*dataset.element_spec)
    sizes = set()
    for images, labels in dataset.take(8):
        sizes.add(tuple(images.shape))
        assert np.isfinite(step(images, labels))
    assert len(sizes) >= 2 and len(traces) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "1 of 4 images .* are not in .*: 000020.png"),
        (lambda path: path.write_bytes(b"?"), "1 of 4 .* cannot be used: 000020.png"),
    ],
)
def test_missing_and_corrupt_images_end_a_training(tmp_path, spoil, message):
    spoilt = coco_files.write(tmp_path / "data")
    spoil(spoilt[1] / "000020.png")
    with pytest.raises(ValueError, match=f"task.train_data: .*{message}"):
        run(experiment(spoilt), tmp_path / "run", "train")
    assert not list(tmp_path.glob("run/ckpt*"))


def test_messages(data, tmp_path, trained):
    params = experiment(data)

    def complain(match, **changes):
        with pytest.raises(ValueError, match=match):
            detectors.build(params.task.model.replace(**changes))

    complain("num_classes counts the background", num_classes=1)
    complain("head_stride must be 1 or 2", head_stride=3)
    complain("family 'imagenet'", backbone={"sact_resnet": {"family": "cifar"}})
    complain("num_blocks=3", backbone={"sact_resnet": {"num_blocks": None}})
    complain("must be 'sact_resnet'", backbone={"type": "resnet"})
    params.task.init_checkpoint = "/nowhere/run"
    task = task_factory.get_task(params.task)
    model = task.build_model()
    with pytest.raises(ValueError, match=r"task.init_checkpoint: /nowhere/run"):
        task.initialize(model)
    folder, _, _ = trained
    shutil.copytree(folder, tmp_path / "run")
    text = (tmp_path / "run" / "params.yaml").read_text()
    (tmp_path / "run" / "params.yaml").write_text(
        text.replace("num_classes: 5", "num_classes: 6")
    )
    with pytest.raises(ValueError, match="does not fit the network"):
        detectors.load(tmp_path / "run")
    # That of a plain head would seem to fit.
    for other in ("none", "act"):
        (tmp_path / "run" / "params.yaml").write_text(
            text.replace("head_adaptivity: null", f"head_adaptivity: {other}")
        )
        with pytest.raises(
            ValueError, match=f"trained with head_adaptivity='sact', but .* '{other}'"
        ):
            detectors.load(tmp_path / "run")


PRECISIONS = ("float16", "bfloat16")


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_boxes_keep_their_precision(dtype):
    with numerics.precision(cfg.RuntimeConfig(mixed_precision_dtype=dtype)):
        config = tiny.detector().config
        sample, found = targets.RegionSampler(config), regions.DetectionFilter(config)
    for layer in (sample.layer, found.layer):
        parts = [layer, *layer.submodules]
        parts = [part for part in parts if isinstance(part, tf_keras.layers.Layer)]
        assert {part.compute_dtype for part in parts} == {"float32"}
    objects = [[1001.3, 3.7, 1500.9, 700.1], [20.6, 801.4, 1300.2, 1503.8]]
    boxes = np.concatenate([objects, np.full([20, 4], -1.0)])[np.newaxis]
    none = proposals.Proposals(
        tf.zeros([1, 20, 4]), tf.zeros([1, 20]), tf.zeros([1, 20], tf.bool)
    )
    classes = np.int32([[2, 3] + [-1] * 20])
    chosen, found = sample(none, tf.constant(boxes, tf.float32), classes)
    there = found["class_targets"][0] > 0
    order = np.argsort(found["class_targets"][0][there])
    np.testing.assert_array_equal(chosen[0][there].numpy()[order], np.float32(objects))
    # An object is itself, to the last bit.
    assert found["box_targets"].dtype == tf.float32
    assert not found["box_targets"][0][there].numpy().any()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_step_in_mixed_precision(data, dtype):
    params = experiment(data, adaptivity="none", units=[1, 1, 1, 1])
    # Gradients that float16 has no numbers for.
    weights = ("proposal_score", "proposal_box", "class", "box")
    params.task.losses.override({f"{name}_weight": 1e-7 for name in weights})
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
    for old, new in zip(before, model.trainable_variables, strict=True):
        assert new.dtype == tf.float32 and np.isfinite(new).all()
        assert (old != new.numpy()).any(), new.name
        # Not by the loss scale, either.
        assert np.abs(old - new.numpy()).max() < 1.0, new.name
    outputs = model(batch[0], training=False)
    for name in ("detection_boxes", "detection_scores", "anchors", "proposal_boxes"):
        assert outputs[name].dtype == tf.float32


def test_a_training_that_leaves_the_numbers(data, tmp_path):
    params = experiment(data, adaptivity="none", units=[1, 1, 1, 1])
    task = runs.make_task(params, str(tmp_path), tf.distribute.get_strategy())
    model = task.build_model()
    # As after a step that was much too large.
    kernel = model.extractor.blocks[1].units[0].conv2.kernel
    kernel.assign(1e38 * kernel)
    batch = next(iter(task.build_inputs(params.task.train_data)))
    with pytest.raises(training.NonFiniteLossError) as error, numerics.explained():
        task.train_step(batch, model, tf_keras.optimizers.legacy.SGD(1e-9))
    assert "at step 1. It began in the output of block" in str(error.value)
    assert "Try a smaller learning rate" in str(error.value)
    assert np.isfinite(model.proposal_head.conv.kernel).all()
