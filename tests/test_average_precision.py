import contextlib
import dataclasses
import importlib.util
import io
import json
import math

import numpy as np
import pytest

from detfeed import average_precision, read_coco, voc_average_precision, write_results

FIGURES = ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"]
FIGURES += ["AR@1", "AR@10", "AR@100", "AR@100_small", "AR@100_medium", "AR@100_large"]
ENGINES = [
    "pycocotools",
    pytest.param(
        "faster-coco-eval",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval is not installed"
        ),
    ),
]


def of_pycocotools(file, results):
    """COCO's figures and the AP of each category of a file, from pycocotools alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = dict(zip(FIGURES, evaluation.stats.tolist(), strict=True))
    for row, category_id in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, row, 0, -1]
        there = precision[precision > -1]
        figures[f"AP/{truth.cats[category_id]['name']}"] = there.mean() if len(there) else -1
    return {name: math.nan if value == -1 else value for name, value in figures.items()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12, rel=0, nan_ok=True), name


def one_each(table, boxes, scores=None, class_ids=None):
    """Detections with the truth's own classes and falling scores, if no others are given."""
    counts = [len(found) for found in boxes]
    if class_ids is None:
        class_ids = [table.class_ids[table.rows(position)][:count] for position, count in enumerate(counts)]
    if scores is None:
        scores = [np.linspace(1, 0.5, count, dtype=np.float32) for count in counts]
    return [np.array(found, np.float32).reshape(-1, 4) for found in boxes], scores, class_ids


def write_drawn(tmp_path, *, ids, seed):
    """A COCO file with crowds, areas of its own, empty images, an absent class and gaps between its ids."""
    rng = np.random.default_rng(seed)
    images = [{"id": name, "file_name": f"{name}.jpg", "height": 300, "width": 400} for name in ids]
    categories = [{"id": number, "name": name} for number, name in ((90, "cat"), (3, "dog"), (17, "absent"))]
    annotations = []
    for image in images:
        for _ in range(rng.integers(0, 8)):
            x, y, w, h = np.round(rng.uniform([0, 0, 5, 5], [200, 150, 200, 150]), int(rng.integers(0, 3))).tolist()
            crowd = int(rng.random() < 0.2)
            mask = {"counts": [0, 300 * 400], "size": [300, 400]} if crowd else [[0, 0, 5, 0, 5, 5]]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([90, 3])),
                    "bbox": [x, y, w, h],
                    "area": w * h * rng.uniform(0.2, 1),
                    "iscrowd": crowd,
                    "segmentation": mask,
                }
            )
    path = tmp_path / "drawn.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def draw_detections(table, rng, *, most=130, decimals=1):
    """Boxes near the truth and anywhere, with many equal scores; more than 100 in some images, none in others."""
    boxes, scores, class_ids = [], [], []
    for position in range(len(table)):
        rows = table.rows(position)
        near = table.boxes[rows].repeat(3, axis=0)
        near = near + rng.normal(0, 6, near.shape)
        count = int(rng.integers(0, most)) if position % 5 else 0
        corner = rng.uniform(0, 250, (count, 2))
        anywhere = np.concatenate([corner, corner + rng.uniform(1, 150, (count, 2))], axis=1)
        all_of_them = np.concatenate([near, anywhere]).round().astype(np.float32)
        all_of_them[:, 2:] = np.maximum(all_of_them[:, 2:], all_of_them[:, :2])
        boxes.append(all_of_them)
        scores.append(rng.random(len(all_of_them)).round(decimals).astype(np.float32))
        own = table.class_ids[rows].repeat(3)
        class_ids.append(np.concatenate([own, rng.integers(0, len(table.class_names), count)]).astype(np.int32))
    return boxes, scores, class_ids


@pytest.mark.parametrize("score", [average_precision, voc_average_precision])
def test_without_images_or_objects_all_is_nan(annotate, score):
    assert np.isnan(list(score(annotate([], []), [], [], []).values())).all()
    table = annotate([(50, 50)], [[]])
    assert np.isnan(list(score(table, *one_each(table, [[]])).values())).all()
    found = score(table, [np.array([[0, 0, 5, 5]])], [np.ones(1)], [np.zeros(1, int)])
    assert np.isnan(list(found.values())).all()


def test_without_classes_all_is_nan(annotate):
    found = average_precision(annotate([(50, 50)], [[]], classes=0), [np.zeros((0, 4))], [[]], [[]])
    assert list(found) == FIGURES
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize("score", [average_precision, voc_average_precision])
def test_without_detections_all_is_zero_where_there_are_objects(annotate, score):
    table = annotate([(50, 50)], [[(0, 0, 10, 10)]])
    found = score(table, *one_each(table, [[]]))
    assert found.get("AP", 0) == found.get("AP50_area", 0) == found.get("AP50_11points", 0) == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_the_truth_scores_one_and_absent_classes_nan(annotate, engine):
    boxes = [[(0, 0, 10, 10)], [(5, 5, 45, 45), (0, 0, 50, 30)]]
    table = annotate([(50, 50)] * 2, boxes, classes=4)
    table = dataclasses.replace(table, class_ids=np.array([0, 0, 1], np.int32))
    found = average_precision(table, *one_each(table, boxes), engine=engine)
    assert list(found) == [*FIGURES, "AP/class 0", "AP/class 1", "AP/class 2", "AP/class 3"]
    for name in ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AR@1", "AR@100", "AP/class 0", "AP/class 1"):
        assert found[name] == pytest.approx(1, abs=1e-12)
    for name in ("AP_large", "AR@100_large", "AP/class 2", "AP/class 3"):
        assert np.isnan(found[name])
    by_voc = voc_average_precision(table, *one_each(table, boxes))
    assert by_voc["AP50_area"] == by_voc["AP50_11points"] == by_voc["AP50_area/class 1"] == 1
    assert np.isnan(by_voc["AP50_11points/class 3"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ids", [[17, 4, 230, 9, 58, 1, 1000000007, 2], [f"name {i}" for i in (3, 1, 2, 10, 7)]])
def test_figures_are_those_of_pycocotools_on_the_files(tmp_path, ids, engine):
    for seed in range(4):
        file = write_drawn(tmp_path, ids=ids, seed=seed)
        table = read_coco(file, tmp_path)
        found = draw_detections(table, np.random.default_rng(seed))
        assert max(map(len, found[1])) > 100
        write_results(tmp_path / "results.json", table, *found)
        expected = of_pycocotools(file, tmp_path / "results.json")
        in_order = {name: expected[name] for name in [*FIGURES, *[f"AP/{name}" for name in table.class_names]]}
        assert not np.isnan(in_order["AP"])
        assert np.isnan(in_order["AP/absent"])
        assert_same(average_precision(table, *found, engine=engine), in_order)


@pytest.mark.no_cover  # which takes as long as pycocotools; other tests go the same ways
@pytest.mark.parametrize("engine", ENGINES)
def test_figures_are_those_of_pycocotools_on_real_annotations(data, tmp_path, engine):
    file = data / "coco" / "annotations" / "instances_train2017.json"
    table = read_coco(file, data / "coco" / "train2017")
    for seed in range(3):
        found = draw_detections(table, np.random.default_rng(seed), decimals=2)
        write_results(tmp_path / "results.json", table, *found)
        expected = of_pycocotools(file, tmp_path / "results.json")
        in_order = {name: expected[name] for name in [*FIGURES, *[f"AP/{name}" for name in table.class_names]]}
        assert_same(average_precision(table, *found, engine=engine), in_order)


def test_ignored_boxes_count_as_crowds(tmp_path):
    file = write_drawn(tmp_path, ids=[1, 2, 3, 4, 5], seed=0)
    content = json.loads(file.read_text())
    for item in content["annotations"]:
        if item.pop("iscrowd"):
            item["ignore"] = 1
            del item["segmentation"]
    ignored = tmp_path / "ignored.json"
    ignored.write_text(json.dumps(content))
    crowds, table = read_coco(file, tmp_path), read_coco(ignored, tmp_path)
    assert table.ignore.any() and not table.masks
    found = draw_detections(table, np.random.default_rng(0))
    assert_same(average_precision(table, *found), average_precision(crowds, *found))


def test_at_most_100_detections_of_a_class_in_an_image_count(annotate):
    table = annotate([(50, 50)], [[(0, 0, 10, 10)]])
    wrong = [(20, 20, 30 + i % 7, 31) for i in range(100)]
    found = one_each(table, [[*wrong, (0, 0, 10, 10)]], class_ids=[np.zeros(101, int)])
    assert average_precision(table, *found)["AP"] == 0
    assert voc_average_precision(table, *found)["AP50_area"] == pytest.approx(1 / 101)
    # Those of another class take no place.
    found = one_each(table, [[*wrong, (0, 0, 10, 10)]], class_ids=[(np.arange(101) < 100).astype(int)])
    assert average_precision(table, *found)["AP"] == pytest.approx(1)


@pytest.mark.parametrize("score", [average_precision, voc_average_precision])
def test_detections_that_cannot_be_scored_are_refused_with_their_image(annotate, score):
    table = annotate([(50, 50)] * 2, [[(0, 0, 10, 10)]] * 2)
    good = np.array([[0, 0, 10, 10], [1, 1, 5, 5]], np.float32)

    def try_out(box=None, value=None, ids=None):
        boxes = good if box is None else np.array([good[0], box], np.float32)
        scores, class_ids = np.ones(2) if value is None else value, np.zeros(2, int) if ids is None else ids
        return score(table, [good, boxes], [np.ones(2), scores], [np.zeros(2, int), class_ids])

    try_out()
    place = r"at detection 1 of image 101 \(position 1, .*001\.png\)"
    with pytest.raises(ValueError, match=rf"finite boxes\. Received: box \[0\.0, nan, 5\.0, 5\.0\].*{place}"):
        try_out((0, np.nan, 5, 5))
    with pytest.raises(ValueError, match=rf"x0 <= x1 and y0 <= y1\. Received: box \[6\.0.*{place}"):
        try_out((6, 0, 5, 5))
    with pytest.raises(ValueError, match=rf"finite scores\. .*score inf.*{place}"):
        try_out(value=np.array([1, np.inf]))
    with pytest.raises(ValueError, match=rf"class_ids from 0 to 2\. .*class_id 3 - {place}"):
        try_out(ids=np.array([0, 3]))
    with pytest.raises(ValueError, match=rf"class_ids from 0 to 2\. .*class_id -1 - {place}"):
        try_out(ids=np.array([0, -1]))
    with pytest.raises(ValueError, match=r"integers\. Received: float64 of image 101"):
        try_out(ids=np.zeros(2))
    with pytest.raises(ValueError, match=r"Received: \(2, 4\), \(3,\) and \(2,\) of image 101"):
        try_out(value=np.ones(3))
    with pytest.raises(ValueError, match=r"boxes, scores, class_ids for each of 2 images\. Received: 2, 1, 2"):
        score(table, [good] * 2, [np.ones(2)], [np.zeros(2, int)] * 2)


def test_classes_of_one_name_are_refused(annotate):
    table = dataclasses.replace(annotate([(9, 9)], [[]]), class_names=("a", "b", "a"))
    for score in (average_precision, voc_average_precision):
        with pytest.raises(ValueError, match=r"different names\. Received: 'a' 2 times"):
            score(table, *one_each(table, [[]]))


def test_federated_annotations_are_refused_with_a_way_out(annotate):
    table = annotate([(9, 9)], [[(0, 0, 5, 5)]])
    none = np.zeros((0, 2), np.int32)
    federated = dataclasses.replace(table, neg_classes=none, not_exhaustive_classes=none)
    with pytest.raises(ValueError, match="federated"):
        average_precision(federated, *one_each(table, [[]]))
    freed = dataclasses.replace(federated, neg_classes=None, not_exhaustive_classes=None)
    assert average_precision(freed, *one_each(table, [[(0, 0, 5, 5)]]))["AP"] == pytest.approx(1)


def test_engines_that_are_unknown_or_missing_are_named(annotate, monkeypatch):
    table = annotate([(9, 9)], [[]])
    with pytest.raises(ValueError, match=r"engine to be one of .*'pycocotools'.*Received: 'fast'"):
        average_precision(table, *one_each(table, [[]]), engine="fast")
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    with pytest.raises(ModuleNotFoundError, match="pip install faster-coco-eval"):
        average_precision(table, *one_each(table, [[]]), engine="faster-coco-eval")


def slow_voc(table, boxes, scores, class_ids, class_id):
    """VOC's AP of a class by both rules, loop by loop as VOCevaldet.m and VOCap.m of the devkits have it."""
    detections = [
        (score, position, box)
        for position in range(len(table))
        for box, score, own in zip(boxes[position], scores[position], class_ids[position], strict=True)
        if own == class_id
    ]
    detections.sort(key=lambda detection: -detection[0])  # stable
    rows_of = {
        p: [r for r in range(*table.offsets[p : p + 2]) if table.class_ids[r] == class_id] for p in range(len(table))
    }
    num_objects = sum(not table.ignore[row] for rows in rows_of.values() for row in rows)
    if not num_objects:
        return math.nan, math.nan
    detected, right, wrong = set(), [], []
    for _, position, (x0, y0, x1, y1) in detections:
        # The devkit's boxes count pixels, inclusive and from 1.
        found = x0 + 1, y0 + 1, x1, y1
        best, match = -math.inf, None
        for row in rows_of[position]:
            gx0, gy0, gx1, gy1 = table.boxes[row].astype(float)
            truth = gx0 + 1, gy0 + 1, gx1, gy1
            corners = [
                max(found[0], truth[0]),
                max(found[1], truth[1]),
                min(found[2], truth[2]),
                min(found[3], truth[3]),
            ]
            width, height = corners[2] - corners[0] + 1, corners[3] - corners[1] + 1
            if width > 0 and height > 0:
                area = lambda box: (box[2] - box[0] + 1) * (box[3] - box[1] + 1)  # noqa: E731
                overlap = width * height / (area(found) + area(truth) - width * height)
                if overlap > best:
                    best, match = overlap, row
        right.append(0), wrong.append(0)
        if best >= 0.5:
            if not table.ignore[match]:
                if match not in detected:
                    right[-1] = 1
                    detected.add(match)
                else:
                    wrong[-1] = 1
        else:
            wrong[-1] = 1
    recall, precision, hits, misses = [], [], 0, 0
    for good, bad in zip(right, wrong, strict=True):
        hits, misses = hits + good, misses + bad
        recall.append(hits / num_objects)
        precision.append(hits / (hits + misses) if hits + misses else 0.0)
    points = [max([p for r, p in zip(recall, precision, strict=True) if r >= k / 10], default=0) for k in range(11)]
    curve_recall, curve_precision = [0, *recall, 1], [0, *precision, 0]
    for i in reversed(range(len(curve_precision) - 1)):
        curve_precision[i] = max(curve_precision[i], curve_precision[i + 1])
    area = sum(
        (curve_recall[i] - curve_recall[i - 1]) * curve_precision[i]
        for i in range(1, len(curve_recall))
        if curve_recall[i] != curve_recall[i - 1]
    )
    return area, sum(points) / 11


def test_voc_figures_are_those_of_the_devkit_loop_by_loop(tmp_path):
    for seed in range(6):
        table = read_coco(write_drawn(tmp_path, ids=list(range(9)), seed=seed), tmp_path)
        found = draw_detections(table, np.random.default_rng(seed), most=25)
        expected = [slow_voc(table, *found, class_id) for class_id in range(3)]
        scored = voc_average_precision(table, *found)
        for rule, values in zip(("AP50_area", "AP50_11points"), zip(*expected, strict=True), strict=True):
            for name, value in zip(table.class_names, values, strict=True):
                assert scored[f"{rule}/{name}"] == pytest.approx(value, abs=1e-12, nan_ok=True)
            assert scored[rule] == pytest.approx(np.nanmean(values), abs=1e-12)


def test_voc_figures_on_paper(annotate):
    """Two objects; found right, wrong, right again (a duplicate), right: precision 1 at recall 1/2 and 2/4 at 1."""
    table = annotate([(50, 50)], [[(0, 0, 10, 10), (20, 20, 40, 40)]], classes=1)
    found = one_each(
        table,
        [[(0, 0, 10, 10), (30, 0, 50, 9), (0, 0, 10, 9), (20, 20, 40, 30)]],
        class_ids=[np.zeros(4, int)],
    )
    scored = voc_average_precision(table, *found)  # the last has IoU 0.5 exactly
    assert scored["AP50_area"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 4)
    assert scored["AP50_11points"] == pytest.approx((6 * 1 + 5 * 2 / 4) / 11)


def test_difficult_objects_count_neither_way(annotate):
    table = annotate([(50, 50)], [[(0, 0, 10, 10), (20, 20, 40, 40)]], classes=1, ignore_of=[[False, True]])
    boxes = [[(20, 20, 40, 40), (20, 20, 40, 39), (0, 0, 10, 10)]]
    assert voc_average_precision(table, *one_each(table, boxes, class_ids=[np.zeros(3, int)]))["AP50_area"] == 1


def test_results_are_written_exactly_and_whole_or_not_at_all(shapes, tmp_path):
    path = tmp_path / "results.json"
    boxes = [shapes.boxes[shapes.rows(p)] / np.float32(3) for p in range(len(shapes))]
    class_ids = [shapes.class_ids[shapes.rows(p)] for p in range(len(shapes))]
    scores = [np.full(len(b), 0.1, np.float32) for b in boxes]
    write_results(path, shapes, boxes, scores, class_ids)
    results = json.loads(path.read_text())
    assert len(results) == len(shapes.boxes)
    row = shapes.rows(3).start
    assert results[row]["image_id"] == shapes.image_id(3)
    assert results[row]["category_id"] == shapes.category_ids[shapes.class_ids[row]]
    x, y, w, h = results[row]["bbox"]
    assert np.float32([x, y, x + w, y + h]).tolist() == boxes[3][0].tolist()
    assert np.float32(results[row]["score"]) == np.float32(0.1)
    before = path.read_bytes()
    scores[5] = scores[5] * np.nan
    with pytest.raises(ValueError, match="finite scores"):
        write_results(path, shapes, boxes, scores, class_ids)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_no_detections_are_an_empty_list(annotate, tmp_path):
    table = annotate([(9, 9)], [[]])
    write_results(tmp_path / "results.json", table, *one_each(table, [[]]))
    assert (tmp_path / "results.json").read_text() == "[]"
