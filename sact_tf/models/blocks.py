"""The blocks that a config describes: units of a family, and what makes them halt."""

import tensorflow as tf

from sact_tf.layers.adaptive_blocks import Block
from sact_tf.layers.halting_scores import GlobalHaltingScore, SpatialHaltingScore
from sact_tf.models.config import BackboneConfig

_HALTING_SCORES = {"none": None, "act": GlobalHaltingScore, "sact": SpatialHaltingScore}


def make_block(
    config: BackboneConfig, index: int, *, stride: int | None = None, dtype=None
) -> Block:
    """Makes a block of a network, with all its variables.

    Args:
      config: of the network.
      index: of the block, counted from zero.
      stride: of its first unit; the family's own by default.
      dtype: dtype or policy.
    """
    family, options = config.spec, config.layer_options(dtype)
    name, count = f"block{index + 1}", config.units[index]
    with tf.name_scope(name):
        units = [
            family.make_unit(config, index, unit, stride, **options)
            for unit in range(count)
        ]
        score = _HALTING_SCORES[config.adaptivity]
        scores = [
            score(
                config.channels(index),
                leak=family.leak,
                name=f"halting{unit}",
                **options,
            )
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
