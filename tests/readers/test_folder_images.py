import pytest

from detfeed import AnnotationError, MissingImageError
from detfeed.readers.folder_images import Images
from detfeed.readers.notes import Notes


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return str(root)


def test_empty_folder_has_no_image(tmp_path):
    images = Images(str(tmp_path), [], Notes())
    images.note_left_over("a label")
    with pytest.raises(MissingImageError, match=r"f\.txt: expected an image a\.\* in .*, got none"):
        images.of("f.txt", "a")


def test_image_is_the_one_of_the_name_or_the_one_that_is_named(tmp_path):
    folder = lay_out(tmp_path, "a.jpg", "b.png", "s/a.png", "a.txt")
    notes = Notes()
    images = Images(folder, ["a", "c", "s/a"], notes)
    assert images.of("f.xml", "a") == "a.jpg"
    assert images.of("f.xml", "s/a", "a.png") == "s/a.png"
    assert images.of("f.xml", "c", "b.png") == "b.png"
    with pytest.raises(AnnotationError, match=r"expected one image, got 'b\.png' by its `filename` and 'a\.jpg'"):
        images.of("f.xml", "a", "b.png")
    notes.warn("nothing was noted")


@pytest.mark.parametrize(
    "named", ["s/a.png", "s\\a.png", "S/A.PNG", "s/a%2Epng", "C:\\x\\s\\a.png", "/x/s/a.png", "a.png"]
)
def test_name_that_is_written_in_another_way_is_found_and_noted(tmp_path, named):
    images = Images(lay_out(tmp_path, "s/a.png", "t/b.png"), ["x"], notes := Notes())
    assert images.of("f.xml", "x", named) == "s/a.png"
    if named != "s/a.png":
        with pytest.warns(UserWarning, match=r"^f: the image is in another .* - at f\.xml, whose image is .*/s/a"):
            notes.warn("f")


def test_image_that_two_files_are_as_near_to_belongs_to_neither(tmp_path):
    images = Images(lay_out(tmp_path, "a.png"), ["s/a", "t/a"], Notes())
    for stem in ("s/a", "t/a"):
        with pytest.raises(MissingImageError):
            images.of("f.xml", stem)


def test_images_that_nothing_belongs_to_are_noted(tmp_path):
    images = Images(lay_out(tmp_path, "a.png", "b.png", "s/b.png"), ["a", "b"], notes := Notes())
    images.of("f.xml", "a")
    images.leave_out("b")
    images.note_left_over("a label")
    with pytest.warns(UserWarning, match=r"^f: images without a label are left out - at .*/s/b\.png$"):
        notes.warn("f")
