"""What region heads cost, and a feature extractor would cost if it did not adapt."""

from collections.abc import Sequence

import tensorflow as tf

from sact_tf import flops
from sact_tf.geometry import Extent
from sact_tf.models import imagenet

#: Names of what the region heads cost, in logs.
HEAD_COSTS = ("head_ponder_cost", "head_flops")


def head_costs(record: dict) -> dict[str, tf.Tensor]:
    """What the region heads have spent on each image, by name: float32 [B].

    Args:
      record: of a FasterRCNN.
    """
    head = record["head"]
    values = (head["ponder_cost"], tf.cast(head["flops"], tf.float32))
    return dict(zip(HEAD_COSTS, values, strict=True))


def plain_flops(
    extractor, image_shapes: tf.Tensor, units: Sequence[int] | None = None
) -> tf.Tensor:
    """FLOPs of a plain feature extractor of the same width on images of any size.

    Table 1 gives the cost of an adaptive one as a share of this, with the units of
    ResNet-101, on the same images.

    Args:
      extractor: has `root_layer` and `blocks` of a network of the imagenet family.
      image_shapes: integers [B, 2], heights and widths in pixels.
      units: residual units of each block; those of the extractor by default.

    Returns:
      int64 [B].

    Raises:
      ValueError: `units` are not one number for each of the extractor's blocks.
    """
    blocks = extractor.blocks
    if units is None:
        units = [len(block.units) for block in blocks]
    if len(units) != len(blocks):
        raise ValueError(
            f"units must be {len(blocks)} numbers, one for each block of the feature "
            f"extractor. Received: units={list(units)}"
        )
    extent = Extent.of_images(image_shapes)
    total = extractor.root_layer.flops(extent)
    extent = extent.strided(extractor.root_layer.stride)
    for block, count, stride in zip(
        blocks, units, imagenet.FAMILY.strides[: len(blocks)], strict=True
    ):
        before, extent = extent.positions, extent.strided(stride)
        after = extent.positions
        first = block.units[0]
        total += first.flops_on_map(before, after)
        # A block of one unit has no other to ask what its successors would cost.
        narrow, wide = first.conv2.filters, first.conv3.filters
        kernels = ((1, 1, wide, narrow), (3, 3, narrow, narrow), (1, 1, narrow, wide))
        later = sum(flops.convolution(kernel, after) for kernel in kernels)
        total += (count - 1) * later
    return total
