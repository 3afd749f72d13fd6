import numpy as np
import tensorflow as tf

from sact_tf.data import image_files
from sact_tf.serving import checks
from tests.data import pictures

PICTURE = pictures.noise(20, 30)


def test_served_images_are_upright_and_what_files_are_elsewhere(tmp_path):
    contents = []
    for orientation in pictures.ORIENTATIONS:
        contents.append(pictures.rotated(PICTURE, orientation))
        (tmp_path / f"{orientation}.png").write_bytes(contents[-1])
    # What a client sends of a file that servers do not take.
    (tmp_path / "9.tif").write_bytes(pictures.rotated(PICTURE, 6, "TIFF"))
    contents.append(image_files.as_png_or_jpeg(tmp_path / "9.tif"))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def served(encoded):
        spec = tf.TensorSpec([20, 30, 3], tf.uint8)
        limits = checks.Limits()
        return checks.map_encoded(
            lambda image: tf.ensure_shape(image, [20, 30, 3]), encoded, limits, spec
        )

    images = served(tf.constant(contents))
    np.testing.assert_array_equal(images, [PICTURE] * 9)
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(image_files.read(path), PICTURE)
