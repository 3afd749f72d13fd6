import numpy as np
import pytest

import sact_tf
from sact_tf import visualization
from tests.models.test_resnet import spread_halting

IMAGES = np.random.default_rng(0).uniform(-1, 1, size=(2, 16, 24, 3)).astype("f")


@pytest.mark.parametrize("adaptivity", ["none", "act", "sact"])
def test_maps_have_common_scales_and_two_bars(adaptivity, tmp_path):
    model = sact_tf.ResNet("cifar", (3, 2, 2), adaptivity, 7, base_channels=4)
    record = spread_halting(model).introspect(IMAGES)
    # Names of files are no formulas.
    figure = visualization.ponder_cost_maps(IMAGES, record, titles=["a", "$_$^"])
    axes = [axis for axis in figure.axes if axis.images]
    rows = np.reshape(axes[: 2 * 6], (2, 6))  # Image, over it, alone, and 3 blocks.
    for cell in rows[1, 1:3]:
        np.testing.assert_array_equal(
            cell.images[-1].get_array(), record["ponder_cost_map"][1, :, :, 0]
        )
    grey, over = rows[1, 1].images
    assert grey.get_array().ndim == 2 and 0 < over.get_alpha() < 1
    assert rows[1, 2].images[0].get_alpha() is None
    assert len({axis.images[-1].get_clim() for axis in rows[:, 1:3].flat}) == 1
    assert len({axis.images[-1].get_clim() for axis in rows[:, 3:].flat}) == 1
    # All maps have the size of the image.
    assert {axis.get_xlim() for axis in rows[:, 1:].flat} == {(0, 24)}
    labels = {axis.get_xlabel() for axis in figure.axes}
    assert {"ponder cost, all blocks", "one block"} <= labels
    visualization.save(figure, tmp_path / "maps.png")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert visualization.to_array(figure).shape[2] == 3


def test_curve_joins_the_points_of_a_network():
    points = [
        {"name": name, "accuracy": a, "flops": f, "flops_std": 1e5}
        for name, a, f in (("SACT", 0.9, 2e6), ("SACT", 0.8, 1e6), ("plain", 0.9, 3e6))
    ]
    figure = visualization.accuracy_against_flops(points)
    (axes,) = figure.axes
    lines = [container.lines[0] for container in axes.containers]
    np.testing.assert_allclose(lines[0].get_xdata().astype(float), [1, 2])
    np.testing.assert_allclose(lines[0].get_ydata().astype(float), [80, 90])
    assert len(lines) == 2


def test_training_curves_have_a_panel_for_every_quantity():
    figure = visualization.training_curves(
        {
            "plain": {
                "accuracy, train": [(1, 0.1), (2, 0.2)],
                "accuracy, validation": [(2, 0.15)],
            },
            "sact": {"FLOPs, train": [(1, 5.0), (2, 4.0)]},
        }
    )
    accuracy, flops = figure.axes
    assert accuracy.get_ylabel() == "accuracy" and flops.get_ylabel() == "FLOPs"
    assert [list(line.get_xdata()) for line in accuracy.lines] == [[1, 2], [2]]
    (line,) = flops.lines
    assert list(line.get_ydata()) == [5.0, 4.0] and line.get_linestyle() == "--"


def test_saliency_maps_keep_shape_and_softmax():
    rng = np.random.default_rng(0)
    sizes = ((16, 24), (20, 20))
    images = [rng.uniform(-1, 1, size=(*size, 3)) for size in sizes]
    maps = [rng.random(size) for size in sizes]
    # Images, fixations and heat maps are larger than what the network saw.
    fixations = [np.zeros((3 * height, 3 * width)) for height, width in sizes]
    fixations[0][5, 40] = 1
    figure = visualization.saliency_maps(
        images, fixations, fixations, maps, maps, ["a", "b"], temperature=0.2
    )
    axes = np.reshape(figure.axes, (2, 4))
    shown = axes[0, 3].images[0].get_array()
    expected = np.exp(5 * maps[0]) / np.exp(5 * maps[0]).sum()
    np.testing.assert_allclose(shown, expected)
    np.testing.assert_array_equal(axes[1, 2].images[0].get_array(), maps[1])
    (dots,) = axes[0, 0].collections
    np.testing.assert_array_equal(dots.get_offsets(), [[40.5, 5.5]])
    for axis in axes[0]:
        assert axis.get_xlim() == (0, 72) and axis.get_ylim() == (48, 0)
    assert visualization.to_array(figure).shape[2] == 3


def test_surface_of_the_grid_search_frames_the_best():
    surface = np.array([[0.5, 0.6, 0.55], [0.52, 0.61, 0.75]])
    figure = visualization.grid_search_surface([0, 5], [0, 0.1, 1], surface, "net")
    axes = figure.axes[0]
    framed = [text.get_text() for text in axes.texts if text.get_bbox_patch()]
    assert framed == ["75.0"]
    np.testing.assert_allclose(axes.images[0].get_array(), 100 * surface)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.1", "1"]


def found_by_a_detector(counts):
    """Boxes of each class as many as are said."""
    classes = [number for number, count in counts.items() for _ in range(count)]
    boxes = [(i, i, i + 4, i + 5) for i in range(len(classes))]
    return {"boxes": boxes, "scores": [0.75] * len(classes), "classes": classes}


def legend_of(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_detections_are_named_in_a_legend():
    sizes = ((20, 30), (30, 20))
    images = [np.zeros((*size, 3), np.float32) for size in sizes]
    maps = [np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(3, 2) + 2]
    found = [found_by_a_detector({1: 1, 2: 2}), found_by_a_detector({2: 9})]
    names = {1: "red cells", 2: "platelets $"}
    figure = visualization.detections(images, found, maps, names, titles=["a", "b"])
    assert legend_of(figure) == ["red cells (1)", "platelets $ (11)"]
    (few, _), (many, over) = np.reshape(figure.axes[:4], (2, 2))
    captions = [text.get_text() for text in few.texts]
    assert captions == ["red cells 0.75", "platelets $ 0.75", "platelets $ 0.75"]
    # Many boxes would hide the image behind their captions.
    assert len(many.patches) == 9 and not many.texts
    colours = [patch.get_edgecolor() for patch in few.patches]
    assert colours[0] != colours[1] == colours[2] == many.patches[0].get_edgecolor()
    grey, shown = over.images
    assert grey.get_array().shape == (30, 20) and shown.get_clim() == (0, 7)
    np.testing.assert_array_equal(shown.get_array(), maps[1])
    assert visualization.to_array(figure).shape[2] == 3


def test_one_landscape_is_above_its_map():
    for size, above in (((20, 30), True), ((30, 20), False)):
        figure = visualization.detections(
            [np.zeros((*size, 3))], [found_by_a_detector({})], [np.ones((2, 3))]
        )
        image, shown = (axis.get_subplotspec() for axis in figure.axes[:2])
        assert (image.rowspan.start < shown.rowspan.start) == above
        assert not figure.legends


def test_many_classes_have_colours_of_their_own():
    image = [np.zeros((20, 30, 3))]
    found = [found_by_a_detector({3: 1, 13: 1, 80: 1})]
    figure = visualization.detections(image, found, [np.ones((2, 3))])
    colours = {patch.get_edgecolor() for patch in figure.axes[0].patches}
    assert len(colours) == 3 and legend_of(figure) == ["3 (1)", "13 (1)", "80 (1)"]


@pytest.mark.parametrize("scale", [None, (0.0, 9.0)])
def test_overview_has_maps_below_their_images(scale):
    sizes = [(20, 30), (30, 20), (20, 20), (20, 20), (20, 20)]
    images = [np.zeros((*size, 3)) for size in sizes]
    maps = [np.full((2, 2), float(i)) for i in range(5)]
    titles = [str(i) for i in range(5)]
    figure = visualization.ponder_cost_overview(images, maps, titles, scale)
    axes = np.reshape(figure.axes[: 4 * 4], (4, 4))
    assert [axis.get_title() for axis in axes[[0, 2]].flat[:5]] == titles
    below = [*axes[1], axes[3, 0]]
    for axis, values, size in zip(below, maps, sizes, strict=True):
        np.testing.assert_array_equal(axis.images[-1].get_array(), values)
        assert axis.get_xlim() == (0, size[1])
    assert len(figure.axes) == 16 + (scale is not None)
    if scale:
        assert {axis.images[-1].get_clim() for axis in below} == {scale}
