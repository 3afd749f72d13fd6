"""Output folders: nothing that a user has is overwritten, nothing left half-written."""

import json
import pathlib


def claim(folder: pathlib.Path, file_name: str, settings: dict, what: str) -> None:
    """Makes an output folder ours, unless it holds something else.

    Args:
      folder: made if it is not there.
      file_name: of the file in it that holds the settings.
      settings: for JSON; a folder with the same ones is ours already.
      what: is in such a folder, for messages.

    Raises:
      ValueError: the folder holds something else, or the same with other settings.
    """
    path = folder / file_name
    ours = json.loads(json.dumps(settings))
    if path.exists():
        theirs = read_json(path)
        if not isinstance(theirs, dict):
            raise ValueError(f"{path} holds no settings. Give another output folder")
        others = sorted(
            key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key)
        )
        if others:
            raise ValueError(
                f"{folder} holds {what} with other settings ({', '.join(others)}). "
                "Give another output folder, or move that one away"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder} exists and holds no {what}. Give another output folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, ours)


def read_json(path: pathlib.Path):
    """Reads a JSON file that `write_json` has written.

    Raises:
      ValueError: it is damaged.
      FileNotFoundError: there is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, and the run cannot go on with it. Move it, or its "
            f"folder, away to begin anew. ({error})"
        ) from error


def write_json(path: pathlib.Path, content) -> None:
    """Writes a JSON file, whole or not at all."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
