import os

import pytest

from detfeed import AnnotationError
from detfeed.readers.texts import open_file, parse_lines, read_lines, read_lines_if_any, read_rows, read_text, to_number


def test_empty_file_has_one_blank_line_and_no_rows(tmp_path):
    path = tmp_path / "a.txt"
    path.touch()
    assert read_text(path, "a text") == ""
    assert read_lines(path, "a text") == [""]
    assert list(read_rows(path, "a CSV file")) == []


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa,b\n")
    assert read_text(path, "a text") == "a,b\n"
    assert list(read_rows(path, "a CSV file")) == [(1, ["a", "b"])]


def test_lines_end_as_editors_end_them_and_nowhere_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\r\nb\u2028c\rd\x0ce\x85f\x1eg\n\nh", encoding="utf-8", newline="")
    assert read_lines(path, "a text") == ["a", "b\u2028c", "d\x0ce\x85f\x1eg", "", "h"]


@pytest.mark.parametrize(
    ("rows", "line", "got"),
    [
        ('a,1\n\nb"c,2\n"d,3\ne,4\nf,5"\n', 4, "a row that ends at line 6"),
        ('"a,1\r\nb",2\r\n', 1, "a row that ends at line 2"),
        ('a,1\n"b,2\nc,3\n', 2, "unexpected end of data"),
        ('a,1\n"b,2', 2, "unexpected end of data"),
        ('a,1\n"b,2\nc,3"d\n', 2, "',' expected after '\"'"),
        ('a,1\n"b,2\n' + "c,3\n" * 40000, 2, r"field larger than field limit \(131072\)"),
    ],
)
def test_rows_of_a_quote_that_is_not_closed_are_an_error_at_the_quote(tmp_path, rows, line, got):
    path = tmp_path / "a.csv"
    path.write_text(rows, newline="")
    message = rf"a\.csv: expected a CSV file, got {got} - at line {line}; is a quote not closed\?"
    with pytest.raises(AnnotationError, match=message):
        list(read_rows(path, "a CSV file"))


def test_bytes_that_are_not_utf8_are_an_error_at_their_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("".join(f"é{line},1\n" for line in range(1, 3000)).encode() + b"caf\xe9,1\nb,2\n")
    message = r"a\.csv: expected a list in UTF-8, got the byte 0xe9 in '.*caf.,1\\n.*' - at line 3000; as Latin-1"
    for read in (read_text, lambda *arguments: list(read_rows(*arguments))):
        with pytest.raises(AnnotationError, match=message):
            read(path, "a list")


def test_rows_without_end_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    for row in (b"a," * 2**19, b'"\n",' * 2**19):
        path.write_bytes(b"a,b\n" * 2**19 + row)
        with pytest.raises(AnnotationError, match=r"a\.csv: expected a CSV file, got a row of over 1048576 characters"):
            for _ in read_rows(path, "a CSV file"):
                pass


@pytest.mark.parametrize("read", [read_text, lambda path, noun: list(read_rows(path, noun))])
def test_what_is_no_text_is_an_error_that_names_it(tmp_path, read):
    for name, content, message in (
        ("a\0.txt", None, "embedded null byte"),
        ("none.txt", None, "No such file or directory"),
        ("bytes.txt", b"\xff\xfe", "in UTF-8, got the byte 0xff in .* - at line 1"),
    ):
        if content:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(AnnotationError, match=rf"txt: expected a list.*{message}"):
            read(tmp_path / name, "a list")


def test_only_regular_files_are_opened_and_no_large_ones(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(AnnotationError, match=rf"{path}: expected a list, got a folder, pipe or device"):
            open_file(path, "a list")
    with open(tmp_path / "large", "wb") as file:
        file.truncate(2**40)
    with pytest.raises(
        AnnotationError, match=r"large: expected a list, got one of 1099511627776 bytes, more than 16777216"
    ):
        read_text(tmp_path / "large", "a list")
    with pytest.raises(AnnotationError, match="more than 8589934592"):
        next(read_rows(tmp_path / "large", "a list"))


def test_missing_files_are_told_from_links_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")
    for path in ("none.txt", tmp_path / "none" / "none.txt"):
        assert read_lines_if_any(path, "a list") is None
    for path in ("link", tmp_path / "link" / "none.txt"):
        with pytest.raises(AnnotationError, match=r"link.*: expected a list, got No such file"):
            read_lines_if_any(path, "a list")
    (tmp_path / "file").touch()
    with pytest.raises(AnnotationError, match="got Not a directory"):
        read_lines_if_any(tmp_path / "file" / "none.txt", "a list")


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-1e999", "1_0", "0x10", "1 2"])
def test_text_that_is_no_finite_number_is_an_error(text):
    with pytest.raises(ValueError, match=rf"^expected a number, got '{text}'$"):
        to_number(text)
    assert to_number(" -1.5e1\n") == -15


def test_lines_are_parsed_by_number_and_fields_and_errors_get_an_address():
    assert parse_lines([], "a.txt", print) == []
    lines = ["", "1 2\t3 ", " ", "4"]
    assert parse_lines(lines, "a.txt", lambda line, fields: (line, fields)) == [(2, ["1", "2", "3"]), (4, ["4"])]
    with pytest.raises(AnnotationError, match=r"^a\.txt: expected a number, got 'x' - at line 3$"):
        parse_lines(["1", "", "x", "y"], "a.txt", lambda line, fields: to_number(fields[0]))


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("one\n红灯 0.5\n".encode("gbk"), r"at line 2; as GBK it is '红灯'; save it as UTF-8$"),
        ("one\n".encode("utf-16"), r"at line 1; it begins as UTF-16 does; save it as UTF-8$"),
        (b"a caf\xe9", r"at line 1; as Latin-1 it is 'café'; save it as UTF-8$"),
        ("Müller, 金属".encode("gbk") + b"\xff", r"at line 1; save it as UTF-8$"),
    ],
)
def test_encoding_that_a_text_may_be_in_is_named(tmp_path, data, hint):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(AnnotationError, match=hint):
        read_lines(tmp_path / "a.txt", "a text")
    with pytest.raises(AnnotationError, match=hint):
        list(read_rows(tmp_path / "a.txt", "a text"))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separator_is_the_one_that_the_first_line_has_most_of(tmp_path, separator):
    (tmp_path / "a.csv").write_text(f"a{separator}b{separator}c\nd,e;f{separator}g\n")
    rows = list(read_rows(tmp_path / "a.csv", "a text"))
    assert rows[0] == (1, ["a", "b", "c"])
    assert rows[1] == (2, f"d,e;f{separator}g".split(separator))
