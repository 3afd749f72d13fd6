import numpy as np
import pytest

import sact_tf
from sact_tf.visualization import to_array
from sact_tf.visualization_sampling import sampling_points
from tests.models.test_resnet import images


@pytest.fixture(scope="module")
def pictures():
    return images(2, 32, 48)


@pytest.fixture(scope="module")
def record(pictures):
    model = sact_tf.ResNet(
        "resnet_d_small",
        (1, 3, 1, 2),
        "none",
        base_channels=2,
        sampling="adaptive",
    )
    return model.introspect(pictures)


def test_points_of_the_layers_that_sample(pictures, record):
    figure = sampling_points(pictures, record, titles=["a", "b"])
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["block 2, unit 2", "block 2, unit 3", "block 4, unit 2"]
    assert len(figure.axes) == 3 * 4
    # Maps of 8 x 12, of which 5 x 7 are left; fresh saliency is nearly uniform.
    even, sampled = (figure.axes[i].collections[0].get_offsets() for i in (0, 3))
    assert even.shape == sampled.shape == (35, 2)
    assert np.abs(even - sampled).max() < 3
    np.testing.assert_allclose(even[0], [48 / 14, 32 / 10])
    assert to_array(figure).std() > 10


def test_chosen_layers(pictures, record):
    figure = sampling_points(pictures[:1], record, [(4, 2)])
    assert len(figure.axes) == 2
    with pytest.raises(ValueError, match="Received: block 3, unit 2"):
        sampling_points(pictures, record, [(3, 2)])


def test_networks_that_do_not_sample(pictures, record):
    plain = {"blocks": record["blocks"][:1]}
    with pytest.raises(ValueError, match="No unit of this network samples"):
        sampling_points(pictures, plain)
