"""The residual networks as a Model Garden backbone and as its classification model."""

import tensorflow as tf
import tf_keras
from absl import logging
from official.vision.modeling.backbones import factory

from sact_tf.layers.normalization import BatchNormalization
from sact_tf.model_garden import configs
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from sact_tf.models.cost_record import per_image
from sact_tf.models.resnet import ResNet


@tf_keras.utils.register_keras_serializable("sact_tf")
class SACTResNetBackbone(Backbone):
    """A Backbone of which the Model Garden's decoders can ask what it gives."""

    _input_size = (None, None)

    def set_input_size(self, height: int | None, width: int | None):
        """Tells `output_specs` the size of the images, where a decoder asks for it."""
        self._input_size = (height, width)

    @property
    def output_specs(self) -> dict[str, tf.TensorShape]:
        """Shape of each level's map, as the Model Garden's decoders ask for it."""
        return self.output_shapes(*self._input_size)

    @classmethod
    def from_config(cls, config):
        """A backbone with fresh weights from what `get_config` gave."""
        config = dict(config)
        if "network" in config:  # As earlier versions wrote it.
            config = {**config.pop("network"), **config}
            del config["num_classes"]
        return super().from_config(config)


class ClassificationModel(tf_keras.Model):
    """A residual network that says, beside the logits, what every image cost.

    Called with images it returns a dict of float32: logits [B, num_classes], and
    ponder_cost, units_block1, ..., flops, each [B] (see `cost_names`).
    """

    def __init__(self, network: ResNet):
        """Wraps a network, which stays available as the attribute `network`."""
        super().__init__(name="classification")
        self.network = network

    @tf.autograph.experimental.do_not_convert
    def call(self, images, training=None):
        """Classifies images [B, H, W, 3]; at inference B may be zero."""
        count = tf.shape(images)[0]
        if not training:
            # A replica may get no image of the last batch, which batch norm would not
            # take.
            images = tf.pad(images, [[0, tf.maximum(1 - count, 0)], *[[0, 0]] * 3])
        record = self.network(images, training=training, with_record=True)
        units = [per_image(block["num_units"], block) for block in record["blocks"]]
        costs = (record["ponder_cost"], *units, tf.cast(record["flops"], tf.float32))
        names = cost_names(len(units))
        outputs = {"logits": record["logits"], **dict(zip(names, costs, strict=True))}
        return {name: value[:count] for name, value in outputs.items()}

    @property
    def metrics(self):
        """None: the Garden's trainer would share them between training and evaluation.

        The task makes metrics of the costs that `call` returns, instead.
        """
        return []

    @property
    def checkpoint_items(self):
        """What is in checkpoints beside the model: the backbone, for other tasks."""
        return {"backbone": self.network}


def cost_names(num_blocks: int) -> list[str]:
    """Names of the costs of an image in logs, for a network of so many blocks."""
    units = [f"units_block{index + 1}" for index in range(num_blocks)]
    return ["ponder_cost", *units, "flops"]


def synchronize_batch_norm(model: tf.Module, synchronized: bool) -> None:
    """Sets whether replicas share the statistics of batch norm (see its layer)."""
    for layer in model.submodules:
        if isinstance(layer, BatchNormalization):
            layer.synchronized = synchronized


def build_network(
    config: configs.SACTResNet, *, num_classes: int, weight_decay: float | None = None
) -> ResNet:
    """The network that a config describes, with fresh weights.

    Args:
      config: the config.
      num_classes: number of logits.
      weight_decay: see ResNet; the family's own by default.
    """
    options = _options(config)
    network = ResNet(num_classes=num_classes, weight_decay=weight_decay, **options)
    if config.identity_units:
        network.begin_as_identity()
    return network


def build_backbone(
    config: configs.SACTResNet, *, weight_decay: float | None = None
) -> SACTResNetBackbone:
    """The same without a head, and with `num_blocks` blocks."""
    backbone = SACTResNetBackbone(
        network_config(config, weight_decay), config.num_blocks
    )
    if config.identity_units:
        backbone.begin_as_identity()
    return backbone


def network_config(
    config: configs.SACTResNet, weight_decay: float | None = None
) -> BackboneConfig:
    """What network without a head a config describes."""
    return BackboneConfig(weight_decay=weight_decay, **_options(config))


def _options(config):
    """Those of a network among the fields of a config."""
    options = config.as_dict()
    del options["num_blocks"], options["identity_units"]
    if config.adaptivity != "ssin":
        del options["masks"]
    return options


@factory.register_backbone_builder("sact_resnet")
def build_sact_resnet(
    input_specs, backbone_config, norm_activation_config, l2_regularizer=None
) -> SACTResNetBackbone:
    """Builds the backbone for any task of the Model Garden.

    Its batch norms are the authors', whatever `norm_activation` says, which goes on to
    rule the task's own layers.

    Args:
      input_specs: of the images, [None, H, W, 3]; H and W may be None.
      backbone_config: a `configs.Backbone`.
      norm_activation_config: of the task; not used.
      l2_regularizer: tf_keras.regularizers.L2 for the kernels, or None.

    Raises:
      ValueError: another kind of regularizer.
    """
    if norm_activation_config is not None and norm_activation_config.use_sync_bn:
        logging.warning(
            "sact_resnet has batch norms of its own, which norm_activation (with "
            "use_sync_bn: true) does not change."
        )
    if l2_regularizer is None:
        weight_decay = 0.0
    elif isinstance(l2_regularizer, tf_keras.regularizers.L2):
        weight_decay = 2.0 * float(l2_regularizer.l2)
    else:
        raise ValueError(
            "sact_resnet takes an L2 regularizer or none. Received: l2_regularizer="
            f"{l2_regularizer!r}"
        )
    backbone = build_backbone(backbone_config.get(), weight_decay=weight_decay)
    backbone.set_input_size(*input_specs.shape[1:3])
    return backbone
