"""Settings for all tests."""

import os
import zlib

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


# Weights that differ from run to run would fail some test once in a hundred runs. The
# seeds differ from one another, or a network that a test builds could be equal to the
# one that a fixture has trained, before it is restored.
def pytest_fixture_setup(fixturedef, request):
    _seed(f"{request.node.nodeid} {fixturedef.argname}")


def pytest_runtest_call(item):
    _seed(item.nodeid)


def _seed(name):
    import tf_keras

    tf_keras.utils.set_random_seed(zlib.crc32(name.encode()))
