"""The format of the authors' published checkpoints: TF-Slim variables by name."""

import re

import tensorflow as tf

from sact_tf.checkpoints.paths import variables_by_path

_VARIABLE_NAMES = {"kernel": "weights", "bias": "biases"}

# Parts of our paths, and what they are called there; applied in this order.
_IMAGENET = (
    (r"^root/conv/", "conv1/"),
    (r"^head/", ""),
    (r"^(block\d+)/unit(\d+)/", r"\1/unit_\2/bottleneck_v2/"),
    (r"^(block\d+)/halting(\d+)/", r"\1/unit_\2/halting_proba/"),
    (r"(conv\d)_norm/", r"\1/BatchNorm/"),
    (r"(global|local)_norm/", r"\1_bn/"),
    (r"^", "resnet_v2/"),
)
_CIFAR = (
    (r"^root/conv/", "Conv/"),
    (r"^head/postnorm/", "BatchNorm/"),
    (r"^head/", ""),
    (r"^block(\d+)/unit(\d+)/", r"block_\1/unit_\2/residual/"),
    (r"^block(\d+)/halting(\d+)/", r"block_\1/unit_\2/halting_proba/"),
    (r"(conv\d)_norm/", r"\1/BatchNorm/"),
    (r"(global|local)_norm/", r"\1_bn/"),
    (r"^", "resnet_residual/"),
)
_RULES = {"imagenet": _IMAGENET, "cifar": _CIFAR}


def variables_by_authors_name(model) -> dict[str, tf.Variable]:
    """The variables of a `sact_tf.ResNet` by their names in published checkpoints."""
    named = {}
    for path, variable in variables_by_path(model).items():
        layer, _, name = path.rpartition("/")
        renamed = f"{layer}/"
        for ours, theirs in _RULES[model.family]:
            renamed = re.sub(ours, theirs, renamed)
        named[renamed + _VARIABLE_NAMES.get(name, name)] = variable
    return named


def load_authors_checkpoint(model, prefix: str) -> None:
    """Loads a checkpoint of the authors' format into a network of the same structure.

    Variables that are not part of the network (`global_step`, optimiser slots, moving
    averages) are ignored. Nothing is assigned unless everything fits.

    Args:
      model: a `sact_tf.ResNet`.
      prefix: of the checkpoint's files, for instance "path/model.ckpt".

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: variables are missing, left over or of another shape; the message
        names the first few.
    """
    try:
        reader = tf.train.load_checkpoint(str(prefix))
    except (tf.errors.OpError, ValueError) as error:
        raise FileNotFoundError(
            f"{prefix} is no readable TensorFlow checkpoint; give the prefix of its "
            f"files, without .index or .data. ({str(error).splitlines()[0]})"
        ) from error
    stored = reader.get_variable_to_shape_map()
    wanted = variables_by_authors_name(model)
    missing = sorted(set(wanted) - set(stored))
    extra = sorted(name for name in set(stored) - set(wanted) if not _ignored(name))
    shapes = sorted(
        f"{name} {stored[name]} instead of {wanted[name].shape.as_list()}"
        for name in set(wanted) & set(stored)
        if stored[name] != wanted[name].shape.as_list()
    )
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if names[3:] else ''})"
        for names, what in (
            (missing, "missing"),
            (extra, "left over"),
            (shapes, "of another shape"),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"{prefix} does not fit the network (family={model.family!r}, adaptivity="
            f"{model.adaptivity!r}, units={model.units}): variables "
            f"{'; '.join(problems)}."
        )
    try:
        values = {name: reader.get_tensor(name) for name in wanted}
    except (tf.errors.OpError, IndexError) as error:
        raise ValueError(
            f"{prefix} cannot be read; is it whole? ({str(error).splitlines()[0]})"
        ) from error
    for name, variable in wanted.items():
        variable.assign(values[name])


def _ignored(name: str) -> bool:
    slots = ("Momentum", "ExponentialMovingAverage", "RMSProp", "RMSProp_1", "Adam")
    return name == "global_step" or name.rpartition("/")[2] in slots
