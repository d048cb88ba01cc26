"""Text files are read with or without a byte order mark; other encodings are refused, and the line is named."""

import codecs

import pytest

from util.cli import UserError
from util.files import NotText, decode_text, read_json, read_text


@pytest.mark.parametrize("text", ["", "Grüße\n", "a\r\nb\rc\u2028d\x85"])
def test_a_byte_order_mark_is_taken_off_and_nothing_else(text):
    assert decode_text(text.encode()) == decode_text(codecs.BOM_UTF8 + text.encode()) == text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{}".encode("utf-16"), "saved as UTF-16: save it as UTF-8"),
        ("{}".encode("utf-16-be"), "line 1 has a zero byte"),
        ("{}".encode("utf-32"), "saved as UTF-32"),
        ("a\nb\nGrüße".encode("latin-1"), "line 3 has the byte 0xfc, which is not UTF-8"),
        ("a\r\n照片".encode("gbk"), "line 2 has the byte 0xd5"),
        (b"a\n\n\0", "line 3 has a zero byte"),
    ],
)
def test_other_encodings_are_refused_with_the_line(tmp_path, data, words):
    with pytest.raises(NotText, match=words):
        decode_text(data)
    path = tmp_path / "a.json"
    path.write_bytes(data)
    for read in (read_text, read_json):
        with pytest.raises(UserError, match=words) as error:
            read(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_json_with_a_mark_and_windows_line_ends(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a":\r\n "\xc3\xbc"}\r\n')
    assert read_json(path) == {"a": "ü"}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt does not exist"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is not a readable text file"):
        read_text(tmp_path)
