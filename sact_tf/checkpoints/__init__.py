"""Weights in and out: the published format, and from one network to another."""
