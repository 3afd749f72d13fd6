"""Callbacks that change a network's temperature while it is trained."""

import numbers

import tensorflow as tf
import tf_keras


def temperature(step, steps: int, start: float = 1.0, end: float = 0.03):
    """Of a step of training: start * (end / start) ** (step / steps), at least `end`.

    Args:
      step: a number or a float32 scalar, counted from zero.
      steps: in how many it goes from `start` to `end`.
      start: temperature of the first step.
      end: and after the last one.
    """
    share = step / steps
    share = tf.minimum(share, 1.0) if tf.is_tensor(share) else min(share, 1.0)
    return start * (end / start) ** share


def temperatures(model: tf.Module) -> list[tf.Variable]:
    """The temperatures of a model's blocks; none without SSIN's masks."""
    found = (getattr(layer, "temperature", None) for layer in model.submodules)
    return [each for each in found if isinstance(each, tf.Variable)]


class TemperatureSchedule(tf_keras.callbacks.Callback):
    """Lowers the temperature of SSIN's masks step by step; see `temperature`.

    The step is the optimizer's: a training that is taken up goes on where it was.

    ```python
    schedule = TemperatureSchedule(steps=epochs * steps_per_epoch)
    model.fit(dataset, epochs=epochs, callbacks=[schedule])
    ```
    """

    def __init__(self, steps: int, start: float = 1.0, end: float = 0.03):
        """Creates the callback.

        Args:
          steps: in how many steps of training it goes from `start` to `end`. The
            authors' code lowers it by 2e-5 of itself a step, from 1.0: for 12 epochs of
            COCO that ends at 0.0297, close to the 0.03 of inference.
          start: temperature of the first step.
          end: and after the last one; best that of inference.

        Raises:
          ValueError: there are no steps, or a temperature is not above zero.
        """
        super().__init__()
        if not isinstance(steps, numbers.Integral) or steps < 1:
            raise ValueError(f"steps must be at least 1. Received: steps={steps!r}")
        for name, value in (("start", start), ("end", end)):
            if not isinstance(value, numbers.Real) or not 0 < value < float("inf"):
                raise ValueError(
                    f"{name} must be a temperature above zero. Received: "
                    f"{name}={value!r}"
                )
        self._steps, self._start, self._end = int(steps), float(start), float(end)

    def temperature(self, step: int) -> float:
        """Of a step, counted from zero."""
        return temperature(step, self._steps, self._start, self._end)

    def on_train_begin(self, logs=None):
        """Looks whether the model has a temperature.

        Raises:
          ValueError: it has none.
        """
        if not temperatures(self.model):
            raise ValueError(
                "TemperatureSchedule is for networks with adaptivity='ssin'. Received: "
                f"{type(self.model).__name__} without a temperature"
            )

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the temperature of the step."""
        value = self.temperature(int(self.model.optimizer.iterations))
        for variable in temperatures(self.model):
            variable.assign(value)
