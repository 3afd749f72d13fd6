"""Networks side by side: by the clock, and by memory."""

import concurrent.futures
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from sact_tf.models.resnet import ResNet


def executions(model: ResNet, wanted: Sequence[str]) -> list[str]:
    """Those of some executions in which a network differs from the others.

    A plain network and a sampled one compute everything that they have: there is one
    way, "dense". Tiles are for SACT.

    Args:
      model: the network.
      wanted: some of `EXECUTIONS`.
    """
    if model.adaptivity == "none":
        return ["dense"]
    known = {"tiles"} if model.adaptivity != "sact" else set()
    return [name for name in dict.fromkeys(wanted) if name not in known]


def with_execution(model: ResNet, execution: str) -> ResNet:
    """A network with the same weights that computes in another way.

    Args:
      model: the network.
      execution: one of `EXECUTIONS`.

    Returns:
      The network itself, where that is its way already.
    """
    config = model.get_config()
    if config["execution"] == execution:
        return model
    other = type(model).from_config({**config, "execution": execution})
    for target, source in zip(other.variables, model.variables, strict=True):
        target.assign(source)
    return other


def milliseconds(
    candidates: Mapping[Hashable, Callable[[tf.Tensor], tf.Tensor]],
    batches: Mapping[Hashable, Sequence[tf.Tensor]],
    turns: int,
    title: str = "clock",
) -> dict[Hashable, float]:
    """Time of one batch of each candidate, all in turns.

    What an adaptive network takes depends on the images, so there are several batches;
    other work on the machine only ever adds time, so of each the fastest turn counts.

    Args:
      candidates: functions of a batch; each returns a tensor.
      batches: for each candidate its batches, of one size.
      turns: of each candidate on each batch; one more, the first, does not count.
      title: of the progress bar.

    Returns:
      For each candidate the mean over its batches.
    """
    times = {
        name: np.full([turns + 1, len(batches[name])], np.inf) for name in candidates
    }
    total = (turns + 1) * sum(len(batches[name]) for name in candidates)
    most = max(len(batches[name]) for name in candidates)
    with tqdm(total=total, desc=title, unit="batch", leave=False) as bar:
        for turn in range(turns + 1):
            for index in range(most):
                for name, run in candidates.items():
                    if index >= len(batches[name]):
                        continue
                    images = batches[name][index]
                    began = time.perf_counter()
                    # The numbers themselves: a GPU's are there only later.
                    run(images).numpy()
                    times[name][turn, index] = time.perf_counter() - began
                    bar.update()
    return {
        name: 1e3 * float(np.min(values[1:], axis=0).mean())
        for name, values in times.items()
    }


def inference(model: ResNet, like: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """The network, traced, from images to logits.

    Args:
      model: the network.
      like: images of the shape that it is traced for, by which "auto" decides.
    """
    run = tf.function(lambda images: model(images, training=False), autograph=False)
    return run.get_concrete_function(tf.TensorSpec(like.shape, like.dtype))


def peak_memory(
    load: Callable[[str | os.PathLike], ResNet],
    path: str | os.PathLike,
    execution: str,
    images: np.ndarray,
) -> int:
    """Bytes that a process of its own takes at most to load a network and run it.

    Args:
      load: gives the network of a path; a function that a process can be given.
      path: of the network.
      execution: see `with_execution`.
      images: float32 [B, S, S, 3].
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as process:
        return process.submit(_peak, load, os.fspath(path), execution, images).result()


def _peak(load, path, execution, images):
    images = tf.constant(images)
    run = inference(with_execution(load(path), execution), images)
    for _ in range(2):
        run(images).numpy()
    # Linux counts in units of 1024 bytes.
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
