"""Settings for all tests."""

import gc
import os
import unittest.mock
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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


def pytest_collection_finish(session):
    # All that was imported is there to stay: without looking through it, the garbage
    # collector takes no time from functions that are traced.
    gc.collect()
    gc.freeze()


# Weights that differ from run to run would fail some test once in a hundred runs. The
# seeds differ from one another, or a network that a test builds could be equal to the
# one that a fixture has trained, before it is restored.
def pytest_fixture_setup(fixturedef, request):
    _seed(f"{request.node.nodeid} {fixturedef.argname}")


def pytest_runtest_call(item):
    _seed(item.nodeid)


def _seed(name):
    import tf_keras
    from tensorflow.python.eager import context

    # TensorFlow would also forget what it has made of all functions so far, and
    # optimise the networks of fixtures anew for every test.
    with unittest.mock.patch.object(context.pywrap_tfe, "TFE_ContextClearCaches"):
        tf_keras.utils.set_random_seed(zlib.crc32(name.encode()))
