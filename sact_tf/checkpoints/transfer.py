"""Weights from one network into another: two-stage training and baselines.

Section 4.1 starts ACT and SACT networks from a trained plain one, with fresh halting
scores, against dead residual units; and a plain baseline from the first units of each
block of a deeper network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tf_keras

from sact_tf.checkpoints.paths import variables_by_path

#: What only networks that sample have, in paths of variables.
_OF_SAMPLING = ("/saliency/", "/sampler", "/mask1", "/mask2")


@dataclass(frozen=True)
class Parts:
    """The layers of a network that another model has, for weights from or into them.

    Attributes:
      family, units, adaptivity: see `sact_tf.ResNet`.
      root_layer, blocks: those of the network.
      norm: the batch norm behind the last block.
    """

    family: str
    units: Sequence[int]
    adaptivity: str
    root_layer: tf_keras.layers.Layer
    blocks: Sequence[tf_keras.layers.Layer]
    norm: tf_keras.layers.Layer

    @property
    def head(self):
        """What there is of a head."""
        return self

    @property
    def submodules(self):
        """The layers of the head."""
        return (self.norm,)


def initialize_from(model, source, *, head: bool = True) -> list[str]:
    """Gives a network the weights of a trained one of the same width.

    Units are taken from the first of each block on, so the source may be deeper.
    Halting scores are taken if the source has them, of the same kind, and so are
    saliency, samplers and masks; else they keep their initial values. Nothing is
    assigned unless everything fits.

    Args:
      model: the `sact_tf.ResNet`, or Parts of one, to initialise.
      source: the one to take weights from.
      head: whether to take the classification layer too; say False when the classes
        are others.

    Returns:
      Paths of the variables that keep their values (see `variables_by_path`).

    Raises:
      ValueError: the source is of another family, shallower in some block, or has
        variables of another shape; the message says what.
    """
    if model.family != source.family:
        raise ValueError(
            f"Weights can be taken from a network of the same family only. Received: "
            f"{source.family!r} for a network of family {model.family!r}"
        )
    if any(have < need for need, have in zip(model.units, source.units, strict=True)):
        raise ValueError(
            "The source must have as many units in every block as the network. "
            f"Received: source.units={source.units}, model.units={model.units}"
        )
    given = variables_by_path(source)
    other_scores = _blocks_of_another_kind(model, source)
    taken, kept = {}, []
    for path, variable in variables_by_path(model).items():
        halting = "/halting" in path and path.partition("/")[0] in other_scores
        fresh = path not in given and any(part in path for part in _OF_SAMPLING)
        unwanted = not head and path.startswith("head/logits")
        if halting or unwanted or fresh:
            kept.append(path)
        else:
            taken[path] = variable
    misshapen = [
        f"{path} {given[path].shape} instead of {variable.shape}"
        for path, variable in taken.items()
        if given[path].shape != variable.shape
    ]
    if misshapen:
        hint = " (head=False leaves the classification layer out)"
        raise ValueError(
            f"{len(misshapen)} variables of the source have another shape: "
            f"{'; '.join(misshapen[:3])}"
            f"{hint if misshapen[0].startswith('head/logits') else ''}"
        )
    for path, variable in taken.items():
        variable.assign(given[path])
    return kept


def _blocks_of_another_kind(model, source):
    """Names of the blocks whose units halt otherwise: a detector's last one may."""

    def adaptivities(network):
        return [getattr(b, "adaptivity", network.adaptivity) for b in network.blocks]

    kinds = zip(adaptivities(model), adaptivities(source), strict=True)
    return {f"block{i}" for i, (one, other) in enumerate(kinds, 1) if one != other}
