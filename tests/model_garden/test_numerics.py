import types

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from official.core import config_definitions as cfg
from official.core import task_factory

from sact_tf.model_garden import experiments, numerics
from sact_tf.training import NonFiniteLossError
from tests.model_garden.test_tasks import experiment
from tests.replicas import mirrored

NAN, INFINITE = float("nan"), float("inf")


def model():
    """Variables as of a network with batch norm."""
    names = ("norm/moving_mean", "norm/moving_variance", "counter")
    return types.SimpleNamespace(
        non_trainable_variables=[tf.Variable([1.0, 2.0], name=n) for n in names]
    )


def check(network, optimizer=None, *, loss=NAN, images=1.0, parts=None):
    """What is said of a loss, within a loop of a function."""
    optimizer = optimizer or tf_keras.optimizers.legacy.SGD()

    @tf.function
    def loop(loss):
        for _ in tf.range(2):
            loss = numerics.checked(
                loss,
                model=network,
                optimizer=optimizer,
                images=tf.fill([1, 2], images),
                parts=parts,
            )
        return loss

    with numerics.explained():
        return loop(tf.constant(loss))


def spoil(network, name, value=NAN):
    (variable,) = (v for v in network.non_trainable_variables if v.name == f"{name}:0")
    variable.assign([1.0, value])


def test_finite_losses_pass():
    assert check(model(), loss=1.5) == 1.5


@pytest.mark.parametrize(("loss", "kind"), [(NAN, "NaN"), (-INFINITE, "infinite")])
def test_what_was_computed_first(loss, kind):
    parts = {"block1": tf.ones([2]), "block2": tf.constant([1, INFINITE]), "c": NAN}
    start = rf"^The loss is not finite \({kind}\) at step 1. It began in block2. Try "
    with pytest.raises(NonFiniteLossError, match=start) as error:
        check(model(), loss=loss, parts=parts)
    for advice in ("learning_rate", "warmup", "global_clipnorm", "bfloat16"):
        assert advice in str(error.value)


def test_when_all_parts_are_finite():
    with pytest.raises(NonFiniteLossError, match=r"began in the loss\. Try"):
        check(model(), parts={"block1": tf.ones([2])})


@pytest.mark.parametrize("name", ["moving_mean", "moving_variance"])
def test_statistics_of_batch_norm(name):
    network = model()
    spoil(network, f"norm/{name}", INFINITE)
    said = rf"began in norm/{name}: .*freeze_batch_norm=true"
    with pytest.raises(NonFiniteLossError, match=said):
        check(network, parts={"block1": tf.constant(NAN)})


def test_images():
    with pytest.raises(NonFiniteLossError, match="It began in the images of the batch"):
        check(model(), images=NAN, parts={"block1": tf.constant(NAN)})


def test_infinite_losses_are_left_to_loss_scaling():
    scaling = tf_keras.mixed_precision.LossScaleOptimizer(tf_keras.optimizers.SGD())
    assert np.isinf(check(model(), scaling, loss=INFINITE))
    with pytest.raises(NonFiniteLossError, match="NaN"):
        check(model(), scaling)


def test_one_replica_of_several():
    strategy = mirrored()
    with strategy.scope():
        network = model()
        optimizer = tf_keras.optimizers.legacy.SGD()
    spoil(network, "norm/moving_mean")

    @tf.function
    def step():
        def replica():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            loss = tf.where(tf.equal(number, 1), NAN, 1.0)
            images = tf.zeros([1, 2])
            return numerics.checked(
                loss, model=network, optimizer=optimizer, images=images
            )

        return strategy.run(replica)

    with (
        pytest.raises(NonFiniteLossError, match="in norm/moving_mean: "),
        numerics.explained(),
    ):
        step()


def test_other_errors_stay_as_they_are():
    with pytest.raises(tf.errors.InvalidArgumentError), numerics.explained():
        tf.debugging.Assert(tf.constant(False), ["something else"])


def test_a_classification_that_is_spoilt():
    params = experiment(adaptivity="none", units=[1, 1, 1])
    task = task_factory.get_task(params.task)
    network = task.build_model()
    batch = tf.ones([2, 16, 16, 3]), tf.constant([1, 2])
    mean = network.network.blocks[1].units[0].conv1_norm.moving_mean
    mean.assign(tf.fill(mean.shape, NAN))
    kernel = network.network.blocks[1].units[0].conv2.kernel
    kernel.assign(tf.fill(kernel.shape, NAN))
    optimizer = tf_keras.optimizers.legacy.SGD()
    task.ends_where_not_finite = True
    with (
        pytest.raises(NonFiniteLossError, match=r"began in .*/moving_"),
        numerics.explained(),
    ):
        task.train_step(batch, network, optimizer)
    assert np.isfinite(network.network.head.logits.kernel).all()
    # An evaluation goes on.
    assert np.isnan(task.validation_step(batch, network)[task.loss])


def test_when_a_training_ends():
    params = experiments.sact_resnet_imagenet()
    assert numerics.ends_where_not_finite(params)
    params.trainer.recovery_max_trials = 3  # The Garden goes back to a checkpoint.
    assert not numerics.ends_where_not_finite(params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", None])
def test_precision(dtype):
    runtime = cfg.RuntimeConfig(mixed_precision_dtype=dtype)
    before = tf_keras.mixed_precision.global_policy()
    with numerics.precision(runtime):
        policy = tf_keras.mixed_precision.global_policy()
        assert policy.compute_dtype == (dtype or "float32")
        assert policy.variable_dtype == "float32"
    assert tf_keras.mixed_precision.global_policy().name == before.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixed_precision_dtype": "half"}, "one of float32, float16, .*'half'"),
        ({"loss_scale": "big"}, "loss_scale must be 'dynamic' or a number.*'big'"),
    ],
)
def test_precisions_that_are_none(options, message):
    with (
        pytest.raises(ValueError, match=message),
        numerics.precision(cfg.RuntimeConfig(**options)),
    ):
        pass


def test_what_xla_compiles_ends_by_itself():
    """There are no strings in it to say where it began."""
    params = experiment()
    assert numerics.ends_where_not_finite(params)
    params.runtime.enable_xla = True
    assert not numerics.ends_where_not_finite(params)
    # Without a GPU, the Garden compiles no steps of its own tasks.
    params.task = cfg.TaskConfig()
    assert numerics.ends_where_not_finite(params)
