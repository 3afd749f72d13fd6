import json

import numpy as np
import pytest

from sact_tf.data import coco
from tests.detection import coco_files


def test_category_ids():
    assert len(coco.CATEGORY_IDS) == 80
    # The first, the first after a gap, and the last two of COCO's own list.
    assert [coco.CATEGORY_IDS[i] for i in (0, 10, 11, 78, 79)] == [1, 11, 13, 89, 90]


def test_loads_and_clips(tmp_path):
    found = coco.load(*coco_files.write(tmp_path))
    assert found.num_classes == 5 and found.categories == coco_files.CATEGORIES
    assert [len(found.boxes[image["id"]]) for image in found.images] == [5, 3, 3, 0]
    assert found.boxes[10][-1]["bbox"] == [70, 50, 10, 10]
    assert found.boxes[10][-2]["iscrowd"] == 1
    assert coco.check_images(found) == found.images


def test_boxes_beyond_the_image_are_dropped(tmp_path):
    beyond = [coco_files.box(10, 1, 500, 5, 10, 10), coco_files.box(10, 1, 5, 5, 0, 9)]
    found = coco.load(*coco_files.write(tmp_path, annotations=beyond))
    assert found.num_dropped == 2 and not found.boxes[10]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": None}, "is no COCO JSON"),
        ({"categories": [{"id": 1}]}, "there is no 'name'"),
        ({"images": []}, "has no images or no categories"),
        ({"categories": [{"id": 0, "name": "a"}]}, "must be 1 or more"),
        (
            {"annotations": [coco_files.box(10, 7, 1, 1, 2, 2)] * 2},
            "2 annotations are of a category that is not in the list, .* category_id 7",
        ),
        (
            {"annotations": [coco_files.box(11, 1, 1, 1, 2, 2)]},
            "1 annotations are of an image that is not in the list, .* image_id 11",
        ),
        (
            {"annotations": [coco_files.box(10, 1, float("nan"), 1, 2, 2)]},
            "not finite",
        ),
    ],
)
def test_refuses_wrong_annotations(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        coco.load(*coco_files.write(tmp_path, **changes))


def test_refuses_what_is_no_json(tmp_path):
    file, folder = coco_files.write(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="is no COCO JSON"):
        coco.load(file, folder)
    with pytest.raises(FileNotFoundError, match="no annotation file"):
        coco.load(tmp_path / "none.json", folder)
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        coco.load(file, tmp_path / "none")


def test_missing_and_corrupt_images_are_named_and_counted(tmp_path):
    file, folder = coco_files.write(tmp_path)
    content = json.loads(file.read_text())
    content["images"][1]["width"] += 1
    file.write_text(json.dumps(content))
    whole = (folder / "000010.png").read_bytes()
    (folder / "000010.png").write_bytes(whole[:400])
    found = coco.load(file, folder)
    with pytest.raises(
        ValueError,
        match=r"2 of 4 images .* 000010.png \(corrupt\), 000020.png \(60 x 90 pixels",
    ):
        coco.check_images(found)
    (folder / "000010.png").unlink()
    (folder / "000040.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 of 4 images .*: 000010.png, 000040.png$"
    ):
        coco.load(file, folder)


def test_results_as_json():
    found = {
        "boxes": np.float32([[1, 2, 11, 22], [0, 0, 5, 5]]),
        "scores": np.float32([0.5, 0.25]),
        "classes": np.int32([3, 2]),
    }
    entries = coco.as_json([{"id": 7}], [found], {3: "green"})
    assert entries == [
        {"image_id": 7, "category_id": 3, "bbox": [2.0, 1.0, 20.0, 10.0], "score": 0.5}
    ]


def test_names_of_classes(tmp_path):
    file, _ = coco_files.write(tmp_path)
    names = coco.class_names(file, 6)
    assert names == ["background", "red", "2", "green", "blue", "5"]
    with pytest.raises(ValueError, match=r"categories up to 4, but .* up to 3"):
        coco.class_names(file, 4)
    file.write_text('{"categories": [{"id": 1}]}')
    with pytest.raises(ValueError, match="is no COCO JSON with categories"):
        coco.class_names(file, 6)
