import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import albumentations
import numpy as np
import pytest

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, Feed, Fixed, Mix, Proposals, Replace, ShortSide


def everything(sample):
    """A target function that hands on what it got, padded to four boxes."""
    boxes = np.zeros((4, 4), np.float32)
    boxes[: len(sample.boxes)] = sample.boxes
    ignore = np.zeros(4, bool)
    ignore[: len(sample.boxes)] = sample.ignore
    return {"boxes": boxes, "ignore": ignore, "position": np.array(sample.position)}


def same(batch, other):
    return all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
        for a, b in zip(batch, other, strict=True)
    )


GRID = AnchorGrid.fpn()
FLIP = albumentations.HorizontalFlip(p=1)


@pytest.fixture
def table(annotate):
    """Eight landscapes and eight portraits with two boxes each."""
    return annotate([(20, 30)] * 8 + [(30, 20)] * 8, [[(2, 2, 12, 8), (1, 1, 4, 3)]] * 16)


def make(table, **arguments):
    return BatchLoader(table, everything, **{"batch_size": 4, "resize": Fixed((40, 40)), **arguments})


def assert_epoch_is_that_of(loader, other, epoch):
    for index in range(loader.num_batches):
        assert np.array_equal(loader.batches(epoch)[index], other.batches(epoch)[index])
        assert same(loader.load(epoch, index), other.load(epoch, index))


@pytest.mark.filterwarnings("ignore:made up")
@pytest.mark.parametrize(
    "change",
    [
        {"augment": None},
        {"augment": FLIP},
        {"augment": "lsj"},
        {"augment": None, "reduce": False},
        {"min_size": 4},
        {"augment": albumentations.Crop(8, 0, 20, 20, p=1), "min_visibility": 0.9},
        {"sampler": Mix((4, 12), (3, 1))},
        {"resize": Fixed((30, 40))},
        {"resize": ShortSide(64, max_canvases=1)},
    ],
    ids=str,
)
def test_epoch_of_a_stage_is_that_of_a_loader_made_with_its_arguments(table, change):
    arguments = {"augment": "flip", "min_size": 2, "sampler": Mix((8, 8), (1, 1))}
    loader = make(table, **arguments, schedule={2: change})
    for epoch in (1, 4, 2, 0):  # in whatever order
        assert_epoch_is_that_of(loader, make(table, **(arguments | change if epoch >= 2 else arguments)), epoch)


@pytest.mark.filterwarnings("ignore:made up")
def test_changes_add_up_whatever_their_order_in_the_dict(table):
    loader = make(table, schedule={3: {"min_size": 20}, 1: {"augment": FLIP}})
    assert_epoch_is_that_of(loader, make(table), 0)
    assert_epoch_is_that_of(loader, make(table, augment=FLIP), 1)
    assert_epoch_is_that_of(loader, make(table, augment=FLIP, min_size=20), 3)


def test_another_size_leaves_images_of_a_batch_together(table):
    loader = make(table, resize=ShortSide(50), schedule={2: {"resize": ShortSide(100)}})
    plain = make(table, resize=ShortSide(50))
    for index, positions in enumerate(loader.batches(2)):
        assert np.array_equal(positions, plain.batches(2)[index])
        image = loader.load(2, index)[0]["image"]
        assert image.shape[1:3] == ((128, 160) if positions[0] < 8 else (160, 128))
    assert loader.placed_hw(0, epoch=1) == (50, 75)
    assert loader.placed_hw(0, epoch=2) == (100, 150)
    assert loader.to_file(0, np.float32([[50, 50, 100, 100]]), epoch=2).tolist() == [[10, 10, 20, 20]]


def gray(sample):
    return {"gray": np.array((sample.image[..., 0] == sample.image[..., 2]).all())}


@pytest.mark.parametrize("workers", ["none", "threads", "processes", "executor"])
def test_augmentation_ends_with_its_epoch_in_every_kind_of_worker(shapes, workers):
    loader = BatchLoader(
        shapes,
        gray,
        batch_size=6,
        resize=Fixed((48, 64)),
        augment=albumentations.ToGray(p=1),
        schedule={1: {"augment": None}},
    )
    executor = ProcessPoolExecutor(1, mp_context=get_context("forkserver")) if workers == "executor" else None
    count = {"threads": 2, "processes": 2}.get(workers, 0)
    feed = Feed(loader, workers=count, use_multiprocessing=workers == "processes", executor=executor)
    keys = [(epoch, index) for epoch in (0, 1) for index in range(loader.num_batches)]
    try:
        for place, key in enumerate(keys):  # the workers are ahead of it, in the next epoch
            assert (feed.get(key, keys[place + 1 :])[1]["gray"] == (key[0] == 0)).all()
    finally:
        feed.close()
        if executor is not None:
            executor.shutdown()


def test_images_that_come_in_one_stage_alone_count(table):
    late = Mix((8, 8), (0, 1), num_images=16)
    loader = make(table, sampler=Mix((8, 8), (1, 0), num_images=16), schedule={1: {"sampler": late}})
    assert loader.num_images == 16
    assert set(np.concatenate(loader.batches(0)).tolist()) == set(range(8))
    assert set(np.concatenate(loader.batches(1)).tolist()) == set(range(8, 16))


def test_other_number_of_batches_is_refused(table):
    with pytest.raises(ValueError, match=r"schedule\[7\]: Expected as many batches .*, 4, .* Received: 8, from .*Mix"):
        make(table, schedule={7: {"sampler": Mix((16,), (1,), num_images=32)}})


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ([(1, {})], TypeError, "Expected schedule to be a dict of arguments by epoch"),
        ({0: {"augment": None}}, ValueError, "Expected a schedule of epochs from 1 on. Received: 0"),
        ({1.5: {"augment": None}}, ValueError, "Expected a schedule of epochs from 1 on. Received: 1.5"),
        ({True: {"augment": None}}, ValueError, "Expected a schedule of epochs from 1 on. Received: True"),
        ({2: None}, TypeError, r"Expected schedule\[2\] to be a dict of arguments. Received: None"),
        ({2: {"agument": None}}, ValueError, r"Expected schedule\[2\] to change some of augment, .*Received: agument"),
        ({2: {"batch_size": 3}}, ValueError, r"Expected schedule\[2\] to change some of .* Received: batch_size"),
        ({2: {"augment": 3}}, TypeError, r"schedule\[2\]: Expected augment to be an albumentations"),
        ({2: {"min_size": -1}}, ValueError, r"schedule\[2\]: Expected min_size to be a number of pixels"),
        ({2: {"resize": 600}}, TypeError, r"schedule\[2\]: Expected resize to be ShortSide"),
    ],
)
def test_schedule_that_says_nothing_useful_is_refused(table, schedule, error, message):
    with pytest.raises(error, match=message):
        make(table, schedule=schedule)


def test_mosaic_of_a_later_stage_is_refused_beside_proposals_or_replacement(table):
    mosaic = albumentations.Mosaic(target_size=(40, 40), p=1)
    proposals = Proposals(
        table.image_ids, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(17, np.int64), "none"
    )
    for arguments in ({"on_error": Replace()}, {"proposals": proposals}):
        with pytest.raises(ValueError, match=r"schedule\[2\]: Expected no proposals"):
            make(table, schedule={2: {"augment": mosaic}}, **arguments)


def test_small_objects_of_a_stage_are_told_once(table):
    with pytest.warns(UserWarning, match="32 of 32 boxes are fed with a side under 20 pixels") as told:
        make(table, schedule={1: {"min_size": 20}, 2: {"augment": FLIP}})
    assert len(told) == 1


@pytest.mark.parametrize("name", ["augment", "targets", "schedule", "min_size", "shuffle", "seed", "agument"])
def test_loader_at_work_can_not_be_changed(table, name):
    loader = make(table, augment=FLIP)
    for changed in (loader, pickle.loads(pickle.dumps(loader))):
        with pytest.raises(AttributeError, match=rf"a new {name}. Make another one, or let schedule=.* change"):
            setattr(changed, name, None)


class Counting(BatchLoader):
    """A subclass with attributes of its own, set before and after those of `BatchLoader`, and in its methods."""

    def __init__(self, *data, **arguments):
        self.count = 0
        super().__init__(*data, **arguments)
        self.last = None

    def load(self, *args, **keywords):
        self.last, self.count = args, self.count + 1
        return super().load(*args, **keywords)


def test_subclass_of_a_loader_has_attributes_of_its_own(table):
    loader = Counting(table, everything, batch_size=4, resize=Fixed((40, 40)), schedule={1: {"augment": FLIP}})
    assert same(loader.load(1, 0), pickle.loads(pickle.dumps(loader)).load(1, 0))
    assert (loader.last, loader.count) == ((1, 0), 1)
    for name in ("augment", "targets", "annotations", "num_batches"):
        with pytest.raises(AttributeError, match=f"a new {name}"):
            setattr(loader, name, None)


@pytest.mark.parametrize("first", [Fixed((40, 40)), ShortSide(90, max_canvases=1)])
def test_canvas_that_tensorflow_would_refuse_is_found_before_a_fit(table, first):
    loader = make(table, resize=first, schedule={5: {"resize": Fixed((64, 64))}})
    with pytest.raises(ValueError, match=r"from epoch 0 on, .*fit\(other, initial_epoch=5\)"):
        loader.check_learnable()


def test_canvas_that_a_fit_from_a_later_epoch_on_would_refuse_is_found(annotate):
    table = annotate([(20, 30)] * 8 + [(60, 20)] * 8, [[]] * 16)
    loader = make(table, resize=ShortSide(64), schedule={5: {"resize": ShortSide(96)}})
    loader.check_learnable()
    schedule = {5: {"resize": Fixed((64, 64))}, 6: {"resize": ShortSide(96)}}
    with pytest.raises(ValueError, match=r"from epoch 5 on, .*fit\(other, initial_epoch=6\)"):
        make(table, resize=ShortSide(64), schedule=schedule).check_learnable()


def test_area_counts_for_dense_targets_alone(table):
    # Landscapes and portraits have one area before the change and another one after it.
    arguments = {"batch_size": 4, "resize": ShortSide(90), "schedule": {3: {"resize": ShortSide(120)}}}
    BatchLoader(table, AnchorTargets(GRID), **arguments).check_learnable()
    with pytest.raises(ValueError, match=r"canvases vary in height and width \(and area, for dense targets\)"):
        BatchLoader(table, AnchorTargets(GRID, form="dense"), **arguments).check_learnable()
