import pytest

from detfeed import AnnotationError, ImageError, RepeatedImageError
from detfeed.readers.problems import Problems, read_hw, tell_repeated
from image_files import encode, picture


def test_errors_are_handed_on_or_the_first_is_raised_with_the_number_of_the_others():
    error, told = AnnotationError("x"), []
    handed = Problems(lambda *problem: told.append(problem))
    handed.add("a.txt", error)
    handed.stop()
    assert told == [("a.txt", error)]
    kept = Problems(None)
    kept.stop()
    for message, others in (("x", ""), ("y", "; and 1 more; detfeed check lists them all")):
        kept.add("a.txt", AnnotationError(message))
        with pytest.raises(AnnotationError, match=f"^x{others}$"):
            kept.stop()


def test_image_that_is_listed_again_is_a_problem_with_both_places():
    seen, told = {}, []
    listed = [("a", "x.txt", "line 1"), ("b", "x.txt", "line 2"), ("a", "x.txt", "line 3"), ("b", "y.txt", "line 1")]
    repeated = [tell_repeated(seen, *place, lambda *problem: told.append(problem)) for place in listed]
    assert repeated == [False, False, True, True]
    assert [(path, str(error).partition(";")[0]) for path, error in told] == [
        ("x.txt", "x.txt: expected each image once, got 'a' again - at line 3, first at line 1"),
        ("y.txt", "y.txt: expected each image once, got 'b' again - at line 1, first at line 2 of x.txt"),
    ]
    tell_repeated(seen, "a", "x.txt", "line 9", lambda path, error: told.append(error))
    assert isinstance(told[-1], RepeatedImageError)


def test_sizes_are_read_with_their_orientation_and_unreadable_images_are_problems(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(picture(24, 40), "PNG", orientation=6))
    told = []
    assert read_hw(str(path), lambda *problem: told.append(problem)) == (40, 24)
    assert not told
    for name, content in (
        ("b.png", b"no image"),
        ("c.bmp", b"BM" + b"\0" * 12 + b"\x28\0\0\0" + b"\xff\xff\xff\x0f" * 2),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_hw(str(tmp_path / name), lambda *problem: told.append(problem)) is None
    assert all(isinstance(error, ImageError) for _, error in told)
    assert [path for path, _ in told] == [str(tmp_path / "b.png"), str(tmp_path / "c.bmp")]
    assert "at most 1000000 pixels a side" in str(told[1][1])
