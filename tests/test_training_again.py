"""A run that was interrupted gives what the uninterrupted one gives, in all it keeps.

The networks are tiny ones of tf_keras that are not even traced, for speed.
"""

import csv
import dataclasses
import enum
import threading

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sact_tf import training

STEPS = 2
#: Losses of the epochs, as if the network got worse after the first one.
WORSE = (0.1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


class Interruption(Exception):
    pass


class Losses(tf_keras.callbacks.Callback):
    """Says what the loss is, so that the others see it."""

    def __init__(self, values=WORSE):
        super().__init__()
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = self.values[epoch]


class InterruptAt(tf_keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise Interruption


def network(optimizer=None):
    tf_keras.utils.set_random_seed(3)
    model = tf_keras.Sequential([tf_keras.layers.Dense(1, input_shape=(2,))])
    optimizer = optimizer or tf_keras.optimizers.SGD(0.01)
    model.compile(optimizer, "mse", run_eagerly=True)
    return model


def data():
    inputs = np.random.default_rng(0).normal(size=(2 * STEPS, 2)).astype("f")
    examples = tf.data.Dataset.from_tensor_slices((inputs, inputs[:, :1] ** 2))
    return examples.batch(2)


def fit(model, directory, callbacks=(), epochs=5, **options):
    return training.fit(
        model,
        data(),
        epochs=epochs,
        steps_per_epoch=STEPS,
        directory=directory,
        callbacks=callbacks,
        verbose=0,
        **options,
    )


def interrupted(directory, make, step, optimizer=lambda: None, **options):
    """History and network of a run that was interrupted, and of its callbacks."""
    with pytest.raises(Interruption):
        callbacks = [*make(), InterruptAt(step)]
        fit(network(optimizer()), directory, callbacks, **options)
    again, callbacks = network(optimizer()), make()
    return fit(again, directory, callbacks, **options), again, callbacks


def same(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_best_network_is_not_written_over(tmp_path):
    best = str(tmp_path / "best.keras")

    def callbacks():
        options = {"monitor": "val_loss", "save_best_only": True}
        return [Losses(), tf_keras.callbacks.ModelCheckpoint(best, **options)]

    first = network()
    fit(first, tmp_path / "run", callbacks(), epochs=1)
    _, trained, _ = interrupted(tmp_path / "run", callbacks, STEPS)
    same(tf_keras.models.load_model(best), first)
    assert (trained.get_weights()[0] != first.get_weights()[0]).any()


@pytest.mark.parametrize(("step", "best"), [(STEPS, False), (2 * STEPS + 1, True)])
def test_early_stopping_ends_where_it_would_have(tmp_path, step, best):
    def callbacks():
        stop = tf_keras.callbacks.EarlyStopping(patience=2, restore_best_weights=best)
        return [Losses(), stop]

    whole = network()
    history = fit(whole, tmp_path / "whole", callbacks())
    assert len(history["loss"]) == 3
    again, trained, _ = interrupted(tmp_path / "cut", callbacks, step, backup_every=1)
    assert again == history
    same(trained, whole)
    later = network()  # It has ended, also where there might be more epochs.
    assert fit(later, tmp_path / "cut", callbacks(), epochs=7) == history
    same(later, whole)
    # Nobody ends it any more; and not with the best weights, but with the last ones.
    plain, longer = network(), network()
    fit(plain, tmp_path / "plain", [Losses()])
    assert len(fit(longer, tmp_path / "cut", [Losses()])["loss"]) == 5
    same(longer, plain)


@pytest.mark.parametrize("kind", ["plateau", "schedule"])
@pytest.mark.parametrize(
    ("step", "legacy"), [(2 * STEPS, True), (3 * STEPS - 1, False)]
)
def test_learning_rates_go_on(tmp_path, kind, step, legacy):
    optimizers = tf_keras.optimizers.legacy if legacy else tf_keras.optimizers

    def callbacks():
        if kind == "schedule":
            schedule = lambda epoch, rate: rate * 0.5  # noqa: E731
            return [Losses(), tf_keras.callbacks.LearningRateScheduler(schedule)]
        plateau = tf_keras.callbacks.ReduceLROnPlateau(patience=2, cooldown=1)
        return [Losses(), plateau]

    def optimizer():
        return optimizers.SGD(0.01)

    whole = network(optimizer())
    history = fit(whole, tmp_path / "whole", callbacks())
    rates = history["lr"]
    assert rates[-1] < rates[0]
    again, trained, _ = interrupted(
        tmp_path / "cut", callbacks, step, optimizer, backup_every=1
    )
    assert again == history
    same(trained, whole)


@dataclasses.dataclass
class Tally:
    best: float = np.inf
    seen: dict = dataclasses.field(default_factory=dict)


class Phase(enum.Enum):
    WARM_UP = 1
    MAIN = 2


class Own(tf_keras.callbacks.Callback):
    """A callback of a user's, who remembers in many ways."""

    def __init__(self, seen):
        super().__init__()
        self.seen, self.text, self.tally = seen, "", Tally()
        self.random = np.random.default_rng(5)
        self.old_random, self.turn = np.random.RandomState(6), 1 + 0j
        self.phase = Phase.WARM_UP
        self.mean = tf_keras.metrics.Mean()
        self.steps = tf.Variable(0)
        self.average, self.names = None, set()
        self.lock = threading.Lock()  # Nothing to remember.

    def on_train_begin(self, logs=None):
        self.draws = np.zeros(0)

    def on_train_batch_end(self, batch, logs=None):
        self.steps.assign_add(1)
        draws = [self.random.normal(), self.old_random.normal()]
        self.draws = np.append(self.draws, draws)
        self.turn *= 1j
        self.names.add(f"step{int(self.steps)}")

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["loss"])
        self.text += f"{self.phase.name} {epoch}"
        if not epoch:
            self.phase = Phase.MAIN
        self.tally.best = min(self.tally.best, logs["loss"])
        self.tally.seen[epoch] = (epoch, None)
        self.mean.update_state(logs["loss"])
        weights = self.model.get_weights()
        before = self.average or weights
        self.average = [a + 0.1 * (w - a) for a, w in zip(before, weights, strict=True)]

    def what(self):
        return (
            *(self.seen, self.text, self.tally, float(self.mean.result())),
            *(int(self.steps), self.names, self.draws.tolist(), self.turn),
            *(np.concatenate([np.ravel(a) for a in self.average]).tolist(),),
        )


@pytest.mark.parametrize(
    ("step", "reused"), [(STEPS, False), (2 * STEPS + 1, False), (2 * STEPS + 1, True)]
)
def test_callbacks_of_users_remember(tmp_path, step, reused):
    whole = Own([])
    fit(network(), tmp_path / "whole", [whole])
    cut, seen = Own([]), []
    with pytest.raises(Interruption):
        callbacks = [cut, InterruptAt(step)]
        fit(network(), tmp_path / "cut", callbacks, backup_every=1)
    # In the same process, with the same object, or in another one.
    again = cut if reused else Own(seen)
    fit(network(), tmp_path / "cut", [again], backup_every=1)
    assert again.what() == whole.what()
    assert reused or seen == whole.seen  # Others who hold the list see it.


def test_two_of_a_kind_are_not_mixed_up(tmp_path):
    def callbacks():
        options = {"save_best_only": True, "save_weights_only": True}
        return [
            Losses(),
            *(
                tf_keras.callbacks.ModelCheckpoint(
                    tmp_path / f"{mode}.h5", "val_loss", mode=mode, **options
                )
                for mode in ("min", "max")
            ),
        ]

    _, _, again = interrupted(tmp_path / "cut", callbacks, 2 * STEPS)
    assert [callback.best for callback in again[1:]] == [0.1, 0.9]


def test_what_a_callback_is_told_anew_counts(tmp_path):
    def callbacks(patience):
        return [Losses(), tf_keras.callbacks.EarlyStopping(patience=patience)]

    with pytest.raises(Interruption):
        fit(network(), tmp_path, [*callbacks(2), InterruptAt(2 * STEPS)])
    assert len(fit(network(), tmp_path, callbacks(3))["loss"]) == 4


def test_csv_files_go_on(tmp_path):
    def callbacks(name):
        return [tf_keras.callbacks.CSVLogger(tmp_path / name)]

    fit(network(), tmp_path / "whole", callbacks("whole.csv"))
    interrupted(tmp_path / "cut", lambda: callbacks("cut.csv"), 2 * STEPS)
    assert (tmp_path / "cut.csv").read_text() == (tmp_path / "whole.csv").read_text()
    with open(tmp_path / "cut.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("01234")


def test_a_stop_button_interrupts(tmp_path):

    whole, stopped, again = network(), network(), network()
    history = fit(whole, tmp_path / "whole")
    plain = stopped.make_train_function()

    def pressed(iterator):
        logs = plain(iterator)
        if int(stopped.optimizer.iterations) == 3:
            stopped.stop_training = True
        return logs

    stopped.train_function = pressed
    callbacks = [tf_keras.callbacks.History()]
    assert len(fit(stopped, tmp_path / "cut", callbacks)["loss"]) == 1
    assert tf.train.latest_checkpoint(tmp_path / "cut").endswith("ckpt-3")
    assert fit(again, tmp_path / "cut", callbacks) == history
    same(again, whole)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: tf_keras.optimizers.SGD(0.5, use_ema=True),
        lambda: tf_keras.optimizers.Adam(0.5, use_ema=True, ema_momentum=0.5),
        lambda: tf_keras.mixed_precision.LossScaleOptimizer(
            tf_keras.optimizers.RMSprop(0.5, use_ema=True)
        ),
    ],
)
def test_averaged_weights_are_those_that_training_gave(tmp_path, optimizer):
    whole, later = network(optimizer()), network(optimizer())
    history = fit(whole, tmp_path / "whole", epochs=3)
    assert fit(later, tmp_path / "whole", epochs=3) == history
    same(later, whole)
    _, again, _ = interrupted(
        tmp_path / "cut", list, STEPS + 1, optimizer, epochs=3, backup_every=1
    )
    same(again, whole)
    # More epochs go on from the weights themselves.
    longer = network(optimizer())
    fit(longer, tmp_path / "longer", epochs=4)
    fit(whole, tmp_path / "whole", epochs=4)
    same(whole, longer)


def test_a_run_killed_before_its_weights_were_finished(tmp_path):
    def optimizer():
        return tf_keras.optimizers.SGD(0.5, use_ema=True)

    whole, later = network(optimizer()), network(optimizer())
    fit(whole, tmp_path)
    for file in tmp_path.glob("finished-*"):
        file.unlink()
    fit(later, tmp_path, [InterruptAt(5 * STEPS)])
    same(later, whole)


def test_what_callbacks_do_in_the_end_is_kept(tmp_path):
    class Zero(tf_keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.set_weights([0 * w for w in self.model.get_weights()])

    fit(network(), tmp_path, [Zero()])
    later = network()
    fit(later, tmp_path)
    assert not any(weights.any() for weights in later.get_weights())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("step", [None, 2 * STEPS + 1])
def test_hyperparameters_that_change_are_no_settings(tmp_path, legacy, step):
    optimizers = tf_keras.optimizers.legacy if legacy else tf_keras.optimizers

    def callbacks():
        plateau = tf_keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=0)
        return [Losses(), plateau, *([InterruptAt(step)] if step else [])]

    whole, again = (network(optimizers.SGD(0.01, momentum=0.9)) for _ in range(2))
    history = fit(whole, tmp_path / "whole", callbacks()[:2])
    if step:
        with pytest.raises(Interruption):
            fit(again, tmp_path / "cut", callbacks())
    else:
        fit(again, tmp_path / "cut", callbacks(), epochs=3)
    assert fit(again, tmp_path / "cut", callbacks()[:2]) == history
    same(again, whole)
    another = network(optimizers.SGD(0.02, momentum=0.9))
    with pytest.raises(ValueError, match=r"learning_rate: 0.0\d+ there, 0.0\d+ here"):
        fit(another, tmp_path / "cut", callbacks()[:2])


def test_a_rate_that_somebody_sets_meanwhile_is_no_secret(tmp_path):
    model = network()
    history = fit(model, tmp_path, epochs=2)
    model.optimizer.learning_rate = 0.5
    with pytest.warns(UserWarning, match="learning_rate: 0.0099.* there, 0.5 here"):
        again = fit(model, tmp_path, epochs=3)
    assert again["loss"][:2] == history["loss"]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*b", "back\\slash"])
def test_any_name_of_a_folder(tmp_path, name):
    other = tmp_path / "aXb"  # What a*b would remove checkpoints of.
    fit(network(), other, epochs=3)
    before = {file.name for file in other.iterdir()}
    whole, again = network(), network()
    history = fit(whole, tmp_path / "whole", epochs=4)
    fit(network(), tmp_path / name, epochs=2)
    assert fit(again, tmp_path / name, epochs=4) == history
    same(again, whole)
    names = {file.name for file in (tmp_path / name).iterdir()}
    assert names == {file.name for file in (tmp_path / "whole").iterdir()}
    assert {file.name for file in other.iterdir()} == before


def test_states_of_earlier_versions_go_on(tmp_path):
    fit(network(), tmp_path, epochs=2)
    model = network()
    model.optimizer.build(model.trainable_variables)
    step = tf.Variable(0, dtype=tf.int64)
    old = tf.train.Checkpoint(model=model, optimizer=model.optimizer, step=step)
    latest = tf.train.latest_checkpoint(tmp_path)
    old.restore(latest).assert_existing_objects_matched()
    old.write(latest)
    whole, again = network(), network()
    history = fit(whole, tmp_path / "whole", [Losses()])
    assert fit(again, tmp_path, [Losses()])["loss"] == history["loss"]
    same(again, whole)


def test_backup_and_restore_is_refused(tmp_path):
    callback = tf_keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(ValueError, match="Leave that callback out"):
        fit(network(), tmp_path / "run", [callback])
    assert not list(tmp_path.iterdir())
