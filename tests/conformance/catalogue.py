"""Every layer, block, head, root, score, geometry, sampler, model and detector.

One entry each, small, of which test_promises asks what all of them promise. A new kind
of layer gets an entry, and nothing else to be tested for these promises.
"""

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras

import sact_tf
from sact_tf.detection.config import FasterRCNNConfig
from sact_tf.detection.faster_rcnn import FasterRCNN
from sact_tf.detection.proposals import ProposalGenerator
from sact_tf.detection.regions import RegionHeads
from sact_tf.geometry import Dense, Images, Packed
from sact_tf.geometry.active_set import Layout
from sact_tf.geometry.grid import Grid
from sact_tf.layers import adaptive_sampling
from sact_tf.layers.adaptive_blocks import Block
from sact_tf.layers.adaptive_sampling import DepthwiseSampler, SeparableSampler
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.crop_and_resize import crop_and_resize
from sact_tf.layers.halting_scores import GlobalHaltingScore, SpatialHaltingScore
from sact_tf.layers.maker import Maker
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.layers.post_activation_units import PostActivationUnit
from sact_tf.layers.residual_units import BasicUnit, BottleneckUnit
from sact_tf.layers.sampled_blocks import SampledBlock, SampledUnit
from sact_tf.layers.stochastic_blocks import (
    Drawing,
    StochasticBlock,
    StochasticUnit,
)
from sact_tf.layers.stochastic_sampling import MaskSampler, Sampling, blend
from sact_tf.models import cifar, imagenet, resnet_d
from sact_tf.models.backbone import Backbone
from sact_tf.models.config import BackboneConfig
from sact_tf.models.family import ClassificationHead

NORM = {"momentum": 0.9, "epsilon": 1e-3}
MAKE = Maker(**NORM)
C = 8


def _called(layer, maps, training):
    return layer(maps, training=training)


def _without_training(layer, maps, training):
    del training
    return layer(maps)


@dataclass(frozen=True)
class Entry:
    """What is in the catalogue.

    Attributes:
      make: makes it, with all its variables; takes a dtype.
      call: (it, maps, training) to what it says, in any structure.
      size: height, width and channels of one of the maps that it takes.
      scale: of the numbers in the maps.
      dtype: of the first of what it says, in mixed precision with bfloat16.
      variables: whether it has any.
      config: whether it can be made from its config.
      replicas: whether two replicas compute what one does.
      trains: whether all variables get a gradient, of its square and of its losses.
      file: whether `sact_tf.load_model` reads what its `save` writes.
    """

    make: Callable
    call: Callable = _called
    size: tuple = (9, 6, C)
    scale: float = 1.0
    dtype: tf.DType = tf.bfloat16
    variables: bool = True
    config: bool = True
    replicas: bool = True
    trains: bool = True
    file: bool = False

    def maps(self, *size: int, batch: int = 2) -> np.ndarray:
        """Always the same numbers; of another height and width if they are given."""
        shape = (batch, *(size or self.size[:2]), self.size[2])
        numbers = np.random.default_rng(0).uniform(-1, 1, size=shape)
        return (self.scale * numbers).astype("f")


# --- Layers -------------------------------------------------------------------------


def _layer(kind, *args, **options):
    return lambda dtype=None: kind(*args, name="layer", dtype=dtype, **options)


def _made(kind, *args, leak=None, **options):
    def make(dtype=None):
        maker = MAKE._replace(leak=leak, dtype=dtype)
        return kind(*args, make=maker, name="layer", **options)

    return make


def _of_maps(layer, maps, training):
    """A sampler: what it sees, and what comes back."""
    seen = layer(maps, training=training)
    return seen.maps, seen.restore(seen.maps**2)


def _masked(layer, maps, training):
    """A sampler of masks: what it leaves, and what is interpolated elsewhere."""
    step = (tf.constant(0, tf.int64), tf.constant(1.0)) if training else ()
    mask = layer(maps, *step)
    weighted = tf.cast(maps, tf.float32) * mask.values[..., tf.newaxis]
    return mask.probability, blend(weighted, mask.values, layer.kernel)


def _drawn(layer, maps, training):
    drawing = None
    if training:
        drawing = Drawing(tf.constant(0, tf.int64), tf.constant(1.0))
    drawn = layer.drawn(tf.cast(maps, layer.compute_dtype), drawing, training)
    return drawn.output, drawn.densities, drawn.flops


def _score(per_image):
    def call(layer, maps, training):
        maps = tf.cast(maps, layer.compute_dtype)
        return layer(Dense(maps, per_image), training=training)

    return call


_MASKS = Sampling(grid=4)

LAYERS = {
    "convolution": Entry(
        _layer(Convolution, C, 5, 3, use_bias=True), _without_training
    ),
    "strided convolution": Entry(
        _layer(Convolution, C, 5, 3, stride=2, explicit_padding=True),
        _without_training,
    ),
    "batch norm": Entry(_layer(BatchNormalization, C, **NORM)),
    "global score": Entry(
        _made(GlobalHaltingScore, C), _score(True), dtype=tf.float32, replicas=False
    ),
    "spatial score": Entry(
        _made(SpatialHaltingScore, C), _score(False), dtype=tf.float32, replicas=False
    ),
    "leaky spatial score": Entry(
        _made(SpatialHaltingScore, C, leak=0.1),
        _score(False),
        dtype=tf.float32,
        replicas=False,
    ),
    "bottleneck unit": Entry(_made(BottleneckUnit, C, 2)),
    "strided bottleneck unit": Entry(_made(BottleneckUnit, C, 3, stride=2)),
    "basic unit": Entry(_made(BasicUnit, C, C)),
    "strided basic unit": Entry(
        _made(BasicUnit, C, 12, stride=2, activate_shortcut=True)
    ),
    "post-activation unit": Entry(_made(PostActivationUnit, C, 2)),
    "strided post-activation unit": Entry(_made(PostActivationUnit, C, 3, stride=2)),
    "sampled unit": Entry(_made(SampledUnit, C, 2, sampling="adaptive", size=0.5)),
    "stochastic unit": Entry(
        _made(StochasticUnit, C, 2, sampling=_MASKS), _drawn, replicas=False
    ),
    "packed stochastic unit": Entry(
        _made(StochasticUnit, C, 3, stride=2, sampling=_MASKS, execution="positions"),
        _drawn,
        replicas=False,
    ),
    "mask sampler": Entry(
        _made(MaskSampler, C, 1, 0, _MASKS),
        _masked,
        dtype=tf.float32,
        replicas=False,
    ),
    "depthwise sampler": Entry(_made(DepthwiseSampler, C), _of_maps),
    **{
        f"{kind} sampler": Entry(
            _made(SeparableSampler, kind, C, 0.5), _of_maps, variables=adaptive
        )
        for kind, (_, adaptive) in adaptive_sampling.SAMPLERS.items()
    },
    "imagenet root": Entry(_made(imagenet.ImageNetRoot, 6), size=(33, 20, 3)),
    "cifar root": Entry(_made(cifar.CifarRoot, 6), size=(9, 6, 3)),
    "resnet_d root": Entry(_made(resnet_d.ResNetDRoot, 6), size=(33, 20, 3)),
    "small resnet_d root": Entry(_made(resnet_d.SmallResNetDRoot, 6), size=(17, 12, 3)),
    **{
        name: Entry(
            _made(
                ClassificationHead,
                C,
                5,
                leak=leak,
                pool_first=pool_first,
                with_norm=norm,
            )
        )
        for name, leak, pool_first, norm in (
            ("imagenet head", None, False, True),
            ("cifar head", 0.1, True, True),
            ("resnet_d head", None, True, False),
        )
    },
}


# --- Blocks -------------------------------------------------------------------------


def _block(adaptivity, **options):
    def make(dtype=None):
        common = {"make": MAKE._replace(dtype=dtype)}
        with tf.name_scope("block"):
            units = [
                BottleneckUnit(C, 2, name=f"unit{index}", **common)
                for index in (1, 2, 3)
            ]
            score = {"act": GlobalHaltingScore, "sact": SpatialHaltingScore}
            scores = [
                score[adaptivity](C, name=f"halting{index}", **common)
                for index in (1, 2)
                if adaptivity in score
            ]
        return Block(units, scores, adaptivity, name="block", dtype=dtype, **options)

    return make


def _sampled_block(dtype=None):
    common = {"make": MAKE._replace(dtype=dtype)}
    with tf.name_scope("block"):
        units = [
            PostActivationUnit(C, 3, stride=2, name="unit1", **common),
            SampledUnit(12, 3, sampling="adaptive", size=0.6, name="unit2", **common),
        ]
    return SampledBlock(units, name="block", dtype=dtype)


def _stochastic_block(dtype=None):
    common = {"sampling": _MASKS, "make": MAKE._replace(dtype=dtype)}
    with tf.name_scope("block"):
        units = [
            StochasticUnit(C, 2, number=index, name=f"unit{index + 1}", **common)
            for index in range(2)
        ]
    return StochasticBlock(units, name="block", dtype=dtype)


def _record(layer, maps, training):
    """The features, and what they cost."""
    record = layer(maps, training=training)
    return record["output"], record["ponder_cost"], record["flops"]


def _under_a_mask(layer, maps, training):
    """The same where a mask says what is computed."""
    record = layer(maps, training=training, active_mask=maps[..., 0] > 0)
    return record["output"], record["ponder_cost"], record["flops"]


BLOCKS = {
    "plain block": Entry(_block("none"), _record),
    "plain block under a mask": Entry(
        _block("none", execution="positions"), _under_a_mask, replicas=False
    ),
    "act block under a mask": Entry(
        _block("act", execution="dense"), _under_a_mask, replicas=False
    ),
    "act block": Entry(_block("act", execution="dense"), _record),
    # Trained as the dense ones are, with live batch norm.
    "act block of images": Entry(_block("act"), _record, replicas=False),
    "sact block": Entry(_block("sact", execution="dense"), _record),
    "sact block of positions": Entry(
        _block("sact", execution="positions"), _record, replicas=False
    ),
    "sact block of tiles": Entry(
        _block("sact", execution="tiles", tile_size=3), _record, replicas=False
    ),
    "sampled block": Entry(_sampled_block, _record),
    "stochastic block": Entry(_stochastic_block, _record, replicas=False),
}


# --- Geometries and functions ---------------------------------------------------------


def _for_each(maps, boxes):
    """The same boxes for each of the maps: float32 [B, N, 4]."""
    each = tf.tile(tf.constant([boxes], tf.float32), [tf.shape(maps)[0], 1, 1])
    return tf.ensure_shape(each, [maps.shape[0], len(boxes), 4])


class OnGeometry(tf_keras.layers.Layer):
    """A unit on a geometry that some positions (or images) take part in."""

    def __init__(self, kind, dtype=None):
        super().__init__(name="layer", dtype=dtype)
        self._kind = kind
        with tf.name_scope(self.name):
            self.unit = BottleneckUnit(
                C, 2, make=MAKE._replace(dtype=dtype), name="unit"
            )
        self.built = True

    def call(self, maps, training=None):
        # Live batch norms would need all positions.
        del training
        active = maps[..., 0] > 0
        if self._kind == "images":
            geometry, active = Images(maps), active[:, 0, 0]
            geometry.halt(active, tf.where(active, 0.5, 0.0))
            geometry.shrink()
        elif self._kind == "dense":
            geometry = Dense(maps, mask=active)
        else:
            side = {"positions": 1, "tiles": 3}[self._kind]
            layout = Layout(Grid.of(maps), 1, side, conditionals=False)
            geometry = Packed.from_map(layout, maps, active)
        geometry.add(self.unit.branch()(geometry))
        output = geometry.leave()
        # In tiles with an active position all are computed.
        return (
            tf.where(active[..., tf.newaxis], output, 0)
            if (self._kind == "tiles")
            else output
        )


class Crops(tf_keras.layers.Layer):
    """Three regions of each map."""

    def __init__(self, dtype=None):
        super().__init__(name="layer", dtype=dtype)
        self.built = True

    def call(self, maps, training=None):
        del training
        boxes = _for_each(maps, [[0, 0, 40, 30], [16, 8, 70, 77], [-9, 20, 50, 300]])
        return crop_and_resize(maps, boxes, stride=8, crop_size=6, pool_size=3)


_TOOLS = {"config": False, "replicas": False}
FUNCTIONS = {
    **{
        f"geometry of {kind}": Entry(functools.partial(OnGeometry, kind), **_TOOLS)
        for kind in ("dense", "images", "positions", "tiles")
    },
    "crops": Entry(Crops, variables=False, **_TOOLS),
}


# --- Models -------------------------------------------------------------------------

_TINY = {"units": (1, 2, 1, 1), "base_channels": 2, "root_channels": 4}


def _network(family="imagenet", adaptivity="sact", **options):
    if family == "cifar":
        options = {"units": (1, 2, 1), "base_channels": 4, **options}
    else:
        options = {**_TINY, **options}
    return lambda dtype=None: sact_tf.ResNet(
        family, adaptivity=adaptivity, num_classes=3, dtype=dtype, **options
    )


def _classified(model, images, training):
    record = model(images, training=training, with_record=True)
    return record["logits"], record["ponder_cost"], record["flops"]


def _backbone(dtype=None):
    return Backbone(BackboneConfig(adaptivity="sact", **_TINY), 3, dtype=dtype)


def _levels(model, images, training):
    return [model(images, training=training)[level] for level in model.levels]


_MODEL = {"dtype": tf.float32, "replicas": False, "file": True, "size": (48, 40, 3)}
_SMALL = {**_MODEL, "size": (16, 12, 3)}

MODELS = {
    "backbone": Entry(_backbone, _levels, **{**_MODEL, "dtype": tf.bfloat16}),
    "imagenet": Entry(_network(adaptivity="none"), _classified, **_MODEL),
    "imagenet act": Entry(_network(adaptivity="act"), _classified, **_MODEL),
    "imagenet sact": Entry(
        _network(execution="positions", tau=0.125), _classified, **_MODEL
    ),
    "cifar sact": Entry(_network("cifar", epsilon=0.02), _classified, **_SMALL),
    "ssbnet": Entry(
        _network("resnet_d_small", "none", sampling="adaptive", sampling_sizes=0.5),
        _classified,
        **_MODEL,
    ),
    "ssin": Entry(
        _network("resnet_d_small", "ssin", masks={"seed": 7, "grid": 5}),
        _classified,
        **_MODEL,
    ),
}


# --- Detectors ------------------------------------------------------------------------


def _detector_config(**settings):
    network = BackboneConfig(
        adaptivity="sact",
        freeze_batch_norm=True,
        weight_decay=0.0,
        **{**_TINY, "units": (1, 2, 1, 2)},
    )
    small = {
        "proposal_filters": 8,
        "anchor_sizes": (24.0, 48.0),
        "num_proposals": 6,
        "crop_size": 8,
        "pool_size": 4,
        "num_sampled": 8,
        "max_detections": 4,
    }
    return FasterRCNNConfig(backbone=network, num_classes=3, **{**small, **settings})


def _proposed(layer, maps, training):
    del training
    size = tf.cast(16 * tf.shape(maps)[1:3], tf.float32)
    sizes = tf.broadcast_to(size, [tf.shape(maps)[0], 2])
    first = layer(maps, sizes)
    return first.logits, first.boxes, first.proposals.boxes


def _regions(layer, maps, training):
    boxes = _for_each(maps, [[0, 0, 40, 30], [16, 8, 70, 77], [9, 20, 50, 90]])
    valid = tf.ones(tf.shape(boxes)[:2], tf.bool)
    found = layer(maps, boxes, valid, training=training)
    cost = found["record"]
    return (
        found["class_logits"],
        found["box_outputs"],
        cost["ponder_cost"],
        cost["flops"],
    )


def _detected(model, images, training):
    if training:
        boxes = tf.constant([[[8.0, 4, 40, 30], [20, 10, 60, 44]]] * 2)
        found = model(
            images, boxes=boxes, classes=tf.constant([[1, 2]] * 2), training=True
        )
    else:
        found = model(images, training=False)
    names = ["proposal_logits", "proposal_boxes", "class_logits", "box_outputs"]
    if not training:
        names += ["detection_boxes", "detection_scores", "num_detections"]
    return [found[name] for name in names]


_STAGE = {"dtype": tf.float32, "replicas": False}
_HEAD = _detector_config(head_adaptivity="act", head_tau=0.5)

DETECTORS = {
    "proposals": Entry(
        lambda dtype=None: ProposalGenerator(_HEAD, dtype=dtype),
        _proposed,
        size=(5, 6, _HEAD.backbone.channels(2)),
        **_STAGE,
    ),
    "region heads": Entry(
        lambda dtype=None: RegionHeads(_HEAD, dtype=dtype),
        _regions,
        size=(5, 6, _HEAD.backbone.channels(2)),
        **_STAGE,
    ),
    "detector": Entry(
        lambda dtype=None: FasterRCNN(_HEAD, dtype=dtype),
        _detected,
        size=(64, 48, 3),
        file=True,
        **_STAGE,
    ),
}

#: Whose variables have the names that they have in the network they are part of.
PARTS = {"region heads"}
ENTRIES = {**LAYERS, **BLOCKS, **FUNCTIONS, **MODELS, **DETECTORS}


@functools.cache
def built(name: str):
    """An entry with weights that make everything matter: shared by all tests."""
    return with_weights(ENTRIES[name].make(), name)


def with_weights(layer, name: str):
    """Gives a layer weights that depend on a name and on nothing else.

    Those of halting scores make some positions halt, those of batch norms do not leave
    numbers as they are.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for weight in layer.weights:
        last = weight.name.rsplit("/", 1)[-1].partition(":")[0]
        shape, now = weight.shape, weight.numpy()
        if "kernel" in last:
            wide = max(1, now[..., 0].size)
            value = rng.normal(
                size=shape, scale=(2.0 if "halting" in weight.name else 1.0) / wide**0.5
            )
        elif last == "bias":
            begin = -0.5 if "halting" in weight.name else now
            value = begin + rng.normal(size=shape, scale=0.2)
        elif last in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, size=shape)
        elif last in ("beta", "moving_mean"):
            value = rng.normal(size=shape, scale=0.2)
        elif last == "temperature":
            value = 0.5
        else:
            continue
        weight.assign(value)
    return layer
