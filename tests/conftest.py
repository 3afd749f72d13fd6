"""Settings for all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_configure(config):
    # Some TensorFlow helpers read absl flags, which nobody parses under pytest.
    import tensorflow as tf
    from absl import flags

    flags.FLAGS(["pytest"])
    # Two devices, so that strategies have two replicas.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
