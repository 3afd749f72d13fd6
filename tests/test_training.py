import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import training

STEPS, EPOCHS = 4, 3


class Interruption(Exception):
    pass


class InterruptAt(tf_keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self._left = step

    def on_train_batch_begin(self, batch, logs=None):
        if self._left == 0:
            raise Interruption
        self._left -= 1


def model(seed=0, graph=False, **options):
    """Without a graph: to trace each one's step would take longer than its training."""
    tf_keras.utils.set_random_seed(seed)
    network = sact_tf.ResNet(
        "cifar",
        (2, 1, 1),
        num_classes=4,
        base_channels=4,
        **{"tau": 0.05, **options},
    )
    network.compile(
        tf_keras.optimizers.SGD(
            tf_keras.optimizers.schedules.CosineDecay(0.05, STEPS * EPOCHS),
            momentum=0.9,
        ),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
        run_eagerly=not graph,
    )
    return network


def dataset(spoilt_step=None):
    tf.random.set_seed(0)  # Seeds of operations are mixed with it.
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8 * STEPS, 12, 12, 3)).astype("f")
    labels = rng.integers(0, 4, size=8 * STEPS)
    if spoilt_step is not None:
        images[8 * spoilt_step, 3, 3, 1] = np.nan
    examples = tf.data.Dataset.from_tensor_slices((images, labels))
    if spoilt_step is None:
        examples = examples.shuffle(100, seed=5)  # Another order in every epoch.
    return examples.repeat().batch(8)


def fit(network, directory, data=None, **options):
    return training.fit(
        network,
        data or dataset(),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        directory=directory,
        verbose=0,
        **options,
    )


def same_weights(one, other):
    for a, b in zip(one.weights, other.weights, strict=True):
        if "total" in a.name or "count" in a.name:
            continue  # Metrics: an epoch that was taken up has seen fewer steps.
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=a.name)


@pytest.mark.parametrize(
    "stop, maker, graph",
    [
        (4, False, False),
        (6, False, True),
        (9, False, False),
        (4, True, False),
        (6, True, False),
        (9, True, False),
    ],
)
def test_interrupted_training_ends_where_uninterrupted_training_does(
    tmp_path, stop, maker, graph
):
    def data():
        return (lambda step: dataset().skip(step)) if maker else dataset()

    whole, cut = model(graph=graph), model(graph=graph)
    history = fit(whole, tmp_path / "whole", data(), backup_every=1)
    interrupt = InterruptAt(stop)
    with pytest.raises(Interruption):
        fit(cut, tmp_path / "cut", data(), backup_every=1, callbacks=[interrupt])
    # Whatever it starts from, it is restored.
    resumed = model(seed=1, graph=graph)
    again = fit(resumed, tmp_path / "cut", data(), backup_every=1)
    same_weights(whole, resumed)
    assert int(resumed.optimizer.iterations) == STEPS * EPOCHS
    assert len(again["loss"]) == EPOCHS
    complete = [e for e in range(EPOCHS) if not (stop % STEPS and e == stop // STEPS)]
    for epoch in complete:
        assert again["loss"][epoch] == pytest.approx(history["loss"][epoch], rel=1e-5)


def test_without_step_backups_the_epoch_is_repeated(tmp_path):
    whole, resumed = model(), model(seed=1)
    history = fit(whole, tmp_path / "whole")
    with pytest.raises(Interruption):
        fit(model(), tmp_path / "cut", callbacks=[InterruptAt(6)])
    again = fit(resumed, tmp_path / "cut")
    same_weights(whole, resumed)
    assert again["loss"] == pytest.approx(history["loss"], rel=1e-5)


def test_finished_training_is_restored_without_a_step(tmp_path):
    first, second = model(), model(seed=1)
    history = fit(first, tmp_path / "run")
    again = fit(second, tmp_path / "run", callbacks=[InterruptAt(0)])
    assert again == history
    same_weights(first, second)


def test_validation_is_part_of_the_history(tmp_path):
    history = fit(model(), tmp_path, validation_data=dataset().take(2))
    assert {"val_loss", "val_ponder_cost", "val_units_block1"} <= set(history)


def test_a_loss_that_is_nan_stops_the_run_and_goes_back(tmp_path):
    broken = model()
    with pytest.raises(training.NonFiniteLossError) as error:
        fit(broken, tmp_path, dataset(spoilt_step=2), backup_every=1)
    message = str(error.value)
    assert "loss became nan at step 3 (epoch 1)" in message
    assert f"{tmp_path}/ckpt-2" in message
    assert all(np.isfinite(weight).all() for weight in broken.weights)
    # Going on with sound data starts from that checkpoint.
    restored = model(seed=1)
    fit(restored, tmp_path)
    assert all(np.isfinite(weight).all() for weight in restored.weights)


@pytest.mark.parametrize("step", [2, STEPS * EPOCHS - 1])
def test_an_update_that_spoils_the_weights_is_not_kept(tmp_path, step):
    class Spoil(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == step + 1:
                kernel = self.model.head.logits.kernel
                kernel.assign(tf.fill(kernel.shape, np.inf))

    broken = model()
    with pytest.raises(training.NonFiniteLossError, match=f"ckpt-{step}"):
        fit(broken, tmp_path, backup_every=1, callbacks=[Spoil()])
    assert np.isfinite(broken.head.logits.kernel).all()


@pytest.mark.parametrize("stop", [2, 5])
def test_data_of_one_epoch_serve_for_all(tmp_path, stop):
    def data():
        return dataset().take(STEPS)

    whole, cut, resumed = model(), model(), model(seed=1)
    history = fit(whole, tmp_path / "whole", data())
    interrupt = InterruptAt(stop)
    with pytest.raises(Interruption):
        fit(cut, tmp_path / "cut", data(), backup_every=1, callbacks=[interrupt])
    again = fit(resumed, tmp_path / "cut", data(), backup_every=1)
    assert len(again["loss"]) == len(history["loss"]) == EPOCHS
    assert int(resumed.optimizer.iterations) == STEPS * EPOCHS


def test_data_that_end_too_early_are_no_finished_run(tmp_path):
    with pytest.raises(ValueError, match="data set ended at step 6; 3 epochs of 4"):
        fit(model(), tmp_path, dataset().take(6))
    resumed = model(seed=1)
    assert len(fit(resumed, tmp_path)["loss"]) == EPOCHS
    assert int(resumed.optimizer.iterations) == STEPS * EPOCHS


def test_several_steps_per_execution(tmp_path):
    network = model()
    network.compile(network.optimizer, network.loss, steps_per_execution=2)
    history = fit(network, tmp_path, backup_every=3)
    assert len(history["loss"]) == EPOCHS
    assert int(network.optimizer.iterations) == STEPS * EPOCHS
    assert tf.train.latest_checkpoint(tmp_path).endswith(f"ckpt-{STEPS * EPOCHS}")


def test_plain_fit_afterwards_begins_at_its_own_beginning(tmp_path):
    network = model()
    with pytest.raises(Interruption):
        fit(network, tmp_path, callbacks=[InterruptAt(STEPS + 1)])
    history = network.fit(dataset(), epochs=1, steps_per_epoch=2, verbose=0)
    assert len(history.history["loss"]) == 1


@pytest.mark.parametrize(
    "options, setting",
    [
        ({"adaptivity": "none"}, "model.adaptivity: sact there, none here"),
        ({"tau": 0.5}, "model.tau: 0.05 there, 0.5 here"),
    ],
)
def test_the_state_of_another_run_is_refused(tmp_path, options, setting):
    fit(model(), tmp_path)
    with pytest.raises(ValueError, match=f"other settings.*{setting}"):
        fit(model(**options), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    fit(model(), tmp_path)
    data = tmp_path / f"ckpt-{STEPS * EPOCHS}.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match="cannot be read; is it whole"):
        fit(model(), tmp_path)


@pytest.mark.parametrize("wrong", ["epochs", "steps_per_epoch", "backup_every"])
def test_wrong_numbers(tmp_path, wrong):
    options = {"epochs": 1, "steps_per_epoch": 1, "directory": tmp_path, wrong: 0}
    with pytest.raises(ValueError, match=wrong):
        training.fit(model(), dataset(), **options)


def test_uncompiled_model(tmp_path):
    with pytest.raises(ValueError, match="must be compiled"):
        fit(sact_tf.ResNet("cifar", 20, num_classes=4), tmp_path)


def test_ponder_cost_maps_reach_tensorboard(tmp_path):
    logs = tmp_path / "logs"
    images = next(iter(dataset()))[0][:3]
    fit(
        model(graph=True),
        tmp_path / "run",
        callbacks=[
            tf_keras.callbacks.TensorBoard(logs, write_graph=False),
            training.PonderCostMaps(images, logs, every=2),
        ],
    )
    pictures, scalars = [], set()
    for file in logs.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.tag == "ponder_cost_maps":
                    pictures.append((event.step, value.tensor.string_val[2]))
                elif value.tag.startswith("epoch_"):
                    scalars.add(value.tag)
    assert [step for step, _ in pictures] == [1]
    assert tf.io.decode_png(pictures[0][1]).shape[2] in (3, 4)
    assert {"epoch_ponder_cost", "epoch_flops", "epoch_units_block1"} <= scalars
