"""Whole networks in files: structure and weights, as tf_keras saves them."""

import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import zipfile
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sact_tf.checkpoints import patterns
from sact_tf.checkpoints.paths import variables_by_path
from sact_tf.models.resnet import ResNet

#: What tf_keras writes into a `.keras` file of a network.
_CONTENTS = {"config.json", "metadata.json", "model.weights.h5"}
#: Models whose files have nothing but weights: no layer is shared between two places.
_OURS = {f"sact_tf>{name}" for name in ("ResNet", "Backbone", "FasterRCNN")}
_LOAD_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    zipfile.BadZipFile,
    tf.errors.OpError,
    IndexError,  # An empty saved_model.pb.
)


def load_model(path: str | os.PathLike, compile: bool = True) -> tf_keras.Model:
    """Loads a model that `model.save` wrote: tf_keras.models.load_model, in seconds.

    tf_keras reads the weights of a `.keras` file through the zip archive, seeking,
    which takes minutes for ResNet-101. Here they are unpacked first.

    Args:
      path: of a `.keras` file, or of whatever else tf_keras loads.
      compile: whether to compile it as it was.

    Raises:
      OSError, ValueError, ...: what tf_keras raises for what is no model.
    """
    path = os.fspath(path)
    if not (path.endswith(".keras") and zipfile.is_zipfile(path)):
        return tf_keras.models.load_model(path, compile=compile)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        config = json.loads(archive.read("config.json"))
        # Whatever shares layers, or keeps more than weights, is left to tf_keras.
        if config.get("registered_name") not in _OURS or names != _CONTENTS:
            return tf_keras.models.load_model(path, compile=compile)
        if not compile:
            config["compile_config"] = None
        model = tf_keras.saving.deserialize_keras_object(config)
        with tempfile.TemporaryDirectory() as folder:
            weights = archive.extract("model.weights.h5", folder)
            model.load_weights(weights)
    return model


def load(
    path: str | os.PathLike, kinds: Sequence[type[tf_keras.Model]] = (ResNet,)
) -> tf_keras.Model:
    """Loads a network that `model.save` wrote, not compiled.

    Args:
      path: of a `.keras` file or a SavedModel folder.
      kinds: classes of the models that are meant.

    Raises:
      FileNotFoundError: there is nothing there.
      ValueError: it is no saved network, is damaged, or is another kind of model.
    """
    if not os.path.exists(path):
        hint = ""
        if os.path.exists(f"{path}.index"):
            hint = " (There is a checkpoint: of an authors' one, sact-tf "
            hint += "import-checkpoint makes a model.)"
        raise FileNotFoundError(f"There is no saved network {path}.{hint}")
    try:
        # A folder may have a name that TensorFlow takes for a pattern.
        with patterns.literal_folder(path) as folder:
            place = folder if os.path.isdir(path) else path
            model = load_model(place, compile=False)
    except _LOAD_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"{path} is no saved network: neither a .keras file nor a SavedModel of "
            f"tf_keras. ({reason})"
        ) from error
    if not isinstance(model, tuple(kinds)):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(
            f"{path} holds a {type(model).__name__}, not a sact_tf.{wanted}."
        )
    return model


def save(model: ResNet, path: str | os.PathLike) -> None:
    """Saves a network, whole or not at all.

    Args:
      model: the network.
      path: ending in `.keras` for a file, else of a SavedModel folder.

    Raises:
      FileExistsError: there is something at the path.
      ValueError: TensorFlow would not find a SavedModel there again.
    """
    path = pathlib.Path(path)
    if path.suffix != ".keras":
        patterns.refuse(path, "A SavedModel")
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as temporary:
        # The name's ending says what to write.
        written = pathlib.Path(temporary) / f"model{path.suffix}"
        model.save(written)
        refuse_existing(path)
        shutil.move(written, path)


def refuse_existing(path: str | os.PathLike) -> None:
    """Raises FileExistsError if there is something at a path that is to be written."""
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path} exists already. Give another one, or move that one away."
        )


def fingerprint(model: ResNet) -> str:
    """Tells networks apart: a hash of the structure and of all weights."""
    digest = hashlib.sha256()
    config = {k: v for k, v in model.get_config().items() if k != "name"}
    digest.update(json.dumps(config, sort_keys=True).encode())
    for path, variable in sorted(variables_by_path(model).items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(variable).tobytes())
    return digest.hexdigest()[:16]
