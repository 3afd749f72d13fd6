"""The device that is measured, the precision, and the rates that there are to reach."""

import contextlib
import math
from collections.abc import Iterator

import tensorflow as tf
import tf_keras

from sact_tf.cli.benchmark.timing import fastest
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization

DEVICES = ("gpu", "cpu")
#: Keras' policies by what --dtype calls them.
DTYPES = {
    "float32": "float32",
    "tf32": "float32",
    "bfloat16": "mixed_bfloat16",
    "float16": "mixed_float16",
}
#: Side of the matrices of the product, and numbers in the vector of the copy: large
#: enough for the device, and no more than a second.
_PRODUCT = {"gpu": 8192, "cpu": 2048}
_COPIED = {"gpu": 2**28, "cpu": 2**25}
_PRODUCTS = 8


class Device:
    """A device and a precision to compute in."""

    def __init__(self, kind: str | None = None, dtype: str | None = None):
        """Checks that there is such a device, and that it can do that.

        Args:
          kind: one of DEVICES; by default the GPU, if there is one.
          dtype: one of DTYPES; by default float32, as TensorFlow has it.

        Raises:
          ValueError: there is none, or it has no such precision.
        """
        gpus = tf.config.get_visible_devices("GPU")
        if kind == "gpu" and not gpus:
            built = "" if tf.test.is_built_with_cuda() else " without CUDA"
            raise ValueError(
                "--device gpu: TensorFlow sees no GPU here. `nvidia-smi` says whether "
                f"there is one; this TensorFlow ({tf.__version__}) was built"
                f"{built or ' with CUDA'}, and pip install 'tensorflow[and-cuda]' "
                "brings the libraries (docs/gpu.md)"
            )
        self.kind = kind or ("gpu" if gpus else "cpu")
        self.dtype = dtype
        if dtype == "tf32" and self.kind == "cpu":
            raise ValueError(
                "--dtype tf32 is of GPUs, and this is a CPU: give float32. Received: "
                "--dtype tf32"
            )
        self.policy = tf_keras.mixed_precision.Policy(DTYPES[dtype or "float32"])

    @contextlib.contextmanager
    def used(self) -> Iterator["Device"]:
        """Computes there and in that precision; the precision is as before behind it.

        Raises:
          ValueError: the device has no operations of that precision.
        """
        if self.kind == "cpu" and tf.config.get_visible_devices("GPU"):
            # Hidden, since "auto" asks whether there is one.
            tf.config.set_visible_devices([], "GPU")
        policy = tf_keras.mixed_precision.global_policy()
        rounded = tf.config.experimental.tensor_float_32_execution_enabled()
        tf_keras.mixed_precision.set_global_policy(self.policy)
        if self.dtype:
            tf.config.experimental.enable_tensor_float_32_execution(
                self.dtype == "tf32"
            )
        try:
            self._try()
            yield self
        finally:
            tf_keras.mixed_precision.set_global_policy(policy)
            tf.config.experimental.enable_tensor_float_32_execution(rounded)

    def _try(self):
        """What networks consist of, once, small."""
        if self.policy.compute_dtype == "float32":
            return
        features = tf.zeros([2, 8, 8, 4], self.policy.compute_dtype)
        try:
            convolution = Convolution(4, 4, 3, use_bias=False, name="tried")
            norm = BatchNormalization(4, momentum=0.9, epsilon=1e-3, name="tried_norm")
            values = norm(convolution(features), training=False)
            tf.matmul(values, values, transpose_b=True).numpy()
        except tf.errors.OpError as error:
            cause = str(error).splitlines()[0]
            raise ValueError(
                f"--dtype {self.dtype} does not work on this {self.kind} ({cause}). "
                "Give another one"
            ) from error

    def describe(self) -> str:
        """Name of the device, precision, and TensorFlow's version."""
        name = "CPU"
        if self.kind == "gpu":
            gpu = tf.config.get_visible_devices("GPU")[0]
            details = tf.config.experimental.get_device_details(gpu)
            name = details.get("device_name", "unknown GPU")
        dtype = self.dtype or "float32"
        if self.kind == "gpu" and not self.dtype:
            rounded = tf.config.experimental.tensor_float_32_execution_enabled()
            dtype += " (TF32)" if rounded else ""
        return f"{name}, {dtype}, TensorFlow {tf.__version__}"

    def product_rate(self) -> float:
        """FLOP/s of large matrix products in the precision of the networks."""
        size = _PRODUCT[self.kind]
        matrix = tf.random.normal([size, size]) / math.sqrt(size)
        matrix = tf.cast(matrix, self.policy.compute_dtype)

        @tf.function(autograph=False)
        def run(matrix):
            other = matrix
            for _ in range(_PRODUCTS):
                other = tf.matmul(matrix, other)
            return other[0, 0]

        seconds = fastest({"product": lambda: run(matrix).numpy()}, 5, "product")
        return 2.0 * _PRODUCTS * size**3 / seconds["product"]

    def copy_rate(self) -> float:
        """Bytes per second, read and written, of a large vector."""
        count = _COPIED[self.kind]
        values = tf.random.normal([count])

        # Not as a graph, whose optimiser may make one product of several.
        def run():
            result = values
            for _ in range(_PRODUCTS):
                result = result * 1.5
            return result[0].numpy()

        seconds = fastest({"copy": run}, 3, "copy")
        return 8.0 * _PRODUCTS * count / seconds["copy"]
