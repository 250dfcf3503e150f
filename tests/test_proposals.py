import numpy as np
import pytest

from detfeed import AnnotationError, Proposals


def propose(**changes):
    columns = {
        "image_ids": np.array([100, 101]),
        "boxes": np.float32([[1, 2, 3, 4], [0, 0, 5, 5], [1, 1, 1, 1]]),
        "scores": np.float32([0.5, 0.25, 1]),
        "offsets": np.array([0, 1, 3]),
    }
    return Proposals(**columns | changes)


def test_table_without_images_is_ordinary():
    empty = propose(
        image_ids=np.empty(0, np.int64),
        boxes=np.empty((0, 4), np.float32),
        scores=np.empty(0, np.float32),
        offsets=np.array([0]),
    )
    assert len(empty) == 0


def test_rows_of_an_image_lie_between_its_offsets_and_arrays_are_read_only():
    proposals = propose()
    assert [proposals.rows(position) for position in range(2)] == [slice(0, 1), slice(1, 3)]
    assert repr(proposals) == "Proposals(2 images, 3 boxes, from 'proposals')"
    assert not any(getattr(proposals, name).flags.writeable for name in ("image_ids", "boxes", "scores", "offsets"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": np.array([0, 2, 1])}, r"`offsets` to rise from 0 to 3, got \[0 2 1\]"),
        ({"scores": np.float32([1])}, r"`scores` to be float32 \(3,\), got float32 \(1,\)"),
        ({"image_ids": np.array([7, 7])}, "each image id once, got 2 images with id 7"),
        ({"scores": np.float32([0, 1, np.nan])}, "finite scores, .* at proposal 1 of image 101"),
        ({"boxes": np.float32([[3, 2, 1, 4]] * 3)}, "x0 <= x1 and y0 <= y1, .* at proposal 0 of image 100"),
    ],
)
def test_columns_that_do_not_fit_are_an_error(changes, message):
    with pytest.raises(AnnotationError, match=f"^proposals: expected {message}"):
        propose(**changes)


def test_proposals_of_another_dtype_are_refused():
    with pytest.raises(AnnotationError, match=r"proposals: expected `boxes` to be float32 \(0, 4\), got float64"):
        Proposals(np.array([1]), np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(2, np.int64))
