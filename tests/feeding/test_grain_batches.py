import pickle
import threading

import numpy as np
import pytest

from detfeed import AnchorTargetSequence, Fixed, ShortSide
from feeds import GRID, KINDS, children, same

grain = pytest.importorskip("grain", reason="grain is not installed")


def make(shapes, **arguments):
    return AnchorTargetSequence(
        shapes, GRID, **{"batch_size": 4, "resize": ShortSide(96), "augment": "flip", **arguments}
    )


@pytest.mark.parametrize("how", [{}, *KINDS], ids=["in place", "threads", "processes"])
def test_each_epoch_is_another_and_grain_starts_no_worker(shapes, how):
    sequence = make(shapes, **how)
    count = sequence.num_batches
    before = children()
    fed = list(sequence.to_grain(epochs=2))
    assert len(fed) == 2 * count
    for place, batch in enumerate(fed):
        assert same(batch, sequence.loader.load(*divmod(place, count)))
    assert not all(same(first, second) for first, second in zip(fed[:count], fed[count:], strict=True))
    assert not [thread.name for thread in threading.enumerate() if "grain" in thread.name]
    if not how.get("use_multiprocessing"):
        assert children() == before
    assert (sequence.epoch, sequence.cursor) == (0, (0, 0))
    sequence.close()


def test_checkpoint_of_grain_goes_on_with_the_next_batch(shapes):
    sequence = make(shapes)
    at = sequence.num_batches + 2  # in the midst of the second epoch
    iterator = iter(sequence.to_grain())
    for _ in range(at):
        next(iterator)
    state = iterator.get_state()
    expected = [next(iterator) for _ in range(sequence.num_batches)]  # into the third
    restored = iter(make(shapes, workers=2).to_grain())
    restored.set_state(state)
    for batch in expected:
        assert same(next(restored), batch)


def test_mapped_batches_come_without_threads_of_grain_too(shapes):
    sequence = make(shapes)
    images = list(sequence.to_grain(epochs=1).map(lambda batch: batch[0]["image"]))
    assert not [thread.name for thread in threading.enumerate() if "grain" in thread.name]
    assert np.array_equal(images[-1], sequence.loader.load(0, len(sequence) - 1)[0]["image"])


def test_source_of_grain_is_warned_about_since_it_knows_no_epochs(shapes):
    sequence = make(shapes)
    with pytest.warns(UserWarning, match=r"again and again.* Use sequence\.to_grain\(\)"):
        grain.MapDataset.source(sequence)[0]


def test_epochs_that_are_none_are_refused(shapes):
    with pytest.raises(ValueError, match=r"epochs to be at least 1, or None\. Received: 0"):
        make(shapes).to_grain(epochs=0)


def test_worker_processes_of_grain_are_refused(shapes):
    with pytest.raises(TypeError, match=r"Leave out mp_prefetch, and give the sequence workers="):
        pickle.dumps(make(shapes).to_grain(epochs=1))


def test_fit_is_fed_one_epoch_after_the_other(shapes):
    import keras

    sequence = make(shapes, targets="dense", inputs="image", resize=Fixed((48, 64)), workers=2)
    image = keras.Input((48, 64, 3))
    left = keras.layers.GlobalAveragePooling2D()(image[:, :, :32])  # which a flip changes
    left = keras.layers.Dense(3, use_bias=False, kernel_initializer="identity")(
        left
    )  # TensorFlow warns without weights
    model = keras.Model(image, {"objectness": left, "deltas": left})
    model.compile(
        keras.optimizers.SGD(0.0), {"objectness": lambda true, found: keras.ops.mean(found, axis=-1), "deltas": None}
    )
    data = sequence.to_grain(epochs=2).map(lambda batch: (batch[0], {"objectness": batch[1]["objectness"]}))
    losses = model.fit(data, steps_per_epoch=sequence.num_batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    batches = [[sequence.loader.load(epoch, i)[0][:, :, :32] for i in range(len(sequence))] for epoch in range(2)]
    expected = [np.concatenate(of_epoch).mean() for of_epoch in batches]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)
