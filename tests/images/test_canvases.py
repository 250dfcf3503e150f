import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detfeed import Fixed, ShortSide
from detfeed.images.canvases import resized_hw_on, told_apart
from detfeed.images.resizing import resize_into


@pytest.fixture
def picture():
    """Red on the left, green in the middle, blue on the right."""
    pixels = np.zeros((30, 60, 3), np.uint8)
    for third in range(3):
        pixels[:, 20 * third : 20 * third + 20, third] = 255
    return pixels


@pytest.mark.parametrize(
    ("image_hw", "resized"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((480, 480), (800, 800)),
        ((300, 600), (666, 1333)),
        ((1, 5000), (1, 1333)),
    ],
)
def test_short_side_grows_to_its_size_unless_the_long_one_gets_too_long(image_hw, resized):
    assert ShortSide(800, max_side=1333).resized_hw(np.array([image_hw])).tolist() == [list(resized)]


def test_fixed_fits_the_image_into_the_canvas():
    fixed = Fixed((100, 200))
    sizes = fixed.resized_hw(np.array([(50, 50), (10, 400), (400, 10), (100, 200), (1, 9999)]))
    assert sizes.tolist() == [[100, 100], [5, 200], [100, 2], [100, 200], [1, 200]]


@given(
    st.lists(st.tuples(st.integers(20, 3000), st.integers(20, 3000)), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 12),
)
def test_canvases_hold_every_image_and_are_few_and_multiples_of_the_stride(sizes, most, at_least):
    resize = ShortSide(100, max_side=200, multiple=32, max_canvases=most)
    image_hw = np.array(sizes, np.int32)
    canvases, canvas_ids = resize.canvases(image_hw, at_least=at_least)
    assert len(canvases) <= most
    assert (canvases % 32 == 0).all()
    assert (resize.resized_hw(image_hw) <= canvases[canvas_ids]).all()
    assert told_apart(canvases).any()
    counts = np.bincount(canvas_ids, minlength=len(canvases))
    assert counts.min() >= at_least or len(canvases) == 1


def test_canvases_of_one_size_have_no_padding_but_to_the_stride():
    canvases, canvas_ids = ShortSide(240).canvases(np.array([[480, 640]] * 5))
    assert canvases.tolist() == [[256, 320]]
    assert canvas_ids.tolist() == [0] * 5


@pytest.mark.parametrize(
    "make",
    [lambda: ShortSide(0), lambda: ShortSide(800, max_side=600), lambda: Fixed((0, 5)), lambda: Fixed((5, 5, 5))],
)
def test_sizes_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"Expected .* Received: "):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Fixed(256), r"Expected input_hw to be \(height, width\) in whole pixels. Received: 256"),
        (lambda: Fixed("ab"), r"input_hw to be \(height, width\) in whole pixels. Received: 'ab'"),
        (lambda: Fixed((64, 64.5)), r"Received: \(64, 64.5\)"),
        (lambda: Fixed((64, True)), r"Received: \(64, True\)"),
        (lambda: ShortSide("800"), "Expected size to be a whole number. Received: '800'"),
        (lambda: ShortSide(True), "size to be a whole number. Received: True"),
        (lambda: ShortSide(800, max_side="1333"), "max_side to be a whole number or None. Received: '1333'"),
        (lambda: ShortSide(800, multiple=None), "multiple to be a whole number. Received: None"),
    ],
)
def test_sizes_of_wrong_types_are_refused_at_once(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_canvas_given_as_a_list_or_an_array_is_the_same_canvas():
    assert Fixed([100, 200]) == Fixed(np.array([100, 200])) == Fixed((100, 200))
    assert hash(Fixed([100, 200])) == hash(Fixed((100, 200)))


def test_image_that_no_longer_fits_its_canvas_is_made_smaller_and_never_cut():
    # Chosen for a landscape image, which an augmentation then turned to portrait.
    assert resized_hw_on(ShortSide(100), (200, 100), (128, 224)) == (128, 64)
    assert resized_hw_on(ShortSide(100), (100, 200), (128, 224)) == (100, 200)


@pytest.mark.parametrize("size", [(30, 60), (60, 120), (20, 41), (10, 20), (7, 60)])
def test_resizing_into_a_corner_touches_nothing_else(picture, size):
    canvas = np.zeros((128, 128, 3), np.uint8)
    resize_into(picture, canvas[: size[0], : size[1]])
    corner = canvas[: size[0], : size[1]]
    third = size[1] // 3
    assert (corner[:, 1 : third // 2, 0] == 255).all()
    assert (corner[:, -third // 2 :, 2] == 255).all()
    assert not canvas[size[0] :].any()
    assert not canvas[:, size[1] :].any()
