"""Weights in and out: the published format, and from one network to another."""

from sact_tf.checkpoints import authors, files, paths, patterns, transfer

__all__ = ["authors", "files", "paths", "patterns", "transfer"]
