import numpy as np
import pytest
import tf_keras

import sact_tf
from sact_tf.annealing import TemperatureSchedule


def test_temperatures_of_steps():
    schedule = TemperatureSchedule(175_000)
    assert schedule.temperature(0) == 1.0
    np.testing.assert_allclose(schedule.temperature(175_000), 0.03)
    assert schedule.temperature(10**9) == schedule.temperature(175_000)
    ratio = schedule.temperature(101) / schedule.temperature(100)
    np.testing.assert_allclose(ratio, 0.99998, atol=1e-7)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 10, "end": 0}, "end must be a temperature above zero"),
        ({"steps": 10, "start": -1.0}, "start must be a temperature above zero"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        TemperatureSchedule(**options)


def test_networks_without_a_temperature_are_refused():
    schedule = TemperatureSchedule(10)
    schedule.set_model(tf_keras.Sequential([tf_keras.layers.Dense(1)]))
    with pytest.raises(ValueError, match="adaptivity='ssin'"):
        schedule.on_train_begin()


def test_a_training_ends_at_the_last_temperature_and_goes_on_from_there():
    model = sact_tf.ResNet(
        "resnet_d_small", (1, 1, 1, 1), "ssin", num_classes=2, base_channels=2
    )
    model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(True))
    seen, x = [], np.zeros([2, 16, 16, 3], np.float32)

    class Watch(tf_keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(model.blocks[3].temperature))

    for _ in range(2):
        schedule = TemperatureSchedule(2, end=0.25)
        model.fit(x, np.zeros([2]), callbacks=[schedule, Watch()], verbose=0)
        model.fit(x, np.zeros([2]), callbacks=[schedule, Watch()], verbose=0)
    np.testing.assert_allclose(seen, [1.0, 0.5, 0.25, 0.25], rtol=1e-6)
