import contextlib
import dataclasses
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest

from detfeed import (
    AnchorGrid,
    AnchorTargets,
    BatchLoader,
    Fixed,
    IgnoreReason,
    ImageError,
    Proposals,
    Replace,
    RoiTargets,
    Sample,
    SampleError,
    ShortSide,
    read_voc,
)
from detfeed.images.decoding import read_image
from detfeed.targets.matches import COUNTS
from image_files import encode, picture

GRID = AnchorGrid.fpn()


def no_targets(sample):
    return {}


def everything(sample):
    """A target function that hands on what it got, padded to four boxes."""
    boxes = np.zeros((4, 4), np.float32)
    boxes[: len(sample.boxes)] = sample.boxes
    classes = np.full(4, -1)
    classes[: len(sample.boxes)] = sample.class_ids + 10 * sample.ignore
    return {"boxes": boxes, "classes": classes, "position": np.array(sample.position)}


def same(batch, other):
    return len(batch) == len(other) and all(
        a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a)
        for a, b in zip(batch, other, strict=True)
    )


def test_image_without_boxes_is_fed(annotate):
    loader = BatchLoader(annotate([(20, 30)], [[]]), everything, batch_size=1, resize=Fixed((20, 30)))
    x, y = loader.load(0, 0)
    assert x["image"].shape == (1, 20, 30, 3)
    assert y["classes"].tolist() == [[-1] * 4]


def test_no_images_are_refused(annotate):
    with pytest.raises(ValueError, match=r"at least one image. Received: Annotations\(0 images"):
        BatchLoader(annotate([], []), no_targets, batch_size=1, resize=Fixed((20, 30)))


def test_image_smaller_than_the_canvas_is_padded_right_and_bottom_with_zeros(annotate):
    table = annotate([(20, 30)], [[(3, 4, 30, 20)]])
    x, y = BatchLoader(table, everything, batch_size=1, resize=ShortSide(20)).load(0, 0)
    assert x["image"].shape == (1, 32, 32, 3)
    assert x["image"].dtype == np.uint8
    np.testing.assert_array_equal(x["image"][0, :20, :30], read_image(table.paths[0]))
    assert not x["image"][0, 20:].any()
    assert not x["image"][0, :, 30:].any()
    assert x["image_hw"].tolist() == [[20, 30]]
    assert x["image_hw"].dtype == np.int32
    assert y["boxes"][0, 0].tolist() == [3, 4, 30, 20]


def test_boxes_are_scaled_with_the_image_as_it_was_really_rounded(annotate):
    table = annotate([(30, 47)], [[(0, 0, 47, 30), (10, 15, 20, 30)]])
    x, y = BatchLoader(table, everything, batch_size=1, resize=ShortSide(64)).load(0, 0)
    assert x["image_hw"].tolist() == [[64, 100]]
    np.testing.assert_allclose(y["boxes"][0, :2], [[0, 0, 100, 64], [10 * 100 / 47, 32, 20 * 100 / 47, 64]], rtol=1e-6)


def test_grey_jpeg_is_fed_in_three_channels(annotate, tmp_path):
    table = annotate([(32, 32)], [[(0, 0, 9, 9)]], suffix=".jpg")
    cv2.imwrite(table.paths[0], np.full((32, 32), 90, np.uint8))
    x, _ = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((32, 32))).load(0, 0)
    assert np.abs(x["image"].astype(int) - 90).max() <= 1


def test_augmentation_moves_boxes_classes_and_flags_together(annotate):
    boxes = [(0, 0, 10, 10), (20, 0, 30, 10), (12, 12, 18, 18)]
    table = annotate([(20, 30)], [boxes], ignore_of=[[False, True, False]])
    loader = BatchLoader(
        table, everything, batch_size=1, resize=Fixed((20, 15)), augment=albumentations.Crop(15, 0, 30, 20, p=1)
    )
    x, y = loader.load(0, 0)
    np.testing.assert_array_equal(x["image"][0], read_image(table.paths[0])[:, 15:])
    np.testing.assert_allclose(y["boxes"][0, :2], [[5, 0, 15, 10], [0, 12, 3, 18]], atol=1e-4)
    assert y["classes"][0].tolist() == [11, 2, -1, -1]


def test_object_that_a_crop_leaves_barely_visible_becomes_an_ignore_region(annotate):
    """Not background: there is still a bit of it to be seen."""
    table = annotate([(20, 30)], [[(0, 0, 20, 10), (16, 0, 30, 20)]])
    crop = albumentations.Crop(16, 0, 30, 20, p=1)
    ignored = []
    for share in (0.19, 0.21):
        loader = BatchLoader(
            table, everything, batch_size=1, resize=Fixed((20, 14)), augment=crop, min_visibility=share
        )
        ignored.append(loader.load_sample(0, 0).ignore.tolist())
    assert ignored == [[False, False], [True, False]]
    by_default = BatchLoader(
        table, AnchorTargets(AnchorGrid.c4(sizes=(8,))), batch_size=1, resize=Fixed((20, 14)), augment=crop
    )
    assert by_default.load_sample(0, 0).ignore.tolist() == [True, False]


def test_sample_knows_rows_in_the_table_and_why_boxes_are_ignored(annotate):
    gone, cut, thin, whole = (0, 0, 10, 10), (0, 10, 18, 20), (14, 0, 16.9, 9), (17, 10, 30, 20)
    table = annotate([(20, 30)] * 2, [[whole], [gone, cut, cut, thin, whole]], ignore_of=[[0], [0, 0, 1, 0, 0]])
    reasons = np.where(table.ignore, IgnoreReason.DIFFICULT, 0).astype(np.uint8)
    table = dataclasses.replace(table, ignore_reasons=reasons)
    crop = albumentations.Crop(16, 0, 30, 20, p=1)
    loader = BatchLoader(table, everything, batch_size=1, resize=Fixed((20, 14)), augment=crop)
    sample = loader.load_sample(0, 1)
    assert sample.rows.tolist() == [2, 3, 4, 5]
    assert [IgnoreReason(reason).name for reason in sample.ignore_reasons] == ["HIDDEN", "DIFFICULT", "SMALL", "NONE"]
    assert sample.ignore.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(table.class_ids[sample.rows], sample.class_ids)
    made = Sample(sample.image, sample.boxes, sample.class_ids, sample.ignore, 1, 0, (20, 14), sample.rng)
    assert made.rows.tolist() == [-1] * 4 and made.ignore_reasons.tolist() == [1, 1, 1, 0]


def test_object_that_a_hole_covers_becomes_an_ignore_region_even_if_anything_visible_counts(annotate):
    table = annotate([(20, 30)], [[(2, 2, 8, 8), (20, 2, 28, 8)]])
    hole = albumentations.XYMasking(num_masks_x=1, mask_x_length=20, fill=0, p=1)
    seen = set()
    for epoch in range(30):
        loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((20, 30)), augment=hole, min_visibility=0)
        sample = loader.load_sample(epoch, 0)
        assert sample.num_lost == 0 and sample.class_ids.tolist() == [0, 1]
        for row, (x0, y0, x1, y1) in enumerate(sample.boxes.astype(int)):
            assert bool(sample.ignore[row]) == (not sample.image[y0:y1, x0:x1].any())
        seen.add(tuple(sample.ignore.tolist()))
    assert seen >= {(False, False), (True, False), (False, True)}


def test_mosaic_brings_the_objects_of_other_images_with_their_classes_and_flags(annotate):
    table = annotate(
        [(40, 60)] * 4, [[(5, 5, 55, 35)], [(5, 5, 50, 30)], [], [(0, 0, 60, 40)]], ignore_of=[[0], [1], [], [0]]
    )
    for position, path in enumerate(table.paths):
        cv2.imwrite(path, np.full((40, 60, 3), 50 * (position + 1), np.uint8))
    mosaic = albumentations.Mosaic(target_size=(60, 60), cell_shape=(50, 50), p=1)
    loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((60, 60)), augment=mosaic, min_visibility=0)
    brought = set()
    for epoch, position in itertools.product(range(8), range(4)):
        sample = loader.load_sample(epoch, position)
        again = pickle.loads(pickle.dumps(loader)).load_sample(epoch, position)
        np.testing.assert_array_equal(sample.image, again.image)
        np.testing.assert_array_equal(sample.boxes, again.boxes)
        for box, class_id, ignore in zip(sample.boxes, sample.class_ids, sample.ignore, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            source = round(sample.image[y, x, 0] / 50) - 1  # told by its grey
            assert source != 2
            (row,) = range(*table.offsets[source : source + 2])
            assert class_id == table.class_ids[row] and ignore == table.ignore[row]
            brought.add((position, source))
        assert sample.num_lost in (0, 1)
    assert len(brought) > 8
    for arguments in ({"on_error": Replace()}, {"proposals": propose(table, [[]] * 4)}):
        with pytest.raises(ValueError, match="with a Mosaic in augment"):
            BatchLoader(table, no_targets, batch_size=1, resize=Fixed((60, 60)), augment=mosaic, **arguments)


def test_mask_of_a_crowd_follows_its_box(annotate):
    table = annotate([(20, 30)], [[(2, 2, 5, 5), (10, 0, 20, 10)]], ignore_of=[[False, True]])
    mask = np.zeros((20, 30), bool)
    mask[:10, 10:20] = True
    runs = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=False, append=False)), prepend=0)
    runs = np.append(runs, mask.size - runs.sum()).astype(np.int32)
    table = dataclasses.replace(table, masks={1: runs})
    pipeline = [albumentations.HorizontalFlip(p=0.5), albumentations.Crop(4, 0, 30, 20, p=0.5)]
    loader = BatchLoader(table, everything, batch_size=1, resize=ShortSide(40), augment=pipeline)
    seen = set()
    for epoch in range(12):
        sample = loader.load_sample(epoch, 0)
        ((row, moved),) = sample.masks.items()
        assert sample.ignore[row]
        assert moved.shape == sample.image_hw
        x0, y0, x1, y1 = sample.boxes[row]
        rows, columns = np.nonzero(moved > 127)
        np.testing.assert_allclose(
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], [x0, y0, x1, y1], atol=1
        )
        seen.add((x0, sample.image_hw))
    assert len(seen) >= 3

    def boxes_only(sample):
        return {"masks": np.array(len(sample.masks))}

    boxes_only.uses_masks = False
    assert BatchLoader(table, boxes_only, batch_size=1, resize=ShortSide(40)).load(0, 0)[1]["masks"].tolist() == [0]


def test_last_batch_is_short_and_holds_no_made_up_images(annotate):
    table = annotate([(20, 30)] * 5, [[]] * 5)
    loader = BatchLoader(table, everything, batch_size=2, resize=Fixed((20, 30)))
    positions = [loader.load(3, index)[1]["position"].tolist() for index in range(loader.num_batches)]
    assert sorted(map(len, positions)) == [1, 2, 2]
    assert sorted(itertools.chain(*positions)) == [0, 1, 2, 3, 4]
    dropped = BatchLoader(table, everything, batch_size=2, resize=Fixed((20, 30)), drop_last=True)
    assert dropped.num_batches == 2
    with pytest.raises(ValueError, match=r"at least one full batch with drop_last=True\. Received: 5 images"):
        BatchLoader(table, everything, batch_size=6, resize=Fixed((20, 30)), drop_last=True)


def test_images_of_one_batch_share_a_canvas(annotate):
    table = annotate([(20, 60), (60, 20), (20, 60), (60, 20), (20, 60)], [[]] * 5)
    loader = BatchLoader(table, everything, batch_size=2, resize=ShortSide(20))
    shapes = set()
    for index in range(loader.num_batches):
        x, _ = loader.load(0, index)
        shapes.add(x["image"].shape[1:3])
        assert (x["image_hw"] <= x["image"].shape[1:3]).all()
    assert shapes == {(32, 64), (64, 32)}


def make(shapes, targets="sampled", **arguments):
    augment = [albumentations.HorizontalFlip(p=0.5), albumentations.RandomBrightnessContrast(p=0.5)]
    arguments = {"batch_size": 4, "resize": ShortSide(96), "augment": augment, **arguments}
    return BatchLoader(shapes, AnchorTargets(GRID, form=targets), **arguments)


@pytest.mark.parametrize("targets", ["sampled", "dense"])
def test_a_batch_depends_on_seed_epoch_and_index_alone(shapes, targets):
    one, two = make(shapes, targets=targets), pickle.loads(pickle.dumps(make(shapes, targets=targets)))
    indices = [(epoch, index) for epoch in (0, 1) for index in range(one.num_batches)]
    forward = {key: one.load(*key) for key in indices}
    backward = {key: two.load(*key) for key in reversed(indices)}
    assert all(same(forward[key], backward[key]) for key in indices)
    with ThreadPoolExecutor(4) as pool:
        threaded = dict(zip(indices, pool.map(lambda key: one.load(*key), indices), strict=True))
    assert all(same(forward[key], threaded[key]) for key in indices)
    assert not same(forward[0, 0], forward[1, 0])
    assert not same(forward[0, 0], make(shapes, seed=1, targets=targets).load(0, 0))


def test_every_image_comes_once_an_epoch(shapes):
    loader = make(shapes)
    for epoch in range(3):
        assert sorted(np.concatenate(loader.batches(epoch)).tolist()) == list(range(len(shapes)))


def test_fed_boxes_are_where_the_shapes_were_drawn(shapes):
    """The pixels of a box are those of its object in the file; a flip or scale gone wrong would show here."""
    loader, plain = make(shapes, augment="flip"), make(shapes, augment=None)
    mirrored = 0
    for position in range(len(shapes)):
        sample, still = loader.load_sample(1, position), plain.load_sample(1, position)
        assert (sample.boxes[:, :2] >= 0).all()
        assert (sample.boxes[:, 2:] <= np.array(sample.image_hw[::-1])).all()
        image, boxes, width = still.image, still.boxes, still.image_hw[1]
        if not np.array_equal(sample.image, image):
            mirrored += 1
            image = image[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
        np.testing.assert_allclose(sample.image.astype(int), image, atol=2)
        np.testing.assert_allclose(sample.boxes, boxes, atol=1e-3)
        assert len(sample.boxes) == len(sample.class_ids) == len(sample.ignore)
        assert sample.image_id == shapes.image_id(position)
    assert 0 < mirrored < len(shapes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_visibility": 25}, "min_visibility to be a share from 0 to 1. Received: 25"),
        ({"min_visibility": float("nan")}, "min_visibility to be a share"),
        ({"min_size": -1}, "min_size to be a number of pixels, at least 0. Received: -1"),
    ],
)
def test_thresholds_out_of_range_are_refused(shapes, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(shapes, **arguments)


def test_exactly_as_much_as_the_thresholds_ask_for_is_enough(annotate):
    """Boxes go through shares of the image's sides and back, which leaves many a bit below where they were."""
    count = 80
    table = annotate([(40, 61 + n) for n in range(count)], [[[7, 3, 47, 21], [3, 3, 4, 30]]] * count)
    # One pixel wide; and ten columns of the forty of the other.
    for augment in (albumentations.HorizontalFlip(p=1), albumentations.Crop(x_min=37, y_min=0, x_max=61, y_max=40)):
        loader = BatchLoader(
            table, no_targets, batch_size=1, resize=Fixed((40, 160)), augment=augment, min_visibility=0.25, min_size=1
        )
        for position in range(count):
            sample = loader.load_sample(0, position)
            assert len(sample.boxes) > 0
            assert not sample.ignore.any(), position


def test_target_function_may_add_inputs_and_weights(annotate):
    table = annotate([(20, 30)] * 2, [[]] * 2)

    def targets(sample):
        return {"extra": np.ones(3)}, {"y": np.zeros(2)}, {"y": np.array(1.0)}

    x, y, weight = BatchLoader(table, targets, batch_size=2, resize=Fixed((20, 30))).load(0, 0)
    assert x.keys() == {"image", "image_hw", "extra"}
    assert x["extra"].shape == (2, 3)
    assert y["y"].shape == (2, 2)
    assert weight["y"].shape == (2,)


def fail(sample):
    raise KeyError("nose")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (fail, r"KeyError: 'nose'"),
        (lambda sample: np.zeros(3), "TypeError: expected targets to return a dict of arrays, .*, got ndarray"),
        (lambda sample: ({}, {}, {}, {}), "TypeError: expected targets to return a dict"),
    ],
)
def test_error_in_a_target_function_arrives_with_the_images_address(annotate, targets, message):
    table = annotate([(20, 30)], [[]])
    loader = BatchLoader(table, targets, batch_size=1, resize=Fixed((20, 30)))
    with pytest.raises(SampleError, match=rf"000\.png \(image_id 100, position 0, epoch 4, batch 0\): {message}"):
        loader.load(4, 0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"boxes": np.zeros(1)}, {"boxes": np.zeros(2)}),
        ({"boxes": np.zeros(1)}, {}),
        ({}, {"boxes": np.zeros(1)}),
        ({}, ({}, {}, {})),
        (({}, {}, {}), {}),
    ],
)
def test_samples_of_one_batch_with_targets_that_are_not_alike_are_an_error_with_an_address(annotate, first, second):
    table = annotate([(20, 30)] * 2, [[]] * 2)
    loader = BatchLoader(
        table, lambda s: (first, second)[s.position], batch_size=2, resize=Fixed((20, 30)), shuffle=False
    )
    with pytest.raises(SampleError, match=r"001\.png \(image_id 101, .*: expected targets of the names and shapes of"):
        loader.load(0, 0)


def test_target_function_can_not_replace_the_image(annotate):
    loader = BatchLoader(
        annotate([(20, 30)], [[]]), lambda s: ({"image": s.image}, {}), batch_size=1, resize=Fixed((20, 30))
    )
    with pytest.raises(SampleError, match=r"other names than image and image_hw in x, .* got \['image'\]"):
        loader.load(0, 0)


def test_objects_that_are_lost_on_the_way_are_counted(annotate):
    boxes = [(0, 0, 5, 5), (12, 0, 20, 10), (1, 7, 4, 9), (0, 0, 9, 9)]
    table = annotate([(20, 30)], [boxes], ignore_of=[[False, False, False, True]])
    crop = albumentations.Crop(10, 0, 30, 20, p=1)
    loader = BatchLoader(table, AnchorTargets(GRID, counts=True), batch_size=1, resize=Fixed((20, 20)), augment=crop)
    assert loader.load_sample(0, 0).num_lost == 2
    assert loader.load(0, 0)[0]["match_counts"][0, COUNTS.index("lost")] == 2


def test_image_that_is_not_of_the_annotated_size_is_an_error_that_names_both(annotate):
    table = annotate([(20, 30)], [[]])
    cv2.imwrite(table.paths[0], np.zeros((30, 20, 3), np.uint8))
    loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((20, 30)))
    with pytest.raises(
        SampleError, match=r"000\.png: expected the annotated height and width \(20, 30\), got \(30, 20\)"
    ):
        loader.load(0, 0)


def test_image_is_turned_as_its_exif_orientation_or_its_annotated_size_says(annotate):
    table = annotate([(24, 40), (40, 24)], [[], []], suffix=".jpg")
    for path in table.paths:
        Path(path).write_bytes(encode(picture(24, 40), "JPEG", orientation=6))
    fed = {}
    for exif in ("auto", "apply", "ignore"):
        loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((40, 40)), exif=exif)
        for position in range(2):
            try:
                fed[exif, position] = loader.load_sample(0, position).image
            except ImageError:
                continue
    assert sorted(fed) == [("apply", 1), ("auto", 0), ("auto", 1), ("ignore", 0)]
    for exif, position in fed:
        expected = read_image(table.paths[position], exif="apply" if position else "ignore")
        np.testing.assert_array_equal(fed[exif, position], expected)


def photograph(annotate, image_hw, boxes):
    """Annotations of one JPEG on which the boxes are seen as white rectangles."""
    table = annotate([image_hw], [boxes], ignore_of=[[False] * (len(boxes) - 1) + [True]], suffix=".jpg")
    pixels = picture(*image_hw)
    for x0, y0, x1, y1 in boxes:
        pixels[y0:y1, x0:x1] = 255
    Path(table.paths[0]).write_bytes(encode(pixels, "JPEG", quality=95, subsampling=0))
    mask = np.zeros(image_hw, bool)
    x0, y0, x1, y1 = boxes[-1]
    mask[y0:y1, x0:x1] = True
    runs = np.diff(np.flatnonzero(np.diff(mask.T.reshape(-1), prepend=False, append=False)), prepend=0)
    runs = np.append(runs, mask.size - runs.sum()).astype(np.int32)
    return dataclasses.replace(table, masks={len(boxes) - 1: runs})


@pytest.mark.parametrize("image_hw", [(800, 1200), (801, 1207), (799, 1203)])
@pytest.mark.parametrize("augment", [None, albumentations.HorizontalFlip(p=1)])
def test_boxes_and_masks_lie_where_their_objects_are_seen_on_a_photograph_decoded_smaller(annotate, image_hw, augment):
    boxes = [(13, 17, 205, 301), (650, 30, 777, 131), (911, 502, image_hw[1], image_hw[0])]
    table = photograph(annotate, image_hw, boxes)
    common = {"batch_size": 1, "resize": ShortSide(90), "augment": augment}
    whole = BatchLoader(table, no_targets, reduce=False, **common).load_sample(0, 0)
    small = BatchLoader(table, no_targets, reduce=True, **common).load_sample(0, 0)
    if augment is None:
        scale = np.array([whole.image_hw[1] / image_hw[1], whole.image_hw[0] / image_hw[0]] * 2)
        np.testing.assert_allclose(small.boxes, boxes * scale, rtol=1e-6)
        np.testing.assert_array_equal(small.boxes, whole.boxes)
        assert np.abs(small.image.astype(int) - whole.image).mean() < 2
    else:
        # Its sides were rounded once more, by which the one that is scaled freely can differ by a pixel.
        np.testing.assert_allclose(small.image_hw, whole.image_hw, atol=1)
        relative = [sample.boxes / np.tile(sample.image_hw[::-1], 2) for sample in (small, whole)]
        np.testing.assert_allclose(*relative, atol=1e-5)
    for sample in (whole, small):
        white = (sample.image > 225).all(axis=2)
        for x0, y0, x1, y1 in np.rint(sample.boxes).astype(int):
            assert white[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2].all()
            white[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] = False
        assert not white.any()
        (mask,) = sample.masks.values()
        (columns,), (rows,) = np.nonzero(mask.max(axis=0) > 127), np.nonzero(mask.max(axis=1) > 127)
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        np.testing.assert_allclose(found, sample.boxes[2], atol=1)


def test_photograph_is_decoded_smaller_unless_an_augmentation_may_enlarge_a_part_of_it(annotate):
    table = photograph(annotate, (800, 1200), [(0, 0, 400, 400)])
    sizes = []

    class Look(albumentations.ImageOnlyTransform):
        def apply(self, img, **params):
            sizes.append(img.shape[:2])
            return img

    fed = []
    for reduce in (None, True, False):
        loader = BatchLoader(table, no_targets, batch_size=1, resize=ShortSide(101), augment=Look(p=1), reduce=reduce)
        loader.load_sample(0, 0)
        fed.append(sizes[-1])  # before that, the pipeline was tried out
    assert fed == [(800, 1200), (200, 300), (800, 1200)]
    plain, reduced, whole = (
        BatchLoader(table, no_targets, batch_size=1, resize=ShortSide(101), reduce=reduce).load_sample(0, 0).image
        for reduce in (None, True, False)
    )
    np.testing.assert_array_equal(plain, reduced)
    assert (plain != whole).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size to be at least 1. Received: 0"),
        ({"seed": -1}, "seed to be at least 0. Received: -1"),
        ({"exif": "no"}, r"exif to be one of \('auto', 'apply', 'ignore'\). Received: 'no'"),
        ({"targets": None}, "targets to be a function of a Sample. Received: None"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(annotate, arguments, message):
    arguments = {"targets": no_targets, "batch_size": 1, "resize": Fixed((20, 30)), **arguments}
    with pytest.raises(ValueError, match=message):
        BatchLoader(annotate([(20, 30)], [[]]), **arguments)


def test_whole_real_sets_are_fed(data):
    from detfeed import read_coco, read_voc

    coco = read_coco(data / "coco" / "annotations" / "instances_train2017.json", data / "coco" / "train2017")
    voc = read_voc(data / "voc" / "VOC2007")
    for table in (coco, voc):
        loader = BatchLoader(table, everything_counted, batch_size=8, resize=ShortSide(200, max_side=333))
        counts = np.concatenate([loader.load(0, index)[1]["count"] for index in range(loader.num_batches)])
        assert counts.sum() == len(table.boxes)


def everything_counted(sample):
    return {"count": np.array(len(sample.boxes))}


def test_placed_size_is_the_size_fed_without_augmentation(annotate):
    table = annotate([(20, 61), (47, 20), (33, 33)], [[]] * 3)
    loader = BatchLoader(table, everything, batch_size=2, resize=ShortSide(30, max_side=64, max_canvases=2))
    for index in range(loader.num_batches):
        x, y = loader.load(0, index)
        assert x["image_hw"].tolist() == [list(loader.placed_hw(p)) for p in y["position"]]


def propose(table, boxes_of):
    """Proposals of the images of a table."""
    boxes = np.concatenate([np.float32(boxes).reshape(-1, 4) for boxes in boxes_of])
    offsets = np.cumsum([0, *map(len, boxes_of)]).astype(np.int64)
    return Proposals(table.image_ids, boxes, np.linspace(1, 0, len(boxes), dtype=np.float32), offsets)


def test_samples_have_no_proposals_unless_there_are_some(annotate):
    table = annotate([(20, 30)] * 2, [[(1, 2, 5, 6)], []])
    plain = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((40, 90)))
    assert plain.load_sample(0, 0).proposals.shape == (0, 4)
    given = propose(table, [[], [(10, 0, 30, 5), (0, 0, 1, 1)]])
    loader = BatchLoader(table, no_targets, batch_size=1, resize=Fixed((40, 90)), proposals=given)
    assert loader.load_sample(0, 0).proposals.shape == (0, 4)
    assert loader.load_sample(0, 1).proposals.tolist() == [[20, 0, 60, 10], [0, 0, 2, 2]]
    assert loader.load_sample(0, 1).proposals.dtype == np.float32


def test_proposal_that_is_a_box_stays_that_box_through_flip_crop_and_scale(shapes):
    boxes_of = [shapes.boxes[shapes.rows(position)] for position in range(len(shapes))]
    augment = [
        albumentations.HorizontalFlip(p=0.5),
        albumentations.RandomCrop(80, 80, p=0.5),
        albumentations.RandomScale(0.3, p=0.5),
        albumentations.RandomSizedBBoxSafeCrop(70, 90, p=0.5),
    ]
    common = {"batch_size": 4, "resize": ShortSide(64), "augment": augment}
    loader = BatchLoader(shapes, no_targets, **common, proposals=propose(shapes, boxes_of))
    plain = BatchLoader(shapes, no_targets, **common)
    moved = 0
    for epoch, position in itertools.product(range(2), range(len(shapes))):
        sample = loader.load_sample(epoch, position)
        np.testing.assert_array_equal(sample.proposals, sample.boxes)
        assert sample.proposals.dtype == np.float32
        # And they change nothing about all the rest.
        other = plain.load_sample(epoch, position)
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.boxes, other.boxes)
        moved += len(sample.boxes)
    assert moved > 50


def test_proposals_out_of_the_image_are_clipped_or_left_out_and_that_is_said_once(annotate):
    table = annotate([(20, 30)] * 2, [[], []])
    given = propose(table, [[(1, 1, 30.01, 5)], [(-3, 2, 9, 25), (30, 0, 40, 9), (7, 7, 7, 9)]])
    with (
        pytest.warns(UserWarning, match=r"proposals: 2 of 4 proposals have no area .* the first is in .*001\.png"),
        pytest.warns(UserWarning, match=r"proposals: 1 of 4 proposals are clipped to it; .* is in .*001\.png"),
    ):
        loader = BatchLoader(table, no_targets, batch_size=2, resize=Fixed((20, 30)), proposals=given)
    assert loader.load_sample(0, 0).proposals.tolist() == [[1, 1, 30, 5]]
    assert loader.load_sample(0, 1).proposals.tolist() == [[0, 2, 9, 20]]


def test_proposals_of_other_images_are_refused(annotate):
    table, other = annotate([(20, 30)] * 2, [[], []]), annotate([(20, 30)], [[]])
    with pytest.raises(
        ValueError, match=r"images of annotations, .*Proposals\(1 images, 0 .* and Annotations\(2 images"
    ):
        BatchLoader(table, no_targets, batch_size=1, resize=Fixed((20, 30)), proposals=propose(other, [[]]))


def make_rois(shapes, seed=0):
    g = np.random.default_rng(5)
    boxes_of = []
    for position in range(len(shapes)):
        truth = shapes.boxes[shapes.rows(position)]
        near = np.repeat(truth, 20, axis=0) + g.uniform(-5, 5, (20 * len(truth), 4)).astype(np.float32)
        low = g.uniform(0, 60, (60, 2)).astype(np.float32)
        boxes = np.concatenate([near, np.concatenate([low, low + 20], axis=1)])
        boxes = np.clip(boxes, 0, np.tile(shapes.image_hw[position][::-1], 2)).astype(np.float32)
        boxes_of.append(boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)])
    return BatchLoader(
        shapes,
        RoiTargets(num_samples=64, num_classes=4),
        batch_size=4,
        resize=ShortSide(96),
        augment=[albumentations.HorizontalFlip(p=0.5), albumentations.RandomCrop(90, 90, p=0.5)],
        seed=seed,
        proposals=propose(shapes, boxes_of),
    )


def test_rois_of_a_batch_depend_on_seed_epoch_and_index_alone(shapes):
    one, two = make_rois(shapes), pickle.loads(pickle.dumps(make_rois(shapes)))
    indices = [(epoch, index) for epoch in (0, 1) for index in range(one.num_batches)]
    forward = {key: one.load(*key) for key in indices}
    backward = {key: two.load(*key) for key in reversed(indices)}
    assert all(same(forward[key], backward[key]) for key in indices)
    with ThreadPoolExecutor(4) as pool:
        threaded = dict(zip(indices, pool.map(lambda key: one.load(*key), indices), strict=True))
    assert all(same(forward[key], threaded[key]) for key in indices)
    assert not same(forward[0, 0], make_rois(shapes, seed=1).load(0, 0))
    classes = np.concatenate([y["roi_class_ids"] for _, y in forward.values()])
    assert set(classes.ravel().tolist()) >= {0, 1, 2, 3, 4}
    for x, y in forward.values():
        assert x["rois"].shape == (len(x["image"]), 64, 4)
        assert y["roi_deltas"].shape == (len(x["image"]), 64, 4, 4)
        assert (x["rois"].reshape(len(x["image"]), -1).max(axis=1) <= x["image_hw"].max(axis=1)).all()


@pytest.mark.parametrize("shard", [(2, 2), (-1, 2), (0, 0)])
def test_shard_that_does_not_exist_is_refused(shapes, shard):
    with pytest.raises(ValueError, match="Expected a shard"):
        BatchLoader(shapes, lambda s: {}, batch_size=4, resize=Fixed((64, 64)), shard=shard)


def test_shards_feed_together_what_one_loader_feeds_with_the_same_bits(shapes):
    def pictures(loader):
        return {
            position: x["image"][row].tobytes()
            for index, positions in enumerate(loader.batches(2))
            for x, *_ in [loader.load(2, index)]
            for row, position in enumerate(positions.tolist())
        }

    def make_shard(*shard):
        augment = albumentations.HorizontalFlip(p=0.5)
        return BatchLoader(shapes, lambda s: {}, batch_size=4, resize=Fixed((64, 64)), augment=augment, shard=shard)

    whole = pictures(make_shard(0, 1))
    shards = [pictures(make_shard(index, 3)) for index in range(3)]
    assert sum(map(len, shards)) == len(whole)
    assert {position: image for shard in shards for position, image in shard.items()} == whole


def test_more_shards_than_images_are_refused(annotate):
    with pytest.raises(ValueError, match="at least one image for each of 2 shards"):
        BatchLoader(annotate([(32, 32)], [[]]), lambda s: {}, batch_size=4, resize=Fixed((64, 64)), shard=(0, 2))


@pytest.mark.parametrize(("side", "min_size", "ignored"), [(2, 1, False), (1.9, 1, True), (1, 0, False), (16, 9, True)])
def test_object_that_is_fed_smaller_than_min_size_becomes_an_ignore_region(annotate, side, min_size, ignored):
    """At half the size, so that 2 pixels of the file are 1 as fed."""
    table = annotate([(64, 64)], [[(10, 20, 10 + side, 50), (8, 8, 40, 40)]])
    told = rf"made up: 1 of 2 boxes are fed with a side under {min_size} pixels, and ignored .*{table.paths[0]}"
    with pytest.warns(UserWarning, match=told) if ignored else contextlib.nullcontext():
        loader = BatchLoader(table, lambda s: {}, batch_size=1, resize=Fixed((32, 32)), min_size=min_size)
    assert loader.load_sample(0, 0).ignore.tolist() == [ignored, False]


def test_box_the_size_of_a_point_does_not_take_the_samples_of_the_objects(data):
    """BloodImage_00343 has one: xmin equals xmax, and ymin ymax."""
    table = read_voc(data / "bccd", "train")
    position = next(p for p, path in enumerate(table.paths) if "00343" in path)
    for min_size, few in ((1, False), (0, True)):
        told = r"1 of 2805 boxes are fed with a side under 1 pixels, and ignored .*00343"
        with contextlib.nullcontext() if few else pytest.warns(UserWarning, match=told):
            loader = BatchLoader(
                table, AnchorTargets(AnchorGrid.fpn()), batch_size=1, resize=ShortSide(240), min_size=min_size
            )
        sample = loader.load_sample(0, position)
        deltas = loader.targets(sample)[1]["anchor_deltas"]
        assert (np.abs(deltas).max() > 2) == few


@pytest.mark.parametrize(
    ("sizes", "arguments", "refused"),
    [
        ([8, 8], {}, None),
        ([8, 8, 2], {}, None),  # the last of a canvas: 1 and 1
        ([8, 3], {}, "3"),  # may come first
        ([8, 3], {"shuffle": False}, None),
        ([8, 1], {"shuffle": False}, "1"),  # one replica has nothing
        ([8, 1], {"drop_last": True}, None),
        ([7, 7], {"batch_size": 7, "shuffle": False}, "7"),
    ],
)
def test_batches_that_two_replicas_can_not_share_are_named(annotate, sizes, arguments, refused):
    table = annotate([(20, 30)] * sum(sizes), [[]] * sum(sizes))
    loader = BatchLoader(table, no_targets, **{"batch_size": 8, "resize": Fixed((20, 30)), **arguments})
    if refused is None:
        loader.check_divisible(2)
    else:
        with pytest.raises(ValueError, match=rf"Received: batches of {refused} images.* Use .*drop_last=True"):
            loader.check_divisible(2)
