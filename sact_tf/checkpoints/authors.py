"""The format of the authors' published checkpoints: TF-Slim variables by name."""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import tempfile

import tensorflow as tf

from sact_tf import errors
from sact_tf.checkpoints import patterns
from sact_tf.checkpoints.files import refuse_existing
from sact_tf.checkpoints.paths import variables_by_path
from sact_tf.models.config import FAMILIES

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
# Where the structure of a network can be read.
_SCOPES = {"imagenet": "resnet_v2", "cifar": "resnet_residual"}
# Root, first 3x3 or narrow convolution, logits: their outputs are the widths.
_TELLING = {
    "imagenet": ("conv1", "block1/unit_1/bottleneck_v2/conv1", "logits"),
    "cifar": ("Conv", "block_1/unit_1/residual/conv1", "logits"),
}


def variables_by_authors_name(model) -> dict[str, tf.Variable]:
    """The variables of a `sact_tf.ResNet` by their names in published checkpoints."""
    if model.family not in _RULES:
        raise ValueError(
            "The authors published checkpoints of the families "
            f"{' and '.join(_RULES)} only. Received: a network of {model.family!r}"
        )
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
    with _open(prefix) as reader:
        _load(model, reader, prefix)


def _load(model, reader, prefix):
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
            f"{prefix} cannot be read; is it whole? ({errors.cause(error)})"
        ) from error
    for name, variable in wanted.items():
        variable.assign(values[name])


def structure(prefix: str) -> dict:
    """What network a checkpoint of the authors' format holds.

    Args:
      prefix: of the checkpoint's files.

    Returns:
      Arguments of `sact_tf.ResNet`: family, units, adaptivity, num_classes,
      base_channels, root_channels. (A checkpoint does not tell tau and epsilon. One
      with a single unit in every block has no halting scores: "none".)

    Raises:
      FileNotFoundError: there is no such checkpoint.
      ValueError: it holds no network of the authors'.
    """
    with _open(prefix) as reader:
        shapes = reader.get_variable_to_shape_map()
    for family, scope in _SCOPES.items():
        units, scores = {}, set()
        for name in shapes:
            match = re.match(rf"{scope}/block_?(\d+)/unit_(\d+)/(.*)", name)
            if match:
                block, unit = int(match[1]), int(match[2])
                units[block] = max(units.get(block, 0), unit)
                score = re.match(r"halting_proba/(local|global)_conv/", match[3])
                scores |= {score[1]} if score else set()
        if not units:
            continue
        blocks = range(1, len(FAMILIES[family].strides) + 1)
        kernels = [f"{scope}/{name}/weights" for name in _TELLING[family]]
        lacking = [f"all of block {block}" for block in blocks if block not in units]
        lacking += [name for name in kernels if len(shapes.get(name, ())) != 4]
        if lacking:
            raise ValueError(
                f"{prefix} does not hold a whole network of family {family!r}: missing "
                f"or misshapen are {', '.join(lacking[:3])}"
                f"{', ...' if lacking[3:] else ''}."
            )
        root, narrow, logits = (shapes[name][3] for name in kernels)
        adaptivity = "act" if "global" in scores else "none"
        return {
            "family": family,
            "units": tuple(units[block] for block in blocks),
            "adaptivity": "sact" if "local" in scores else adaptivity,
            "num_classes": logits,
            "base_channels": narrow,
            "root_channels": root,
        }
    names = sorted(shapes)
    raise ValueError(
        f"{prefix} holds no network of the authors' (scopes "
        f"{' and '.join(_SCOPES.values())}); its variables are "
        f"{', '.join(names[:3])}{', ...' if names[3:] else ''}."
    )


def save_authors_checkpoint(model, prefix: str) -> None:
    """Writes a network as the authors' tools read it; whole or not at all.

    The files are those of TensorFlow 1's Saver in its V2 format, which has not changed
    since: `prefix.index` and `prefix.data-00000-of-00001`, with `global_step` (zero).
    The `checkpoint` file beside them, which says which one is the latest, is written
    unless there is one.

    Args:
      model: a `sact_tf.ResNet`.
      prefix: of the files to write.

    Raises:
      FileExistsError: there is such a checkpoint already.
      ValueError: TensorFlow would not find it there again.
    """
    patterns.refuse(prefix, "A checkpoint")
    prefix = pathlib.Path(prefix)
    for written in prefix.parent.glob(f"{glob.escape(prefix.name)}.*"):
        if written.name.removeprefix(prefix.name).startswith((".index", ".data-")):
            refuse_existing(written)
    tensors = {
        name: variable.value()
        for name, variable in variables_by_authors_name(model).items()
    }
    tensors["global_step"] = tf.zeros([], tf.int64)
    names = sorted(tensors)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix=".saving-") as temporary:
        tf.raw_ops.SaveV2(
            prefix=os.path.join(temporary, prefix.name),
            tensor_names=names,
            shape_and_slices=[""] * len(names),
            tensors=[tensors[name] for name in names],
        )
        # The index comes last: without it there is no checkpoint.
        for file in sorted(pathlib.Path(temporary).iterdir()):
            shutil.move(file, prefix.parent / file.name)
    latest = prefix.parent / "checkpoint"
    if not latest.exists():
        latest.write_text(
            f'model_checkpoint_path: "{prefix.name}"\n'
            f'all_model_checkpoint_paths: "{prefix.name}"\n',
            encoding="utf-8",
        )


@contextlib.contextmanager
def _open(prefix):
    with patterns.literal_prefix(prefix) as literal:
        try:
            reader = tf.train.load_checkpoint(literal)
        except (tf.errors.OpError, ValueError) as error:
            raise FileNotFoundError(
                f"{prefix} is no readable TensorFlow checkpoint; give the prefix of "
                f"its files, without .index or .data. ({errors.cause(error)})"
            ) from error
        yield reader


def _ignored(name: str) -> bool:
    slots = (
        "Momentum",
        "ExponentialMovingAverage",
        *("RMSProp", "RMSProp_1", "Adam", "Adam_1"),
    )
    steps = ("global_step", "beta1_power", "beta2_power")
    return name in steps or name.rpartition("/")[2] in slots
