"""Paths that TensorFlow takes for patterns: it looks for checkpoints with globs.

What is in "lr=[0.1]" is not found again, and what is written to "a*b" removes files
from "aXb". Readers go around it by another name of the same place; what others have to
find, too, is not written to such a place at all.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import tensorflow as tf

_MEANT = "*?[\\"


def is_pattern(path: str | os.PathLike) -> bool:
    """Whether TensorFlow takes a path for a pattern."""
    return any(character in os.fspath(path) for character in _MEANT)


def refuse(path: str | os.PathLike, what: str) -> None:
    """Raises ValueError for a path where TensorFlow could not find something again.

    Args:
      path: where it would be written.
      what: would be written; the beginning of a sentence.
    """
    if is_pattern(path):
        found = " ".join(sorted({c for c in os.fspath(path) if c in _MEANT}))
        raise ValueError(
            f"{what} cannot be kept in {path}: TensorFlow takes {found} for a pattern "
            "and would not find it again. Give a path without * ? [ and \\"
        )


@contextlib.contextmanager
def literal_folder(folder: str | os.PathLike) -> Iterator[str]:
    """A path of a folder that is no pattern; the same one, if that is none."""
    folder = os.fspath(folder)
    if not is_pattern(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="sact_tf-") as aside:
        link = os.path.join(aside, "folder")
        os.symlink(os.path.abspath(folder), link)
        yield link


@contextlib.contextmanager
def literal_prefix(prefix: str | os.PathLike) -> Iterator[str]:
    """A prefix of a checkpoint's files that is no pattern, to read them by."""
    prefix = os.fspath(prefix)
    if not is_pattern(prefix):
        yield prefix
        return
    folder, name = os.path.split(os.path.abspath(prefix))
    with tempfile.TemporaryDirectory(prefix="sact_tf-") as aside:
        for file in os.listdir(folder) if os.path.isdir(folder) else ():
            if file.startswith((f"{name}.index", f"{name}.data-")):
                link = os.path.join(aside, f"checkpoint{file.removeprefix(name)}")
                os.symlink(os.path.join(folder, file), link)
        yield os.path.join(aside, "checkpoint")


def latest_checkpoint(folder: str | os.PathLike) -> str | None:
    """Prefix of the last checkpoint in a folder, whatever its name; None without."""
    # Not tf.train.latest_checkpoint, which looks for the files with a glob.
    state = tf.train.get_checkpoint_state(os.fspath(folder))
    prefix = state.model_checkpoint_path if state else ""
    return prefix if tf.io.gfile.exists(f"{prefix}.index") else None


def load_variable(prefix: str | os.PathLike, name: str):
    """A variable of a checkpoint, wherever that is."""
    with literal_prefix(prefix) as literal:
        return tf.train.load_variable(literal, name)
