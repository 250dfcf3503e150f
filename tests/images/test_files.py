import builtins
import dataclasses
from pathlib import Path

import fsspec
import numpy as np
import pytest

from detfeed import BatchLoader, DetfeedError, Fixed, ImageError, read_coco
from detfeed.feeding.feed import Feed
from detfeed.images.decoding import read_image
from detfeed.images.files import MAX_BYTES, read_bytes
from detfeed.images.headers import read_header


@pytest.fixture
def in_memory(shapes):
    """The drawn data set with its images in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    for path in shapes.paths:
        memory.pipe(f"/detfeed/{Path(path).name}", Path(path).read_bytes())
    yield "memory://detfeed"
    memory.rm("/detfeed", recursive=True)


def test_images_at_urls_are_fed_as_those_in_files(shapes, in_memory):
    there = read_coco(shapes.source, in_memory)
    assert there.paths[0] == f"memory://detfeed/{Path(shapes.paths[0]).name}"
    one, other = (BatchLoader(t, lambda s: {}, batch_size=4, resize=Fixed((64, 64))) for t in (shapes, there))
    for index in range(one.num_batches):
        assert np.array_equal(one.load(0, index)[0]["image"], other.load(0, index)[0]["image"])
    assert read_header(there.paths[0]) == read_header(shapes.paths[0])
    assert np.array_equal(read_bytes(there.paths[0]), read_bytes(shapes.paths[0]))


def test_worker_processes_read_urls_too(shapes):
    there = dataclasses.replace(shapes, paths=tuple(f"file://{path}" for path in shapes.paths))
    loader = BatchLoader(there, lambda s: {}, batch_size=4, resize=Fixed((64, 64)))
    feed = Feed(loader, workers=1, use_multiprocessing=True)
    assert np.array_equal(feed.get((0, 0))[0]["image"], loader.load(0, 0)[0]["image"])


def test_missing_url_is_an_error_that_names_it(in_memory):
    with pytest.raises(ImageError, match=r"memory://detfeed/none\.jpg: expected an image file, got "):
        read_image("memory://detfeed/none.jpg")


def test_unknown_kind_of_url_is_an_error_that_names_it():
    with pytest.raises(DetfeedError, match=r"nonsense://none\.jpg: .*Protocol not known: nonsense"):
        read_image("nonsense://none.jpg")


def test_url_without_fsspec_is_an_error_with_the_command_that_installs_it(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **named):
        if name == "fsspec":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DetfeedError, match=r"URLs need fsspec: pip install 'detfeed\[remote\]'") as caught:
        read_image("s3://bucket/image.jpg")
    assert not isinstance(caught.value, ImageError), "which would be replaced"


def test_whatever_a_remote_store_raises_is_about_the_image(in_memory, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("HTTP 503")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "open", fail)
    with pytest.raises(ImageError, match=r"memory://detfeed/none\.jpg: expected an image file, got HTTP 503"):
        read_image("memory://detfeed/none.jpg")


def test_urls_of_files_in_archives_are_refused_with_advice():
    with pytest.raises(DetfeedError, match=r"expected one URL, got several; unpack the archive"):
        read_bytes("zip://inside/a.jpg::file:///a.zip")


def test_file_larger_than_any_picture_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ImageError, match=r"large\.jpg: expected an image of at most 2147483647 bytes"):
        read_bytes(tmp_path / "large.jpg")
