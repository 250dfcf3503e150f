import os

import pytest

from detfeed.paths import path_inside, paths_inside, shorten


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
        ("/" + "x" * 1000, r"got the absolute path '/x{39}\.\.\.x{37}'"),
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(name, message):
    with pytest.raises(ValueError, match=message):
        path_inside("/data/images", name)
    with pytest.raises(ValueError, match=message):
        paths_inside("/data/images", ["x", name, "y"])


def test_long_texts_are_shortened_in_the_middle():
    assert shorten("x" * 80) == repr("x" * 80)
    assert shorten("a" * 50 + "b" * 50) == repr("a" * 40 + "..." + "b" * 37)
