import os
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed import ImageError
from detfeed.images.headers import _FORMATS, SUFFIXES, Header, named_format, read_header
from image_files import FILES, encode, picture, png, png_chunk


@pytest.mark.parametrize("kind", FILES)
def test_header_tells_format_size_and_orientation_of_files_and_of_bytes(tmp_path, kind):
    (tmp_path / "named.txt").write_bytes(FILES[kind])
    expected = Header(kind.split()[0], 24, 40, 6 if "turned" in kind else 1)
    assert read_header(tmp_path / "named.txt") == expected
    assert read_header(FILES[kind]) == expected
    assert read_header(np.frombuffer(FILES[kind], np.uint8)) == expected


def test_orientations_from_5_on_swap_the_sides():
    assert [Header("jpeg", 2, 3, o).oriented_hw for o in range(1, 9)] == [(2, 3)] * 4 + [(3, 2)] * 4
    assert Header("jpeg", 2, 3, 6).stored_hw == (2, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_invalid_orientation_counts_as_none(orientation):
    header = read_header(encode(picture(), "JPEG", orientation=orientation))
    assert (header.orientation, header.invalid_orientation) == (1, orientation)
    assert read_header(encode(picture(), "JPEG", orientation=8)).invalid_orientation is None


def test_orientation_is_found_in_either_byte_order_after_other_segments_and_as_a_long():
    jpeg = FILES["jpeg"]
    for order, mark, kind in (("<", b"II*\0", 3), (">", b"MM\0*", 3), (">", b"MM\0*", 4)):
        value = struct.pack(f"{order}{'HH' if kind == 3 else 'I'}", *((8, 0) if kind == 3 else (8,)))
        exif = b"Exif\0\0" + mark + struct.pack(f"{order}IHHHI", 8, 1, 0x0112, kind, 1) + value
        parts = b"".join(
            b"\xff" + marker + struct.pack(">H", len(content) + 2) + content
            for marker, content in (
                (b"\xe2", bytes(60000)),
                (b"\xe1", b"http://ns.adobe.com/xap\0"),
                (b"\xe1", exif),
            )
        )
        assert read_header(jpeg[:2] + b"\xff\xff" + parts[1:] + jpeg[2:]) == Header("jpeg", 24, 40, 8)


def test_exif_that_is_damaged_harms_nothing():
    turned = FILES["jpeg turned"]
    start = turned.index(b"Exif\0\0") + 6
    for at in range(start, start + 20):
        header = read_header(turned[:at] + b"\xee" + turned[at + 1 :])
        assert header.stored_hw == (24, 40)
        assert 1 <= header.orientation <= 8


def test_png_that_has_its_exif_behind_the_picture_is_turned_too():
    exif = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 3, 0)
    for content in (exif, b"Exif\0\0" + exif):
        assert read_header(png(1, 1, b"\0abc", after=png_chunk(b"eXIf", content))) == Header("png", 1, 1, 3)


def test_names_promise_formats():
    names = ("a.JPG", "b.jpeg", "c.PNG", "d.tif", "e.webp", "f.gif", "g.bmp", "h", "i.dat")
    assert [named_format(name) for name in names] == [
        "jpeg", "jpeg", "png", "tiff", "webp", "gif", "bmp", None, None,
    ]  # fmt: skip


def test_every_format_that_is_read_has_suffixes():
    assert set(SUFFIXES.values()) == set(_FORMATS)
    assert {named_format(f"a{suffix.upper()}") for suffix in SUFFIXES} == set(_FORMATS)


def test_file_of_no_known_format_is_an_error_that_shows_its_first_bytes(tmp_path):
    for content, got in ((b"", "got 0 bytes"), (b"?html>", r"got bytes that begin with b'\?html>'")):
        with pytest.raises(ImageError, match=rf"^page\.jpg: expected an image \(jpeg, png, .*\), {got}"):
            read_header(content, name="page.jpg")
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ImageError, match=rf"a\.jpg: expected an image \(.*\), {got}"):
            read_header(tmp_path / "a.jpg")


def test_files_that_are_missing_or_not_regular_are_errors_and_wait_for_nothing(tmp_path):
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path / "loop", tmp_path / "pipe", tmp_path, "nul\0byte", "x" * 5000):
        with pytest.raises(ImageError, match="expected an image file, got "):
            read_header(path)


@pytest.mark.parametrize("kind", FILES)
def test_header_that_is_cut_short_is_an_error_that_names_the_format(kind):
    content = FILES[kind]
    for size in range(16, 30):
        try:
            assert read_header(content[:size]).stored_hw == (24, 40)
        except ImageError as error:
            assert f"header of a {kind.split()[0]} file" in str(error) or "at least one pixel" in str(error)
    with pytest.raises(ImageError):
        read_header(content[:9])


def test_picture_without_pixels_is_an_error():
    with pytest.raises(ImageError, match="at least one pixel, got height 0 and width 7"):
        read_header(b"GIF89a" + struct.pack("<HH", 7, 0))


def test_endless_segments_and_chunks_are_an_error():
    for content, what in (
        (b"\xff\xd8" + b"\xff\xd0" * 10**6, "segments"),
        (FILES["png"][:33] + b"\0\0\0\0aaaacrc." * 10**6, "chunks"),
        (FILES["webp turned"][:30] + b"aaaa\0\0\0\0" * 10**6, "chunks"),
    ):
        with pytest.raises(ImageError, match=f"too many {what}"):
            read_header(content)


@given(st.sampled_from([content[:16] for content in FILES.values()]), st.binary(max_size=200))
def test_any_bytes_give_a_header_or_an_image_error(start, rest):
    for content in (rest, start + rest):
        try:
            header = read_header(content)
        except ImageError:
            continue
        assert min(header.stored_hw) >= 1
        assert 1 <= header.orientation <= 8


def test_headers_of_real_files_agree_with_the_decoded_pictures(data):
    headers = {path.name: read_header(path) for path in (data / "dirt" / "helmet" / "images").iterdir()}
    assert {header.format for header in headers.values()} == {"jpeg", "png", "webp"}
    assert headers["000695.png"] == Header("jpeg", 2112, 4608, 8)
    assert headers["000695.png"].oriented_hw == (4608, 2112)
    assert read_header(data / "dirt" / "kangaroo" / "images" / "00076.jpg").orientation == 1


@pytest.mark.parametrize(
    ("content", "got"),
    [
        (b"\0\0\0\x1cftypavif" + bytes(40), "AVIF, which is not supported; convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC, which is not supported"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "the pointer of Git LFS"),
        (b"<!DOCTYPE html><html>", "a web page, perhaps of a download that failed"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, got):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=f"a.jpg: expected an image .*, got {got}"):
        read_header(tmp_path / "a.jpg")
