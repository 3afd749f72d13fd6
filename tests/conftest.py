"""Settings for all tests."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def pytest_configure(config):
    # Some TensorFlow helpers read absl flags, which nobody parses under pytest.
    from absl import flags

    flags.FLAGS(["pytest"])
