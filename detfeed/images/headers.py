"""Headers: an image file's format, size and EXIF orientation, read without decoding it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import ImageError
from detfeed.images.files import failures, open_file

# A PNG of 2**28 pixels has some 100,000 chunks; more of them than this are there to keep a reader busy.
MAX_PARTS = 2**18
_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # the tag, in EXIF as in TIFF itself

Read = Callable[[int, int], bytes]  # (offset, count) -> the bytes there, fewer at the end of the file


class Header(NamedTuple):
    """What an image file says of itself.

    Attributes:
        format: jpeg, png, webp, bmp, gif or tiff, told from the content.
        height, width: in pixels, of the picture as it is stored.
        orientation: EXIF orientation, 1 to 8; 1, as stored, where there is none or an invalid one.
        invalid_orientation: the number that stands in the file where it is no orientation.
    """

    format: str
    height: int
    width: int
    orientation: int
    invalid_orientation: int | None = None

    @property
    def stored_hw(self) -> tuple[int, int]:
        """Height and width of the picture as it is stored."""
        return self.height, self.width

    @property
    def oriented_hw(self) -> tuple[int, int]:
        """Height and width of the picture when turned as its orientation says."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(source: str | os.PathLike[str] | bytes | NDArray[np.uint8], *, name: str = "image") -> Header:
    """Read the header of an image file: a few small reads, mostly of its first kilobytes.

    Args:
        source: path of the file, or its content as bytes or uint8 (bytes,).
        name: what to call content in errors; a path is called by itself.

    Raises:
        ImageError: the file is missing, of no known format, or ends in its header.
    """
    if isinstance(source, bytes):
        return _parse(lambda at, count: source[at : at + count], name)
    if isinstance(source, np.ndarray):
        return _parse(lambda at, count: source[at : at + count].tobytes(), name)
    name = os.fspath(source)
    with open_file(source) as file:

        def read(at: int, count: int) -> bytes:
            file.seek(at)
            return file.read(count)

        try:
            return _parse(read, name)
        except ImageError:
            raise
        except failures(name) as error:
            raise ImageError(
                f"{name}: expected an image file, got {getattr(error, 'strerror', None) or error}"
            ) from error


def _parse(read: Read, name: str) -> Header:
    start = read(0, 16)
    mark = start[:4] + start[8:12] if start[:4] == b"RIFF" else start
    format = next((format for format, (marks, _) in _FORMATS.items() if mark.startswith(marks)), None)
    if format is None:
        got = f"bytes that begin with {start!r}" if start else "0 bytes"
        raise ImageError(f"{name}: expected an image ({', '.join(_FORMATS)}), got {got}")
    try:
        height, width, stated = _FORMATS[format][1](read)
    except (struct.error, _Bad) as error:
        raise ImageError(
            f"{name}: expected the header of a {format} file, got one that is damaged or cut short ({error}); "
            "replace the file or leave the image out"
        ) from error
    if height < 1 or width < 1:
        raise ImageError(f"{name}: expected a picture of at least one pixel, got height {height} and width {width}")
    if not 1 <= stated <= 8:
        return Header(format, height, width, 1, stated)
    return Header(format, height, width, stated)


class _Bad(Exception):
    """A header that makes no sense; `_parse` says of which file."""


def _jpeg(read: Read) -> tuple[int, int, int]:
    """Segment by segment up to the first scan."""
    height = width = 0
    orientation: int | None = None
    at = 2
    for _ in range(MAX_PARTS):
        fill, marker, length = struct.unpack(">BBH", read(at, 4))
        if fill != 0xFF:
            raise _Bad(f"no marker at byte {at}")
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # without content
            at += 2
        elif marker in (0xD9, 0xDA):  # the end of the file, or a scan
            if not height:
                raise _Bad("no size before the picture")
            return height, width, 1 if orientation is None else orientation
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack(">HH", read(at + 5, 4))
            elif marker == 0xE1 and orientation is None and read(at + 4, 6) == _EXIF:
                orientation = _exif(read, at + 4)
            at += 2 + length
    raise _Bad("too many segments")


def _png(read: Read) -> tuple[int, int, int]:
    if read(12, 4) != b"IHDR":
        raise _Bad("no IHDR")
    width, height = struct.unpack(">II", read(16, 8))
    at = 8
    for _ in range(MAX_PARTS):
        # Behind the picture as well: writers that add the chunk later put it at the end.
        part = read(at, 8)
        if len(part) < 8 or part[4:] == b"IEND":
            return height, width, 1
        if part[4:] == b"eXIf":
            return height, width, _exif(read, at + 8)
        at += 12 + int(struct.unpack(">I", part[:4])[0])
    raise _Bad("too many chunks")


def _webp(read: Read) -> tuple[int, int, int]:
    kind = read(12, 4)
    if kind == b"VP8 ":
        if read(23, 3) != b"\x9d\x01\x2a":
            raise _Bad("no key frame")
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", read(26, 4)))
        return height, width, 1
    if kind == b"VP8L":
        mark, bits = struct.unpack("<BI", read(20, 5))
        if mark != 0x2F:
            raise _Bad("no lossless picture")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 1
    if kind != b"VP8X":
        raise _Bad(f"first chunk {kind!r}")
    flags, low_width, high_width, low_height, high_height = struct.unpack("<B3xHBHB", read(20, 10))
    height, width = (low_height | high_height << 16) + 1, (low_width | high_width << 16) + 1
    if not flags & 8:
        return height, width, 1
    at = 12
    for _ in range(MAX_PARTS):
        part = read(at, 8)
        if len(part) < 8:
            return height, width, 1
        if part[:4] == b"EXIF":
            return height, width, _exif(read, at + 8)
        length = int(struct.unpack("<I", part[4:])[0])
        at += 8 + length + length % 2
    raise _Bad("too many chunks")


def _bmp(read: Read) -> tuple[int, int, int]:
    (length,) = struct.unpack("<I", read(14, 4))
    width, height = struct.unpack("<HH", read(18, 4)) if length == 12 else struct.unpack("<ii", read(18, 8))
    return abs(height), width, 1  # a negative height: rows from the top


def _gif(read: Read) -> tuple[int, int, int]:
    width, height = struct.unpack("<HH", read(6, 4))
    return height, width, 1


def tiff_tags(data: NDArray[np.uint8]) -> dict[int, int]:
    """Those tags of the first directory of a TIFF, uint8 (bytes,), that are one integer; its header was read before."""
    return _tiff_tags(lambda at, count: data[at : at + count].tobytes(), 0)


def _tiff(read: Read) -> tuple[int, int, int]:
    tags = _tiff_tags(read, 0)
    return tags.get(257, 0), tags.get(256, 0), tags.get(_ORIENTATION, 1)


def _exif(read: Read, start: int) -> int:
    """The orientation in an EXIF block at `start`, valid or not; 1 where the block is damaged, which harms no pixel."""
    if read(start, 6) == _EXIF:  # always in a JPEG, sometimes in a WebP or PNG
        start += 6
    try:
        return _tiff_tags(read, start).get(_ORIENTATION, 1)
    except (struct.error, _Bad):
        return 1


def _tiff_tags(read: Read, start: int) -> dict[int, int]:
    """Those tags of the first directory of a TIFF at `start` that are one integer."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(read(start, 4))
    if order is None:
        raise _Bad("no byte order")
    (at,) = struct.unpack(f"{order}I", read(start + 4, 4))
    (count,) = struct.unpack(f"{order}H", read(start + at, 2))
    entries = read(start + at + 2, 12 * count)
    tags: dict[int, int] = {}
    for place in range(0, len(entries) - 11, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", entries, place)
        if kind in (3, 4) and values == 1:  # unsigned, of 16 or 32 bits
            (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", entries, place + 8)
    return tags


_FORMATS: dict[str, tuple[tuple[bytes, ...], Callable[[Read], tuple[int, int, int]]]] = {
    "jpeg": ((b"\xff\xd8\xff",), _jpeg),
    "png": ((b"\x89PNG\r\n\x1a\n",), _png),
    "webp": ((b"RIFFWEBP",), _webp),
    "bmp": ((b"BM",), _bmp),
    "gif": ((b"GIF87a", b"GIF89a"), _gif),
    "tiff": ((b"II*\0", b"MM\0*"), _tiff),
}
