"""Which part of the data a worker reads.

Synchronous workers get a `tf.distribute.InputContext` from their strategy. The chief
of asynchronous ones makes a data set on every worker from one function, to which
tf.distribute gives the same context everywhere, as if each worker were alone: with
`for_workers` it gets the worker's own.

```python
def make(context):
    return sharding.shard(tf.data.Dataset.range(1000), context).batch(8)

data = tf_keras.utils.experimental.DatasetCreator(sharding.for_workers(9, make))
model.fit(data, steps_per_epoch=100)
```
"""

from collections.abc import Callable

import tensorflow as tf

_Maker = Callable[[tf.distribute.InputContext], tf.data.Dataset]


def shard(
    dataset: tf.data.Dataset, context: tf.distribute.InputContext | None
) -> tf.data.Dataset:
    """Every n-th element for each of n workers; no two get the same one.

    Args:
      dataset: the same on every worker, in the same order.
      context: of the worker; None if there is only one.
    """
    if count(context) == 1:
        return dataset
    return dataset.shard(count(context), index(context))


def count(context: tf.distribute.InputContext | None) -> int:
    """Number of workers that share the data."""
    return context.num_input_pipelines if context else 1


def index(context: tf.distribute.InputContext | None) -> tf.Tensor:
    """Number of this worker, int64; known to the chief only as a symbolic tensor."""
    return tf.cast(context.input_pipeline_id if context else 0, tf.int64)


def for_workers(workers: int, make: _Maker) -> _Maker:
    """Gives a function that makes data sets the context of the worker it runs for.

    Args:
      workers: number of asynchronous workers.
      make: makes the part of one worker.
    """

    def make_for_worker(context):
        current = tf.distribute.coordinator.experimental_get_current_worker_index()
        return make(
            tf.distribute.InputContext(
                num_input_pipelines=workers,
                input_pipeline_id=tf.cast(current, tf.int64),
                num_replicas_in_sync=context.num_replicas_in_sync,
            )
        )

    return make_for_worker
