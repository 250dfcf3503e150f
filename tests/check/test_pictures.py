import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from detfeed.check import pictures as inspection
from detfeed.check.pictures import first_alike, inspect_image
from detfeed.images import files
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


@pytest.mark.parametrize("fast", [False, True])
def test_image_that_cannot_be_opened_is_neither_missing_nor_damaged(tmp_path, monkeypatch, fast):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert inspect_image(str(tmp_path / "circle"), fast=fast).problem == "missing-image"
    (tmp_path / "secret.png").write_bytes(FILES["png"])

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "open", refuse, raising=False)
    found = inspect_image(str(tmp_path / "secret.png"), fast=fast)
    assert found.problem == "unreadable-image"
    assert found.message.endswith("Permission denied")


@pytest.mark.parametrize("fast", [False, True])
def test_missing_url_is_missing_and_one_that_fails_cannot_be_opened(monkeypatch, fast):
    from fsspec.implementations.memory import MemoryFileSystem

    assert inspect_image("memory://detfeed/none.png", fast=fast).problem == "missing-image"

    def fail(*_, **__):
        raise ConnectionResetError("gone")

    monkeypatch.setattr(MemoryFileSystem, "_open", fail)
    assert inspect_image("memory://detfeed/none.png", fast=fast).problem == "unreadable-image"


def test_threads_decode_only_so_many_pixels_at_once_and_a_larger_picture_alone(tmp_path, monkeypatch):
    for number, rows in enumerate([30, 30, 30, 150, 30, 30, 30, 30]):
        (tmp_path / f"{number}.png").write_bytes(encode(noise(number, rows, 10), "PNG"))
    decode, lock = inspection.decode_image, threading.Lock()
    going, seen = [], []

    def watched(data, **arguments):
        image = decode(data, **arguments)
        with lock:
            going.append(image.shape[0] * image.shape[1])
            seen.append(list(going))
        time.sleep(0.05)
        with lock:
            going.remove(image.shape[0] * image.shape[1])
        return image

    monkeypatch.setattr(inspection, "_in_flight", inspection._InFlight(900))
    monkeypatch.setattr(inspection, "decode_image", watched)
    paths = [str(tmp_path / f"{number}.png") for number in range(8)]
    with ThreadPoolExecutor(8) as executor:
        assert all(found.problem == "" for found in executor.map(inspect_image, paths))
    assert max(map(len, seen)) > 1
    assert all(sum(each) <= 900 for each in seen if each != [1500])
    assert [1500] in seen


def test_damaged_pictures_give_back_their_share(inspect, monkeypatch):
    monkeypatch.setattr(inspection, "_in_flight", inspection._InFlight(1000))
    for _ in range(3):
        assert inspect(FILES["png"][:-40]).problem == "damaged-image"
    assert inspect(FILES["png"]).problem == ""


def test_fast_reads_headers_only(inspect, tmp_path):
    found = inspect(FILES["jpeg"][:-40], fast=True)
    assert (found.problem, found.thumbnail, found.header.stored_hw) == ("", b"", (24, 40))
    assert inspect(b"nonsense", fast=True).problem == "damaged-image"
    assert inspect_image(str(tmp_path / "none.jpg"), fast=True).problem == "missing-image"


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


@pytest.mark.parametrize(("levels", "alike"), [(7, 0), (9, -1)])
def test_thumbnails_may_differ_by_eight_grey_levels(levels, alike):
    checked = np.where(np.arange(256) % 2, 100 + levels, 100 - levels)
    thumbnails = np.stack([np.full(256, 100), checked]).astype(np.uint8)
    assert first_alike(np.zeros(2, np.uint64), thumbnails).tolist() == [-1, alike]


def slow_first_alike(bits, thumbnails):
    first = []
    for i in range(len(bits)):
        first.append(-1)
        for j in range(i):
            difference = thumbnails[j].astype(float) - thumbnails[i]
            difference -= difference.mean()
            if (bits[i] != bits[j]).sum() <= 8 and np.abs(difference).mean() <= 8:
                first[i] = j
                break
    return first


@pytest.mark.parametrize("at_once", [1, 100, 600, 2**20])
def test_alike_pictures_are_those_a_slow_loop_finds(monkeypatch, at_once):
    monkeypatch.setattr(inspection, "_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (5, 64))[rng.integers(0, 5, 60)] ^ (rng.random((60, 64)) < 0.1)
    hashes = np.array([int("".join(map(str, row)), 2) for row in bits], np.uint64)
    for thumbnails in (np.zeros((60, 256), np.uint8), rng.integers(0, 256, (3, 256), np.uint8)[np.arange(60) % 3]):
        slow = slow_first_alike(bits, thumbnails)
        assert first_alike(hashes, thumbnails).tolist() == slow
        assert len(set(slow)) > 5


def test_copy_is_found_among_any_number_of_pictures_of_one_hash(monkeypatch):
    monkeypatch.setattr(inspection, "_AT_ONCE", 256 * 100)
    thumbnails = np.random.default_rng(0).integers(0, 256, (700, 256), np.uint8)
    thumbnails = np.concatenate([thumbnails, thumbnails[600:601]])
    first = first_alike(np.full(701, 7, np.uint64), thumbnails)
    assert first.tolist() == [-1] * 700 + [600]


@pytest.mark.parametrize("count", [2000, 6000])
def test_memory_does_not_grow_with_pairs(count):
    hashes = np.random.default_rng(0).integers(2**63, size=count, dtype=np.uint64)
    thumbnails = np.zeros((count, 256), np.uint8)
    # All alike by their hashes as well, of which one row alone takes 6 MB.
    hashes[-1500:] = 7
    thumbnails[-1500:] = np.random.default_rng(0).integers(0, 256, (1500, 256), np.uint8)
    tracemalloc.start()
    try:
        first = first_alike(hashes, thumbnails)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (first == -1).all()
    assert peak < 24 * 2**20


def test_thumbnails_tell_a_picture_from_its_mirror_image(inspect):
    found = [inspect(encode(pixels, "PNG")) for pixels in (picture(), picture()[:, ::-1].copy())]
    assert first_alike(*arrays(found)).tolist() == [-1, -1]
