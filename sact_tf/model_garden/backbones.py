"""The residual networks as a Model Garden backbone and as its classification model."""

import tensorflow as tf
import tf_keras
from absl import logging
from official.vision.modeling.backbones import factory

from sact_tf.layers.normalization import BatchNormalization
from sact_tf.model_garden import configs
from sact_tf.models import trunk
from sact_tf.models.resnet import FAMILIES, ResNet


@tf_keras.utils.register_keras_serializable("sact_tf")
class SACTResNetBackbone(tf_keras.Model):
    """A residual network without its head: images to a map for every level.

    Level l has stride 2 ** l: "2" to "5" are the outputs of the four blocks of the
    imagenet family, "0" to "2" those of the three of the cifar family. They are what
    the blocks leave, before any batch norm and activation.

    tau times the ponder cost is in `losses` exactly once for each call, as is the L2
    penalty, so any task that adds `model.losses` to its loss trains the halting scores.
    """

    def __init__(self, network: ResNet, num_blocks: int | None = None, **kwargs):
        """Makes a backbone of a network's root and blocks, which it shares.

        Args:
          network: a `sact_tf.ResNet`; its head is left out.
          num_blocks: take only the first so many blocks; all by default.
          **kwargs: name and dtype, see tf_keras.Model.

        Raises:
          ValueError: the network has no such number of blocks.
        """
        if num_blocks is not None and not 1 <= num_blocks <= len(network.blocks):
            raise ValueError(
                f"num_blocks must be 1 to {len(network.blocks)}, the blocks of the "
                f"network. Received: num_blocks={num_blocks}"
            )
        super().__init__(**kwargs)
        self.root_layer = network.root_layer
        self.blocks = network.blocks[:num_blocks]
        self._tau = network.tau if network.adaptivity != "none" else 0.0
        self._config = {"network": network.get_config(), "num_blocks": num_blocks}
        family = FAMILIES[network.family]
        width = self._config["network"]["base_channels"] or family.base_channels
        top = family.stride.bit_length() - 1  # The last block's level: log2 of stride.
        self._levels = [
            top - len(network.blocks) + 1 + index for index in range(len(self.blocks))
        ]
        self._channels = [
            family.expansion * width * 2**index for index in range(len(self.blocks))
        ]
        self._input_size = (None, None)
        self.built = True

    @tf.autograph.experimental.do_not_convert
    def call(
        self,
        images,
        training=None,
        halting_bias=None,
        with_record=False,
        image_shapes=None,
    ):
        """Computes the maps of all levels.

        Args:
          images: floating point [B, H, W, 3]; any size.
          training: whether batch norm uses the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner.
          with_record: whether to return what the images cost as well.
          image_shapes: optional [B, 2], see sact_tf.models.trunk.run.

        Returns:
          A dict from level ("2", ...) to float [B, H / 2**l, W / 2**l, C]; with
          `with_record` a pair of it and the record: flops int64 [B], ponder_cost
          float32 [B], and blocks, a list of dicts (see sact_tf.layers.Block).
        """
        record = trunk.run(
            self.root_layer,
            self.blocks,
            images,
            training=training,
            halting_bias=halting_bias,
            image_shapes=image_shapes,
        )
        if self._tau:
            self.add_loss(trunk.ponder_loss(record["ponder_cost"], self._tau))
        endpoints = {
            str(level): block["output"]
            for level, block in zip(self._levels, record["blocks"], strict=True)
        }
        return (endpoints, record) if with_record else endpoints

    @tf.function(reduce_retracing=True, autograph=False)
    def _introspect(self, images, halting_bias):
        _, record = self(
            images, training=False, halting_bias=halting_bias, with_record=True
        )
        return trunk.with_maps(record, tf.shape(images)[1:3])

    def introspect(self, images, halting_bias=None) -> dict:
        """What images cost, and where: as ResNet.introspect, but for the logits."""
        if halting_bias is not None:
            halting_bias = tf.convert_to_tensor(halting_bias, tf.float32)
        record = self._introspect(tf.convert_to_tensor(images), halting_bias)
        for block, layer in zip(record["blocks"], self.blocks, strict=True):
            block["name"] = layer.name
        return record

    def set_input_size(self, height: int | None, width: int | None):
        """Tells `output_specs` the size of the images, where a decoder asks for it."""
        self._input_size = (height, width)

    @property
    def output_specs(self) -> dict[str, tf.TensorShape]:
        """Shape of each level's map, as the Model Garden's decoders ask for it."""
        return {
            str(level): tf.TensorShape(
                [
                    None,
                    *(side and -(-side // 2**level) for side in self._input_size),
                    channels,
                ]
            )
            for level, channels in zip(self._levels, self._channels, strict=True)
        }

    def get_config(self):
        """The network's arguments, and how many blocks were taken."""
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config):
        """A backbone with fresh weights from what `get_config` gave."""
        return cls(ResNet.from_config(config.pop("network")), **config)


class ClassificationModel(tf_keras.Model):
    """A residual network that says, beside the logits, what every image cost.

    Called with images it returns a dict of float32: logits [B, num_classes], and
    ponder_cost, units_block1, ..., flops, each [B] (see `cost_names`).
    """

    def __init__(self, network: ResNet):
        """Wraps a network, which stays available as the attribute `network`."""
        super().__init__(name="classification")
        self.network = network
        self.backbone = SACTResNetBackbone(network)

    @tf.autograph.experimental.do_not_convert
    def call(self, images, training=None):
        """Classifies images [B, H, W, 3]; at inference B may be zero."""
        count = tf.shape(images)[0]
        if not training:
            # A replica may get no image of the last batch, which batch norm would not
            # take.
            images = tf.pad(images, [[0, tf.maximum(1 - count, 0)], *[[0, 0]] * 3])
        record = self.network(images, training=training, with_record=True)
        units = [
            trunk.per_image(block["num_units"], block) for block in record["blocks"]
        ]
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
        return {"backbone": self.backbone}


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
    options = config.as_dict()
    del options["num_blocks"]
    identity_units = options.pop("identity_units")
    network = ResNet(num_classes=num_classes, weight_decay=weight_decay, **options)
    if identity_units:
        network.begin_as_identity()
    return network


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
    config = backbone_config.get()
    network = build_network(config, num_classes=1, weight_decay=weight_decay)
    backbone = SACTResNetBackbone(network, config.num_blocks)
    backbone.set_input_size(*input_specs.shape[1:3])
    return backbone
