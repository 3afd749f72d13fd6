import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from sact_tf.data import decoding, image_files
from tests.data import pictures

COLOURS = np.zeros([20, 30, 3], np.uint8)
COLOURS[:, :15] = [200, 40, 10]
COLOURS[10:, 15:] = [10, 40, 200]
PICTURE = Image.fromarray(COLOURS)


def test_colours_come_back(tmp_path):
    PICTURE.save(tmp_path / "a.png")
    np.testing.assert_array_equal(image_files.read(tmp_path / "a.png"), COLOURS)


@pytest.mark.parametrize("kind", ["grey", "grey16", "palette", "cmyk", "jpeg"])
def test_other_kinds_of_pixels(kind, tmp_path):
    grey = PICTURE.convert("L")
    path, picture, expected = {
        "grey": ("a.png", grey, grey.convert("RGB")),
        "grey16": (
            "a.png",
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257),
            grey.convert("RGB"),
        ),
        "palette": ("a.png", PICTURE.convert("P"), PICTURE.convert("P").convert("RGB")),
        "cmyk": ("a.jpg", PICTURE.convert("CMYK"), PICTURE),
        "jpeg": ("a.jpg", PICTURE, PICTURE),
    }[kind]
    options = {"quality": 100, "subsampling": 0} if path.endswith("jpg") else {}
    picture.save(tmp_path / path, **options)
    ours = image_files.read(tmp_path / path)
    assert ours.dtype == np.uint8 and ours.shape == (20, 30, 3)
    np.testing.assert_allclose(
        ours.astype(int), np.asarray(expected).astype(int), atol=12
    )


def transparent(mode):
    opacity = Image.fromarray(np.linspace(0, 255, 600, dtype=np.uint8).reshape(20, 30))
    if mode == "P":
        return PICTURE.quantize(4), {"transparency": 0}
    picture = PICTURE.convert(mode)
    picture.putalpha(opacity)
    return picture, {}


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_transparency_is_ignored_as_in_graphs(mode, tmp_path):
    picture, options = transparent(mode)
    picture.save(tmp_path / "a.png", **options)
    ours = image_files.read(tmp_path / "a.png")
    graphs = decoding.decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(ours, graphs)
    expected = PICTURE.convert(mode).convert("RGB")
    if mode != "P":
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("orientation", pictures.ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_the_right_way_up(kind, orientation, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(pictures.rotated(COLOURS, orientation, kind))
    np.testing.assert_array_equal(image_files.read(path), COLOURS)
    np.testing.assert_array_equal(decoding.decode(image_files.plain(path)), COLOURS)


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("BMP", "1", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {}),
        ("TIFF", "CMYK", {}),
        ("JPEG2000", "RGB", {}),
        ("PPM", "RGB", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("AVIF", "RGB", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_formats_that_graphs_do_not_know_are_converted(kind, mode, options, tmp_path):
    picture = PICTURE.convert(mode)
    path = tmp_path / "a"
    path.write_bytes(pictures.encode(picture, kind, **options))
    ours = image_files.read(path).astype(int)
    assert np.abs(ours - np.asarray(picture.convert("RGB"))).max() <= 3
    np.testing.assert_array_equal(decoding.decode(image_files.contents(path)), ours)
    content = image_files.as_png_or_jpeg(path)
    assert content.startswith(decoding.PNG)
    np.testing.assert_array_equal(decoding.decode(content), ours)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("animated", [True, False])
def test_webp_that_graphs_do_not_decode_is_converted(lossless, animated, tmp_path):
    options = {"lossless": lossless, "quality": 100}
    picture = PICTURE
    if animated:
        options |= {"save_all": True, "append_images": [PICTURE.rotate(180)]}
    else:
        picture = PICTURE.copy()
        picture.putalpha(PICTURE.convert("L"))
    path = tmp_path / "a.webp"
    path.write_bytes(pictures.encode(picture, "WEBP", 6, **options))
    assert not image_files.is_native(path)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    if lossless:
        np.testing.assert_array_equal(expected, np.asarray(PICTURE))
    np.testing.assert_array_equal(image_files.read(path), np.rot90(expected, -1))
    # The size that annotations say has the last word here, too.
    size = expected.shape[:2]
    np.testing.assert_array_equal(image_files.read(path, size=size), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="transparent or animated"):
        decoding.pixels(path.read_bytes())
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"a\.webp is no readable image\. \(could"):
        image_files.read(path)


def test_files_of_unknown_formats_say_what_to_do(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ValueError, match=r"a\.jpg is no readable.*Convert it to PNG"):
        image_files.read(tmp_path / "a.jpg")
    Image.fromarray(np.ones([4, 4], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif is no readable.*floating point"):
        image_files.read(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [(600, 300), (30, 60), (1, 1), (900, 2)])
def test_longer_side(size, tmp_path):
    PICTURE.resize(size).save(tmp_path / "a.jpg")
    ours = image_files.read(tmp_path / "a.jpg", longer_side=120)
    ratio = 120 / max(size)
    assert ours.shape == (max(1, size[1] * ratio), max(1, size[0] * ratio), 3)


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_what_is_no_image(content, tmp_path):
    path = tmp_path / "a.jpg"
    if content == "half":
        PICTURE.resize([300, 300]).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg is no readable image"):
        image_files.read(path)


def test_find(tmp_path):
    for name in ("b.JPG", "a.png", "deep/c.jpeg", "notes.txt", "deep/d.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    def found(*paths):
        return [str(p.relative_to(tmp_path)) for p in image_files.find(paths)]

    assert found(tmp_path) == ["a.png", "b.JPG", "deep/c.jpeg"]
    assert found(tmp_path / "notes.txt") == ["notes.txt"]
    assert found(f"{tmp_path}/*.png", tmp_path) == ["a.png", "b.JPG", "deep/c.jpeg"]
    with pytest.raises(FileNotFoundError, match="no file, folder or match"):
        image_files.find([tmp_path / "nowhere*.png"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        image_files.find([tmp_path / "empty"])


def test_hidden_files_are_no_images(tmp_path):
    for name in (
        "ant/0.png",
        "ant/._0.png",
        "ant/.ipynb_checkpoints/0.png",
        ".thumbnails/1.png",
        "__MACOSX/ant/0.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    expected = [tmp_path / "ant" / "0.png"]
    assert image_files.find([tmp_path]) == expected
    assert image_files.find([f"{tmp_path}/*"]) == expected
    # What is named itself is taken.
    hidden = tmp_path / "ant" / "._0.png"
    assert image_files.find([hidden]) == [hidden]


def test_folders_behind_links_are_searched_once(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "0.png").write_bytes(b"")
    (tmp_path / "there" / "loop").symlink_to(tmp_path / "there")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "ant").symlink_to(tmp_path / "there")
    assert image_files.find([tmp_path / "given"]) == [tmp_path / "given/ant/0.png"]


def test_names_are_paths_below_what_was_given(tmp_path):
    for name in ("left/000.png", "right/000.png", "000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = image_files.find_named([tmp_path])
    assert list(found.values()) == ["000.png", "left/000.png", "right/000.png"]
    found = image_files.find_named([f"{tmp_path}/*/000.png"])
    assert list(found.values()) == ["left/000.png", "right/000.png"]
    again = tmp_path / "left" / ".." / "left"
    found = image_files.find_named([tmp_path / "left" / "000.png", again])
    assert list(found.values()) == ["000.png"]


def test_names_of_outputs_do_not_clash(tmp_path):
    long = "猫" * 83
    names = [
        *("a.png", "b.png", "left/000.png", "right/000.png", "overview.png"),
        *("x/y.png", "x_y.png", "Case.png", "case.png", "c.jpg", "c.png"),
        *(f"{long}.png", f"{long}.jpg", f"{long}犬.png", f"{long}/{long}.png"),
    ]
    files = {tmp_path / name: name for name in names}
    outputs = image_files.output_names(files, taken=["overview"])
    assert list(outputs.values())[:4] == ["a", "b", "left_000", "right_000"]
    values = [name.casefold() for name in (*outputs.values(), "overview")]
    assert len(set(values)) == len(values)
    for name in outputs.values():
        (tmp_path / f".000000000001_{name}.npz.new").write_bytes(b"")
    # The same whatever the others are, unless they have the same name.
    fewer = {
        path: name for path, name in files.items() if "000" in name or long in name
    }
    for path, name in image_files.output_names(fewer).items():
        assert outputs[path] == name
