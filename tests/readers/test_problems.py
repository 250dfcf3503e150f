import pytest

from detfeed import AnnotationError, ImageError, RepeatedImageError
from detfeed.readers.problems import read_hw, tell, tell_repeated
from image_files import encode, picture


def test_error_is_handed_on_or_raised():
    error, told = AnnotationError("x"), []
    tell(lambda *problem: told.append(problem), "a.txt", error)
    assert told == [("a.txt", error)]
    with pytest.raises(AnnotationError) as raised:
        tell(None, "a.txt", error)
    assert raised.value is error


def test_image_that_is_listed_again_is_a_problem_with_both_places():
    seen, told = {}, []
    listed = [("a", "x.txt", "line 1"), ("b", "x.txt", "line 2"), ("a", "x.txt", "line 3"), ("b", "y.txt", "line 1")]
    repeated = [tell_repeated(seen, *place, lambda *problem: told.append(problem)) for place in listed]
    assert repeated == [False, False, True, True]
    assert [(path, str(error).partition(";")[0]) for path, error in told] == [
        ("x.txt", "x.txt: expected each image once, got 'a' again - at line 3, first at line 1"),
        ("y.txt", "y.txt: expected each image once, got 'b' again - at line 1, first at line 2 of x.txt"),
    ]
    with pytest.raises(RepeatedImageError):
        tell_repeated(seen, "a", "x.txt", "line 9", None)


def test_sizes_are_read_with_their_orientation_and_unreadable_images_are_problems(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture(24, 40), "PNG", orientation=6))
    assert read_hw(str(path), None) == (40, 24)
    told = []
    for name, content in (
        ("b.png", b"no image"),
        ("c.bmp", b"BM" + b"\0" * 12 + b"\x28\0\0\0" + b"\xff\xff\xff\x0f" * 2),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=f"{name}: expected"):
            read_hw(str(tmp_path / name), None)
        assert read_hw(str(tmp_path / name), lambda *problem: told.append(problem)) is None
    assert [path for path, _ in told] == [str(tmp_path / "b.png"), str(tmp_path / "c.bmp")]
    assert "at most 1000000 pixels a side" in str(told[1][1])
