"""Whatever stands in a file, a reader gives a table or says what is wrong with the file."""

import builtins
import contextlib
import json
import os
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detfeed import (
    AnnotationError,
    Annotations,
    ImageError,
    read_coco,
    read_csv,
    read_image_folder,
    read_kitti,
    read_lvis,
    read_ndjson,
    read_openimages,
    read_proposals,
    read_voc,
    read_yolo,
)

pytestmark = pytest.mark.no_cover  # which takes half as long as the tests; others go the same ways

few = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])

INSTANCES = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 20, "width": 30, "neg_category_ids": [2]},
        {"id": 8, "file_name": "b.png", "height": 20, "width": 30, "not_exhaustive_category_ids": [90]},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 2,
            "bbox": [1, 2, 3, 4.5],
            "area": 7,
            "iscrowd": 1,
            "segmentation": {"counts": [300, 300], "size": [20, 30]},
        },
        {"id": 2, "image_id": 8, "category_id": 90, "bbox": [0, 0, 30, 20], "ignore": 0},
    ],
    "categories": [{"id": 2, "name": "cat"}, {"id": 90, "name": "dog"}],
}
XML = (
    "<annotation><filename>a.png</filename><size><width>30</width><height>20</height></size><object><name>cat</name>"
    "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
    "</annotation>"
)
KITTI = (
    "Car 0.00 0 -1.58 5.01 7.5 24.3 18 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\nDontCare -1 -1 -10 1 1 9 9 " + "0 " * 7
)
YOLO = "0 0.5 0.5 0.25 0.5\n1 0.1 0.1 0.9 0.1 0.5 0.9\n"
YAML = "path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n"
CSV = "images/a.png,1,2,9,8,cow\nimages/a.png,,,,,\n"
OPENIMAGES = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/0,0.1,0.5,0.2,0.8,0\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    lay_out(root)
    return root


def lay_out(root):
    """Images and folders of every layout."""
    for name in ("images", "photos", "JPEGImages", "image_2", "labels", "label_2", "Annotations"):
        (root / name).mkdir()
    for name, suffixes in (
        ("images", ("png",)),
        ("photos", ("jpg",)),
        ("JPEGImages", ("png", "jpg")),
        ("image_2", ("png",)),
    ):
        for suffix in suffixes:
            cv2.imwrite(str(root / name / f"a.{suffix}"), np.zeros((20, 30, 3), np.uint8))
    (root / "plain.yaml").write_text(YAML)
    (root / "photos" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    (root / "classes.csv").write_text("cow,0\n")
    (root / "descriptions.csv").write_text("/m/0,Cow\n")


READERS = {
    "coco": ("instances.json", lambda root, file: read_coco(file, root / "images")),
    "lvis": ("lvis.json", lambda root, file: read_lvis(file, root / "images")),
    "voc": ("Annotations/a.xml", lambda root, file: read_voc(root)),
    "kitti": ("label_2/a.txt", lambda root, file: read_kitti(root)),
    "labels": ("labels/a.txt", lambda root, file: read_yolo(root / "plain.yaml")),
    "yaml": ("data.yaml", lambda root, file: read_yolo(file)),
    "csv": ("boxes.csv", lambda root, file: read_csv(file, root / "classes.csv")),
    "classes": ("classes_of.csv", lambda root, file: read_csv(root / "none.csv", file)),
    "imagefolder": ("images/metadata.jsonl", lambda root, file: read_image_folder(root / "images")),
    "ndjson": ("set.ndjson", lambda root, file: read_ndjson(file)),
    "darknet": ("obj.data", lambda root, file: read_yolo(file)),
    "openimages": ("oi.csv", lambda root, file: read_openimages(file, root / "descriptions.csv", root / "photos")),
}
SAMPLES = {
    "coco": json.dumps(INSTANCES),
    "lvis": json.dumps(INSTANCES),
    "voc": XML,
    "kitti": KITTI,
    "labels": YOLO,
    "yaml": YAML,
    "csv": CSV,
    "classes": "cow,0\ncat,1\n",
    "imagefolder": '{"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4.5]], "categories": ["cow"]}}\n',
    "ndjson": (
        '{"type": "dataset", "class_names": {"0": "cow"}}\n{"type": "image", "file": "a.png", "split": "train", '
        '"annotations": {"boxes": [[0, 0.5, 0.5, 0.2, 0.2]], "segments": [[0, 0.1, 0.1, 0.9, 0.1, 0.5, 0.9]]}}\n'
    ),
    "darknet": "classes = 1\ntrain = photos\nnames = descriptions.csv\n",
    "openimages": OPENIMAGES,
}


def read(folder, reader, data):
    """Read a file of these bytes; an error of annotations or images is fine, any other fails the test."""
    name, function = READERS[reader]
    (folder / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of bad boxes; those of numpy are errors
        # YOLO, CSV and OpenImages open images, whose names a mutation may change.
        with contextlib.suppress(AnnotationError, ImageError):
            table = function(folder, folder / name)
            assert isinstance(table, Annotations)
            assert np.isfinite(table.areas).all()


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"classes"}))
def test_samples_themselves_are_read(folder, reader):
    name, function = READERS[reader]
    (folder / name).write_text(SAMPLES[reader])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(function(folder, folder / name).boxes) > 0


@pytest.mark.parametrize("reader", READERS)
@few
@given(data=st.one_of(st.binary(max_size=100), st.text(max_size=100).map(lambda text: text.encode(errors="ignore"))))
def test_any_bytes_give_a_table_or_an_error(folder, reader, data):
    read(folder, reader, data)


# Cuts, insertions and overwritten bytes.
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 8),
        st.one_of(
            st.binary(max_size=4),
            st.sampled_from(
                [
                    *(b"NaN", b"-1", b"1e999", b"9" * 5000, b"\0", b"../", b"null", b"[" * 500, b"<a>" * 200),
                    *(b'"', b"\xff", b"\xed\xa0\x80", b"&amp;", b"&x;", b"*a", b"&a [*a]", b"!!int x", b"\\ud800"),
                ]
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("reader", READERS)
@few
@given(edits=EDITS)
def test_any_edit_of_a_sample_gives_a_table_or_an_error(folder, reader, edits):
    data = SAMPLES[reader].encode()
    for place, cut, new in edits:
        at = round(place * len(data))
        data = data[:at] + new + data[at + cut :]
    read(folder, reader, data)


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**20), 10**20),
        st.sampled_from([2**31, 2**63, 10**400, -0.0, 1e308, -1e308, 5e-324, 7, 8, 2, 90, 20, 30]),
        st.floats(allow_nan=True),
        st.text(max_size=5),
        st.sampled_from(["a\0", "../a", "/a", "..", "PPYo0", "ooooo", "o" * 50]),
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["counts", "size", "id"]), inner),
    max_leaves=5,
)


def places(value, path=()):
    """Paths of all values inside a JSON value."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


@pytest.mark.parametrize("reader", ["coco", "lvis"])
@few
@given(changes=st.lists(st.tuples(st.sampled_from(list(places(INSTANCES))), VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_in_json_gives_a_table_or_an_error(folder, reader, changes):
    content = json.loads(SAMPLES[reader])
    for path, value in changes:
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an earlier change may have taken the place away
            inner = content
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
    read(folder, reader, json.dumps(content).encode())


TEXTS = st.one_of(
    st.sampled_from(["", "1", "-5", "1e9", "nan", "-inf", "9" * 400, "cat", "a.png", "../a.png", " 7 ", "١"]),
    st.text(st.characters(blacklist_characters="<&", blacklist_categories=("Cs", "Cc")), max_size=5),
)


NUMBERS = st.one_of(st.floats(allow_nan=False), st.sampled_from([1e308, -1e308, 0, 1, 0.5]))


@few
@given(numbers=st.lists(NUMBERS, min_size=8, max_size=8), invalid=st.sampled_from(["clip", "drop", "ignore", "raise"]))
def test_any_numbers_in_boxes_give_a_table_or_an_error(folder, numbers, invalid):
    x0, y0, x1, y1, *rest = numbers
    (folder / "labels" / "a.txt").write_text(" ".join(map(str, [0, *numbers])) + f"\n0 {x0} {y0} {x1} {y1}\n")
    (folder / "oi.csv").write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/0,{x0},{x1},{y0},{y1},0\n")
    (folder / "boxes.csv").write_text(f"images/a.png,{x0},{y0},{x1},{y1},cow\n")
    content = json.loads(SAMPLES["coco"])
    content["annotations"][0] |= {"bbox": numbers[:4], "area": rest[0]}
    (folder / "numbers.json").write_text(json.dumps(content))
    for function in (
        lambda: read_yolo(folder / "plain.yaml", invalid=invalid),
        lambda: read_openimages(folder / "oi.csv", folder / "descriptions.csv", folder / "photos", invalid=invalid),
        lambda: read_csv(folder / "boxes.csv", folder / "classes.csv", invalid=invalid),
        lambda: read_coco(folder / "numbers.json", folder / "images", invalid=invalid),
    ):
        with warnings.catch_warnings(), contextlib.suppress(AnnotationError):
            warnings.simplefilter("ignore", UserWarning)
            table = function()
            limits = np.repeat(table.image_hw[:, ::-1], np.diff(table.offsets), axis=0)
            assert (table.boxes >= 0).all()
            assert (table.boxes[:, 2:] <= limits).all()
            assert (table.boxes[:, 2:] > table.boxes[:, :2]).all()


@few
@given(texts=st.lists(TEXTS, min_size=10, max_size=10), doubled=st.integers(0, 9), left_out=st.integers(0, 9))
def test_any_text_in_xml_gives_a_table_or_an_error(folder, texts, doubled, left_out):
    names = ["filename", "width", "height", "name", "difficult", "xmin", "ymin", "xmax", "ymax", "pose"]
    elements = [f"<{name}>{text}</{name}>" for name, text in zip(names, texts, strict=True)]
    elements[left_out] = ""
    elements[doubled] *= 2
    body = "{}<size>{}{}</size><object>{}{}<bndbox>{}{}{}{}</bndbox>{}</object>".format(*elements)
    read(folder, "voc", f"<annotation>{body}</annotation>".encode())


@pytest.mark.filterwarnings("ignore:.*classes have more ignored boxes than objects")
@few
@given(data=st.one_of(st.binary(max_size=60), EDITS.map(lambda edits: b"".join(edit[2] for edit in edits))))
def test_any_proposals_give_a_table_or_an_error(folder, data):
    (folder / "plain.json").write_text(SAMPLES["coco"])
    table = read_coco(folder / "plain.json", folder / "images")
    for name in ("p.json", "p.npz"):
        (folder / name).write_bytes(data)
        with contextlib.suppress(AnnotationError):
            read_proposals(folder / name, table, missing="allow")


@pytest.mark.parametrize("reader", sorted(set(READERS) - {"coco", "lvis"}))
def test_pipes_and_devices_are_not_read(tmp_path, reader):
    lay_out(tmp_path)
    (tmp_path / "none.csv").touch()
    name, function = READERS[reader]
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        make(tmp_path / name)
        with pytest.raises(AnnotationError, match=rf"{name}: expected .*, got a folder, pipe or device"):
            function(tmp_path, tmp_path / name)
        (tmp_path / name).unlink()


@pytest.fixture(
    params=[
        "stand-in",
        pytest.param("mode", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root looks into everything")),
    ]
)
def forbid(request, monkeypatch):
    """Let nobody look into a folder: by its mode, or, since root does not mind modes, as if by its mode."""
    forbidden = []

    def guard(module, name, of_content):
        function = getattr(module, name)

        def guarded(path=".", *arguments, **options):
            for folder in forbidden if isinstance(path, str | os.PathLike) else ():
                inside = os.path.relpath(path, folder)
                if not inside.startswith("..") and (of_content or inside != "."):
                    raise PermissionError(13, "Permission denied", os.fspath(path))
            return function(path, *arguments, **options)

        monkeypatch.setattr(module, name, guarded)

    if request.param == "stand-in":
        for name in ("listdir", "scandir"):
            guard(os, name, True)
        for module, name in ((os, "stat"), (os, "lstat"), (builtins, "open")):
            guard(module, name, False)
    yield lambda folder: forbidden.append(str(folder)) if request.param == "stand-in" else folder.chmod(0)
    forbidden.clear()
    for folder in request.getfixturevalue("tmp_path").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)


@pytest.mark.parametrize(
    ("reader", "folder"),
    [
        ("voc", "Annotations"),
        ("voc", "JPEGImages"),
        ("kitti", "label_2"),
        ("kitti", "image_2"),
        ("labels", "images"),
        ("labels", "images/s"),
        ("labels", "labels/s"),
    ],
)
def test_folder_that_cannot_be_listed_is_no_empty_one(tmp_path, forbid, reader, folder):
    lay_out(tmp_path)
    name, function = READERS[reader]
    (tmp_path / name).write_text(SAMPLES[reader])
    for below in ("images/s", "labels/s"):
        (tmp_path / below).mkdir()
    (tmp_path / "images/s/b.png").write_bytes((tmp_path / "images/a.png").read_bytes())
    (tmp_path / "labels/s/b.txt").write_text(YOLO)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert len(function(tmp_path, None)) > 0
    forbid(tmp_path / folder)
    with pytest.raises(AnnotationError, match=rf"{folder}.*: expected .*, got Permission denied"):
        function(tmp_path, None)
