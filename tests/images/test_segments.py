import numpy as np
import pytest

from detfeed.images import segments
from detfeed.images.segments import (
    EOI,
    SOS,
    DamagedError,
    bytes_of,
    jpeg_segments,
    markers_of,
    picture_end,
    png_chunks,
    webp_chunks,
)
from image_files import FILES


def content_of(data):
    return np.frombuffer(data, np.uint8)


def segments_of(data, *, strict=False):
    content = content_of(data)
    return list(jpeg_segments(bytes_of(content), find=None if strict else markers_of(content)))


# Two segments, a scan with a plain FF, a restart and a fill byte before the next marker, and a film behind the picture.
SCAN = b"\xff\xda\0\3s" + b"ab\xff\0c\xff\xd3d\xff"
JPEG = b"\xff\xd8" + b"\xff\xff\xe0\0\4xy" + b"\xff\xfe\0\2" + SCAN + SCAN + b"\xff\xd9" + SCAN
PARTS = [(0xE0, 7, 2), (0xFE, 13, 0), (SOS, 17, 1), (SOS, 31, 1), (EOI, 43, 0)]


def test_walk_passes_scans_and_ends_with_the_image():
    assert segments_of(JPEG) == PARTS
    assert JPEG[7:9] == b"xy" and JPEG[43:] == SCAN


def test_walk_without_a_search_goes_to_the_first_scan_and_no_further():
    walk = jpeg_segments(bytes_of(content_of(JPEG)))
    assert [next(walk) for _ in range(3)] == PARTS[:3]
    with pytest.raises(DamagedError, match="no marker at byte 18"):
        next(walk)


def test_empty_file_has_no_parts():
    assert segments_of(b"") == []
    with pytest.raises(DamagedError, match="no marker at byte 2"):
        segments_of(b"", strict=True)
    assert list(png_chunks(bytes_of(content_of(b"")))) == []
    assert list(webp_chunks(bytes_of(content_of(b"")))) == []


@pytest.mark.parametrize("size", range(len(JPEG) - len(SCAN)))
def test_jpeg_that_is_cut_short_has_the_parts_that_begin_in_it(size):
    got = segments_of(JPEG[:size])
    assert [part[0] for part in got] == [part[0] for part in PARTS[: len(got)]]
    assert EOI not in [part[0] for part in got]


def test_segment_that_claims_no_room_for_its_own_length_moves_the_walk_on():
    assert segments_of(b"\xff\xd8\xff\xe0\0\0\xff\xd9") == [(0xE0, 6, 0), (EOI, 8, 0)]


def test_bytes_of_a_segment_that_look_like_a_marker_are_none():
    assert segments_of(b"\xff\xd8" + b"\xff\xe1\0\6\xff\xd9\xff\xda" + b"\xff\xd9") == [(0xE1, 6, 4), (EOI, 12, 0)]


def test_chunks_of_png_and_webp_are_walked_with_their_checksums_and_padding():
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\3abcdxyzcrc." + b"\0\0\0\0IENDcrc." + b"\0\0\0\0moreCRC."
    assert list(png_chunks(bytes_of(content_of(png)))) == [(b"abcd", 16, 3), (b"IEND", 31, 0)]
    webp = b"RIFF....WEBP" + b"abcd\3\0\0\0xyz\0" + b"efgh\2\0\0\0xy" + b"odd"
    assert list(webp_chunks(bytes_of(content_of(webp)))) == [(b"abcd", 20, 3), (b"efgh", 32, 2)]


@pytest.mark.parametrize(
    ("walk", "content", "what"),
    [
        (png_chunks, FILES["png"][:8] + b"\0\0\0\0aaaacrc." * 20, "chunks"),
        (webp_chunks, FILES["webp"][:12] + b"aaaa\0\0\0\0" * 20, "chunks"),
        (jpeg_segments, b"\xff\xd8" + b"\xff\xe0\0\2" * 20, "segments"),
        (jpeg_segments, b"\xff\xd8" + b"\xff" * 20, "segments"),
    ],
)
def test_walks_take_only_so_many_steps(monkeypatch, walk, content, what):
    monkeypatch.setattr(segments, "MAX_PARTS", 15)
    with pytest.raises(DamagedError, match=f"too many {what}"):
        list(walk(bytes_of(content_of(content))))


@pytest.mark.parametrize("kind", FILES)
def test_picture_ends_with_its_file_and_before_bytes_that_follow(kind):
    for rest in (b"", b"12345", FILES["jpeg"]):
        whole = kind.startswith(("bmp", "gif", "tiff", "ppm"))  # all bytes of which count
        end = picture_end(content_of(FILES[kind] + rest), kind.split()[0])
        assert end == len(FILES[kind]) + (len(rest) if whole else 0)


def test_preview_within_a_jpeg_is_not_its_end():
    preview = b"\xff\xe1" + (len(FILES["jpeg"]) + 2).to_bytes(2, "big") + FILES["jpeg"]
    data = np.frombuffer(FILES["jpeg"][:2] + preview + FILES["jpeg"][2:], np.uint8)
    assert picture_end(data, "jpeg") == len(data)
