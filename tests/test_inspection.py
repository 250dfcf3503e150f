import cv2
import numpy as np
import pytest

from detfeed import inspection
from detfeed.inspection import first_alike, inspect_image, named_format, picture_end
from image_files import FILES, encode, noise, picture


@pytest.fixture
def inspect(tmp_path):
    def write_and_inspect(content, **arguments):
        (tmp_path / "image").write_bytes(content)
        return inspect_image(str(tmp_path / "image"), **arguments)

    return write_and_inspect


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_is_whole_and_ends_where_its_picture_does(inspect, kind):
    found = inspect(FILES[kind])
    assert (found.problem, found.message, found.trailing) == ("", "", 0)
    assert found.header.stored_hw == (24, 40)
    assert len(found.thumbnail) == 256
    assert len(found.digest) == 16


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "jpeg restarts", "png", "webp", "webp turned"])
def test_bytes_after_the_end_are_counted(inspect, kind):
    # A second picture behind the first, as phones write it.
    assert inspect(FILES[kind] + FILES["jpeg"]).trailing == len(FILES["jpeg"])
    assert inspect(FILES[kind] + b"12345").trailing == 5


def test_preview_within_a_jpeg_is_not_its_end():
    preview = b"\xff\xe1" + (len(FILES["jpeg"]) + 2).to_bytes(2, "big") + FILES["jpeg"]
    data = np.frombuffer(FILES["jpeg"][:2] + preview + FILES["jpeg"][2:], np.uint8)
    assert picture_end(data, "jpeg") == len(data)


def test_each_problem_has_its_kind_and_the_message_of_the_reader(inspect, tmp_path, monkeypatch):
    missing = inspect_image(str(tmp_path / "none.jpg"))
    assert (missing.problem, missing.header) == ("missing-image", None)
    assert "No such file" in missing.message
    assert inspect(b"").problem == "damaged-image"
    short = inspect(FILES["jpeg"][:-40])
    assert (short.problem, short.header.stored_hw) == ("damaged-image", (24, 40))
    assert "do not decode as jpeg" in short.message
    monkeypatch.setattr(inspection, "MAX_PIXELS", 24 * 40 - 1)
    large = inspect(FILES["png"])
    assert large.problem == "too-large"
    assert "at most 959 pixels, got 24 x 40" in large.message


def test_fast_reads_headers_only(inspect, tmp_path):
    found = inspect(FILES["jpeg"][:-40], fast=True)
    assert (found.problem, found.thumbnail, found.header.stored_hw) == ("", b"", (24, 40))
    assert inspect(b"nonsense", fast=True).problem == "damaged-image"
    assert inspect_image(str(tmp_path / "none.jpg"), fast=True).problem == "missing-image"


def test_names_promise_formats():
    names = ("a.JPG", "b.jpeg", "c.PNG", "d.tif", "e.webp", "f.gif", "g.bmp", "h", "i.dat")
    assert [named_format(name) for name in names] == [
        "jpeg", "jpeg", "png", "tiff", "webp", "gif", "bmp", None, None,
    ]  # fmt: skip


def arrays(found):
    thumbnails = [np.frombuffer(each.thumbnail, np.uint8) for each in found]
    return np.array([each.hash for each in found], np.uint64), np.array(thumbnails).reshape(-1, 256)


def test_no_pictures_are_alike():
    assert first_alike(*arrays([])).tolist() == []


def test_pictures_are_alike_however_they_are_stored_and_others_are_not(inspect):
    pixels = noise(0)
    brighter = np.clip(pixels.astype(int) + 12, 0, 255).astype(np.uint8)
    found = [
        inspect(content)
        for content in (
            encode(noise(1), "JPEG"),
            encode(pixels, "PNG"),
            encode(pixels, "JPEG", quality=70),
            encode(cv2.resize(pixels, (40, 30), interpolation=cv2.INTER_AREA), "WEBP"),
            encode(noise(2), "PNG"),
            encode(brighter, "PNG"),
            encode(noise(1), "PNG"),
        )
    ]
    assert first_alike(*arrays(found)).tolist() == [-1, -1, 1, 1, -1, 1, 0]


def test_hashes_alone_make_no_pictures_alike():
    """A ramp up and a step up have the same bits."""
    ramp = np.tile(np.linspace(0, 255, 16, dtype=np.uint8), (16, 1))
    thumbnails = np.stack([ramp, np.where(ramp > 200, 255, 0), ramp]).reshape(3, -1).astype(np.uint8)
    assert first_alike(np.full(3, 7, np.uint64), thumbnails).tolist() == [-1, -1, 0]


def test_alike_pictures_are_those_a_slow_loop_finds(monkeypatch):
    monkeypatch.setattr(inspection, "_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (5, 64))[rng.integers(0, 5, 40)] ^ (rng.random((40, 64)) < 0.1)
    hashes = np.array([int("".join(map(str, row)), 2) for row in bits], np.uint64)
    first = first_alike(hashes, np.zeros((40, 256), np.uint8))
    slow = [next((j for j in range(i) if (bits[i] != bits[j]).sum() <= inspection.MAX_DISTANCE), -1) for i in range(40)]
    assert first.tolist() == slow
    assert len(set(slow)) > 5


def test_thumbnails_tell_a_picture_from_its_mirror_image(inspect):
    found = [inspect(encode(pixels, "PNG")) for pixels in (picture(), picture()[:, ::-1].copy())]
    assert first_alike(*arrays(found)).tolist() == [-1, -1]
