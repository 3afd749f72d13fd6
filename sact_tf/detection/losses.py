"""The losses of a detector, for maps of any size.

The second stage has the Model Garden's. Those of the Garden for the first stage ask
for static sizes, and average boxes over all positive anchors and not over the sample.
"""

from collections.abc import Sequence

import tensorflow as tf
from official.vision.losses import maskrcnn_losses

from sact_tf.detection.targets import AnchorTargets, anchor_targets

#: Where the smooth L1 loss of proposals becomes linear (sigma = 3 of Faster R-CNN).
SMOOTH_L1_BETA = 1.0 / 9.0


#: Names of the losses of the two stages.
NAMES = ("proposal_score_loss", "proposal_box_loss", "class_loss", "box_loss")


def detector_losses(
    outputs: dict, boxes: tf.Tensor, weights, penalties: Sequence[tf.Tensor] = ()
) -> dict[str, tf.Tensor]:
    """The losses of both stages, and what is minimised.

    Args:
      outputs: of a FasterRCNN that was called with boxes and classes.
      boxes: float32 [B, M, 4], objects in pixels; rows of -1 are none.
      weights: has the attributes proposal_score_weight, proposal_box_weight,
        class_weight and box_weight.
      penalties: the model's own losses: ponder cost (eqn 13) and L2.

    Returns:
      Scalars by name: those of NAMES; auxiliary_loss, the sum of the penalties; and
      total_loss, the weighted sum of all.
    """
    anchors = anchor_targets(outputs["anchors"], boxes, eligible=outputs["eligible"])
    score, box = proposal_losses(
        outputs["proposal_logits"], outputs["proposal_boxes"], anchors
    )
    classes = outputs["class_targets"]
    found = (
        score,
        box,
        maskrcnn_losses.FastrcnnClassLoss()(outputs["class_logits"], classes),
        maskrcnn_losses.FastrcnnBoxLoss(huber_loss_delta=1.0)(
            outputs["box_outputs"], classes, outputs["box_targets"]
        ),
    )
    weighted = [
        getattr(weights, name.replace("_loss", "_weight")) * value
        for name, value in zip(NAMES, found, strict=True)
    ]
    auxiliary = tf.add_n(list(penalties)) if penalties else tf.zeros([])
    return {
        **dict(zip(NAMES, found, strict=True)),
        "auxiliary_loss": auxiliary,
        "total_loss": tf.add_n(weighted) + auxiliary,
    }


def proposal_losses(
    logits: tf.Tensor, encoded: tf.Tensor, targets: AnchorTargets
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cross-entropy of the scores, and smooth L1 loss of the boxes.

    Both are sums over the sampled anchors of an image (the boxes' over those labelled
    1) divided by the size of its sample, averaged over the batch.

    Args:
      logits: float32 [B, A].
      encoded: float32 [B, A, 4].
      targets: see `targets.anchor_targets`.

    Returns:
      Two scalars.
    """
    sampled = targets.labels >= 0
    positive = targets.labels == 1
    count = tf.reduce_sum(tf.cast(sampled, tf.float32), axis=1)

    def mean(values, chosen):
        total = tf.reduce_sum(tf.where(chosen, values, 0.0), axis=1)
        return tf.reduce_mean(tf.math.divide_no_nan(total, count))

    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(positive, tf.float32), logits=logits
    )
    distance = tf.reduce_sum(smooth_l1(encoded - targets.boxes), axis=-1)
    return mean(cross_entropy, sampled), mean(distance, positive)


def smooth_l1(x: tf.Tensor, beta: float = SMOOTH_L1_BETA) -> tf.Tensor:
    """|x| - beta / 2 where |x| > beta, else x ** 2 / (2 beta)."""
    size = tf.abs(x)
    return tf.where(size > beta, size - beta / 2, tf.square(x) / (2 * beta))
