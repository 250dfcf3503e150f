import os

import pytest

from detfeed import AnnotationError
from detfeed.errors import among, shorten
from detfeed.images.headers import SUFFIXES
from detfeed.readers.paths import (
    NamedImages,
    Near,
    is_image,
    list_folder,
    path_inside,
    paths_inside,
    to_id,
    walk_files,
)


def test_names_are_joined_to_their_folder_as_they_stand():
    for folder in ("", "a", "a/", "/", "/data/images"):
        for name in ("x.jpg", "sub/x.jpg", "a..b.jpg", "...", "time 12:30.jpg", "back\\slash.jpg"):
            assert path_inside(folder, name) == os.path.join(folder, name)
            assert paths_inside(folder, [name, "y"]) == [os.path.join(folder, name), os.path.join(folder, "y")]
    assert paths_inside("a", []) == []


def test_absolute_paths_below_the_folder_are_inside(tmp_path, monkeypatch):
    assert path_inside(str(tmp_path), f"{tmp_path}/sub/x.jpg") == f"{tmp_path}/sub/x.jpg"
    monkeypatch.chdir(tmp_path)
    assert path_inside("", f"{tmp_path}/x.jpg") == "x.jpg"
    assert path_inside("sub", f"{tmp_path}/sub/x.jpg") == "sub/x.jpg"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected the name of an image file, got ''"),
        ("x\0.jpg", "expected the name of an image file, got 'x\\\\x00.jpg'"),
        ("..", "got '..'; remove its \"..\""),
        ("a/../../x.jpg", "got 'a/../../x.jpg'; remove its \"..\""),
        ("..\\x.jpg", 'remove its ".."'),
        ("/data/images/../x.jpg", 'remove its ".."'),
        ("/data/images2/x.jpg", "got the absolute path '/data/images2/x.jpg'; give the folder"),
        ("/data/images", "got the absolute path '/data/images'"),
        ("\\\\host\\x.jpg", "got the absolute path"),
        ("C:\\x.jpg", "got the absolute path"),
        ("/data/images/", "got the absolute path '/data/images/'"),
        ("file:///etc/x.jpg", "got the URL 'file:///etc/x.jpg'; give the folder that it starts with"),
        ("simplecache::s3://x.jpg", "got the URL"),
        ("sub/s3://x.jpg", "got the URL"),
        ("/" + "x" * 1000, r"got the absolute path '/x{39}\.\.\.x{37}'"),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        path_inside("/data/images", name)
    with pytest.raises(ValueError, match=message):
        paths_inside("/data/images", ["x", name, "y"])


def test_names_lead_out_of_no_folder_by_a_second_slash(tmp_path):
    assert path_inside(str(tmp_path), f"{tmp_path}//etc/x.jpg") == f"{tmp_path}/etc/x.jpg"
    assert path_inside("s3://b", "s3://b//etc/x.jpg") == "s3://b/etc/x.jpg"


def test_urls_are_taken_only_below_the_url_of_their_folder():
    for folder in ("s3://b/c", "s3://b/c/"):
        assert path_inside(folder, "s3://b/c/d/x.jpg") == "s3://b/c/d/x.jpg"
        assert path_inside(folder, "x.jpg") == "s3://b/c/x.jpg"
        for name in ("s3://b/c2/x.jpg", "s3://b/c/", "http://b/c/x.jpg", "s3://b/c/http://d/x.jpg"):
            with pytest.raises(ValueError, match="expected a path inside the image folder s3://b/c"):
                path_inside(folder, name)
    for folder in ("", ".", "images"):
        with pytest.raises(ValueError, match="got the URL"):
            path_inside(folder, "memory://x/a.png")


def test_of_many_names_the_first_are_told():
    assert among(["a", 1]) == "['a', 1]"
    assert among(range(20)) == str(list(range(20)))
    assert among(range(1203)) == f"{str(list(range(20)))[:-1]}, ...]"


def test_long_texts_are_shortened_in_the_middle():
    assert shorten("x" * 80) == repr("x" * 80)
    assert shorten("a" * 50 + "b" * 50) == repr("a" * 40 + "..." + "b" * 37)


def test_names_of_one_image_make_one_id():
    assert [to_id(name) for name in ("a.png", "./a.png", ".//a.png", "sub/./a.png")] == [*["a.png"] * 3, "sub/a.png"]
    assert to_id("x" * 255) == "x" * 255
    with pytest.raises(ValueError, match=r"a name of at most 255 characters, got 256: 'x{40}\.\.\.x{37}'"):
        to_id("x" * 256)


def test_images_named_in_several_ways_are_one(tmp_path):
    images = NamedImages(str(tmp_path), ".jpg")
    assert (images.ids, images.paths) == ([], [])
    assert [images.position(name) for name in ("b", "a", "./b", f"{tmp_path}/a", "b", "a.b")] == [0, 1, 0, 1, 0, 2]
    assert images.ids == ["b", "a", "a.b"]
    assert images.paths == [f"{tmp_path}/{name}.jpg" for name in images.ids]
    for name in ("", "../a", "x" * 252):
        with pytest.raises(ValueError, match="expected"):
            images.position(name)
    assert len(images.paths) == 3


def test_suffixes_are_those_of_the_formats_that_are_read():
    assert all(is_image(f"a{suffix}") for suffix in SUFFIXES)
    assert is_image("a.JPG")
    assert not any(map(is_image, ("a.json", "jpg", "._a.jpg", "a.jpg.txt")))


def test_folder_is_listed_in_order_without_files_of_macs(tmp_path):
    assert list_folder(tmp_path, "a folder") == []
    for name in ("b", "a", "._a", ".b"):
        (tmp_path / name).touch()
    assert list_folder(tmp_path, "a folder") == [".b", "a", "b"]


def test_files_below_a_folder_are_walked_in_order_without_hidden_folders_and_circles(tmp_path):
    assert walk_files(str(tmp_path), "a folder") == []
    for name in ("b.xml", "a/c.xml", "a/d/e.xml", ".hidden/f.xml", "a/._g.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert walk_files(str(tmp_path), "a folder") == ["a/c.xml", "a/d/e.xml", "b.xml"]
    (tmp_path / "a" / "batch.7").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AnnotationError, match=r"a/batch\.7: expected a file or folder, got a link that leads nowhere"):
        walk_files(str(tmp_path), "a folder")
    with pytest.raises(AnnotationError, match=r"none: expected a folder, got No such file or directory; see x"):
        walk_files(str(tmp_path / "none"), "a folder", "; see x")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", []),
        ("none.png", []),
        ("s/a.png", ["s/a.png"]),
        ("s\\A.png", ["s/a.png"]),
        ("C:\\data\\t\\a.png", ["t/a.png"]),
        ("a.png", ["s/a.png", "t/a.png"]),
        ("e/a.png", ["s/a.png", "t/a.png"]),
        ("my%20cat.png", ["my cat.png"]),
        ("caf\u0065\u0301.png", ["caf\u00e9.png"]),
        ("u/B.png", ["u/B.png"]),
        ("u/b.png", ["u/b.png"]),
    ],
)
def test_near_names_are_found_with_most_parts_in_common(name, found):
    assert Near(["s/a.png", "t/a.png", "my cat.png", "caf\u00e9.png", "u/b.png", "u/B.png"]).find(name) == found
