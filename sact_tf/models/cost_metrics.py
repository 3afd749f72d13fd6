"""Costs in the logs, whoever's training step runs the network."""

import math

import tensorflow as tf
import tf_keras


class _Notes(dict):
    """Not a plain dict, which Keras would track, and then refuse to export."""


@tf_keras.utils.register_keras_serializable("sact_tf")
class CostMetric(tf_keras.metrics.Mean):
    """Mean of a cost over the images of training or evaluation steps.

    A network cannot know whether a call is a part of such a step or a prediction, which
    must not be counted: so a call only notes its costs, and the step counts them when
    it asks for the result. Where it cannot (the call was in a function of its own,
    say), and before the first step, the result is NaN: not known.
    """

    def __new__(cls, *args, **kwargs):
        """A metric whose `result`, as Keras has wrapped it, counts before."""
        metric = super().__new__(cls, *args, **kwargs)
        result = metric.result  # Waits for the other replicas; counting must not.

        def counted():
            metric._count_noted()
            return result()

        metric.result = counted
        return metric

    def __init__(self, name: str, dtype=None):
        """Creates the metric and its variables, named as nobody else's."""
        self._noted = _Notes()  # Of calls outside of functions, by replica.
        self._stepwise = False
        with tf.name_scope(name):
            super().__init__(name, dtype)

    def note(self, values: tf.Tensor) -> None:
        """Keeps what a call has cost, [B], until its step asks for the result."""
        if tf.executing_eagerly():
            self._noted[_replica()] = [values]
        else:
            # With the graph, which may go before the metric does.
            graph = tf.compat.v1.get_default_graph()
            graph.add_to_collection((self, _replica()), values)

    def record(self, values: tf.Tensor) -> None:
        """Counts what a step has cost, [B]; what others only noted is forgotten."""
        self._stepwise = True
        self.update_state(tf.cast(values, tf.float32))

    def result(self) -> tf.Tensor:
        """The mean, or NaN if nothing was counted."""
        return tf.where(self.count > 0, super().result(), math.nan)

    def reset_state(self) -> None:
        """Begins anew."""
        self._noted.clear()
        super().reset_state()

    def load_own_variables(self, store) -> None:
        """Takes the sums from a .keras file; files of earlier versions have none."""
        if store.keys():
            super().load_own_variables(store)

    def _count_noted(self):
        if tf.executing_eagerly():
            # Who trains in functions, and calls the network between steps, does not
            # want that in the logs.
            noted = [] if self._stepwise else self._noted.pop(_replica(), [])
            self._noted.clear()
            for values in noted:
                self.update_state(tf.cast(values, tf.float32))
            return
        graph = tf.compat.v1.get_default_graph()
        noted = graph.get_collection_ref((self, _replica()))
        while noted:
            values = noted.pop()
            if values.graph is graph:
                self.record(values)


def _replica():
    context = tf.distribute.get_replica_context()
    if context is None:
        return None
    replica = tf.get_static_value(context.replica_id_in_sync_group)
    return None if replica is None else int(replica)
