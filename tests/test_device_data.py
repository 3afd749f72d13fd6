import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf import training
from sact_tf.data import augmentation
from sact_tf.device_data import DeviceData
from tests.replicas import mirrored

EPOCHS, STEPS, CALL = 4, 50, 25


@pytest.fixture(scope="module")
def data():
    """Images whose mean tells their class, which a tiny network can learn."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 40)
    pixels = rng.integers(0, 150, [40, 32, 32, 3])
    pixels[:, :16] += 50 * labels[:, np.newaxis, np.newaxis, np.newaxis]
    return DeviceData(
        pixels.astype(np.uint8),
        labels,
        batch_size=4,
        augment=augmentation.cifar_batch,
        seed=3,
    )


def network(**options):
    tf_keras.utils.set_random_seed(1)
    model = sact_tf.ResNet("cifar", (1, 2, 1), "sact", 3, base_channels=2, tau=0.02)
    model.compile(
        # Small steps: large ones of so small a network amplify how XLA rounds.
        tf_keras.optimizers.SGD(2e-4, jit_compile=False),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
        **options,
    )
    return model


def places(data, count):
    return np.stack([place.numpy() for place, _ in data.draws().take(count)])


def test_every_image_comes_once_in_an_epoch(data):
    epochs = places(data, 30).reshape(3, 40)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_run_that_is_taken_up_goes_on_with_the_same_draws(data):
    whole = list(data.draws().take(9).as_numpy_iterator())
    rest = list(data.from_step(5).draws().take(4).as_numpy_iterator())
    for (place, seed), (other, other_seed) in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(place, other)
        np.testing.assert_array_equal(seed, other_seed)
    assert len({tuple(seed) for _, seed in whole}) == 9
    place, seed = whole[0]
    assert place.dtype == np.int64 and seed.dtype == np.int32


def test_the_compiled_loop_gives_the_losses_of_the_ordinary_one(data, tmp_path):
    """200 updates: many in a call, by XLA; one by one, from batches of the host."""
    ordinary = network().fit(
        data.draws().map(data.batch), epochs=EPOCHS, steps_per_epoch=STEPS, verbose=0
    )
    model = network(jit_compile=True, steps_per_execution=CALL)
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, tmp_path, callbacks=[_KilledAfter(CALL * 5)])
    history = fit(model, data, tmp_path)
    losses = ordinary.history["loss"]
    assert np.ptp(losses) > 0.01 * losses[0], "more than what is tolerated"
    for name, values in ordinary.history.items():
        # An image between two classes counts for one two-hundredth.
        rtol = 0.02 if name == "accuracy" else 1e-4
        np.testing.assert_allclose(history[name], values, rtol=rtol, err_msg=name)


def fit(model, data, folder, **options):
    return training.fit(
        model,
        data.from_step,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        directory=folder,
        backup_every=CALL,
        verbose=0,
        **options,
    )


class _KilledAfter(tf_keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self._step = step

    def on_train_batch_begin(self, batch, logs=None):
        if self.model.optimizer.iterations >= self._step:
            raise KeyboardInterrupt


def test_other_data_are_traced_anew(data):
    model = network(run_eagerly=True)
    model.fit(data, steps_per_epoch=1, verbose=0)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 32, 32, 3)).astype("f")
    history = model.fit(images, np.zeros([4], int), batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_what_does_not_fit_is_refused(data):
    images, labels = np.zeros([4, 32, 32, 3], np.uint8), np.zeros([4], int)
    with pytest.raises(ValueError, match=r"as many labels.*\[4, 32, 32, 3\].*\[3\]"):
        DeviceData(images, labels[:3], batch_size=2)
    with pytest.raises(ValueError, match=r"integers as labels. Received: float64"):
        DeviceData(images, labels * 1.0, batch_size=2)
    with pytest.raises(ValueError, match=r"seed must be 0 to 2.*seed=-1"):
        DeviceData(images, labels, batch_size=2, seed=-1)
    with pytest.raises(ValueError, match=r"1 to the number of images, 4.*=5"):
        DeviceData(images, labels, batch_size=5)
    with pytest.raises(ValueError, match=r"DeviceData alone.*y=ndarray"):
        network(run_eagerly=True).fit(data, labels)
    with mirrored().scope():
        model = network()
    with pytest.raises(ValueError, match=r"on one device.*2 replicas"):
        model.fit(data)


def test_augmentation_of_batches():
    """Crops of the padded image, mirrored or not, each as often as the others."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [32, 32, 3]).astype(np.uint8)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)])
    wanted = {}
    for top in range(5):
        for left in range(5):
            crop = padded[top : top + 32, left : left + 32]
            for mirrored_, pixels in ((0, crop), (1, crop[:, ::-1])):
                values = tf.image.per_image_standardization(pixels).numpy()
                wanted[top, left, mirrored_] = values
    batch = np.stack([image] * 600)
    augment = tf.function(augmentation.cifar_batch, autograph=False)
    found = augment(batch, tf.constant([1, 2])).numpy()
    assert found.dtype == np.float32
    counts = dict.fromkeys(wanted, 0)
    for values in found:
        (key,) = (
            key
            for key, other in wanted.items()
            if np.allclose(values, other, atol=1e-5)
        )
        counts[key] += 1
    # 12 of each are expected, give or take.
    assert min(counts.values()) >= 2 and max(counts.values()) <= 30
    compiled = tf.function(augmentation.cifar_batch, jit_compile=True)
    for seed in ([1, 2], [0, 0], [2**31 - 1, 7], [5, 2**31 - 1], [12345678, 99999]):
        by_xla = compiled(batch[:8], tf.constant(seed)).numpy()
        again = augment(batch[:8], tf.constant(seed)).numpy()
        np.testing.assert_allclose(by_xla, again, atol=1e-5)
