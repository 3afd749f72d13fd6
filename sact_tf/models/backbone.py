"""Root and blocks of a network: images to features, and what they cost (figure 2)."""

import json
import os
import pathlib
from collections.abc import Mapping

import tensorflow as tf
import tf_keras

from sact_tf import masks
from sact_tf.geometry import Extent
from sact_tf.models import cost_record, options
from sact_tf.models import images as image_checks
from sact_tf.models.blocks import make_block
from sact_tf.models.config import BackboneConfig

#: In a SavedModel: the arguments of the network that it was made of.
NETWORK = "assets.extra/network.json"


@tf_keras.utils.register_keras_serializable("sact_tf")
class Backbone(tf_keras.Model):
    """A residual network without a head: images to a map for every level.

    Level l has stride 2 ** l: "2" to "5" are the outputs of the four blocks of the
    imagenet family, "0" to "2" those of the three of the cifar family. They are what
    the blocks leave, before any batch norm and activation of a head.

    tau times the ponder cost (eqn 13) is in `losses` exactly once for each call, as is
    the L2 penalty: who adds `losses` to a loss trains the halting scores.

    ```python
    config = BackboneConfig(units=50, adaptivity="sact")
    backbone = Backbone(config, num_blocks=3)
    maps = backbone(images)  # {"2": ..., "3": ..., "4": [B, H / 16, W / 16, 1024]}
    ```
    """

    def __init__(
        self,
        config: BackboneConfig,
        num_blocks: int | None = None,
        name: str | None = None,
        dtype=None,
    ):
        """Creates root and blocks and their variables.

        Args:
          config: what network it is of.
          num_blocks: make only the first so many blocks; all by default.
          name: name of the model.
          dtype: dtype or mixed precision policy; the global policy by default.

        Raises:
          ValueError: the network has no such number of blocks.
        """
        count = len(config.units)
        if num_blocks is not None and not 1 <= num_blocks <= count:
            raise ValueError(
                f"num_blocks must be 1 to {count}, the blocks of the network. "
                f"Received: num_blocks={num_blocks}"
            )
        super().__init__(name=name, dtype=dtype)
        self.config = config
        self.tau = config.tau
        self._freeze_batch_norm = config.freeze_batch_norm
        self._num_blocks = num_blocks
        policy = self.dtype_policy
        self.root_layer = config.spec.make_root(config, config.maker(policy))
        self.blocks = [
            make_block(config, index, dtype=policy)
            for index in range(num_blocks or count)
        ]
        self.built = True
        # Saved models take images of any size, not only of the size seen first.
        self._set_save_spec(tf.TensorSpec([None, None, None, 3], tf.float32, "images"))

    # There is no Python control flow to convert, and errors stay readable.
    @tf.autograph.experimental.do_not_convert
    def call(
        self,
        images,
        training=None,
        halting_bias=None,
        with_record=False,
        image_shapes=None,
        active_mask=None,
    ):
        """Computes the maps of all levels.

        Args:
          images: floating point [B, H, W, 3]; any size.
          training: see `run`.
          halting_bias: see `run`.
          with_record: whether to return what the images cost as well.
          image_shapes: see `run`.
          active_mask: see `run`.

        Returns:
          A dict from level ("2", ...) to float [B, H / 2**l, W / 2**l, C]; with
          `with_record` the cost record, with this dict as `endpoints`.

        Raises:
          ValueError: the images have the wrong dtype, rank or channels; or see `run`.
        """
        image_checks.check(images)
        record = self.run(
            images, training, halting_bias, image_shapes, active_mask=active_mask
        )
        self.penalise(record)
        outputs = [block["output"] for block in record["blocks"]]
        endpoints = dict(zip(self.levels, outputs, strict=True))
        return {"endpoints": endpoints, **record} if with_record else endpoints

    def run(
        self,
        images: tf.Tensor,
        training: bool | None = None,
        halting_bias: tf.Tensor | None = None,
        image_shapes: tf.Tensor | None = None,
        num_blocks: int | None = None,
        active_mask: tf.Tensor | None = None,
    ) -> dict:
        """Runs root and blocks, without checks and losses.

        Args:
          images: floating point [B, H, W, 3].
          training: whether batch norms use the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner. Trades accuracy for
            time without training anew.
          image_shapes: optional [B, 2], height and width of each image without padding
            at the bottom and on the right. What is said of an image is then what would
            be said of it alone, and its padding costs nothing; live batch norms leave
            it out of their statistics. Not for the cifar family.
          num_blocks: run only the first so many.
          active_mask: optional bool, where blocks are computed beyond their first unit:
            [B, H, W] of the images, or [B, h, w] of the first block's map. Later maps
            take it max-pooled: a position is active when any of its pixels is. See
            Block. Only for networks of ordinary units, without SSBNet's sampling and
            SSIN's masks.

        Returns:
          The cost record: flops int64 [B]; ponder_cost float32 [B], summed over blocks,
          mean over positions; blocks, a list of what each block returned.

        Raises:
          ValueError: there are image_shapes for a network of the cifar family, neither
            one halting_bias nor one for each image, one for a network that halts
            nowhere, or an active_mask that is none or that the network cannot take.
        """
        if halting_bias is not None:
            options.check_halting_bias(halting_bias, self.adaptivity)
            halting_bias = options.halting_bias_of(halting_bias, images)
        if active_mask is not None:
            active_mask = options.mask_of_map(active_mask, images, self.config)
        extent = Extent.whole(images)
        if image_shapes is not None:
            extent = Extent.of_images(image_shapes)
        features = self.root_layer(images, training=training, extent=extent)
        flops = self.root_layer.flops(extent)
        extent = extent.strided(self.root_layer.stride)
        records = []
        given = {}
        for block in self.blocks[:num_blocks]:
            if active_mask is not None:
                active_mask = masks.max_pooled(active_mask, block.units[0].stride)
                given["active_mask"] = active_mask
            record = block(
                features,
                training=training,
                halting_bias=halting_bias,
                extent=extent,
                **given,
            )
            features = record["output"]
            extent = extent.strided(block.units[0].stride)
            flops += record["flops"]
            records.append(record)
        costs = [cost_record.per_image(each["ponder_cost"], each) for each in records]
        return {"flops": flops, "ponder_cost": tf.add_n(costs), "blocks": records}

    def penalise(self, record: dict) -> None:
        """Adds to the losses what a call's record says that it has cost.

        The ponder cost (eqn 13); of SSIN the mean of its masks' probabilities.
        """
        cost = record["ponder_cost"]
        if self.adaptivity == "ssin":
            masks = tf.add_n([block["sparsity"] for block in record["blocks"]])
            cost = masks / sum(len(block.units) for block in self.blocks)
        if self.adaptivity != "none":
            self.add_loss(cost_record.ponder_loss(cost, self.tau))

    def introspect(self, images, halting_bias=None, active_mask=None) -> dict:
        """What images cost, and where.

        Args:
          images: as for `call`; a tensor or an array.
          halting_bias: as for `call`.
          active_mask: as for `call`.

        Returns:
          A dict of tensors:
            what `call` returns: endpoints; or of a network with a head its outputs.
            flops: int64 [B], operations of all convolutions (see sact_tf.flops).
            ponder_cost: float32 [B], summed over blocks, mean over positions.
            ponder_cost_map, num_units_map: float32 [B, H, W, 1], summed over blocks,
              at the size of the images (nearest neighbour).
            blocks: a list of dicts: name; output [B, h, w, C]; ponder_cost float32 and
              num_units int32, [B, h, w] for SACT or with an active_mask, and [B]
              otherwise; halting_distribution float32 [..., L]; flops int64 [B];
              positions int64 [B], of each image's map.
        """
        # Zero and not None: one trace less.
        halting_bias = 0.0 if halting_bias is None else halting_bias
        options.check_halting_bias(halting_bias, self.adaptivity)
        images = tf.convert_to_tensor(images)
        if active_mask is not None:
            active_mask = options.check_mask(active_mask, images, self.config)
        halting_bias = tf.convert_to_tensor(halting_bias, tf.float32)
        record = self._introspect(images, halting_bias, active_mask)
        return self.with_names(record)

    @tf.function(reduce_retracing=True, autograph=False)
    def _introspect(self, images, halting_bias, active_mask=None):
        record = self(
            images,
            training=False,
            halting_bias=halting_bias,
            with_record=True,
            active_mask=active_mask,
        )
        return cost_record.with_maps(record, tf.shape(images)[1:3])

    def with_names(self, record: dict) -> dict:
        """A record that came out of a function, with the names of its blocks."""
        for block, layer in zip(record["blocks"], self.blocks, strict=True):
            block["name"] = layer.name
        return record

    def output_shapes(
        self, height: int | None = None, width: int | None = None
    ) -> dict[str, tf.TensorShape]:
        """Shape of each level's map, for images of a size that may be unknown."""
        return {
            level: tf.TensorShape(
                [
                    None,
                    *(side and -(-side // 2 ** int(level)) for side in (height, width)),
                    self.config.channels(index),
                ]
            )
            for index, level in enumerate(self.levels)
        }

    def begin_as_identity(self) -> None:
        """Makes every residual unit the identity (or its shortcut), to be trained.

        Only their last convolutions are zero, and learn first. Short trainings from
        fresh weights come much further so.
        """
        for block in self.blocks:
            for unit in block.units:
                unit.begin_as_identity()

    @property
    def levels(self) -> tuple[str, ...]:
        """Of the maps that each block gives: logarithms of their strides."""
        last = self.config.spec.stride.bit_length() - 1
        first = last - len(self.units) + 1
        return tuple(str(first + index) for index in range(len(self.blocks)))

    @property
    def adaptivity(self) -> str:
        """One of "none", "act", "sact" and "ssin"."""
        return self.config.adaptivity

    @property
    def units(self) -> tuple[int, ...]:
        """Residual units of each block of the whole network."""
        return self.config.units

    @property
    def family(self) -> str:
        """One of FAMILIES."""
        return self.config.family

    @property
    def freeze_batch_norm(self) -> bool:
        """Whether all batch norms are frozen; compile anew after setting it."""
        return self._freeze_batch_norm

    @freeze_batch_norm.setter
    def freeze_batch_norm(self, freeze: bool):
        self._freeze_batch_norm = bool(freeze)
        for layer in self.submodules:
            if isinstance(layer, tf_keras.layers.BatchNormalization):
                layer.trainable = not freeze

    @property
    def trainable(self) -> bool:
        """Whether weights are trained; frozen batch norms stay frozen in any case."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool):
        tf_keras.Model.trainable.fset(self, value)
        if getattr(self, "_freeze_batch_norm", False):
            self.freeze_batch_norm = True

    def get_config(self):
        """The constructor's arguments, those of the config one by one."""
        # A whole network's config will do to make it.
        return {**self._arguments(BackboneConfig), "num_blocks": self._num_blocks}

    def _arguments(self, kind=None):
        return {
            **self.config.arguments(kind),
            # These may have been set since.
            "tau": self.tau,
            "freeze_batch_norm": self._freeze_batch_norm,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config):
        """A network with fresh weights from what `get_config` gave."""
        config, others = BackboneConfig.split(config)
        return cls(config, **others)

    def build(self, input_shape):
        """Nothing is left to build: all variables are made with the layers."""
        self._build_input_shape = input_shape


def record_beside(saved_model: str | os.PathLike, arguments: Mapping) -> None:
    """Writes a model's arguments as JSON beside a SavedModel's graph.

    They lie in assets.extra, which servers leave alone, and say what the graph was made
    of: the execution and its calibration, for instance.

    Args:
      saved_model: its folder.
      arguments: what `get_config` of the model gives.
    """
    file = pathlib.Path(saved_model) / NETWORK
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(dict(arguments), indent=1) + "\n"
    file.write_text(text, encoding="utf-8")
