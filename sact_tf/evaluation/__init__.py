"""What networks reach and what they cost."""

from sact_tf.evaluation import report

__all__ = ["report"]
