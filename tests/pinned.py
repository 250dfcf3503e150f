"""What is fed, pinned: batches of drawn data over a grid of settings, for comparison with those of another commit.

`python tests/pinned.py` prints a hash of the exact bits of each setting. Run it beside an older checkout and compare,
to see that a change changes nothing:

    python tests/pinned.py > new.txt && (cd OLDER && python tests/pinned.py) > old.txt && diff old.txt new.txt

`python tests/pinned.py --write` stores what `test_pinned.py` holds later commits to; `--measure FILE` writes what it
compares with that.
"""

import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path

import albumentations
import cv2
import numpy as np

import detfeed
from detfeed import (
    AnchorGrid,
    AnchorTargets,
    BatchLoader,
    ClassBalanced,
    Fixed,
    LimitEmpty,
    Mix,
    Proposals,
    RepeatFactor,
    RoiTargets,
    ShortSide,
    concat,
    read_coco,
    read_csv,
)
from image_files import encode, noise
from written_formats import (
    draw_set,
    through_csv,
    through_kitti,
    through_lvis,
    through_openimages,
    through_voc,
    through_yolo,
)

STORED = Path(__file__).with_name("pinned.json")
# What OpenCV and the library IPP inside it read as they are loaded. Their code for AVX-512 rounds otherwise: one in 600
# pixels that are resized is 1 off, one in 16 whose colours are changed up to 2.
PROCESSOR = {"OPENCV_IPP": "avx2", "OPENCV_CPU_DISABLE": "AVX512-SKX"}
GRID = AnchorGrid.fpn(sizes=(8, 16, 32, 64, 128))
C4 = AnchorGrid.c4(sizes=(16, 32, 64))
REPLACE = detfeed.Replace() if hasattr(detfeed, "Replace") else "replace"


def everything(sample):
    """A target function that hands on all of a sample, padded to 32 boxes and 8 masks."""
    boxes, proposals = np.zeros((32, 4), np.float32), np.zeros((32, 4), np.float32)
    classes, masks = np.full(32, -9), np.zeros((8, *sample.input_hw), np.uint8)
    boxes[: len(sample.boxes)] = sample.boxes
    proposals[: len(sample.proposals)] = sample.proposals
    classes[: len(sample.boxes)] = sample.class_ids + 100 * sample.ignore
    for place, row in enumerate(sample.masks):
        height, width = sample.image_hw
        masks[place, :height, :width] = sample.masks[row]
        classes[row] += 1000
    drawn = sample.rng.integers(2**31, size=2)
    return {"boxes": boxes, "classes": classes, "proposals": proposals, "masks": masks, "drawn": drawn,
            "place": np.array([sample.position, sample.num_lost])}  # fmt: skip


def make_proposals(table):
    """Twelve boxes an image, some of which reach out of it."""
    rng = np.random.default_rng(3)
    corners = rng.uniform(-0.6, 80, (12 * len(table), 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 40, corners.shape)], axis=1)
    boxes = np.minimum(boxes, np.repeat(np.tile(table.image_hw[:, ::-1], 2), 12, axis=0) + 0.4)
    return Proposals(
        image_ids=table.image_ids,
        boxes=np.maximum(boxes, np.tile(boxes[:, :2], 2)).astype(np.float32),
        scores=rng.random(len(boxes), np.float32),
        offsets=12 * np.arange(len(table) + 1),
    )


def write_odd(folder):
    """Images with orientations of EXIF, and boxes that are bad in each way; returns the CSV files."""
    rows = []
    for number, orientation in enumerate((1, 3, 6, 8)):
        name = f"odd_{number}.jpg"
        (folder / name).write_bytes(encode(noise(number, 60, 80), "JPEG", quality=95, orientation=orientation))
        rows += [f"{name},{x0},{y0},{x1},{y1},a" for x0, y0, x1, y1 in (
            (5, 5, 30, 40), (-3, 2, 20, 21), (40, 30, 10, 20), (3, 3, 3, 9), (5, 5, 30, 40), (-900, 2, -800, 9),
            (-5, -5, 90, 90), (1, 1, 60.3, 20),
        )]  # fmt: skip
    (folder / "odd.csv").write_text("\n".join(rows))
    (folder / "odd_classes.csv").write_text("a,0\n")
    return folder / "odd.csv", folder / "odd_classes.csv"


def broken(table, folder, *positions):
    """The table with some images cut short."""
    paths = list(table.paths)
    for position in positions:
        cut = folder / f"cut_{position}.jpg"
        cut.write_bytes(Path(paths[position]).read_bytes()[:300])
        paths[position] = str(cut)
    return dataclasses.replace(table, paths=tuple(paths))


def columns(table):
    """A table as a batch, without what names the folder it lies in."""
    kept = ("image_ids", "image_hw", "boxes", "class_ids", "ignore", "areas", "offsets", "category_ids")
    arrays = {name: getattr(table, name) for name in kept}
    for name in ("neg_classes", "not_exhaustive_classes"):
        if getattr(table, name) is not None:
            arrays[name] = getattr(table, name)
    if table.masks:
        arrays["mask_rows"] = np.array(list(table.masks))
        arrays["mask_runs"] = np.concatenate(list(table.masks.values()))
    return arrays


def make_grid(folder):
    """Name of each setting and a function that returns its batches, each a tuple of dicts of arrays."""
    draw_set(folder)
    table = read_coco(folder / "instances.json", folder / "images")
    proposals = make_proposals(table)
    (folder / "large").mkdir()
    large_json = detfeed.make_shapes(folder / "large", num_images=4, image_hw=(420, 600), seed=5)
    large = read_coco(large_json, folder / "large" / "images")
    odd = write_odd(folder)

    def feed(data=table, targets=everything, *, epochs=(0, 3), batches=4, **arguments):
        arguments = {"batch_size": 3, "resize": ShortSide(96, max_side=160), "seed": 7, **arguments}
        loader = quiet(BatchLoader, data, targets, **arguments)
        report = [].append
        return [loader.load(e, i, report=report) for e in epochs for i in range(min(batches, loader.num_batches))]

    grid = {
        "targets sampled": lambda: feed(targets=AnchorTargets(GRID), augment="flip"),
        "targets sampled c4": lambda: feed(targets=AnchorTargets(C4, counts=True), augment="flip"),
        "targets dense": lambda: feed(targets=AnchorTargets(C4, form="dense"), augment="flip"),
        "targets crowd by box": lambda: feed(targets=AnchorTargets(GRID, crowd="box", counts=True)),
        "targets other thresholds": lambda: feed(
            targets=AnchorTargets(
                GRID,
                positive_iou=0.5,
                negative_iou=0.4,
                low_quality=False,
                ignore_ioa=0.2,
                straddle=0.0,
                num_samples=64,
                positive_fraction=0.25,
                delta_weights=(10.0, 10.0, 5.0, 5.0),
                counts=True,
            )
        ),
        "targets rois": lambda: feed(targets=RoiTargets(num_samples=32), proposals=proposals, augment="flip"),
        "targets rois by class": lambda: feed(
            targets=RoiTargets(num_samples=32, num_classes=4, crowd="box", background_low=0.1), proposals=proposals
        ),
        "proposals": lambda: feed(proposals=proposals, augment=albumentations.RandomCrop(70, 90, p=0.7)),
        "no augmentation": lambda: feed(),
        "fixed": lambda: feed(resize=Fixed((64, 80))),
        "one canvas, large multiple": lambda: feed(resize=ShortSide(80, multiple=64, max_canvases=1)),
        "reduced": lambda: feed(large, resize=ShortSide(64), batch_size=2),
        "not reduced": lambda: feed(large, resize=ShortSide(64), batch_size=2, reduce=False),
        "reduced and augmented": lambda: feed(
            large, resize=ShortSide(64), batch_size=2, reduce=True, augment="flip", proposals=make_proposals(large)
        ),
        "recipe flip": lambda: feed(augment="flip"),
        "recipe ssd": lambda: feed(augment="ssd", proposals=proposals),
        "recipe lsj": lambda: feed(augment="lsj", resize=Fixed((96, 96)), proposals=proposals),
        "recipe multiscale": lambda: feed(augment="multiscale", proposals=proposals),
        "augment geometry": lambda: feed(
            augment=albumentations.Affine(scale=(0.7, 1.3), rotate=(-20, 20), translate_percent=0.2, p=0.9)
        ),
        "augment list": lambda: feed(
            augment=[
                albumentations.RandomBrightnessContrast(p=0.8),
                albumentations.CoarseDropout(p=0.8),
                albumentations.VerticalFlip(p=0.5),
            ]
        ),
        "augment distortion": lambda: feed(augment=albumentations.ElasticTransform(alpha=40, sigma=6, p=0.8)),
        "augment tiles": lambda: feed(augment=albumentations.RandomGridShuffle(grid=(2, 2), p=0.8)),
        "augment pixels": lambda: feed(
            augment=[albumentations.PixelDropout(p=0.8), albumentations.Morphological(p=0.8)]
        ),
        "augment mosaic": lambda: feed(
            resize=Fixed((96, 96)),
            batch_size=2,
            augment=albumentations.Mosaic(target_size=(96, 96), cell_shape=(80, 80), p=0.7),
        ),
        "visibility": lambda: feed(augment=albumentations.RandomCrop(50, 50), min_visibility=0.7),
        "min size": lambda: feed(min_size=14.0, resize=ShortSide(64)),
        "sampler repeat factor": lambda: feed(sampler=RepeatFactor(0.9), batches=8),
        "sampler class balanced": lambda: feed(sampler=ClassBalanced(40), batches=12),
        "sampler mix": lambda: feed(
            concat([table, large], new_ids=True), sampler=Mix((len(table), len(large)), (1, 2)), batches=8
        ),
        "sampler limit empty": lambda: feed(sampler=LimitEmpty(0.05), batches=8),
        "sampler function": lambda: feed(sampler=lambda data: np.arange(len(data)) / 11, batches=8, augment="flip"),
        "no shuffle": lambda: feed(shuffle=False, batches=8),
        "drop last": lambda: feed(drop_last=True, batch_size=5, batches=8),
        "exif auto": lambda: feed(quiet(read_csv, *odd)),
        "exif apply": lambda: feed(quiet(read_csv, *odd), exif="apply"),
        "replaced": lambda: feed(broken(table, folder, 2, 5, 6, 11), on_error=REPLACE, batches=8, augment="flip"),
        "replaced by a sampler's": lambda: feed(
            broken(table, folder, 2, 5, 6, 11), on_error=REPLACE, batches=8, sampler=LimitEmpty(0.0)
        ),
        "table split": lambda: [tuple(map(columns, table.split((0.5, 0.3, 0.2), seed=4)))],
        "table select": lambda: [(columns(table.select([5, 1, 9])),)],
        "table merged classes": lambda: [(columns(table.rename_classes({"star": "ellipse"})),)],
        "table joined": lambda: [(columns(concat([table, large], new_ids=True)),)],
    }
    for index in range(3):
        grid[f"shard {index} of 3"] = lambda index=index: feed(shard=(index, 3), batches=8)
        grid[f"shard {index} of 3, drop last"] = lambda index=index: feed(
            shard=(index, 3), batches=8, drop_last=True, batch_size=2
        )
    for invalid in ("clip", "drop", "ignore"):
        grid[f"invalid {invalid}"] = lambda invalid=invalid: [(columns(quiet(read_csv, *odd, invalid=invalid)),)]
    grid["reader coco"] = lambda: [(columns(table),)]
    for through in (through_lvis, through_voc, through_yolo, through_csv, through_kitti, through_openimages):
        name = through.__name__.removeprefix("through_")
        grid[f"reader {name}"] = lambda through=through: [(columns(through(table, folder)),)]
    return grid


def quiet(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def arrays_of(batches):
    """Every array of batches with its address."""
    for number, batch in enumerate(batches):
        for part, arrays in enumerate(batch):
            for name, array in arrays.items():
                yield f"{number}/{part}/{name}", array


def exact(batches):
    """Hash of all bits, types and shapes."""
    digest = hashlib.sha256()
    for address, array in arrays_of(batches):
        digest.update(f"{address} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def rough(array):
    """What is stored of an array, so that what differs between processors does not count.

    Whole numbers are hashed. Of pixels and of other fractions four sums with drawn signs are kept, which nearly any
    change moves by more than `room`.
    """
    shape = f"{array.dtype if array.dtype.kind != 'U' else 'str'} {list(array.shape)}"
    if array.dtype.kind != "f" and array.dtype != np.uint8:
        content = "\n".join(map(str, array.ravel().tolist())).encode()
        return [shape, hashlib.sha256(content).hexdigest()[:16]]
    signs = np.random.default_rng(array.size).choice(np.array([-1.0, 1.0]), (4, array.size))
    return [shape, *(round(value, 6) for value in (signs @ array.ravel().astype(np.float64)).tolist())]


def room(array):
    """How far the sums of an array may be off: deltas differ by 6e-8 in places, pixels by 1 in 5 of a million."""
    if array.dtype == np.uint8:
        return 2 + 2e-5 * array.size
    return 2e-6 + 1e-6 * float(np.abs(array).sum()) if array.dtype.kind == "f" else 0


def main():
    if any(os.environ.get(name) != value for name, value in PROCESSOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | PROCESSOR)
    cv2.setNumThreads(1)
    stored, measured = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in make_grid(Path(folder)).items():
            batches = make()
            print(exact(batches), name, flush=True)
            stored[name] = {address: rough(array) for address, array in arrays_of(batches)}
            measured[name] = {address: [*rough(array), room(array)] for address, array in arrays_of(batches)}
    if "--write" in sys.argv:
        lines = (f"{json.dumps(name)}: {json.dumps(values)}" for name, values in stored.items())
        STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if "--measure" in sys.argv:
        Path(sys.argv[-1]).write_text(json.dumps(measured))


if __name__ == "__main__":
    main()
