import json

import numpy as np
import pytest
from PIL import Image

from sact_tf.data import coco
from tests.data import pictures
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


def entry(**changes):
    return [{**coco_files.box(10, 1, 1, 1, 2, 2), "id": 7, **changes}]


def image(**changes):
    return [{"id": 10, "file_name": "000010.png", "height": 60, "width": 80, **changes}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": entry(bbox=[])}, r"annotations\[0\] \(id 7\): bbox must be"),
        ({"annotations": entry(bbox=None)}, r"\(id 7\): bbox .* Received: None"),
        ({"annotations": entry(bbox=[1, 2, "3", 4])}, "bbox must be four numbers"),
        ({"annotations": entry(bbox=[1, 2, 10**400, 4])}, "bbox must be four numbers"),
        ({"annotations": entry(area="big")}, "area must be .* Received: 'big'"),
        ({"annotations": entry(iscrowd=2)}, "iscrowd must be 0 or 1"),
        ({"annotations": entry(category_id=None)}, "category_id must be a whole"),
        ({"annotations": entry(image_id=2.7)}, "image_id must be .* Received: 2.7"),
        ({"annotations": [None]}, r"annotations\[0\] must have fields"),
        ({"images": image(id=2.7)}, r"images\[0\]: id must be .* Received: 2.7"),
        ({"images": image(id=2**63)}, r"images\[0\]: id must be .* below 2\*\*63"),
        ({"images": image(id=True)}, "id must be a whole number"),
        ({"images": image(width=0)}, r"\(id 10\): width must be"),
        ({"images": image(height=None)}, "height must be .* Received: None"),
        ({"images": image(file_name=None)}, "file_name must be a text"),
        ({"images": image() + image(id=11)}, r"images\[1\] have the same file_name"),
        ({"images": image() + image(file_name="a")}, r"images\[1\] have the same id"),
        ({"images": {}}, "there is no list 'images'"),
        (
            {"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]},
            r"categories\[1\] has the id 1, .*'cat' and 'dog'",
        ),
        ({"categories": [{"id": 2**31, "name": "a"}]}, "id must be 1 or more"),
        ({"categories": [{"id": 1, "name": None}]}, r"\(id 1\): name must be a text"),
    ],
)
def test_says_which_entry_and_which_field(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"annotations\.json.*{message}"):
        coco.load(*coco_files.write(tmp_path, **changes))


def test_takes_what_is_harmless(tmp_path):
    categories = [{"id": i, "name": name} for i, name in coco_files.CATEGORIES.items()]
    file, folder = coco_files.write(
        tmp_path,
        annotations=[
            *entry(area=None, iscrowd=None),
            *entry(image_id="10", category_id=1.0),
        ],
        categories=categories + categories[:1],
    )
    file.write_text("\ufeff" + file.read_text(), encoding="utf-8")
    found = coco.load(file, folder)
    assert [box["area"] for box in found.boxes[10]] == [4, 4]
    assert found.categories == coco_files.CATEGORIES
    assert coco.class_names(file, 5)[1] == "red"
    file.write_text(file.read_text(encoding="utf-8-sig"), encoding="utf-16")
    with pytest.raises(ValueError, match=r"annotations\.json is not in UTF-8"):
        coco.load(file, folder)


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
def test_images_are_upright_or_as_large_as_the_json_says(tmp_path, orientation):
    file, folder = coco_files.write(tmp_path, sizes=[(60, 80)])
    upright = np.asarray(Image.open(folder / "000010.png"))
    rotated = pictures.rotated(upright, orientation)
    (folder / "000010.png").write_bytes(rotated)
    assert coco.check_images(coco.load(file, folder))
    if orientation > 4:  # Annotated without a look at the EXIF.
        content = json.loads(file.read_text())
        content["images"][0].update(height=80, width=60)
        file.write_text(json.dumps(content))
        assert coco.check_images(coco.load(file, folder))
        content["images"][0].update(height=81)
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"000010.png \(80 x 60 pixels.*60 x 81"):
            coco.check_images(coco.load(file, folder))


def test_files_and_images_of_annotations(tmp_path):
    def match(names, files):
        images = [{"id": n, "file_name": name} for n, name in enumerate(names)]
        files = {tmp_path / path: name for path, name in files.items()}
        found = coco.matched("A.json", images, files)
        return {str(p.relative_to(tmp_path)): i["id"] for p, i in found.items()}

    both = {"left/000.png": "left/000.png", "right/000.png": "right/000.png"}
    names = ["right/000.png", "left/000.png"]
    assert match(names, both) == {"left/000.png": 1, "right/000.png": 0}
    assert match(["right\\000.png", "./left/000.png"], both) == match(names, both)
    # A folder within the images is enough; a bare name is no file of a sub-folder.
    assert match(names, {"left/000.png": "000.png"}) == {"left/000.png": 1}
    assert match(["000.png"], both) == {}
    with pytest.raises(ValueError, match=r"may be 000.png or left/000.png of A.json"):
        match(["000.png", *names], {"left/000.png": "000.png"})
    with pytest.raises(ValueError, match=r"may both be 000.png of A.json"):
        match(["000.png"], {"a/000.png": "000.png", "b/000.png": "000.png"})


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
        match=r"2 of 4 .* 000010.png \(cannot be read: .+\), 000020.png \(60 x 90 pix",
    ):
        coco.check_images(found)
    (folder / "000010.png").unlink()
    (folder / "000040.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2 of 4 images .*: 000010.png, 000040.png$"
    ):
        coco.load(file, folder)
    content["images"][0]["file_name"] = "x" * 5000  # What no file system takes.
    file.write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=r"2 of 4 images .*: x{300}, 000040"):
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
