"""Headers: an image file's format, size and EXIF orientation, read without decoding it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detfeed.errors import ImageError
from detfeed.images.files import failures, open_file
from detfeed.images.segments import SOS, DamagedError, ReadAt, bytes_of, jpeg_segments, png_chunks, webp_chunks

_EXIF = b"Exif\0\0"
_ORIENTATION = 0x0112  # the tag, in EXIF and in TIFF
_SIDES = (256, 257, 322, 323)  # tags of TIFF: width and height of the picture and of its tiles

# Numbers are separated by white space and comments; one byte of white space ends the header.
_PPM = re.compile(rb"P([56])" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]{1,9})" + rb"\s")

# Suffixes of file names, in lower case, and the formats that they stand for.
SUFFIXES = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    ".png": "png",
    ".webp": "webp",
    **dict.fromkeys((".bmp", ".dib"), "bmp"),
    ".gif": "gif",
    **dict.fromkeys((".tif", ".tiff"), "tiff"),
    **dict.fromkeys((".ppm", ".pgm"), "ppm"),
}


# Formats of other files, which people have in the place of images, by their first bytes.
_ISO_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}
_NO_IMAGES = (
    (b"<!doctype", "a web page, perhaps of a download that failed"),
    (b"<html", "a web page, perhaps of a download that failed"),
    (b"\0\0\0\x0cjxl ", "JPEG XL"),
    (b"\0\0\0\x0cjp  ", "JPEG 2000"),
)


class Header(NamedTuple):
    """Format, size and orientation of an image file.

    Attributes:
        format: jpeg, png, webp, bmp, gif, tiff or ppm (PPM and PGM), found in the content.
        height, width: of the picture as it is stored, in pixels.
        orientation: EXIF orientation, 1 to 8; 1 (as stored) if the file has none or an invalid one.
        invalid_orientation: the number in the file if it is no orientation, else None.
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
        """Height and width of the picture turned by its orientation."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(source: str | os.PathLike[str] | bytes | NDArray[np.uint8], *, name: str = "image") -> Header:
    """Read the header of an image file by a few small reads, mostly in its first kilobytes.

    Args:
        source: path of the file, or its content as bytes or uint8 (bytes,).
        name: name of the content in errors; of a path, errors give the path itself.

    Raises:
        ImageError: the file is missing, of no known format, or damaged or cut short in its header.
    """
    if isinstance(source, bytes):
        return _parse(lambda at, count: source[at : at + count], name)
    if isinstance(source, np.ndarray):
        return _parse(bytes_of(source), name)
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


def named_format(path: str) -> str | None:
    """The format that the suffix of a file's name stands for; None where it stands for none."""
    return SUFFIXES.get(os.path.splitext(path)[1].lower())


def _parse(read: ReadAt, name: str) -> Header:
    start = read(0, 16)
    mark = start[:4] + start[8:12] if start[:4] == b"RIFF" else start
    format = next((format for format, (marks, _) in _FORMATS.items() if mark.startswith(marks)), None)
    if format is None:
        raise ImageError(f"{name}: expected an image ({', '.join(_FORMATS)}), got {_other_format(start)}")
    try:
        height, width, stated = _FORMATS[format][1](read)
    except (struct.error, DamagedError) as error:
        raise ImageError(
            f"{name}: expected the header of a {format} file, got one that is damaged or cut short ({error}); "
            "replace the file or leave the image out"
        ) from error
    if height < 1 or width < 1:
        raise ImageError(f"{name}: expected a picture of at least one pixel, got height {height} and width {width}")
    if not 1 <= stated <= 8:
        return Header(format, height, width, 1, stated)
    return Header(format, height, width, stated)


def _other_format(start: bytes) -> str:
    """What a file is that is no image that can be read, by its first 16 bytes."""
    if not start:
        return "0 bytes"
    brand = start[8:12].rstrip(b"\0 ")
    if start[4:8] == b"ftyp" and brand in _ISO_BRANDS:
        return f"{_ISO_BRANDS[brand]}, which is not supported; convert it to JPEG or PNG"
    if start.startswith(b"version https://"):
        return "the pointer of Git LFS to a file that is not here; `git lfs pull` brings it"
    for mark, found in _NO_IMAGES:
        if start.lower().startswith(mark):
            return f"{found}, whose first bytes are {start!r}"
    return f"bytes that begin with {start!r}"


def _jpeg(read: ReadAt) -> tuple[int, int, int]:
    height = width = 0
    orientation: int | None = None
    for kind, at, _ in jpeg_segments(read):
        if kind == SOS:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", read(at + 1, 4))
        elif kind == 0xE1 and orientation is None and read(at, 6) == _EXIF:
            orientation = _exif(read, at)
    if not height:
        raise DamagedError("no size before the picture")
    return height, width, 1 if orientation is None else orientation


def _png(read: ReadAt) -> tuple[int, int, int]:
    if read(12, 4) != b"IHDR":
        raise DamagedError("no IHDR")
    width, height = struct.unpack(">II", read(16, 8))
    # To the end of the file: a program that adds EXIF later puts it behind the picture.
    exif = next((at for kind, at, _ in png_chunks(read) if kind == b"eXIf"), None)
    return height, width, 1 if exif is None else _exif(read, exif)


def _webp(read: ReadAt) -> tuple[int, int, int]:
    kind = read(12, 4)
    if kind == b"VP8 ":
        if read(23, 3) != b"\x9d\x01\x2a":
            raise DamagedError("no key frame")
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", read(26, 4)))
        return height, width, 1
    if kind == b"VP8L":
        mark, bits = struct.unpack("<BI", read(20, 5))
        if mark != 0x2F:
            raise DamagedError("no lossless picture")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, 1
    if kind != b"VP8X":
        raise DamagedError(f"first chunk {kind!r}")
    flags, low_width, high_width, low_height, high_height = struct.unpack("<B3xHBHB", read(20, 10))
    height, width = (low_height | high_height << 16) + 1, (low_width | high_width << 16) + 1
    if not flags & 8:
        return height, width, 1
    exif = next((at for kind, at, _ in webp_chunks(read) if kind == b"EXIF"), None)
    return height, width, 1 if exif is None else _exif(read, exif)


def _bmp(read: ReadAt) -> tuple[int, int, int]:
    (length,) = struct.unpack("<I", read(14, 4))
    width, height = struct.unpack("<HH", read(18, 4)) if length == 12 else struct.unpack("<ii", read(18, 8))
    return abs(height), width, 1  # a negative height: rows from the top


def _gif(read: ReadAt) -> tuple[int, int, int]:
    width, height = struct.unpack("<HH", read(6, 4))
    return height, width, 1


def tiff_tags(data: NDArray[np.uint8]) -> dict[int, int]:
    """Tags of a TIFF, uint8 (bytes,), whose header was read before; those of the first directory that are integers."""
    return _tiff_tags(bytes_of(data), 0)


def _tiff(read: ReadAt) -> tuple[int, int, int]:
    tags = _tiff_tags(read, 0, strict=True)
    return tags.get(257, 0), tags.get(256, 0), tags.get(_ORIENTATION, 1)


def _exif(read: ReadAt, start: int) -> int:
    """The orientation in an EXIF block at `start`, valid or not; 1 if the block is damaged, which harms no pixel."""
    if read(start, 6) == _EXIF:  # always there in a JPEG, sometimes in a WebP or PNG
        start += 6
    try:
        return _tiff_tags(read, start).get(_ORIENTATION, 1)
    except (struct.error, DamagedError):
        return 1


def _tiff_tags(read: ReadAt, start: int, *, strict: bool = False) -> dict[int, int]:
    """Tags of a TIFF at `start`: those of the first directory that are one integer.

    Args:
        strict: refuse tags that another reader may take for other numbers, since it would decode another size.
    """
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(read(start, 4))
    if order is None:
        raise DamagedError("no byte order")
    (at,) = struct.unpack(f"{order}I", read(start + 4, 4))
    (count,) = struct.unpack(f"{order}H", read(start + at, 2))
    entries = read(start + at + 2, 12 * count)
    tags: dict[int, int] = {}
    seen: set[int] = set()
    for place in range(0, len(entries) - 11, 12):
        tag, kind, values = struct.unpack_from(f"{order}HHI", entries, place)
        if kind in (3, 4) and values == 1:  # unsigned, of 16 or 32 bits
            (tags[tag],) = struct.unpack_from(f"{order}{'H' if kind == 3 else 'I'}", entries, place + 8)
        elif strict and tag in _SIDES:
            raise DamagedError(f"tag {tag} is not one whole number")
        if strict and tag in seen:
            raise DamagedError(f"tag {tag} stands twice")
        seen.add(tag)
    return tags


class PpmHeader(NamedTuple):
    """Header of a binary PPM or PGM.

    Attributes:
        height, width: in pixels.
        channels: 3 or 1.
        largest: the largest value; above 255, values have two bytes.
        start: place of the first pixel in the file.
    """

    height: int
    width: int
    channels: int
    largest: int
    start: int


def ppm_header(read: ReadAt) -> PpmHeader:
    """Read the header of a binary PPM or PGM, which is text; comments in it may have up to 1000 bytes in all.

    Raises:
        DamagedError: it is no such header.
    """
    found = _PPM.match(read(0, 1024))
    if found is None:
        raise DamagedError("no width, height and largest value")
    kind, width, height, largest = (int(number) for number in found.groups())
    if not 1 <= largest <= 65535:
        raise DamagedError(f"largest value {largest}")
    return PpmHeader(height, width, 3 if kind == 6 else 1, largest, found.end())


def _ppm(read: ReadAt) -> tuple[int, int, int]:
    header = ppm_header(read)
    return header.height, header.width, 1


_FORMATS: dict[str, tuple[tuple[bytes, ...], Callable[[ReadAt], tuple[int, int, int]]]] = {
    "jpeg": ((b"\xff\xd8\xff",), _jpeg),
    "png": ((b"\x89PNG\r\n\x1a\n",), _png),
    "webp": ((b"RIFFWEBP",), _webp),
    "bmp": ((b"BM",), _bmp),
    "gif": ((b"GIF87a", b"GIF89a"), _gif),
    "tiff": ((b"II*\0", b"MM\0*"), _tiff),
    "ppm": (tuple(kind + space for kind in (b"P5", b"P6") for space in (b"\n", b"\r", b"\t", b" ")), _ppm),
}
