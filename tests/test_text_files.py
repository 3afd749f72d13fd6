import pytest

from sact_tf import text_files


def test_lines(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffant\r\nbee  \r\n\tcat\u2028fish\r\n\r\n".encode())
    assert text_files.lines(path) == ["ant", "bee", "cat\u2028fish"]
    path.write_bytes(b"")
    assert text_files.lines(path) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_other_encodings_are_refused(encoding, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("Käfer\nant\n".encode(encoding))
    for function in (text_files.read, text_files.lines, text_files.json):
        with pytest.raises(ValueError, match=r"labels\.txt is not in UTF-8"):
            function(path)


def test_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert text_files.json(path) == {"a": 1}
    path.write_text("{" + "[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json is no JSON file"):
        text_files.json(path)
