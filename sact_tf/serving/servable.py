"""Networks for images as they are served: what all of them have in common."""

import abc
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf.models.options import has_halting_scores
from sact_tf.serving import checks

_READERS = {
    # What takes images, and how they come.
    "encoded": (checks.map_encoded, tf.TensorSpec([None], tf.string, "images")),
    "decoded": (
        checks.map_decoded,
        tf.TensorSpec([None, None, None, 3], tf.uint8, "images"),
    ),
}


class ImageServable(tf.Module, abc.ABC):
    """A network with preprocessing before it and names of classes behind it.

    Every signature is a function of `images` and, optionally, `halting_bias`: one
    number, or one for each image; of a network that halts nowhere only zero. The
    signatures:

      serving_default: JPEG or PNG files, strings [B], of any sizes; turned upright.
      tensors: decoded images, uint8 [B, H, W, 3].
      explain: as serving_default, and says where the network spent its time.
    """

    #: Sizes (height, width) of the images that a server warms up with.
    warmup_sizes: Sequence[tuple[int, int]]

    def __init__(
        self,
        name: str,
        network: tf_keras.Model,
        labels: Sequence[str] | None,
        num_classes: int,
        limits: checks.Limits,
        answer: Callable[[object, tf.Tensor, bool], dict[str, tf.Tensor]],
        adaptivity: str = "sact",
    ):
        """Makes the signatures.

        Args:
          name: of the module.
          network: what the answers come from.
          labels: names of the classes; None for their numbers.
          num_classes: how many there are.
          limits: what is refused.
          answer: function of what `_prepare` made of all images, of the halting biases,
            float32 [B], and of whether to say where time was spent. It gives the
            outputs, each with the batch as first axis.
          adaptivity: of the network, which says whether it has halting scores.

        Raises:
          ValueError: the labels are not one line for each class.
        """
        super().__init__(name=name)
        self.labels = _checked_labels(labels, num_classes)
        self.limits = limits
        self._halts = has_halting_scores(adaptivity)
        # Only the variables are kept: a tf_keras model would be saved with dozens of
        # functions that nobody asked for.
        self._variables = network.variables
        # As text: a tf.Module would take the lists in it for parts of its own.
        self._arguments = json.dumps(network.get_config())
        # A file, so that the export has the label map as an asset; copied from here.
        self._folder = tempfile.TemporaryDirectory()
        labels_file = pathlib.Path(self._folder.name) / "labels.txt"
        text = "".join(f"{label}\n" for label in self.labels)
        labels_file.write_text(text, encoding="utf-8")
        self._names = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(labels_file),
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
            ),
            default_value="",
        )
        self.serving_default = self._signature("encoded", answer, explain=False)
        self.tensors = self._signature("decoded", answer, explain=False)
        self.explain = self._signature("encoded", answer, explain=True)

    @property
    def arguments(self) -> dict:
        """Of the network, as its `get_config` gave them."""
        return json.loads(self._arguments)

    @property
    def signatures(self) -> dict:
        """The functions to export, by name."""
        return {
            "serving_default": self.serving_default,
            "tensors": self.tensors,
            "explain": self.explain,
        }

    @property
    def documentation(self) -> dict[str, str]:
        """What the inputs of all signatures mean, by name; subclasses add outputs."""
        limits = self.limits
        return {
            "images": "serving_default and explain: JPEG or PNG files, 1 to "
            f"{limits.max_batch_size} of them, of any sizes, turned upright as their "
            "EXIF says. tensors: decoded images, RGB, all of one size. An image has at "
            f"least {limits.min_side} pixels in both directions and at most "
            f"{limits.max_pixels} in all.",
            "halting_bias": "Optional. One number, or one for each image, added to "
            "every halting logit: above zero the network stops sooner, which costs "
            "accuracy and saves time; below zero later."
            if self._halts
            else "Optional. This network has no halting scores: only zero is taken, "
            "one, or one for each image.",
        }

    def warmup_requests(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        """Requests (signature, inputs by name) that exercise all of the graph."""
        rng = np.random.default_rng(0)
        images = [
            rng.integers(0, 256, [*size, 3], np.uint8) for size in self.warmup_sizes
        ]
        encoders = [tf.io.encode_jpeg] * (len(images) - 1) + [tf.io.encode_png]
        files = [
            encode(image).numpy()
            for encode, image in zip(encoders, images, strict=True)
        ]
        # With a bias for each image, as servers that batch want it.
        for batch in (files[:1], files):
            inputs = {
                "images": np.array(batch, object),
                "halting_bias": np.zeros([len(batch)], np.float32),
            }
            yield "serving_default", inputs
            yield "explain", inputs
        for image in images:
            yield (
                "tensors",
                {
                    "images": image[np.newaxis],
                    "halting_bias": np.zeros([1], np.float32),
                },
            )

    @property
    @abc.abstractmethod
    def _prepared_spec(self):
        """Structure of type specs of what `_prepare` gives."""

    @abc.abstractmethod
    def _prepare(self, image):
        """What is done to each image, uint8 [H, W, 3], before it is in a batch."""

    def _signature(self, kind, answer, explain):
        # The network is in no attribute, see above.
        default = tf.constant([0.0])

        @tf.function(input_signature=self._specs(kind), autograph=False)
        def signature(images, halting_bias=default):
            return answer(*self._read(kind, images, halting_bias), explain)

        return signature

    @staticmethod
    def _specs(kind):
        """Of the inputs that all signatures have."""
        return [_READERS[kind][1], tf.TensorSpec(None, tf.float32, "halting_bias")]

    def _read(self, kind, images, halting_bias):
        """What all images became, and each one's halting bias."""
        read, _ = _READERS[kind]
        prepared = read(self._prepare, images, self.limits, self._prepared_spec)
        count = tf.shape(images)[0]
        biases = checks.halting_bias_per_image(halting_bias, count, self._halts)
        return prepared, biases

    def _names_of(self, classes):
        return self._names.lookup(tf.cast(classes, tf.int64))


def costs(record: dict, explain: bool) -> dict[str, tf.Tensor]:
    """What images cost, and where, by the names that clients know.

    Args:
      record: as `ResNet.introspect` gives it.
      explain: whether to give the maps, too.
    """
    outputs = {"ponder_cost": record["ponder_cost"], "flops": record["flops"]}
    if explain:
        outputs["ponder_cost_map"] = record["ponder_cost_map"][..., 0]
        for block in record["blocks"]:
            outputs[map_name(block["name"])] = block["ponder_cost"]
    return outputs


def map_name(block: str) -> str:
    """Name of the output that has the ponder cost map of a block."""
    return f"{block}_ponder_cost_map"


def _checked_labels(labels, num_classes):
    labels = list(map(str, range(num_classes))) if labels is None else list(labels)
    if len(labels) != num_classes:
        raise ValueError(
            f"The network has {num_classes} classes, so it needs as many labels. "
            f"Received: {len(labels)}"
        )
    odd = [label for label in labels if not label or len(label.splitlines()) > 1]
    if odd:
        raise ValueError(
            f"A label must be one line, and not empty. Received: {odd[0]!r}"
        )
    return labels
