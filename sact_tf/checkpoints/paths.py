"""Every variable of a network by a path that does not depend on how it was made."""

import tensorflow as tf

from sact_tf.layers.adaptive_sampling import DepthwiseSampler
from sact_tf.layers.convolution import Convolution
from sact_tf.layers.normalization import BatchNormalization
from sact_tf.layers.stochastic_sampling import MaskSampler

_VARIABLES = {
    Convolution: ("kernel", "bias"),
    BatchNormalization: ("gamma", "beta", "moving_mean", "moving_variance"),
    DepthwiseSampler: ("kernel",),
    MaskSampler: ("sharpness",),
}


def variables_by_path(model) -> dict[str, tf.Variable]:
    """The variables of a `sact_tf.ResNet`, but not those that say where training is.

    Those are the optimizer's, and SSIN's temperature and step.

    Paths are `root/conv/kernel`, `block1/unit2/conv1_norm/gamma`,
    `block1/halting2/local_conv/bias`, `head/postnorm/beta` and so on; counting starts
    at one.
    """
    parts = {"root": model.root_layer, "head": model.head}
    for block in model.blocks:
        for part in (*block.units, *block.halting_scores):
            parts[f"{block.name}/{part.name}"] = part
    variables = {}
    for path, part in parts.items():
        for layer in part.submodules:
            for kind, names in _VARIABLES.items():
                if isinstance(layer, kind):
                    for name in names:
                        variable = getattr(layer, name)
                        if variable is not None:
                            variables[f"{path}/{layer.name}/{name}"] = variable
    return variables
