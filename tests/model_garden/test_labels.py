import pytest

from sact_tf.model_garden import configs, detection_configs, labels
from tests.detection import coco_files

NAMES = ["background", "red", "2", "green", "blue"]


def task(train="", validation="", num_classes=5):
    found = detection_configs.DetectionTask()
    found.model.num_classes = num_classes
    found.train_data.annotation_file = str(train)
    found.validation_data.annotation_file = str(validation)
    return found


def test_names_stay_with_the_run(tmp_path):
    file, _ = coco_files.write(tmp_path / "data")
    for number, config in enumerate((task(train=file), task(validation=file))):
        folder = tmp_path / str(number)
        labels.keep(config, folder)
        assert labels.find(config, folder) == labels.find(config) == NAMES
    file.unlink()
    assert labels.find(config) is None
    assert labels.find(config, folder) == NAMES
    # What a user makes of it stays.
    (folder / labels.FILE).write_text("a\nb\nc\nd\ne\n")
    labels.keep(config, folder)
    assert labels.find(config, folder) == [*"abcde"]
    assert labels.by_class(labels.find(config, folder))[4] == "e"
    (folder / labels.FILE).write_text("a\n")
    with pytest.raises(ValueError, match=r"as many labels\. Received: 1 lines"):
        labels.find(config, folder)


def test_names_of_several_lines_are_one(tmp_path):
    category = {"id": 1, "name": "two\nlines"}
    file, _ = coco_files.write(tmp_path / "data", annotations=[], categories=[category])
    labels.keep(task(file, num_classes=2), tmp_path)
    assert labels.find(task(num_classes=2), tmp_path) == ["background", "two lines"]


def test_digits():
    config = task(num_classes=11)
    config.train_data = detection_configs.DetectionScenes()
    assert labels.find(config) == ["background", *"0123456789"]
    config.model.num_classes = 12
    assert labels.find(config) is None


def test_nothing_is_written_where_nothing_is_known(tmp_path):
    broken = tmp_path / "broken.json"
    broken.write_text("?")
    for config in (
        task(),
        task(tmp_path / "none.json"),
        task(broken),
        configs.ClassificationTask(),
    ):
        labels.keep(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert labels.by_class(None) == {}


def test_files_that_users_give(tmp_path):
    file, _ = coco_files.write(tmp_path / "data")
    assert labels.read(file, 5) == NAMES
    text = tmp_path / "names.txt"
    text.write_bytes("\ufeffnone\r\nant\r\n".encode())
    assert labels.read(text, 2) == ["none", "ant"]
    with pytest.raises(ValueError, match=r"2 classes, .* as many labels\. Received: 5"):
        text.write_text("a\nb\nc\nd\ne\n")
        labels.read(text, 2)
