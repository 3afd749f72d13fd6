"""Runs that go on where they were interrupted: settings, and results as they come.

```python
run = resumable.claim(folder, {"images": names}, "detections")
with run.records("detections.jsonl") as records:
    for image in images:
        if image.name not in records:
            records.add(image.name, detect(image))
```

Whatever is killed at whatever moment leaves whole files, of which the next call with
the same settings makes use. One process writes at a time.
"""

import json
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np

from sact_tf import folders


def claim(
    folder: pathlib.Path, settings: dict, what: str, file_name: str = "settings.json"
) -> "Run":
    """Makes a folder that of a run, unless it holds something else.

    Args:
      folder: made if it is not there.
      settings: for JSON; what must not change from call to call.
      what: is in such a folder, for messages.
      file_name: where the settings are kept.

    Raises:
      ValueError: the folder holds something else, or the same with other settings.
    """
    folders.claim(pathlib.Path(folder), file_name, settings, what)
    return Run(folder)


class Run:
    """What a run keeps in its folder."""

    def __init__(self, folder: pathlib.Path):
        """Opens the folder; see `claim` for one that may hold something else."""
        self.folder = pathlib.Path(folder)

    def read(self, name: str, default=None):
        """What a JSON file of the run holds; the default, if there is none.

        Raises:
          ValueError: the file is no JSON.
        """
        try:
            return folders.read_json(self.folder / name)
        except FileNotFoundError:
            return default

    def write(self, name: str, content) -> None:
        """Writes a JSON file, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folders.write_json(self.folder / name, content)

    def saving(self, name: str, seconds: float = 30.0) -> "Saving":
        """Writes a JSON file every now and then; see `Saving`."""
        return Saving(lambda content: self.write(name, content), seconds)

    def records(self, name: str, key: str = "image", value: str = "result"):
        """Results by name, a line each; see `Records`."""
        return Records(self.folder / name, key, value)


class Saving:
    """Saves a state that grows: not each time, but in the end in any case.

    ```python
    with run.saving("progress.json") as saving:
        for batch in batches:
            evaluation.add(batch)
            saving.offer(evaluation.state())
    ```
    """

    def __init__(self, save: Callable[[object], None], seconds: float = 30.0):
        """Creates it.

        Args:
          save: takes the state.
          seconds: from one time to the next.
        """
        self._save, self._seconds = save, seconds
        self._saved, self._waiting = time.monotonic(), []

    def offer(self, state) -> None:
        """Saves the state, if it is time; the last one is saved in the end."""
        self._waiting = [state]
        if time.monotonic() - self._saved >= self._seconds:
            self._flush()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        # An interruption and an error, too: what is done is not done again.
        self._flush()

    def _flush(self):
        for state in self._waiting:
            self._save(state)
        self._saved, self._waiting = time.monotonic(), []


class Records:
    """Results by name as lines of JSON, written as they come."""

    def __init__(self, path: pathlib.Path, key: str = "image", value: str = "result"):
        """Reads what is there.

        Args:
          path: of the file; made with the first result.
          key: field of a line that holds the name.
          value: field that holds the result.

        Raises:
          ValueError: a line is no such record.
        """
        self._path, self._key, self._value = pathlib.Path(path), key, value
        self._results, self._file = {}, None
        if self._path.exists():
            self._read()

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def __getitem__(self, name: str):
        return self._results[name]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._file:
            self._file.close()
        self._file = None

    def add(self, name: str, result) -> None:
        """Keeps a result at once; a later one of the same name takes its place."""
        line = json.dumps({self._key: name, self._value: result})
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
        self._results[name] = result
        self._file.write(line + "\n")
        self._file.flush()

    def _read(self):
        # A run that was killed may have left a part of a line: it is cut off.
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                record = json.loads(line.decode("utf-8"))
                self._results[record[self._key]] = record[self._value]
            except (ValueError, LookupError, TypeError) as error:
                raise ValueError(
                    f"{self._path}: line {number} is no record of this run. Move the "
                    f"file, or its folder, away to begin anew. ({error})"
                ) from error
        if whole < len(content):
            with self._path.open("r+b") as file:
                file.truncate(whole)


def differences(there, here, path: str = "") -> list[str]:
    """What nested settings differ in, as sentences' ends: "a.b: 1 there, 2 here".

    Numbers are the same if they are as float32, in which hyperparameters are kept.
    """
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            difference
            for key in sorted({*there, *here})
            for difference in differences(
                there.get(key), here.get(key), f"{path}.{key}" if path else key
            )
        ]
    same = there == here or _same_number(there, here)
    return [] if same else [f"{path}: {there} there, {here} here"]


def _same_number(one, other):
    if isinstance(one, bool) or isinstance(other, bool):
        return False
    try:  # Earlier runs kept some numbers as text.
        return bool(np.float32(one) == np.float32(other))
    except (TypeError, ValueError):
        return False
