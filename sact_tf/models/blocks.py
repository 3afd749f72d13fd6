"""The blocks that a config describes: units of a family, and what makes them halt."""

import tensorflow as tf

from sact_tf.layers.adaptive_blocks import Block
from sact_tf.layers.adaptive_sampling import DEFAULT_SHARE, DEPTHWISE
from sact_tf.layers.halting_scores import GlobalHaltingScore, SpatialHaltingScore
from sact_tf.layers.sampled_blocks import SampledBlock, SampledUnit
from sact_tf.layers.stochastic_blocks import StochasticBlock, StochasticUnit
from sact_tf.layers.stochastic_sampling import Sampling
from sact_tf.models.config import BackboneConfig

_HALTING_SCORES = {"none": None, "act": GlobalHaltingScore, "sact": SpatialHaltingScore}


def make_block(
    config: BackboneConfig, index: int, *, stride: int | None = None, dtype=None
) -> Block | SampledBlock | StochasticBlock:
    """Makes a block of a network, with all its variables.

    Args:
      config: of the network.
      index: of the block, counted from zero.
      stride: of its first unit; the family's own by default.
      dtype: dtype or policy.
    """
    family, make = config.spec, config.maker(dtype)
    name, count = f"block{index + 1}", config.units[index]
    if config.sampling is not None and index > 0:
        return _sampled_block(config, index, stride, name, make)
    if config.adaptivity == "ssin":
        return _stochastic_block(config, index, stride, name, make)
    with tf.name_scope(name):
        units = [
            family.make_unit(config, index, unit, make, stride) for unit in range(count)
        ]
        score = _HALTING_SCORES[config.adaptivity]
        scores = [
            score(config.channels(index), make=make, name=f"halting{unit}")
            for unit in range(1, count)
            if score
        ]
    return Block(
        units,
        scores,
        config.adaptivity,
        epsilon=config.epsilon,
        tile_size=config.tile_size,
        execution=config.execution,
        calibration=config.calibration,
        name=name,
        dtype=dtype,
    )


def _sampled_block(config, index, stride, name, make):
    sizes, sampling = config.sampling_sizes, config.sampling
    size = sizes[index - 1] if sizes else None
    if size is None and sampling != DEPTHWISE:
        size = DEFAULT_SHARE
    with tf.name_scope(name):
        units = [config.spec.make_unit(config, index, 0, make, stride)]
        units += [
            SampledUnit(
                config.channels(index),
                config.width(index),
                sampling=sampling,
                size=size,
                make=make,
                name=f"unit{unit + 1}",
            )
            for unit in range(1, config.units[index])
        ]
    return SampledBlock(units, name=name, dtype=make.dtype)


def _stochastic_block(config, index, stride, name, make):
    before, count = sum(config.units[:index]), config.units[index]
    with tf.name_scope(name):
        units = [
            StochasticUnit(
                config.channels(index - 1 if unit == 0 else index),
                config.width(index),
                stride=(stride or config.spec.strides[index]) if unit == 0 else 1,
                number=before + unit,
                sampling=Sampling.checked(config.masks),
                execution=config.execution,
                make=make,
                name=f"unit{unit + 1}",
            )
            for unit in range(count)
        ]
    return StochasticBlock(units, name=name, dtype=make.dtype)
