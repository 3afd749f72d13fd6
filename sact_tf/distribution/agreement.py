"""Processes that train together must have been started alike.

Each writes what it was told to a file in the run's folder before it looks for the
others. When they have found each other, so when all files are there, they compare.
"""

import json
import os
from collections.abc import Mapping

import tensorflow as tf

from sact_tf.distribution.cluster import Cluster

_FOLDER = "processes"


def publish(folder: str, cluster: Cluster, settings: Mapping) -> None:
    """Writes this process's settings.

    Args:
      folder: of the run; on a file system that all processes share.
      cluster: with this process in it.
      settings: whatever must be equal everywhere; for JSON.
    """
    path = _path(folder, cluster.name)
    tf.io.gfile.makedirs(os.path.dirname(path))
    content = {"settings": settings, "cluster": cluster.addresses}
    with tf.io.gfile.GFile(f"{path}.new", "w") as file:
        json.dump(content, file, indent=1, default=str)
    tf.io.gfile.rename(f"{path}.new", path, overwrite=True)


def check(folder: str, cluster: Cluster) -> None:
    """Compares what all processes of the cluster wrote with what this one wrote.

    Call it when they are connected: then all have written.

    Raises:
      ValueError: they differ, or one wrote nothing here; the message names it.
    """
    own = _read(folder, cluster.name)
    for name in cluster.members:
        try:
            other = _read(folder, name)
        except (tf.errors.NotFoundError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{name} has written nothing to {folder}. All processes of a run need "
                "the same --model_dir, on a file system that they share"
            ) from error
        differing = list(_differences(own, other))
        if differing:
            path, mine, theirs = differing[0]
            more = f" (and {len(differing) - 1} more)" if differing[1:] else ""
            raise ValueError(
                f"{cluster.name} and {name} were started differently: {path} is "
                f"{json.dumps(mine)} here and {json.dumps(theirs)} there{more}. Start "
                "all processes of a run with the same command, code and cluster"
            )


def _path(folder, name):
    return os.path.join(folder, _FOLDER, f"{name.replace(' ', '-')}.json")


def _read(folder, name):
    with tf.io.gfile.GFile(_path(folder, name)) as file:
        return json.load(file)


def _differences(one, other, path=""):
    """Yields (path, value, other value) where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            inner = f"{path}.{key}" if path else key
            yield from _differences(one.get(key), other.get(key), inner)
    elif one != other:
        yield path, one, other
