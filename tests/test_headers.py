import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest

from detfeed import ImageError
from detfeed.headers import image_hw
from detfeed.images import read_image

PICTURE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
FORMATS = {
    "jpg": [],
    "progressive.jpg": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "png": [],
    "bmp": [],
    "webp": [cv2.IMWRITE_WEBP_QUALITY, 80],
    "lossless.webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
}


def exif(orientation, order=">"):
    magic = {">": b"MM\0*", "<": b"II*\0"}[order]
    return magic + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def encode(name, picture=PICTURE):
    return cv2.imencode(f".{name.rpartition('.')[2]}", picture, FORMATS[name])[1].tobytes()


def turned(name, orientation, order=">"):
    """A file of 20 x 30 pixels with an EXIF orientation."""
    data, tiff = encode(name), exif(orientation, order)
    if name.endswith("jpg"):
        return data[:2] + b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff + data[2:]
    if name.endswith("png"):
        chunk = b"eXIf" + tiff
        return data[:33] + struct.pack(">I", len(tiff)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([8, 0, 0, 0]) + bytes([29, 0, 0, 19, 0, 0])
    inner = b"WEBP" + canvas + data[12:] + b"EXIF" + struct.pack("<I", len(tiff)) + tiff
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


@pytest.fixture
def write(tmp_path):
    def write(data):
        (tmp_path / "image").write_bytes(data)
        return tmp_path / "image"

    return write


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(1, 1, 3), (20, 30, 3), (300, 7, 3), (20, 30)])
def test_size_is_that_of_the_picture(write, name, shape):
    path = write(encode(name, np.zeros(shape, np.uint8)))
    assert image_hw(path) == (*shape[:2], 1)
    assert image_hw(path).oriented_hw == read_image(path).shape[:2]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bmp"])
@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 8, 9])
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_reported_and_applied_as_the_decoder_does(write, name, orientation, order):
    path = write(turned(name, orientation, order))
    assert image_hw(path) == (20, 30, orientation)
    assert image_hw(path).oriented_hw == read_image(path).shape[:2]


def test_bitmap_from_top_to_bottom_and_of_the_old_form_have_sizes(write):
    data = bytearray(encode("bmp"))
    data[22:26] = struct.pack("<i", -20)
    assert image_hw(write(data)) == (20, 30, 1)
    assert image_hw(write(b"BM" + bytes(12) + struct.pack("<IHH", 12, 30, 20))) == (20, 30, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"a JPEG, PNG, WebP or BMP, got a file that begins with b''"),
        (b"GIF89a", r"begins with b'GIF89a'"),
        (b"\xff\xd8\xff\xe0", "ends within its header"),
        (b"\xff\xd8xx", r"expected a JPEG marker, got b'xx' at byte 2"),
        (b"\xff\xd8" + b"\xff\xe0\0\2" * 5000, "got none in the first 4096 segments"),
        (encode("png")[:8], "at least 1 pixel, got height 0, width 0"),
        (b"BM" + bytes(60), "at least 1 pixel, got height 0, width 0"),
    ],
)
def test_file_without_a_size_is_an_error(write, data, message):
    with pytest.raises(ImageError, match=rf"image: .*{message}"):
        image_hw(write(data))


def test_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: expected an image file, got No such file"):
        image_hw(tmp_path / "none.png")


@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_gives_a_size_or_an_error(write, name):
    rng = np.random.default_rng(0)
    whole = encode(name) if name == "bmp" else turned(name, 6)
    for _ in range(200):
        data = bytearray(whole[: rng.integers(1, len(whole))])
        for place in rng.integers(0, min(len(data), 80), 4):
            data[place] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert min(image_hw(write(data))[:2]) >= 1


def test_real_images_have_the_sizes_they_decode_to(data):
    paths = [*(data / "coco" / "train2017").iterdir(), *(data / "dirt" / "helmet" / "images").iterdir()]
    assert len(paths) > 80
    for path in paths:
        assert image_hw(path).oriented_hw == read_image(path).shape[:2]
    (turned,) = [path for path in paths if image_hw(path).orientation > 1]
    assert turned.stem == "000695"
