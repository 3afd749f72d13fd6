"""A network on frames of which a part moves."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import sact_tf
from sact_tf.cli import fixed_camera
from tests.tools.calling import call


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    model = sact_tf.ResNet("imagenet", (1, 1, 3, 1), "none", 5, base_channels=4)
    path = tmp_path_factory.mktemp("network") / "plain.keras"
    model.save(path)
    return path


def clip(sides):
    """Noise behind a white square, of other sides from frame to frame."""
    scene = np.random.default_rng(0).integers(0, 256, [96, 128, 3], np.uint8)
    for side in sides:
        frame = scene.copy()
        frame[32 : 32 + side, 40 : 40 + side] = 255
        yield frame


@pytest.fixture
def runs(network, monkeypatch, capsys):
    def run(*arguments):
        flags = ["--model", network, "--turns", 1]
        return call(monkeypatch, capsys, fixed_camera, *flags, *arguments)

    return run


def write(folder, frames):
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03d}.png")
    return folder


def test_flops_follow_what_moves(runs, tmp_path):
    folder = write(tmp_path / "frames", clip([0, 8, 40, 40]))
    code, out, _ = runs(folder, "--json", "--execution", "positions")
    assert code == 0
    result = json.loads(out)
    small, large, nothing = result["frames"]
    assert (small["frame"], nothing["frame"]) == ("001.png", "003.png")
    assert small["flops"] == large["flops"] == nothing["flops"]
    assert small["active"] == pytest.approx(24**2 / (96 * 128))  # Dilated by 8.
    assert 0 == nothing["active"] < small["active"] < large["active"] < 1
    masked = [row["flops_masked"] for row in (nothing, small, large)]
    assert masked == sorted(set(masked)) and masked[-1] < large["flops"]
    assert result["mean"]["flops_masked"] == pytest.approx(np.mean(masked))
    assert small["milliseconds_masked"] > 0


def test_frames_against_the_first_in_tiles(runs, tmp_path, monkeypatch):
    masks = []

    def record(images, mask):
        masks.append(mask)
        return {"flops": np.array([2]), "blocks": [{"output": images}]}

    def see(pixels):
        return fixed_camera._Seen(tf.zeros([1, 96, 128, 3]), pixels[np.newaxis])

    model = fixed_camera._Model(see, record)
    monkeypatch.setattr(fixed_camera, "_opened", lambda flags: model)
    folder = write(tmp_path / "frames", clip([32, 0, 32]))
    flags = ["--reference", "first", "--tile", 32, "--share", 0.3, "--dilation", 0]
    code, out, err = runs(folder, *flags)
    assert code == 0 and "| mean" in out and "running" in err
    # Whole and masked, once before anything is timed.
    assert [mask is None for mask in masks] == 3 * [True, False]
    moved = np.zeros([1, 96, 128], bool)
    moved[:, 32:64, 32:64] = True  # A quarter of the tile beside it.
    np.testing.assert_array_equal(masks[3], moved)
    assert not masks[5].numpy().any()


def test_videos(runs, tmp_path):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "street.avi"
    fourcc = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), fourcc, 5.0, (128, 96))
    for frame in clip([0, 16, 32, 8]):
        writer.write(frame[..., ::-1])
    writer.release()
    flags = ["--json", "--max_frames", 3, "--threshold", 0.5, "--longer_side", 64]
    code, out, _ = runs(path, *flags)
    assert code == 0
    result = json.loads(out)
    assert [row["frame"] for row in result["frames"]] == ["1", "2"]
    assert 0 < result["mean"]["active"] < 1


def test_bad_input(runs, tmp_path, monkeypatch):
    model = fixed_camera._Model(
        lambda pixels: fixed_camera._Seen(tf.zeros([1, 64, 64, 3]), pixels[np.newaxis]),
        lambda images, mask: {"flops": [1], "blocks": [{"output": images}]},
    )
    monkeypatch.setattr(fixed_camera, "_opened", lambda flags: model)
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    frames = write(tmp_path / "frames", [np.zeros([64, 64, 3], np.uint8)])
    for arguments, message in (
        (["there-is-none.mp4"], "There is no video there-is-none.mp4"),
        ([tmp_path / "no.mp4"], "no.mp4 is no video that OpenCV can read"),
        ([tmp_path / "no.mp4", frames], "Give one video, or images"),
        ([frames], "Two frames are needed"),
        ([frames, "--turns", 0], "--turns must be at least 1"),
    ):
        code, _, err = runs(*arguments)
        assert code == 2 and message in err and "Traceback" not in err
    Image.fromarray(np.zeros([64, 70, 3], np.uint8)).save(frames / "001.png")
    code, _, err = runs(frames)
    assert code == 2 and "frame 001.png with 70 x 64 pixels after 64 x 64" in err
    Image.fromarray(np.zeros([64, 64, 3], np.uint8)).save(frames / "001.png")
    code, _, err = runs(frames, "--dilation", -1)
    assert code == 2 and "dilation must be an integer of at least 0" in err
