"""Residual networks: plain, ACT and SACT, for model.fit (figure 2)."""

import contextlib
import io
import math
import numbers
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf.geometry.control_flow import portable
from sact_tf.layers import adaptive_sampling
from sact_tf.layers.adaptive_blocks import EXECUTIONS, Block
from sact_tf.layers.halting_scores import GlobalHaltingScore, SpatialHaltingScore
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.layers.sampled_blocks import SampledBlock, SampledUnit, resolve_sizes
from sact_tf.models import cifar, imagenet, resnet_d, trunk
from sact_tf.models.cost_metrics import CostMetric
from sact_tf.models.family import ClassificationHead

FAMILIES = {
    "imagenet": imagenet.FAMILY,
    "cifar": cifar.FAMILY,
    "resnet_d": resnet_d.FAMILY,
    "resnet_d_small": resnet_d.SMALL_FAMILY,
}
_HALTING_SCORES = {"none": None, "act": GlobalHaltingScore, "sact": SpatialHaltingScore}


@tf_keras.utils.register_keras_serializable("sact_tf")
class ResNet(tf_keras.Model):
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
        sampling: str | None = None,
        sampling_sizes: float | Sequence[int | float] | None = None,
        name: str | None = None,
        dtype=None,
    ):
        """Creates the network and its variables.

        Args:
          family: "imagenet" (bottleneck units, four blocks, stride 32) or "cifar"
            (basic units, three blocks, stride 4).
          units: residual units of each block, or a depth by name: 50, 101, 152 or 200
            (imagenet), 20, 32, 44, 56 or 110 (cifar).
          adaptivity: "none" (plain network), "act" (one halting decision per image) or
            "sact" (one per position).
          num_classes: number of logits.
          base_channels: width of the first block's 3x3 convolutions, doubled from block
            to block; 64 (imagenet) or 16 (cifar) by default.
          tau: weight of the ponder cost in the loss, per unit and image (eqn 13).
          epsilon: a position halts when its cumulative score is >= 1 - epsilon (eqn 7).
          execution: "dense" computes every position and masks; "positions" only the
            active ones; "tiles" only tiles with an active position, of side tile_size,
            or 4 if that is 1; "auto" packs active positions from where on it pays (see
            docs/sparse.md). The numbers are the same. Training with live batch norm,
            whose statistics cover all positions, is always dense.
          tile_size: k > 1 shares halting scores within k x k tiles (SACT).
          root_channels: channels of the root convolution; by default 64 (imagenet), or
            the base channels (cifar).
          weight_decay: weight of the L2 penalty weight_decay / 2 * sum(kernel ** 2);
            1e-4 (imagenet) or 2e-4 (cifar) by default.
          freeze_batch_norm: keep all batch norms as they are: moving statistics in
            training, too, and no gradients for scales and offsets.
          batch_norm_momentum: decay of the moving statistics; 0.997 (imagenet) or 0.9
            (cifar) by default. Less suits trainings of a few hundred steps.
          sampling: SSBNet: "adaptive", "uniform", "bilinear", "depthwise", or one of
            the alternatives "quantiles" and "attraction" to the first. Units compute on
            a smaller map, sampled from their input (docs/sampling.md), all but the
            first unit of each block and the first block. For the resnet_d families
            without halting. None: no sampling.
          sampling_sizes: for each block but the first, samples of each side: integers,
            as (16, 8, 4), or shares of the map's sides, which scale with the image; one
            number for all blocks; 4/7 by default.
          name: name of the model.
          dtype: dtype or mixed precision policy; the global policy by default.

        Raises:
          ValueError: an argument is out of range; the message says which.
        """
        _one_of("family", family, FAMILIES)
        _one_of("adaptivity", adaptivity, _HALTING_SCORES)
        _one_of("execution", execution, EXECUTIONS)
        spec = FAMILIES[family]
        units = spec.resolve_units(units)
        _at_least("num_classes", num_classes, 1)
        _at_least("tile_size", tile_size, 1)
        if base_channels is not None:
            _at_least("base_channels", base_channels, 1)
        if root_channels is not None:
            _at_least("root_channels", root_channels, 1)
        _real("tau", tau, "zero or more", lambda value: value >= 0)
        if weight_decay is not None:
            _real(
                "weight_decay", weight_decay, "zero or more", lambda value: value >= 0
            )
        _real(
            "epsilon",
            epsilon,
            "between 0 and 1, both excluded",
            lambda value: 0 < value < 1,
        )
        if batch_norm_momentum is not None:
            _real(
                "batch_norm_momentum",
                batch_norm_momentum,
                "at least 0 and less than 1",
                lambda value: 0 <= value < 1,
            )
        if tile_size > 1 and adaptivity != "sact":
            raise ValueError(
                "tile_size shares the scores of positions, which only adaptivity='sact'"
                f" has. Received: tile_size={tile_size}, adaptivity={adaptivity!r}"
            )
        if sampling is not None:
            _one_of("sampling", sampling, adaptive_sampling.NAMES)
            if adaptivity != "none" or spec.unit is not PostActivationUnit:
                raise ValueError(
                    "sampling is for the families resnet_d and resnet_d_small with "
                    f"adaptivity='none'. Received: sampling={sampling!r}, "
                    f"family={family!r}, adaptivity={adaptivity!r}"
                )
        sampling_sizes = resolve_sizes(sampling, sampling_sizes, len(spec.strides))
        super().__init__(name=name, dtype=dtype)
        self.tau = float(tau)
        self._config = {
            "family": family,
            "units": units,
            "adaptivity": adaptivity,
            "num_classes": int(num_classes),
            "base_channels": base_channels and int(base_channels),
            "epsilon": float(epsilon),
            "execution": execution,
            "tile_size": int(tile_size),
            "root_channels": root_channels and int(root_channels),
            "weight_decay": weight_decay,
            "batch_norm_momentum": batch_norm_momentum,
            "sampling": sampling,
            "sampling_sizes": sampling_sizes and list(sampling_sizes),
        }
        self._spec = spec
        options = {
            "weight_decay": spec.weight_decay if weight_decay is None else weight_decay,
            "dtype": self.dtype_policy,
        }
        norm = {**spec.batch_norm, "trainable": not freeze_batch_norm}
        if batch_norm_momentum is not None:
            norm["momentum"] = batch_norm_momentum
        self._freeze_batch_norm = bool(freeze_batch_norm)
        width = self._config["base_channels"] or spec.base_channels
        channels = self._config["root_channels"] or spec.root_channels or width

        self.root_layer = spec.root(channels, batch_norm=norm, name="root", **options)
        self.blocks = []
        for index in range(len(units)):
            block = self._block(index, channels, width, {"batch_norm": norm, **options})
            self.blocks.append(block)
            channels = width * 2**index * spec.expansion
        self.head = ClassificationHead(
            channels,
            self._config["num_classes"],
            leak=spec.leak,
            pool_first=spec.pool_first,
            batch_norm=norm if spec.head_norm else None,
            name="head",
            **options,
        )
        self._cost_metrics = [
            CostMetric(name)
            for name in (
                "ponder_cost",
                *(f"units_block{index + 1}" for index in range(len(units))),
                "flops",
            )
        ]
        self.built = True
        # Saved models take images of any size, not only of the size seen first.
        self._set_save_spec(tf.TensorSpec([None, None, None, 3], tf.float32, "images"))

    def _block(self, index, input_channels, width, options):
        """Block `index`, counted from zero, with all its variables."""
        spec, config = self._spec, self._config
        width *= 2**index
        name = f"block{index + 1}"
        count = config["units"][index]
        with tf.name_scope(name):
            first = spec.unit_options(index)
            units = [spec.unit(input_channels, width, name="unit1", **first, **options)]
            unit_class, later = spec.unit, {}
            sampled = config["sampling"] is not None and index > 0
            if sampled:
                unit_class = SampledUnit
                sizes = config["sampling_sizes"]
                size = sizes[index - 1] if sizes else adaptive_sampling.DEFAULT_SHARE
                later = {"sampling": config["sampling"], "size": size}
            units += [
                unit_class(
                    spec.expansion * width,
                    width,
                    name=f"unit{unit}",
                    **later,
                    **options,
                )
                for unit in range(2, count + 1)
            ]
            if sampled:
                return SampledBlock(units, name=name, dtype=self.dtype_policy)
            score = _HALTING_SCORES[config["adaptivity"]]
            scores = [
                score(
                    spec.expansion * width,
                    leak=spec.leak,
                    name=f"halting{unit}",
                    **options,
                )
                for unit in range(1, count)
                if score
            ]
        return Block(
            units,
            scores,
            config["adaptivity"],
            epsilon=config["epsilon"],
            tile_size=config["tile_size"],
            execution=config["execution"],
            name=name,
            dtype=self.dtype_policy,
        )

    # There is no Python control flow to convert, and errors stay readable.
    @tf.autograph.experimental.do_not_convert
    def call(self, images, training=None, halting_bias=None, with_record=False):
        """Classifies images.

        Args:
          images: floating point [B, H, W, 3], each side at least the network's stride.
          training: whether batch norm uses the statistics of the batch.
          halting_bias: optional scalar, or one number per image [B], added to every
            halting logit; above zero the network stops sooner. Trades accuracy for
            time without training anew.
          with_record: whether to return what the images cost as well.

        Returns:
          Logits, float32 [B, num_classes]; with `with_record` a dict as `introspect`
          gives it, but for the maps and names.

        Raises:
          ValueError: the images have the wrong dtype, rank, channels or size.
        """
        images = self._checked(images)
        record = trunk.run(
            self.root_layer,
            self.blocks,
            images,
            training=training,
            halting_bias=halting_bias,
        )
        features = record["blocks"][-1]["output"]
        logits = tf.cast(self.head(features, training=training), tf.float32)
        # Pooling and ReLUs swallow NaN: a broken image would get an answer.
        whole = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        logits = tf.where(whole[:, tf.newaxis], logits, np.nan)
        if self._config["adaptivity"] != "none":
            self.add_loss(trunk.ponder_loss(record["ponder_cost"], self.tau))
        record["flops"] += self.head.flops(features)
        if with_record:
            return {"logits": logits, **record}
        # Somebody else's training step may ask for them.
        for metric, values in self._costs(record):
            metric.note(values)
        return logits

    def introspect(self, images, halting_bias=None) -> dict:
        """What images cost, and where.

        Args:
          images: as for `call`; a tensor or an array.
          halting_bias: as for `call`.

        Returns:
          A dict of tensors:
            logits: float32 [B, num_classes].
            flops: int64 [B], operations of all convolutions (see sact_tf.flops).
            ponder_cost: float32 [B], summed over blocks, mean over positions.
            ponder_cost_map, num_units_map: float32 [B, H, W, 1], summed over blocks,
              at the size of the images (nearest neighbour).
            blocks: a list of dicts: name; output [B, h, w, C]; ponder_cost float32 and
              num_units int32, [B, h, w] for SACT and [B] otherwise;
              halting_distribution float32 [..., L]; flops int64 [B]; positions int64
              [B], of each image's map.
        """
        images = tf.convert_to_tensor(images)
        self._check_images(images)
        # Zero and not None: one trace less.
        halting_bias = 0.0 if halting_bias is None else halting_bias
        halting_bias = tf.convert_to_tensor(halting_bias, tf.float32)
        record = self._introspect(images, halting_bias)
        for block, layer in zip(record["blocks"], self.blocks, strict=True):
            block["name"] = layer.name
        return record

    @tf.function(reduce_retracing=True, autograph=False)
    def _introspect(self, images, halting_bias):
        record = self(
            images, training=False, halting_bias=halting_bias, with_record=True
        )
        return trunk.with_maps(record, tf.shape(images)[1:3])

    def make_train_function(self, force=False):
        """Makes what the optimizer keeps first; see tf_keras.Model.

        A step that makes variables itself is traced twice.
        """
        if self._is_alone and hasattr(self.optimizer, "build"):
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def fit(self, x=None, y=None, *arguments, **options):
        """See tf_keras.Model; makes the compiled metrics' variables before tracing."""
        if isinstance(x, tf.data.Dataset):
            spec = x.element_spec
            y_spec = spec[1] if isinstance(spec, tuple) and len(spec) > 1 else None
        else:
            y_spec = y if hasattr(y, "shape") else None
        metrics = self.compiled_metrics
        needed = metrics is not None and not metrics.built
        if needed and hasattr(y_spec, "shape") and self._is_alone:
            logits = tf.TensorSpec([None, self._config["num_classes"]])
            metrics.build(logits, tf.TensorSpec(y_spec.shape))
        return super().fit(x, y, *arguments, **options)

    @property
    def _is_alone(self):
        """Whether no strategy is in charge, which makes variables its own way."""
        with self.distribute_strategy.scope():
            return not tf.distribute.has_strategy()

    def train_step(self, data):
        """One step of model.fit; logs the cost beside the losses."""
        x, y, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            record = self(x, training=True, with_record=True)
            loss = self.compute_loss(x, y, record["logits"], weights)
        self._validate_target_and_loss(y, loss)
        self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
        for metric, values in self._costs(record):
            metric.record(values)
        return self.compute_metrics(x, y, record["logits"], weights)

    def test_step(self, data):
        """One step of model.evaluate; logs the cost beside the losses."""
        x, y, weights = tf_keras.utils.unpack_x_y_sample_weight(data)
        record = self(x, training=False, with_record=True)
        self.compute_loss(x, y, record["logits"], weights)
        for metric, values in self._costs(record):
            metric.record(values)
        return self.compute_metrics(x, y, record["logits"], weights)

    def _costs(self, record):
        """Pairs of a metric and a value for each image."""
        values = [record["ponder_cost"]]
        values += [
            trunk.per_image(block["num_units"], block) for block in record["blocks"]
        ]
        values.append(record["flops"])
        return zip(self._cost_metrics, values, strict=True)

    def begin_as_identity(self) -> None:
        """Makes every residual unit the identity (or its shortcut), to be trained.

        Only their last convolutions are zero, and learn first. Short trainings from
        fresh weights come much further so.
        """
        for block in self.blocks:
            for unit in block.units:
                unit.begin_as_identity()

    def export(self, filepath):
        """Writes a SavedModel with the endpoint `serve`, for images of any size.

        It runs on CPUs and GPUs alike, without this package.

        Args:
          filepath: folder to write.
        """
        # tf_keras prints every variable.
        with portable(), contextlib.redirect_stdout(io.StringIO()):
            super().export(filepath)

    @property
    def adaptivity(self) -> str:
        """One of "none", "act" and "sact"."""
        return self._config["adaptivity"]

    @property
    def units(self) -> tuple[int, ...]:
        """Residual units of each block."""
        return self._config["units"]

    @property
    def family(self) -> str:
        """One of FAMILIES."""
        return self._config["family"]

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
        """The constructor's arguments."""
        return {
            **self._config,
            "units": list(self.units),
            "tau": self.tau,
            "freeze_batch_norm": self._freeze_batch_norm,
            "name": self.name,
            "dtype": self.dtype_policy.name,
        }

    @classmethod
    def from_config(cls, config):
        """A network with fresh weights from what `get_config` gave."""
        return cls(**config)

    def build(self, input_shape):
        """Nothing is left to build: all variables are made with the layers."""
        self._build_input_shape = input_shape

    def _checked(self, images):
        self._check_images(images)
        stride = self._spec.stride
        small = (
            f"Images must be at least {stride} x {stride} pixels, the network's stride."
        )
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        check = tf.debugging.assert_greater_equal(
            tf.minimum(height, width), stride, message=small
        )
        with tf.control_dependencies([check] if check is not None else []):
            return tf.identity(images)

    def _check_images(self, images):
        shape, dtype = images.shape, images.dtype
        if shape.rank != 4 or shape[3] not in (None, 3):
            raise ValueError(
                "Images must have the shape [batch, height, width, 3]. Received: shape="
                f"{shape}"
            )
        if not dtype.is_floating:
            raise ValueError(
                "Images must be floating point, scaled as the network was trained (for"
                " the imagenet family to [-1, 1]: `images / 127.5 - 1`). Received: "
                f"dtype={dtype.name}"
            )
        sides = [side for side in shape[1:3] if side is not None]
        if sides and min(sides) < self._spec.stride:
            raise ValueError(
                f"Images must be at least {self._spec.stride} x {self._spec.stride} "
                f"pixels, the network's stride. Received: shape={shape}"
            )


def _real(name, value, what, allowed):
    real = isinstance(value, numbers.Real) and math.isfinite(value)
    if not real or not allowed(value):
        raise ValueError(f"{name} must be {what}. Received: {name}={value!r}")


def _one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(
            f"{name} must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {name}={value!r}"
        )


def _at_least(name, value, least):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(
            f"{name} must be an integer of at least {least}. Received: {name}={value!r}"
        )
