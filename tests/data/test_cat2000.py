import collections
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from sact_tf.data import cat2000
from tests import cat2000_like
from tests.data import pictures

SCENES = pathlib.Path(__file__).parents[3] / "shared" / "data" / "scene_saliency"


@pytest.fixture
def root(tmp_path):
    return cat2000_like.write(tmp_path)


def test_first_half_of_every_category_is_for_tuning(tmp_path):
    examples = cat2000.find(cat2000_like.write(tmp_path, count=5))
    assert [example.name for example in examples] == [
        f"{category}/00{n}" for category in ("Action", "Art") for n in range(1, 6)
    ]
    halves = [example.half for example in examples]
    assert halves == 2 * (2 * ["tune"] + 3 * ["validation"])


def test_an_image_and_its_fixations(root):
    example = cat2000.find(root)[0]
    image = cat2000.read_image(example.stimulus)
    fixations = cat2000.read_fixation_map(example.fixations, image.size)
    assert image.size == (48, 27) and image.mode == "RGB"
    assert fixations.shape == (27, 48) and fixations.dtype == bool
    # People look at the bright patch: rows and columns are not mixed up.
    assert np.asarray(image)[fixations].mean() > 150 > np.asarray(image).mean()
    assert example.observers == ()


def test_grey_images_are_made_rgb(root):
    path = root / "trainSet" / "Stimuli" / "Art" / "001.jpg"
    Image.new("L", (48, 27), 200).save(path)
    pixels = np.asarray(cat2000.read_image(path))
    assert pixels.shape == (27, 48, 3) and (pixels == 200).all()


def test_images_fit_into_the_box():
    image = Image.new("RGB", (1920, 1080), (255, 255, 255))
    pixels = cat2000.for_network(image, (320, 180))
    assert pixels.shape == (180, 320, 3) and pixels.dtype == np.float32
    assert (pixels == 1).all()
    assert cat2000.for_network(image, (640, 360)).shape == (360, 640, 3)
    upright = Image.new("RGB", (300, 600))
    pixels = cat2000.for_network(upright, (320, 180))
    assert pixels.shape == (180, 90, 3) and (pixels == -1).all()


def test_observers_are_found_where_they_are_exported(tmp_path):
    example = cat2000.find(cat2000_like.write(tmp_path, observers=3))[0]
    assert [path.name for path in example.observers] == ["0.mat", "1.mat", "2.mat"]
    maps = [cat2000.read_fixation_map(path, (48, 27)) for path in example.observers]
    together = cat2000.read_fixation_map(example.fixations, (48, 27))
    np.testing.assert_array_equal(np.any(maps, axis=0), together)


@pytest.mark.parametrize("folder", ["Stimuli", "FIXATIONLOCS"])
def test_a_missing_folder_is_named(root, folder):
    shutil.rmtree(root / "trainSet" / folder)
    with pytest.raises(ValueError, match=f"There is no folder .*trainSet/{folder}"):
        cat2000.find(root)


def test_a_missing_file_of_fixations_is_named(root):
    cat2000_like.fixations_path(root, "Art/003").unlink()
    with pytest.raises(ValueError, match=r"Art/003\.jpg: .*Art/003\.mat is missing"):
        cat2000.find(root)


def test_an_empty_category_is_named(root):
    (root / "trainSet" / "Stimuli" / "Fractal" / "Output").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"Stimuli/Fractal has no images"):
        cat2000.find(root)


def test_no_category_at_all(root):
    for name in ("Action", "Art"):
        shutil.rmtree(root / "trainSet" / "Stimuli" / name)
    with pytest.raises(ValueError, match=r"There are no categories in .*Stimuli"):
        cat2000.find(root)


def test_fixations_outside_the_image_are_refused_with_their_file(root):
    path = cat2000_like.fixations_path(root, "Art/001")
    cat2000_like.write_fixations(path, np.zeros([48, 27]))
    with pytest.raises(ValueError, match=r"Art/001\.mat .* 48 x 27.* 27 x 48"):
        cat2000.read_fixation_map(path, (48, 27))


@pytest.mark.parametrize(
    "content",
    [b"", b"no matrix", b"MATLAB 7.3 MAT-file" + 105 * b" " + b"\0\2IM" + 400 * b"x"],
)
def test_an_unreadable_file_is_named(root, content):
    path = cat2000_like.fixations_path(root, "Art/001")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Cannot read the fixations .*001\.mat: "):
        cat2000.read_fixation_map(path, (48, 27))


def test_a_cut_file_is_named(root):
    path = cat2000_like.fixations_path(root, "Art/001")
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=r"Cannot read the fixations .*001\.mat: "):
        cat2000.read_fixation_map(path, (48, 27))


def test_a_file_with_another_variable_is_named(root):
    path = cat2000_like.fixations_path(root, "Art/001")
    cat2000_like.write_fixations(path, np.zeros([27, 48]), "eyes")
    with pytest.raises(ValueError, match=r"001\.mat has no variable fixLocs"):
        cat2000.read_fixation_map(path, (48, 27))
    cat2000_like.write_fixations(path, "here and there")
    with pytest.raises(ValueError, match=r"001\.mat must be a matrix of numbers"):
        cat2000.read_fixation_map(path, (48, 27))


@pytest.mark.parametrize("cut", [0, 300])
def test_a_broken_image_is_named(root, cut):
    path = root / "trainSet" / "Stimuli" / "Art" / "001.jpg"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"Cannot read the image .*Art/001\.jpg"):
        cat2000.read_image(path)


def test_rotated_images_and_hidden_files(root):
    stimuli = root / "trainSet" / "Stimuli"
    example = cat2000.find(root)[0]
    upright, fixations = cat2000.read(example)
    example.stimulus.write_bytes(pictures.rotated(np.asarray(upright), 6, "PNG"))
    image, there = cat2000.read(example)
    np.testing.assert_array_equal(image, upright)
    np.testing.assert_array_equal(there, fixations)
    for name in ("Art/._001.jpg", ".x/001.jpg", "__MACOSX/001.jpg"):
        (stimuli / name).parent.mkdir(exist_ok=True)
        (stimuli / name).write_bytes(b"")
    assert len(cat2000.find(root)) == len({e.name for e in cat2000.find(root)}) == 8
    shutil.copy(stimuli / "Art" / "001.jpg", stimuli / "Art" / "001.png")
    with pytest.raises(ValueError, match=r"001\.jpg and .*001\.png have the same name"):
        cat2000.find(root)


@pytest.mark.skipif(not SCENES.is_dir(), reason=f"the data set {SCENES} is not here")
def test_photographs():
    examples = cat2000.find(SCENES)
    halves = collections.Counter(example.half for example in examples)
    assert halves == {"tune": 60, "validation": 60}
    image = cat2000.read_image(examples[0].stimulus)
    fixations = cat2000.read_fixation_map(examples[0].fixations, image.size)
    assert 54 <= fixations.sum() <= 114
