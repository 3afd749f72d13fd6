"""Where a residual unit is computed."""

from sact_tf.geometry.dense import Dense
from sact_tf.geometry.images import Images
from sact_tf.geometry.maps import within, without_padding
from sact_tf.geometry.packed import Packed

__all__ = ["Dense", "Images", "Packed", "within", "without_padding"]
