"""Where a residual unit is computed.

A geometry holds the features of a block while its units run. It is entered with a map,
offers the few verbs that a unit and a halting score need, and is left with a map. Units
do not know which geometry they run on, and all geometries give the same numbers:

  Dense: everywhere, masked. The reference; and the one for training with live batch
    norm, whose statistics cover all positions.
  Packed: at active positions (the perforated convolution) or in active tiles.
  Images: in images that have not halted (ACT).

Features travel between the verbs as a list of *pieces*, tensors whose last axis are the
channels. What a unit does at each position by itself (batch norm, activation, 1x1
convolution) it applies to every piece; for what needs the neighbours it asks the
geometry. Dense and Images have one piece, maps; Packed has one for the rows that are
computed and one for each ring of halted positions around them.
"""

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.images import Images
from sact_tf.geometry.packed import Packed
from sact_tf.geometry.pieces import Pieces, within, without_padding

__all__ = ["Dense", "Images", "Packed", "Pieces", "within", "without_padding"]
