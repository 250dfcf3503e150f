import json
import os
from typing import Any

import pytest

from detfeed import AnnotationError
from detfeed.readers.json_files import decode_json


def test_empty_list_is_decoded_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"[]")
        assert decode_json(str(path), list[int], "a list") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"expected JSON, got a file that does not parse"),
        ("[1,\n2,\nNaN]", r"does not parse: .*, in '\[1,\\n2,\\nNaN\]' - at line 3; JSON has no NaN and no Infinity"),
        ("{}", r"expected `array`, got \{\} - at `top level`$"),
        ('[1, "x"]', r"expected `int`, got \"x\" - at `\[1\]`$"),
        (json.dumps([1, "x" * 200]), r"expected `int`, got \"x{76}\.\.\. - at `\[1\]`$"),
    ],
)
def test_broken_file_is_an_error_with_an_address(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=rf"a\.json: .*{message}"):
        decode_json(str(path), list[int], "a list")


def test_file_that_is_nested_too_deeply_is_an_error(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    with pytest.raises(AnnotationError, match=r"a\.json: expected a list, got JSON that is nested too deeply$"):
        decode_json(str(path), list[Any], "a list")


def test_bytes_that_are_not_utf8_are_an_error_at_their_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes('[\n"caf\xe9"\n]'.encode("latin-1"))
    message = r"a\.json: expected a list in UTF-8, got the byte 0xe9 in .*caf.* - at line 2; as Latin-1 it is .*caf"
    with pytest.raises(AnnotationError, match=message):
        decode_json(str(path), list[str], "a list")


def test_missing_and_large_files_and_pipes_are_errors_that_name_them(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_text("[1, 2]")
    for name, got in (
        ("none", "No such file"), ("pipe", "a folder, pipe or device"), ("large", "one of 6 bytes, more than 5")
    ):  # fmt: skip
        with pytest.raises(AnnotationError, match=rf"{name}: expected a list, got {got}"):
            decode_json(str(tmp_path / name), list[int], "a list", 5)
