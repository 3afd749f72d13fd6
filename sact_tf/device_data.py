"""A training set in the device's memory: a step takes and augments its own batch.

```python
images, labels = cifar10.load("data", "train")  # of sact_tf.data
data = sact_tf.device_data.DeviceData(
    images, labels, batch_size=128, augment=augmentation.cifar_batch, seed=1
)
model.compile(optimizer, loss, jit_compile=True, steps_per_execution=500)
model.fit(data, epochs=50, steps_per_epoch=2000)
```

The host hands over no images but the numbers of those in a batch, and a seed: what is
done to images is a part of the step, and is compiled with it.
"""

import contextlib
import copy
from collections.abc import Callable

import numpy as np
import tensorflow as tf

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class DeviceData:
    """Images and labels on the device, and in which order steps take them.

    Every image comes once in an epoch, in an order of its own in each. Which images a
    step takes, and how it changes them, depends on the seed and the step's number only:
    a run that is taken up goes on exactly where it was.

    Attributes:
      batch_size: images of a step.
      steps_per_epoch: whole batches among the images.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        batch_size: int,
        augment: Augmentation | None = None,
        seed: int = 0,
        device: str | None = None,
    ):
        """Brings the data to the device.

        Args:
          images: [N, H, W, C], of any dtype; uint8 takes the least memory.
          labels: integers [N].
          batch_size: B, images of a step; at most N.
          augment: takes images [B, H, W, C] and a seed, int32 [2], and gives float32
            [B, H, W, C] as the network takes them; stateless, and of operations that
            the device has. By default images stay as they are.
          seed: of the order and of what `augment` draws, from zero to 2**31 - 1.
          device: where to keep the data; by default where TensorFlow keeps tensors.

        Raises:
          ValueError: shapes do not fit, or there are fewer images than in a batch; a
            seed that is out of range.
        """
        images, labels = np.asarray(images), np.asarray(labels)
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise ValueError(
                "DeviceData needs images [N, H, W, C] and as many labels [N]. "
                f"Received: images {list(images.shape)}, labels {list(labels.shape)}"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"DeviceData needs integers as labels. Received: {labels.dtype}"
            )
        if not 1 <= batch_size <= len(images):
            raise ValueError(
                f"batch_size must be from 1 to the number of images, {len(images)}. "
                f"Received: batch_size={batch_size}"
            )
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed must be 0 to 2**31 - 1. Received: seed={seed}")
        with tf.device(device) if device else contextlib.nullcontext():
            self._images = tf.constant(images)
            # int32 would stay in the host's memory.
            self._labels = tf.constant(labels.astype(np.int64))
        self.batch_size = batch_size
        self.steps_per_epoch = len(images) // batch_size
        self._augment = augment
        self._seed = seed
        self._first_step = 0

    def from_step(self, step: int) -> "DeviceData":
        """The same data for a run that goes on after so many steps.

        `sact_tf.training.fit(model, data.from_step, ...)` takes it as it is.
        """
        other = copy.copy(self)
        other._first_step = int(step)
        return other

    def draws(self) -> tf.data.Dataset:
        """What steps take, endless: places int64 [B] among the images, seed int32 [2].

        This is all that comes from the host.
        """
        count, size = int(self._images.shape[0]), self.batch_size
        seed = self._seed

        def draw(step):
            place = step * size + tf.range(size, dtype=tf.int64)
            epoch = place // count
            same = tf.zeros_like(epoch)
            seeds = tf.stack([same + seed, epoch, same], axis=1)
            # tf.random.experimental.index_shuffle pads several seeds wrongly.
            order = tf.raw_ops.RandomIndexShuffle(
                index=place % count,
                seed=seeds,
                max_index=tf.constant(count - 1, tf.int64),
                rounds=4,
            )
            order = tf.ensure_shape(order, [size])
            # int32 and not negative: XLA draws other numbers from all other seeds.
            return order, tf.stack([seed, tf.cast(step, tf.int32)])

        steps = tf.data.Dataset.range(self._first_step, tf.int64.max)
        return steps.map(draw, num_parallel_calls=1).prefetch(64)

    def batch(self, places: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The batch of a draw, made where it is called: in a step, on its device.

        Args:
          places: int64 [B], see `draws`.
          seed: int32 [2].

        Returns:
          Images float32 [B, H, W, C] and labels int64 [B].
        """
        images = tf.gather(self._images, places)
        if self._augment is None:
            images = tf.cast(images, tf.float32)
        else:
            images = self._augment(images, seed)
        return images, tf.gather(self._labels, places)

    def like(self, other: "DeviceData | None") -> bool:
        """Whether a step that was traced for other data is right for these."""
        return (
            other is not None
            and other._images is self._images
            and other._labels is self._labels
            and other._augment is self._augment
        )
