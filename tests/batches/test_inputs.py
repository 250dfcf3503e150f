import numpy as np
import pytest

# No Keras: worker processes import the module of a target function, and so would spend 6 s on TensorFlow each.
from detfeed import BatchLoader, PaddedBoxes, ShortSide
from detfeed.feeding.feed import Feed

ARGUMENTS = {"batch_size": 4, "resize": ShortSide(64), "augment": "flip"}


def targets(sample):
    return {"position": np.int32(sample.position)}, PaddedBoxes(30)(sample)


def make(table, inputs=None, targets=targets):
    return BatchLoader(table, targets, inputs=inputs, **ARGUMENTS)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (None, lambda x: x),
        ("image", lambda x: x["image"]),
        ("position", lambda x: x["position"]),
        ({"images": "image"}, lambda x: {"images": x["image"]}),
        ({"a": "image", "b": "image_hw", "c": "position"}, lambda x: dict(zip("abc", x.values(), strict=True))),
    ],
)
def test_x_is_what_the_model_takes(shapes, inputs, expected):
    x, y = make(shapes).load(1, 2)
    arranged, same_y = make(shapes, inputs).load(1, 2)
    assert_equal(arranged, expected(x))
    assert_equal(same_y, y)


def assert_equal(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert list(left) == list(right)
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
    else:
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("workers", [{}, {"workers": 2}, {"workers": 2, "use_multiprocessing": True}])
@pytest.mark.parametrize("inputs", ["image", {"images": "image", "position": "position"}])
def test_workers_hand_over_the_same_bits(shapes, inputs, workers):
    loader = make(shapes, inputs)
    feed = Feed(loader, **workers)
    images = []
    feed.on_handed = lambda handed: images.append(handed[2])
    keys = [(0, index) for index in range(loader.num_batches)]
    for place, key in enumerate(keys):
        batch = feed.get(key, keys[place + 1 :])
        for part, expected in zip(batch, loader.load(*key), strict=True):
            assert_equal(part, expected)
    assert sum(images) == len(shapes)
    feed.close()


def test_model_with_one_input_is_fit_as_it_is(shapes):
    import keras

    from detfeed import DetectionSequence, FeedMonitor

    def corner(sample):
        return {"corner": np.float32([sample.image[0, 0, 0]])}

    sequence = DetectionSequence(shapes, targets=corner, inputs="image", workers=2, **ARGUMENTS)
    image = keras.Input((None, None, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, {"corner": keras.layers.Dense(1)(mean)})
    model.compile(loss="mse")
    monitor = FeedMonitor(sequence, verbose=False)
    model.fit(sequence, epochs=2, callbacks=[monitor], verbose=0)
    assert monitor.history[1]["images_per_second"] > 0
    x, y = next(iter(sequence.to_tf_data()))
    assert x.dtype == "uint8" and x.shape[1:] == sequence[0][0].shape[1:]
    assert list(y) == ["corner"]
    sequence.close()


def test_names_that_x_does_not_have_are_refused(shapes):
    for inputs in ("images", {"image": "images"}):
        with pytest.raises(ValueError, match=r"which has \['image', 'image_hw', 'position'\]\. Received: 'images'"):
            make(shapes, inputs).load(0, 0)


@pytest.mark.parametrize("inputs", [["image"], {"image": None}, 3])
def test_inputs_of_another_type_are_refused_at_once(shapes, inputs):
    with pytest.raises(TypeError, match="Expected inputs to be the name of an array of x"):
        make(shapes, inputs)


def test_inputs_without_names_are_refused_at_once(shapes):
    with pytest.raises(ValueError, match="at least one array"):
        make(shapes, {})
