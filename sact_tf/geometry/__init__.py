"""Where a residual unit is computed.

A geometry holds the features of a block while its units run. It is entered with a map,
offers the few verbs that a unit and a halting score need, and is left with a map. Units
do not know which geometry they run on, and all geometries give the same numbers:

  Dense: everywhere, masked. The reference; and the one for training with live batch
    norm, whose statistics cover all positions.
  Packed: at active positions (the perforated convolution) or in active tiles.
  Images: in images that have not halted (ACT).

Features travel between the verbs as one tensor [B, H, W, C]. What a unit does at each
position by itself (batch norm, activation, 1x1 convolution) it applies to that; for
what needs the neighbours it asks the geometry. Dense and Images give maps; Packed gives
rows that look like a map one position wide: those that are computed, and behind them
those of the halted positions around them.
"""

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.images import Images
from sact_tf.geometry.maps import within, without_padding
from sact_tf.geometry.packed import Packed

__all__ = ["Dense", "Images", "Packed", "within", "without_padding"]
