"""Headers: the size of an image file from its first bytes, without decoding it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from detfeed.errors import ImageError

# More than any camera's file has before its pixels; a file made to stall us has millions.
_MOST_PARTS = 4096
_MOST_EXIF = 2**16  # what a JPEG segment can hold

_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame of every coding; between them are tables of Huffman codes, extensions and arithmetic conditioning.
_SOF = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class ImageHeader(NamedTuple):
    """What the header of an image file says.

    Attributes:
        height, width: in pixels as they are stored.
        orientation: EXIF's: 1 upright (also where the file says nothing), 2 to 8 mirrored and turned, others invalid.
    """

    height: int
    width: int
    orientation: int

    @property
    def oriented_hw(self) -> tuple[int, int]:
        """Height and width in pixels of the picture as `read_image` decodes it, turned as EXIF says."""
        return (self.width, self.height) if 5 <= self.orientation <= 8 else (self.height, self.width)


def image_hw(path: str | os.PathLike[str]) -> ImageHeader:
    """Read the size of a JPEG, PNG, WebP or BMP file, told from its content, not from its name.

    Reads few bytes and decodes nothing, so that a file whose pixels are damaged goes unnoticed.

    Raises:
        ImageError: the file is missing, of another format, or ends within its header.

    Source: ITU-T T.81 (JPEG), W3C PNG, RFC 9649 (WebP), Microsoft's BITMAPINFOHEADER; orientations as cv2 takes them.
    """
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            header = _read(file)
    except OSError as error:
        raise ImageError(f"{source}: expected an image file, got {error.strerror or error}") from error
    except (struct.error, EOFError):
        raise ImageError(f"{source}: expected an image, got a file that ends within its header") from None
    except ValueError as error:
        raise ImageError(f"{source}: {error}") from None
    if header.height < 1 or header.width < 1:
        raise ImageError(
            f"{source}: expected an image of at least 1 pixel, got height {header.height}, width {header.width}"
        )
    return header


def _read(file: BinaryIO) -> ImageHeader:
    start = file.read(12)
    file.seek(0)
    if start.startswith(b"\xff\xd8"):
        return _read_jpeg(file)
    if start.startswith(_PNG):
        return _read_png(file)
    if start.startswith(b"RIFF") and start[8:] == b"WEBP":
        return _read_webp(file)
    if start.startswith(b"BM"):
        return _read_bmp(file)
    raise ValueError(f"expected a JPEG, PNG, WebP or BMP, got a file that begins with {start!r}")


def _read_jpeg(file: BinaryIO) -> ImageHeader:
    orientation = 1
    file.seek(2)
    for _ in range(_MOST_PARTS):
        marker = _exactly(file, 2)
        while marker[1] == 0xFF:  # padding before a marker
            marker = b"\xff" + _exactly(file, 1)
        if marker[0] != 0xFF:
            raise ValueError(f"expected a JPEG marker, got {marker!r} at byte {file.tell() - 2}")
        (length,) = struct.unpack(">H", _exactly(file, 2))
        end = file.tell() + length - 2
        if marker[1] in _SOF:
            _, height, width = struct.unpack(">BHH", _exactly(file, 5))
            return ImageHeader(height, width, orientation)
        if marker[1] == 0xE1 and length >= 8 and file.read(6) == b"Exif\0\0":
            orientation = _orientation(file.read(length - 8))
        file.seek(end)
    raise ValueError(f"expected a JPEG frame, got none in the first {_MOST_PARTS} segments")


def _read_png(file: BinaryIO) -> ImageHeader:
    height = width = 0
    orientation = 1
    for name, length in _chunks(file, 8, webp=False):
        if name == b"IHDR":
            width, height = struct.unpack(">II", _exactly(file, 8))
        elif name == b"eXIf":
            orientation = _orientation(file.read(min(length, _MOST_EXIF)))
        if name in (b"eXIf", b"IEND"):
            break
    return ImageHeader(height, width, orientation)


def _read_webp(file: BinaryIO) -> ImageHeader:
    height = width = 0
    orientation = 1
    for name, length in _chunks(file, 12, webp=True):
        if name == b"VP8X":
            data = _exactly(file, 10)
            width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (4, 7))
            if not data[0] & 8:  # no EXIF follows
                break
        elif name == b"EXIF":
            orientation = _orientation(file.read(min(length, _MOST_EXIF)))
            break
        elif name == b"VP8 " and not height:
            width, height = (side & 0x3FFF for side in struct.unpack("<HH", _exactly(file, 10)[6:]))
            break
        elif name == b"VP8L" and not height:
            sides = int.from_bytes(_exactly(file, 5)[1:], "little")
            width, height = 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
            break
    return ImageHeader(height, width, orientation)


def _read_bmp(file: BinaryIO) -> ImageHeader:
    file.seek(14)
    (size,) = struct.unpack("<I", _exactly(file, 4))
    if size == 12:
        width, height = struct.unpack("<HH", _exactly(file, 4))
    else:
        width, height = struct.unpack("<ii", _exactly(file, 8))
    return ImageHeader(abs(height), width, 1)  # a negative height: rows from top to bottom


def _chunks(file: BinaryIO, at: int, *, webp: bool) -> Iterator[tuple[bytes, int]]:
    """Names and lengths of chunks from a byte on; each time the file stands at the chunk's data."""
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:  # the size may be known by now; if not, it is 0
            return
        name, length = (head[:4], int.from_bytes(head[4:], "little")) if webp else (head[4:], int.from_bytes(head[:4]))
        yield name, length
        at += 8 + length + (length & 1 if webp else 4)  # WebP pads to even, PNG adds a checksum


def _orientation(exif: bytes) -> int:
    """The orientation in a TIFF header's first directory; 1 where there is none or the header is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * entry)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        pass
    return 1


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
