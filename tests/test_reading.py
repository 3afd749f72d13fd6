"""How far a reader goes: what is where the terms say, and how many functions deep."""

import inspect

import tensorflow as tf

import sact_tf
from sact_tf import geometry
from sact_tf.layers.adaptive_blocks import Block


def test_from_the_block_to_the_convolution_of_packed_rows(monkeypatch):
    model = sact_tf.ResNet(
        "imagenet",
        (1, 3, 1, 1),
        num_classes=2,
        base_channels=2,
        freeze_batch_norm=True,
        execution="positions",
    )
    paths = []
    conv2d = tf.nn.conv2d

    def watched(maps, kernel, *arguments, **options):
        # A 3x3 convolution of rows is a product of neighbours.
        if kernel.shape[:2] == [1, 1] and kernel.shape[2] == 9 * kernel.shape[3]:
            frames = [frame for frame in inspect.stack() if "sact_tf" in frame.filename]
            codes = [frame.frame.f_code for frame in frames]
            end = codes.index(Block.call.__code__)
            names = [code.co_qualname for code in codes[: end + 1]]
            # A function inside of another is read with it.
            paths.append(list(dict.fromkeys(n.split(".<locals>")[0] for n in names)))
        return conv2d(maps, kernel, *arguments, **options)

    monkeypatch.setattr(tf.nn, "conv2d", watched)
    model.blocks[1](tf.random.normal([1, 6, 6, 8]), training=True)
    assert paths
    for path in paths:
        assert path[0] == "Filter.on_neighbours" and path[-1] == "Block.call"
        # Six between the two.
        assert len(path) - 1 <= 6, path


def test_terms_are_explained_where_the_verbs_are():
    for term in (
        *("position", "cell", "active", "valid", "rows", "halo", "kernel map"),
        *("active set", "gather", "scatter", "bucket", "epilogue", "remainder"),
    ):
        assert f"{term}" in geometry.__doc__
    verbs = [name for name in vars(geometry.Geometry) if not name.startswith("_")]
    for name in verbs:
        assert inspect.getdoc(getattr(geometry.Geometry, name)), name
        for kind in (geometry.Dense, geometry.Packed):
            assert hasattr(kind, name) or name == "decisions_per_image"
