import json

import numpy as np
import pytest

from sact_tf import resumable

SETTINGS = {"images": ["a", "b"], "size": (3, 4)}


def test_a_folder_belongs_to_one_run(tmp_path):
    run = resumable.claim(tmp_path / "run", SETTINGS, "detections")
    assert run.read("progress.json") is None
    run.write("progress.json", {"done": 2})
    again = resumable.claim(tmp_path / "run", SETTINGS, "detections")
    assert again.read("progress.json") == {"done": 2}
    others = r"detections with other settings \(size\)"
    with pytest.raises(ValueError, match=others):
        resumable.claim(tmp_path / "run", {**SETTINGS, "size": (3, 5)}, "detections")


def test_a_damaged_file_is_named(tmp_path):
    run = resumable.Run(tmp_path)
    (tmp_path / "progress.json").write_text('{"done": ')
    with pytest.raises(ValueError, match=r"progress\.json is damaged"):
        run.read("progress.json")
    for content, message in (("{", "settings.json is damaged"), ("[]", "no settings")):
        (tmp_path / "settings.json").write_text(content)
        with pytest.raises(ValueError, match=message):
            resumable.claim(tmp_path, SETTINGS, "detections")
    (tmp_path / "some.jsonl").write_text('{"image": "a", "result": 1}\n{"image": 2\n')
    with pytest.raises(ValueError, match=r"some\.jsonl: line 2 is no record"):
        run.records("some.jsonl")


def test_records_are_kept_as_they_come(tmp_path):
    run = resumable.Run(tmp_path / "new")
    with pytest.raises(KeyboardInterrupt), run.records("some.jsonl") as records:
        records.add("left/ä.png", [1, 2])
        records.add("b", None)
        raise KeyboardInterrupt
    file = tmp_path / "new" / "some.jsonl"
    with file.open("a") as cut:
        cut.write('{"image": "c", "res')
    records = run.records("some.jsonl")
    assert list(records) == ["left/ä.png", "b"] and records["left/ä.png"] == [1, 2]
    with records:
        records.add("c", 3)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["left/ä.png", "b", "c"]
    assert len(run.records("some.jsonl")) == 3


def test_no_file_without_a_record(tmp_path):
    with resumable.Run(tmp_path).records("some.jsonl"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, [1, 2, 3]), (1e6, [3])])
def test_the_last_state_is_saved_in_any_case(seconds, kept):
    saved = []
    saving = resumable.Saving(saved.append, seconds)
    with pytest.raises(KeyboardInterrupt), saving:
        for state in (1, 2, 3):
            saving.offer(state)
        raise KeyboardInterrupt
    assert saved == kept


def test_differences_of_settings():
    there = {"a": {"rate": 0.01, "on": True}, "b": [1], "c": "0.1"}
    here = {"a": {"rate": float(np.float32(0.01)), "on": 1.5}, "b": [2], "c": 0.1}
    assert resumable.differences(there, here) == [
        "a.on: True there, 1.5 here",
        "b: [1] there, [2] here",
    ]
