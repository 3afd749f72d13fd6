"""Residual networks: plain, ACT and SACT, for model.fit (figure 2)."""

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf.geometry.calibration import Calibration
from sact_tf.geometry.control_flow import portable
from sact_tf.models import images as image_checks
from sact_tf.models.backbone import Backbone, record_beside
from sact_tf.models.config import ResNetConfig
from sact_tf.models.cost_logging import CostLogging


@tf_keras.utils.register_keras_serializable("sact_tf")
class ResNet(CostLogging, Backbone):
    """A residual network for classification that may stop where features are good.

    Takes images [B, H, W, 3] of any size, floating point, scaled to [-1, 1] (imagenet)
    or standardised per image (cifar); gives logits [B, num_classes], float32. The
    losses contain tau times the ponder cost (eqn 13) and the L2 penalty; the logs
    contain the ponder cost, the mean units of each block and the FLOPs.

    ```python
    model = sact_tf.ResNet(units=50, adaptivity="sact", num_classes=10, tau=0.005)
    model.compile(
        "sgd",
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
    model.fit(dataset)
    record = model.introspect(images)
    ```

    An image with a value that is not finite gets NaN logits, and at inference changes
    no other image of the batch. In training it makes the loss NaN (see
    sact_tf.training.fit, which stops then).
    """

    def __init__(
        self,
        family: str = "imagenet",
        units: int | str | Sequence[int] = (3, 4, 23, 3),
        adaptivity: str = "sact",
        num_classes: int = 1001,
        base_channels: int | None = None,
        tau: float = 0.005,
        epsilon: float = 0.01,
        execution: str = "auto",
        tile_size: int = 1,
        root_channels: int | None = None,
        weight_decay: float | None = None,
        freeze_batch_norm: bool = False,
        batch_norm_momentum: float | None = None,
        calibration: Calibration | Mapping | None = None,
        sampling: str | None = None,
        sampling_sizes: float | Sequence[int | float] | None = None,
        masks: Mapping | None = None,
        name: str | None = None,
        dtype=None,
    ):
        """Creates the network and its variables.

        Args:
          family: "imagenet" (bottleneck units, four blocks, stride 32), "cifar" (basic
            units, three blocks, stride 4), "resnet_d" (post-activation bottleneck
            units, four blocks, stride 32) or "resnet_d_small" (the same, narrower, with
            stride 16).
          units: residual units of each block, or a depth by name: 50, 101, 152 or 200
            (imagenet, resnet_d), 20, 32, 44, 56 or 110 (cifar), 14, 26, 38 or 50
            (resnet_d_small).
          adaptivity: "none" (plain network), "act" (one halting decision per image),
            "sact" (one per position), or, for the resnet_d families, "ssin" (masks that
            are drawn, and interpolation; docs/sampling.md).
          num_classes: number of logits.
          base_channels: width of the first block's 3x3 convolutions, doubled from block
            to block; 64 (imagenet, resnet_d) or 16 by default.
          tau: weight of the ponder cost in the loss, per unit and image (eqn 13); of
            SSIN its lambda, the weight of the mean sampled share.
          epsilon: a position halts when its cumulative score is >= 1 - epsilon (eqn 7).
          execution: "dense" computes every position and masks; "positions" only the
            active ones; "tiles" only tiles with an active position, of side tile_size,
            or 4 if that is 1; "auto" packs active positions from where on it pays (see
            docs/sparse.md). The numbers are the same. Training with live batch norm,
            whose statistics cover all positions, is always dense.
          tile_size: k > 1 shares halting scores within k x k tiles (SACT).
          root_channels: channels of the root; by default 64 (imagenet, resnet_d), 32
            (resnet_d_small), or the base channels (cifar).
          weight_decay: weight of the L2 penalty weight_decay / 2 * sum(kernel ** 2);
            2e-4 (cifar) or 1e-4 by default.
          freeze_batch_norm: keep all batch norms as they are: moving statistics in
            training, too, and no gradients for scales and offsets.
          batch_norm_momentum: decay of the moving statistics; 0.997 (imagenet) or 0.9
            by default. Less suits trainings of a few hundred steps.
          calibration: when "auto" packs, as `sact-tf benchmark calibrate`
            measures it; by default what was measured on this machine, if anything was,
            which is then kept with the network. Changes times, no numbers.
          sampling: SSBNet: "adaptive", "uniform", "bilinear", "depthwise", or one of
            the alternatives "quantiles" and "attraction" to the first. Units compute on
            a smaller map, sampled from their input (docs/sampling.md), all but the
            first unit of each block and the first block. For the resnet_d families
            without halting. None: no sampling.
          sampling_sizes: for each block but the first, samples of each side: integers,
            as (16, 8, 4), or shares of the map's sides, which scale with the image; one
            number for all blocks; 4/7 by default.
          masks: options of SSIN by name: grid (11), window (7), temperature (0.03, at
            inference) and seed (0; None for masks without noise); see
            sact_tf.layers.stochastic_sampling.Sampling.
          name: name of the model.
          dtype: dtype or mixed precision policy; the global policy by default.

        Raises:
          ValueError: an argument is out of range; the message says which.
        """
        config = ResNetConfig(
            family=family,
            units=units,
            adaptivity=adaptivity,
            num_classes=num_classes,
            base_channels=base_channels,
            tau=tau,
            epsilon=epsilon,
            execution=execution,
            tile_size=tile_size,
            root_channels=root_channels,
            weight_decay=weight_decay,
            freeze_batch_norm=freeze_batch_norm,
            batch_norm_momentum=batch_norm_momentum,
            calibration=calibration,
            sampling=sampling,
            sampling_sizes=sampling_sizes,
            masks=masks,
        )
        super().__init__(config, name=name, dtype=dtype)  # root_layer and blocks.
        make = config.maker(self.dtype_policy)
        self.head = config.spec.make_head(config, config.num_classes, make)
        self.log_costs(config.num_classes)

    # There is no Python control flow to convert, and errors stay readable.
    @tf.autograph.experimental.do_not_convert
    def call(
        self,
        images,
        training=None,
        halting_bias=None,
        with_record=False,
        active_mask=None,
    ):
        """Classifies images.

        Args:
          images: floating point [B, H, W, 3], each side at least the network's stride.
          training: whether batch norm uses the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner. Trades accuracy for
            time without training anew.
          with_record: whether to return what the images cost as well.
          active_mask: optional bool [B, H, W] of the images, or [B, h, w] of the first
            block's map: where blocks are computed beyond their first unit. See
            Backbone.run.

        Returns:
          Logits, float32 [B, num_classes]; with `with_record` a dict as `introspect`
          gives it, but for the maps and names.

        Raises:
          ValueError: the images have the wrong dtype, rank, channels or size; or see
            Backbone.run.
        """
        images = image_checks.checked(images, self.config.spec.stride)
        record = self.run(images, training, halting_bias, active_mask=active_mask)
        self.penalise(record)
        features = record["blocks"][-1]["output"]
        logits = tf.cast(self.head(features, training=training), tf.float32)
        # Pooling and ReLUs swallow NaN: a broken image would get an answer.
        whole = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        logits = tf.where(whole[:, tf.newaxis], logits, np.nan)
        record["flops"] += self.head.flops(features)
        if with_record:
            return {"logits": logits, **record}
        self.note_costs(record)
        return logits

    def introspect(self, images, halting_bias=None, active_mask=None) -> dict:
        """What images cost, and where: logits and what Backbone.introspect gives.

        Args:
          images: as for `call`; a tensor or an array.
          halting_bias: as for `call`.
          active_mask: as for `call`.

        Returns:
          A dict of tensors: logits float32 [B, num_classes]; flops int64 [B];
          ponder_cost float32 [B]; ponder_cost_map and num_units_map float32
          [B, H, W, 1]; and blocks, a list of dicts. See Backbone.introspect.
        """
        images = tf.convert_to_tensor(images)
        image_checks.check(images, self.config.spec.stride)
        return super().introspect(images, halting_bias, active_mask)

    def export(self, filepath):
        """Writes a SavedModel with the endpoint `serve`, for images of any size.

        It runs on CPUs and GPUs alike, without this package. The network's arguments
        are written beside it, as assets.extra/network.json.

        Args:
          filepath: folder to write.
        """
        # tf_keras prints every variable.
        with portable(), contextlib.redirect_stdout(io.StringIO()):
            super().export(filepath)
        record_beside(filepath, self.get_config())

    def get_config(self):
        """The constructor's arguments."""
        return self._arguments()

    @classmethod
    def from_config(cls, config):
        """A network with fresh weights from what `get_config` gave."""
        return cls(**config)
