"""The built-in data set: what is written, that it repeats, and that boxes sit on what was drawn."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from detfeed import shapes
from detfeed.shapes import make_shapes

# pycocotools' decode on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_IMAGES = 96


@pytest.fixture(scope="module")
def instances_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), num_images=NUM_IMAGES, seed=1)


@pytest.fixture(scope="module")
def instances(instances_path: Path) -> dict[str, Any]:
    return json.loads(instances_path.read_text())


def pixel_box(mask: np.ndarray) -> list[int]:
    """Bounds x0, y0, x1, y1 of the True pixels, found without the module under test."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def xyxy(annotation: dict[str, Any]) -> np.ndarray:
    x, y, width, height = annotation["bbox"]
    return np.array([x, y, x + width, y + height])


def polygon_mask(annotation: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
    rles = mask_api.frPyObjects(annotation["segmentation"], image["height"], image["width"])
    return mask_api.decode(mask_api.merge(rles)).astype(bool)


def test_fewer_than_one_image_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"Expected num_images.* Received: num_images=0$"):
        make_shapes(tmp_path, num_images=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_hw", [(31, 160), (160, 31), (32, 65501), (32,)])
def test_impossible_image_size_is_refused(tmp_path, image_hw):
    with pytest.raises(ValueError, match="Expected image_hw") as caught:
        make_shapes(tmp_path, num_images=1, image_hw=image_hw)
    assert str(caught.value).endswith(f"Received: image_hw={image_hw}")


@pytest.mark.parametrize(
    "name, value", [("num_images", "2"), ("seed", 1.5), ("jpeg_quality", True), ("image_hw", 96), ("image_hw", "ab")]
)
def test_argument_of_a_wrong_type_is_refused_at_once(tmp_path, name, value):
    with pytest.raises(TypeError, match=f"Expected {name} to be .* Received: {value!r}$"):
        make_shapes(tmp_path, **{name: value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, value", [("seed", -1), ("jpeg_quality", 0), ("jpeg_quality", 101)])
def test_argument_out_of_range_is_refused(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"Expected .*{name}.* Received: {name}={value}$"):
        make_shapes(tmp_path, num_images=1, **{name: value})


def test_one_image_makes_one_jpeg_and_one_json(tmp_path):
    path = make_shapes(tmp_path / "new" / "folder", num_images=1, seed=4)
    assert path == tmp_path / "new" / "folder" / "instances.json"
    assert [file.name for file in path.parent.rglob("*.jpg")] == ["000001.jpg"]
    assert (path.parent / "images" / "000001.jpg").read_bytes()[:2] == b"\xff\xd8"


def test_smallest_images_still_have_objects(tmp_path):
    path = make_shapes(tmp_path, num_images=30, image_hw=(32, 32))
    boxes = np.array([xyxy(annotation) for annotation in json.loads(path.read_text())["annotations"]])
    assert len(boxes) >= 30
    assert boxes.min() >= 0 and boxes.max() <= 32


def test_folder_may_be_a_string_and_its_own_files_are_overwritten(tmp_path):
    make_shapes(str(tmp_path), num_images=3, seed=0)
    path = make_shapes(str(tmp_path), num_images=3, seed=9)
    fresh = make_shapes(tmp_path / "fresh", num_images=3, seed=9)
    assert path.read_bytes() == fresh.read_bytes()
    for name in ("000001.jpg", "000002.jpg", "000003.jpg"):
        assert (tmp_path / "images" / name).read_bytes() == (fresh.parent / "images" / name).read_bytes()


def test_smaller_data_set_is_the_beginning_of_a_larger_one(tmp_path):
    small = make_shapes(tmp_path / "small", num_images=10, seed=7)
    large = make_shapes(tmp_path / "large", num_images=20, seed=7)
    few, many = json.loads(small.read_text()), json.loads(large.read_text())
    assert few["images"] == many["images"][:10]
    assert few["annotations"] == [each for each in many["annotations"] if each["image_id"] <= 10]
    for image in few["images"]:
        name = Path("images") / image["file_name"]
        assert (small.parent / name).read_bytes() == (large.parent / name).read_bytes()


def test_another_seed_draws_other_images(tmp_path):
    one = make_shapes(tmp_path / "one", num_images=3, seed=0)
    two = make_shapes(tmp_path / "two", num_images=3, seed=1)
    for name in ("000001.jpg", "000002.jpg", "000003.jpg"):
        assert (one.parent / "images" / name).read_bytes() != (two.parent / "images" / name).read_bytes()


def test_quality_changes_the_jpeg_and_not_the_annotations(tmp_path):
    coarse = make_shapes(tmp_path / "coarse", num_images=1, jpeg_quality=30)
    fine = make_shapes(tmp_path / "fine", num_images=1, jpeg_quality=95)
    assert coarse.read_bytes() == fine.read_bytes()
    sizes = [(path.parent / "images" / "000001.jpg").stat().st_size for path in (coarse, fine)]
    assert sizes[0] < sizes[1]


def test_pycocotools_loads_it_and_finds_gaps_between_category_ids(instances_path, capsys):
    coco = COCO(instances_path)
    assert capsys.readouterr().out
    assert coco.getCatIds() == [1, 3, 7, 18]
    assert len(coco.getImgIds()) == NUM_IMAGES
    ids = coco.getAnnIds()
    assert ids == list(range(1, len(ids) + 1))
    assert {annotation["category_id"] for annotation in coco.loadAnns(ids)} == {
        1,
        3,
        7,
        18,
    }


def test_images_have_the_annotated_size_in_two_orientations(instances, instances_path):
    sizes = []
    for image in instances["images"]:
        pixels = cv2.imread(str(instances_path.parent / "images" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
        sizes.append(pixels.shape[:2])
    counts = Counter(sizes)
    assert set(counts) == {(120, 160), (160, 120)}
    assert 0.1 < counts[160, 120] / NUM_IMAGES < 0.4


def test_some_images_are_empty_some_have_a_crowd_and_others_one_to_eight_objects(
    instances,
):
    objects = Counter(each["image_id"] for each in instances["annotations"] if not each["iscrowd"])
    crowds = Counter(each["image_id"] for each in instances["annotations"] if each["iscrowd"])
    plain = [objects[image["id"]] for image in instances["images"] if image["id"] not in crowds]
    assert 1 <= plain.count(0) <= NUM_IMAGES / 5
    assert 1 <= len(crowds) <= NUM_IMAGES / 5
    assert set(crowds.values()) == {1}
    assert min(objects.values()) == 1 and max(objects.values()) == 8


def test_objects_are_small_to_large_and_inside_the_image(instances):
    image_hw = {image["id"]: (image["height"], image["width"]) for image in instances["images"]}
    sides = []
    for annotation in instances["annotations"]:
        assert all(type(number) is float for number in annotation["bbox"])
        x0, y0, x1, y1 = xyxy(annotation)
        height, width = image_hw[annotation["image_id"]]
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        if not annotation["iscrowd"]:
            sides += annotation["bbox"][2:]
    assert 5 <= min(sides) <= 10
    assert 60 <= max(sides) <= 0.6 * 120 + 2  # rounded outwards to whole pixels
    assert 15 < np.median(sides) < 30  # log-uniform: half of them below sqrt(8 * 72) = 24


def test_some_objects_reach_over_the_image_edge(instances):
    touching = [each for each in instances["annotations"] if min(each["bbox"][:2]) == 0 and not each["iscrowd"]]
    assert touching


def test_boxes_and_areas_fit_the_polygons(instances):
    differences = []
    images = {image["id"]: image for image in instances["images"]}
    for annotation in instances["annotations"]:
        if annotation["iscrowd"]:
            continue
        mask = polygon_mask(annotation, images[annotation["image_id"]])
        assert np.abs(pixel_box(mask) - xyxy(annotation)).max() <= 1, annotation
        # Rounding to pixels errs by a part of the perimeter, in either direction.
        assert abs(mask.sum() - annotation["area"]) <= 0.25 * 2 * sum(annotation["bbox"][2:]), annotation
        differences.append((annotation["area"] - mask.sum()) / mask.sum())
    assert abs(np.mean(differences)) < 0.03


def test_every_object_stays_visible_under_the_later_ones(instances):
    for image in instances["images"]:
        masks = [
            mask_api.decode(mask_api.frPyObjects(each["segmentation"], image["height"], image["width"])).astype(bool)
            if each["iscrowd"]
            else polygon_mask(each, image)
            for each in instances["annotations"]
            if each["image_id"] == image["id"]
        ]
        hidden = np.zeros((image["height"], image["width"]), bool)
        for mask in reversed(masks):
            assert (mask & ~hidden).sum() >= 0.35 * mask.sum(), image  # 0.4, less the rounding of small polygons
            hidden |= mask


def test_crowd_is_a_run_length_mask_of_many_little_shapes(instances):
    images = {image["id"]: image for image in instances["images"]}
    for annotation in instances["annotations"]:
        if not annotation["iscrowd"]:
            continue
        image = images[annotation["image_id"]]
        assert annotation["segmentation"]["size"] == [image["height"], image["width"]]
        rle = mask_api.frPyObjects(annotation["segmentation"], image["height"], image["width"])
        assert mask_api.toBbox(rle).tolist() == annotation["bbox"]
        assert mask_api.area(rle) == annotation["area"] > 300


def test_run_length_mask_of_nothing_is_one_run():
    assert shapes._rle(np.zeros((2, 3), bool)) == {"counts": [6], "size": [2, 3]}


@pytest.mark.parametrize("seed", range(5))
def test_run_length_mask_decodes_to_itself(seed):
    mask = np.random.default_rng(seed).random((5, 7)) < 0.5
    mask[0, 0] = seed % 2  # the first run, of zeros, may be empty
    rle = shapes._rle(mask)
    assert (mask_api.decode(mask_api.frPyObjects(rle, 5, 7)) == mask).all()


def test_coverage_of_a_rectangle_adds_up_to_its_area():
    outline = np.array([[1.1, 1.1], [3.9, 1.1], [3.9, 4.3], [1.1, 4.3]])
    window, coverage = shapes._rasterise(outline, 8, 8)
    assert window == (slice(1, 5), slice(1, 4))
    assert coverage.sum() == pytest.approx(2.8 * 3.2, rel=0.05)
    assert (coverage >= 0.5).tolist() == [[True] * 3, [True] * 3, [True] * 3, [False] * 3]


@pytest.mark.parametrize("category_id", shapes.CATEGORIES)
def test_boxes_hold_the_pixels_that_change_when_a_shape_is_drawn(category_id):
    rng = np.random.default_rng(category_id)
    for smooth in (False, True) * 20:
        outline = shapes._outline(rng, category_id, rng.uniform(8, 40), 40) + rng.uniform(-2, 40, 2)
        window, coverage = shapes._rasterise(outline, 64, 64)
        mask = coverage >= 0.5
        image = np.zeros((64, 64, 3), np.float32)
        shapes._paint(rng, image[window], coverage, np.full(3, 200, np.float32))
        corner = (window[1].start, window[0].start)
        annotation = shapes._annotation(mask, corner, category_id, iscrowd=0, segmentation=[])
        painted = image.min(axis=2) > 70  # at least half of 200, less the grain
        assert pixel_box(painted) == pytest.approx(xyxy(annotation), abs=1), smooth
        assert painted.sum() == pytest.approx(annotation["area"], rel=0.25)


def test_objects_stand_out_from_the_pixels_around_their_box(instances, instances_path):
    contrasts = []
    for image in instances["images"]:
        annotations = [each for each in instances["annotations"] if each["image_id"] == image["id"]]
        if len(annotations) != 1 or annotations[0]["iscrowd"]:
            continue
        pixels = cv2.imread(str(instances_path.parent / "images" / image["file_name"])).astype(float)
        mask = polygon_mask(annotations[0], image)
        x0, y0, x1, y1 = xyxy(annotations[0]).astype(int)
        around = np.zeros_like(mask)
        around[max(0, y0 - 4) : y1 + 4, max(0, x0 - 4) : x1 + 4] = True
        around[y0:y1, x0:x1] = False
        contrasts.append(np.linalg.norm(np.median(pixels[mask], axis=0) - np.median(pixels[around], axis=0)))
    assert len(contrasts) >= 5
    assert np.median(contrasts) > 100


def test_clipping_keeps_a_polygon_inside_and_cuts_one_that_reaches_over():
    inside = np.array([[1.0, 1], [3, 1], [2, 3]])
    assert shapes._clip_polygon(inside, 4, 4).tolist() == inside.tolist()
    square = np.array([[-1.0, 1], [2, 1], [2, 5], [-1, 5]])
    cut = shapes._clip_polygon(square, 4, 4)
    assert sorted(cut.tolist()) == [[0, 1], [0, 4], [2, 1], [2, 4]]
