"""Text files that users give, wherever they were written."""

import json as json_library
import os
import pathlib


def read(path: str | os.PathLike) -> str:
    """The text of a file in UTF-8: without the byte order mark of Windows' editors.

    Raises:
      ValueError: it is in another encoding.
      OSError: the file cannot be opened.
    """
    try:
        text = pathlib.Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(_encoding(path)) from error
    if "\0" in text:  # UTF-16 without a mark can be valid UTF-8.
        raise ValueError(_encoding(path))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(path: str | os.PathLike) -> list[str]:
    """The lines of a file, without blanks around them, and without empty last ones.

    Raises:
      ValueError, OSError: as `read`.
    """
    found = [line.strip() for line in read(path).split("\n")]
    while found and not found[-1]:
        found.pop()
    return found


def json(path: str | os.PathLike, what: str = "JSON file") -> object:
    """What a JSON file holds.

    Args:
      path: of the file.
      what: it should be, for messages.

    Raises:
      ValueError: it is no JSON, or in another encoding than UTF-8.
      OSError: the file cannot be opened.
    """
    text = read(path)
    try:
        return json_library.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no {what}. ({error})") from error


def _encoding(path):
    return f"{path} is not in UTF-8. Save it in that encoding"
