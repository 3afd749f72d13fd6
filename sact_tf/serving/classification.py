"""A classification network as it is served: images in; classes, and their cost, out."""

from collections.abc import Sequence

import tensorflow as tf

from sact_tf.data import preprocessing
from sact_tf.models.config import FAMILIES
from sact_tf.models.resnet import ResNet
from sact_tf.serving import checks, servable

_EVERYTHING = (0.0, 0.0, 1.0, 1.0)


class Classifier(servable.ImageServable):
    """A `ResNet` as it is served; see `servable.ImageServable`."""

    def __init__(
        self,
        network: ResNet,
        image_size: int,
        *,
        crop: bool = True,
        labels: Sequence[str] | None = None,
        top_k: int = 5,
        limits: checks.Limits | None = None,
    ):
        """Makes the signatures.

        Args:
          network: the network.
          image_size: S; every image is brought to S x S pixels.
          crop: preprocess as in the evaluation of photographs (the central 87.5 %; see
            sact_tf.data.preprocessing), or resize whole images.
          labels: names of the classes; their numbers by default.
          top_k: k, how many classes are given; all, if there are fewer.
          limits: what is refused; by default that of `checks.Limits`, and images
            smaller than the network's stride.

        Raises:
          ValueError: an argument is out of range, or the labels are not one for each
            class.
        """
        stride = FAMILIES[network.family].stride
        if image_size < stride:
            raise ValueError(
                f"image_size must be at least {stride}, the network's stride. "
                f"Received: {image_size}"
            )
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1. Received: {top_k}")

        def answer(prepared, halting_bias, explain):
            images, region = prepared
            record = network.introspect(images, halting_bias)
            outputs = self._outputs(record, explain)
            return {**outputs, "map_region": region} if explain else outputs

        super().__init__(
            "classifier",
            network,
            labels,
            network.config.num_classes,
            limits or checks.Limits(min_side=stride),
            answer,
            network.adaptivity,
        )
        self.image_size = image_size
        self.top_k = min(top_k, len(self.labels))
        self.block_names = [block.name for block in network.blocks]
        self.warmup_sizes = [
            (image_size, image_size),
            (image_size * 3 // 2, image_size * 2),
            (image_size * 2, image_size),
        ]
        self._crop = crop
        self._family = network.family

    @property
    def documentation(self) -> dict[str, str]:
        """What the inputs and outputs of all signatures mean, by name."""
        blocks = {
            servable.map_name(name): f"The same for {name} alone, at its resolution."
            for name in self.block_names
        }
        return {
            **super().documentation,
            "classes": f"The {self.top_k} most probable classes, best first.",
            "names": "Their names.",
            "probabilities": "Their probabilities.",
            "ponder_cost": "What the image cost: residual units and remainders, mean "
            "over positions, sum over blocks.",
            "flops": "What the image cost: floating point operations of all "
            "convolutions.",
            "ponder_cost_map": "Where the image cost it: ponder cost at each pixel of "
            f"the {self.image_size} x {self.image_size} pixels that the network saw, "
            "all blocks together.",
            **blocks,
            "map_region": "The part of the image that the maps show: [ymin, xmin, "
            "ymax, xmax] as shares of height and width.",
        }

    @property
    def _prepared_spec(self):
        shape = [self.image_size, self.image_size, 3]
        return tf.TensorSpec(shape, tf.float32), tf.TensorSpec([4], tf.float32)

    def _prepare(self, image):
        if self._crop:
            seen = preprocessing.EVALUATION[self._family](image, self.image_size)
        else:
            seen = preprocessing.whole_image(image, self.image_size, self._family)
        return seen, self._region(image)

    def _region(self, image):
        if not self._crop or self._family in preprocessing.STANDARDIZED:
            return tf.constant(_EVERYTHING)
        # Row and column numbers, cropped as the image is.
        height, width = tf.shape(image)[0], tf.shape(image)[1]
        rows = tf.range(height)[:, tf.newaxis, tf.newaxis]
        columns = tf.range(width)[tf.newaxis, :, tf.newaxis]
        fraction = preprocessing.CENTRAL_FRACTION
        rows = tf.reshape(tf.image.central_crop(rows, fraction), [-1])
        columns = tf.reshape(tf.image.central_crop(columns, fraction), [-1])
        sides = [rows[0], columns[0], rows[-1] + 1, columns[-1] + 1]
        return tf.cast(tf.stack(sides) / tf.stack([height, width] * 2), tf.float32)

    def _outputs(self, record, explain):
        probabilities, classes = tf.math.top_k(
            tf.nn.softmax(record["logits"]), self.top_k
        )
        outputs = {
            "classes": classes,
            "names": self._names_of(classes),
            "probabilities": probabilities,
            **servable.costs(record, explain),
        }
        if explain:
            total = outputs["ponder_cost_map"]
            outputs["ponder_cost_map"] = tf.ensure_shape(
                total, [None, self.image_size, self.image_size]
            )
        return outputs
