import dataclasses
import time
import warnings
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from detfeed import (
    Fixed,
    ShortSide,
    check,
    concat,
    read_coco,
    read_csv,
    read_kitti,
    read_openimages,
    read_voc,
    read_yolo,
    write_coco,
)
from detfeed.check import dataset
from detfeed.check import pictures as inspection
from image_files import FILES, encode, noise, picture
from reports import BOX, found, names, one


def test_set_without_images_cannot_be_trained_on(coco):
    report = check(coco([]))
    finding = one(report, "no-images")
    assert (finding.severity, finding.count) == ("error", 1)
    assert finding.examples[0].file.endswith("set/a.json")
    assert report.status == 1
    assert report.checked[0].cleaned().paths == ()


def test_clean_set_has_nothing_to_report(coco):
    report = check(coco())
    assert report.findings == ()
    assert report.status == 0
    assert report.checked[0].usable.tolist() == [True]


def test_annotations_that_cannot_be_read_are_a_finding_with_the_message_of_the_reader(coco, tmp_path):
    (tmp_path / "b.json").write_text('{"images": []}')
    report = check(lambda: read_coco(tmp_path / "b.json", tmp_path), coco())
    finding = one(report, "unreadable")
    assert (finding.data, finding.count) == ("train", 1)
    assert finding.examples[0].file == str(tmp_path / "b.json")
    assert "`annotations`" in finding.examples[0].detail
    assert report.status == 2
    with pytest.raises(ValueError, match="Received: none of train"):
        report.checked[0].cleaned()
    assert len(report.checked[1].cleaned()) == 1


@pytest.mark.parametrize(
    ("path", "file", "detail"),
    [
        ("a: b/c: d.json", "a: b/c: d.json", "Object missing required field `images`"),
        ("a: b/none: 1.json", "a: b/none: 1.json", "expected a COCO JSON file, got No such file"),
    ],
)
def test_colons_in_the_path_of_unreadable_annotations_are_part_of_it(tmp_path, path, file, detail):
    (tmp_path / "a: b").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a: b" / "c: d.json").write_text("{}")
    (example,) = one(check(lambda: read_coco(tmp_path / path, tmp_path)), "unreadable").examples
    assert example.file == str(tmp_path / file)
    assert example.detail.startswith(detail)


def test_folder_that_cannot_be_read_is_a_finding():
    def read():
        raise PermissionError(13, "Permission denied", "/data/images")

    (example,) = one(check(read), "unreadable").examples
    assert (example.file, example.detail) == ("/data/images", "Permission denied")


@pytest.fixture
def formats(tmp_path):
    """Write sets of the pictures a to e in each format, of which b is missing, c damaged, and give their readers.

    The annotation file of d is broken, where each image has one; a and e are left.
    """
    stems = "abcde"
    for folder in ("images", "JPEGImages", "image_2", "Annotations", "label_2", "labels"):
        (tmp_path / folder).mkdir()
    for number, stem in enumerate(stems):
        for folder in ("images", "JPEGImages", "image_2"):
            if stem != "b":
                content = b"nonsense" if stem == "c" else encode(noise(number), "JPEG")
                (tmp_path / folder / f"{stem}.jpg").write_bytes(content)
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>40</ymax></bndbox>"
        for folder, suffix, text in (
            ("Annotations", "xml", f"<annotation><object><name>cat</name>{box}</object></annotation>"),
            ("label_2", "txt", "cat 0 0 0 9 9 40 40 0 0 0 0 0 0 0"),
            ("labels", "txt", "0 0.5 0.5 0.5 0.5"),
        ):
            (tmp_path / folder / f"{stem}.{suffix}").write_text("<broken" if stem == "d" else text)
    (tmp_path / "list.txt").write_text("".join(f"images/{stem}.jpg\n" for stem in stems))
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: list.txt\n")
    (tmp_path / "classes.csv").write_text("cat,0\n")
    (tmp_path / "boxes.csv").write_text("".join(f"{stem}.jpg,9,9,40,40,cat\n" for stem in "abce"))
    rows = "".join(f"{stem},cat,0.1,0.9,0.1,0.9,0\n" for stem in "abce")
    (tmp_path / "oi.csv").write_text(f"ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n{rows}")
    csvs = (tmp_path / "classes.csv", tmp_path / "images")
    return {
        "voc": partial(read_voc, tmp_path),
        "kitti": partial(read_kitti, tmp_path),
        "yolo": partial(read_yolo, tmp_path / "data.yaml"),
        "csv": partial(read_csv, tmp_path / "boxes.csv", *csvs),
        "openimages": partial(read_openimages, tmp_path / "oi.csv", *csvs),
    }


@pytest.mark.parametrize("format", ["voc", "kitti", "yolo", "csv", "openimages"])
def test_bad_files_are_findings_and_left_out_and_do_not_hide_the_rest(formats, format):
    report = check(formats[format])
    assert report.status == 1
    by_kind = found(report)
    kinds = {"missing-image": "b", "damaged-image": "c", "unreadable-annotation": "d"}
    if format in ("csv", "openimages"):
        kinds.pop("unreadable-annotation")
    assert {kind: "".join(names(finding)) for kind, finding in by_kind.items()} == kinds
    assert all(example.detail for finding in by_kind.values() for example in finding.examples)
    assert all(not example.detail.startswith("/") for finding in by_kind.values() for example in finding.examples)
    (data,) = report.checked
    assert [Path(path).stem for path in data.annotations.paths] == ["a", "e"]
    assert data.unread == report.to_dict()["data"][0]["unread_files"] == len(kinds)
    assert data.usable.all()


def test_set_of_which_no_file_can_be_read_has_no_images(formats, tmp_path):
    for path in (tmp_path / "Annotations").glob("*.xml"):
        path.write_text("")
    by_kind = found(check(formats["voc"]))
    assert {kind: finding.count for kind, finding in by_kind.items()} == {"no-images": 1, "unreadable-annotation": 5}


def test_dontcare_of_kitti_is_no_class_to_find_images_of(formats):
    report = check(formats["kitti"])
    assert report.checked[0].annotations.class_names == ("cat", "DontCare")
    assert "absent-class" not in [finding.kind for finding in report.findings]


@pytest.mark.parametrize(
    ("kind", "box", "done"),
    [
        ("swapped-corners", [20, 20, -5, 5], "; dropped"),
        ("no-area", [20, 20, 0, 5], "; dropped"),
        ("outside", [90, 20, 5, 5], "; dropped"),
        ("larger-than-image", [-5, 5, 90, 50], "; clipped to it"),
        ("partly-outside", [-5, 5, 50, 50], "; clipped to it"),
        ("repeated", BOX, "; dropped"),
    ],
)
def test_bad_boxes_are_reported_as_they_stand_in_the_file(coco, kind, box, done):
    report = check(coco([(encode(noise(0), "PNG"), [BOX, box])]))
    finding = one(report, kind)
    assert finding.what.endswith(done)
    (example,) = finding.examples
    assert (Path(example.file).name, example.image_id, example.box) == ("0.png", 0, 1)
    corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
    assert example.detail == f"{corners}, `annotations[1].bbox` (image_id 0)"
    assert report.status == 1


def test_bad_boxes_follow_the_policy_of_the_reader(coco):
    report = check(coco([(encode(noise(0), "PNG"), [BOX, [-5, 5, 50, 50]])], invalid="ignore"))
    by_kind = found(report)
    assert by_kind["partly-outside"].what.endswith("; made ignore regions")
    assert by_kind["ignored-boxes"].count == 1


def test_bad_boxes_of_several_files_are_all_reported(coco):
    first = coco([(encode(noise(0), "PNG"), [BOX, BOX])])
    second = coco([(encode(noise(1), "PNG"), [BOX, [9, 9, 0, 0]])], name="second")
    by_kind = found(check(lambda: concat([first(), second()], new_ids=True)))
    assert by_kind.keys() == {"repeated", "no-area"}


def test_other_warnings_of_a_reader_are_passed_on(coco):
    read = coco()

    def read_and_warn():
        warnings.warn("something else", stacklevel=1)
        return read()

    with pytest.warns(UserWarning, match="something else"):
        assert check(read_and_warn).findings == ()


def test_point_of_voc_is_a_thin_box(coco, tmp_path):
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / "VOC" / folder).mkdir(parents=True)
    (tmp_path / "VOC" / "JPEGImages" / "a.png").write_bytes(encode(noise(0), "PNG"))
    corners = "<bndbox><xmin>7</xmin><ymin>8</ymin><xmax>7</xmax><ymax>20</ymax></bndbox>"
    (tmp_path / "VOC" / "Annotations" / "a.xml").write_text(
        f"<annotation><object><name>cat</name>{corners}</object></annotation>"
    )
    report = check(lambda: read_voc(tmp_path / "VOC"), smallest_anchor=0)
    (example,) = one(report, "thin-box").examples
    assert (example.image_id, example.box, example.detail) == ("a", 0, "[6, 7, 7, 20]")


@pytest.mark.parametrize(
    ("kind", "content", "detail"),
    [
        ("missing-image", None, "No such file"),
        ("damaged-image", encode(noise(0), "JPEG")[:-100], "Premature end"),
        ("damaged-image", b"nonsense", "nonsense"),
        ("size-mismatch", FILES["png"], "annotated height and width (60, 80), stored (24, 40)"),
        ("size-mismatch", encode(noise(0, 80, 60), "PNG"), "; as if height and width were swapped"),
        ("size-mismatch", encode(noise(0, 30, 80), "JPEG", orientation=8), "turned (80, 30) by EXIF orientation 8"),
    ],
)
def test_images_that_cannot_be_fed_are_errors_and_left_out_of_the_cleaned_set(coco, kind, content, detail):
    read = coco([(content, [BOX]), (encode(noise(1), "PNG"), [BOX])], names=["a.dat", "b.png"])
    report = check(read)
    finding = one(report, kind)
    assert finding.severity == "error"
    (example,) = finding.examples
    assert detail in example.detail
    assert (Path(example.file).name, example.image_id, example.box) == ("a.dat", 0, None)
    assert report.status == 1
    assert report.checked[0].cleaned().image_ids.tolist() == [1]


def test_image_of_too_many_pixels_is_an_error(coco, monkeypatch):
    monkeypatch.setattr(inspection, "MAX_PIXELS", 100)
    (example,) = one(check(coco()), "too-large").examples
    assert "at most 100 pixels, got 60 x 80" in example.detail


@pytest.mark.parametrize(
    ("kind", "content", "name", "detail"),
    [
        ("misnamed-format", encode(noise(0), "JPEG"), "a.png", "jpeg content"),
        ("trailing-bytes", encode(noise(0), "PNG") + b"123", "a.png", "3 bytes"),
        ("invalid-orientation", encode(noise(0), "JPEG", orientation=0), "a.jpg", "EXIF orientation 0"),
        (
            "orientation",
            encode(noise(0, 80, 60), "JPEG", orientation=6),
            "a.jpg",
            "annotated height and width (60, 80), stored (80, 60), turned (60, 80) by EXIF orientation 6",
        ),
    ],
)
def test_harmless_oddities_of_images_are_notes(coco, kind, content, name, detail):
    report = check(coco([(content, [BOX])], names=[name]))
    finding = one(report, kind)
    assert finding.severity == "note"
    assert detail in finding.examples[0].detail
    assert report.status == 0
    assert report.checked[0].usable.all()


@pytest.mark.parametrize(
    ("boxes", "kind", "severity"),
    [
        ([BOX], "unclear-orientation", "warning"),
        ([[5, 5, 70, 20], BOX], "orientation", "note"),
        ([[5, 5, 20, 70], BOX], "read-otherwise", "note"),
        ([], "orientation", "note"),
    ],
)
def test_boxes_tell_which_way_they_were_drawn_or_a_warning_says_that_they_do_not(coco, boxes, kind, severity):
    pictures = [(encode(noise(0), "JPEG", orientation=6), boxes), (encode(noise(1), "PNG"), [BOX])]
    by_kind = found(check(coco(pictures, names=["a.jpg", "b.png"])), "no-boxes")
    assert by_kind[kind].severity == severity
    if kind != "read-otherwise":
        assert by_kind.keys() - {"no-boxes"} == {kind}
        assert "stored (60, 80), turned (80, 60) by EXIF orientation 6" in by_kind[kind].examples[0].detail
    assert "nothing" not in by_kind[kind].advice


def test_what_a_reader_took_in_another_way_is_a_finding(coco):
    boxes = [BOX, [9, 9, 5, 5]]
    finding = one(check(coco([(encode(noise(0), "PNG"), boxes)], fields={"id": 5}.items())), "read-otherwise")
    assert (finding.severity, finding.count) == ("note", 1)
    assert "annotation ids repeat, and stay so - at `annotations[1]`" in finding.examples[0].detail


def test_every_bad_entry_of_a_coco_file_is_found_in_one_run_and_a_cleaned_copy_has_none(coco, tmp_path):
    boxes = [BOX, [1, 2, 3], None, [], ["1", "x", 3, 4]]
    coco([(encode(noise(0), "PNG"), boxes), (encode(noise(1), "PNG"), [BOX])])
    report = check(partial(read_coco, tmp_path / "set" / "a.json", tmp_path / "set"))
    finding = found(report)["unreadable-entry"]
    assert (finding.severity, finding.count, len(finding.examples)) == ("error", 4, 4)
    assert report.to_dict()["findings"][0]["count"] == 4
    folder = write_coco(report.checked[0].cleaned(), tmp_path / "clean.json")
    assert found(check(partial(read_coco, tmp_path / "clean.json", folder))) == {}


@pytest.mark.parametrize(("objects", "crowds"), [(0, 1), (1, 2)])
def test_class_of_which_more_is_ignored_than_learned_is_a_warning(coco, objects, crowds):
    boxes = [[n, n, 20, 20] for n in range(objects + crowds)]
    read = coco([(encode(noise(0), "PNG"), boxes)])
    table = read()
    ignored = dataclasses.replace(table, ignore=np.arange(len(boxes)) >= objects)
    finding = found(check(ignored))["mostly-ignored-class"]
    assert (finding.severity, finding.count) == ("warning", 1)
    assert f"cat: {objects} boxes, {crowds} ignored ones" in finding.examples[0].detail
    assert 'crowds="object"' in finding.advice


def test_orientation_that_the_annotated_size_does_not_tell_is_a_warning(coco):
    report = check(coco([(encode(noise(0), "JPEG", orientation=3), [BOX])], names=["a.jpg"]))
    assert "EXIF orientation 3" in one(report, "ambiguous-orientation").examples[0].detail


def test_images_without_boxes_ignored_boxes_and_absent_and_rare_classes_are_found(coco):
    images = [(encode(noise(number), "PNG"), boxes) for number, boxes in enumerate([[BOX] * 1, []])]
    read = coco(images, class_names=("cat", "dog", "cow"))
    table = read()
    cow = dataclasses.replace(
        table,
        boxes=np.tile(table.boxes, (2, 1)) + np.array([[0], [1]], np.float32),
        class_ids=np.array([0, 2], np.int32),
        ignore=np.array([True, False]),
        areas=np.tile(table.areas, 2),
        annotation_ids=None,
        ignore_reasons=None,
        offsets=np.array([0, 2, 2]),
    )
    report = check(cow)
    by_kind = found(report, "no-boxes", "absent-class", "rare-class")
    assert {kind: finding.count for kind, finding in by_kind.items()} == {
        "no-boxes": 1,
        "ignored-boxes": 1,
        "absent-class": 1,
        "mostly-ignored-class": 1,
        "rare-class": 1,
    }
    assert by_kind["no-boxes"].examples[0].image_id == 1
    assert by_kind["no-boxes"].what == "images have no boxes; all of their area is background"
    assert by_kind["ignored-boxes"].examples[0].box == 0
    assert [example.detail for example in by_kind["absent-class"].examples] == ["dog: 0 boxes"]


@pytest.mark.parametrize("fields", [{}, {"iscrowd": 1}])
def test_set_without_an_object_to_learn_is_an_error(coco, fields):
    images = [(encode(noise(0), "PNG"), [BOX] if fields else []), (encode(noise(1), "PNG"), [])]
    report = check(coco(images, fields=fields.items()))
    finding = found(report, "no-boxes")["no-objects"]
    assert "no-boxes" not in [finding.kind for finding in report.findings]
    assert (finding.severity, finding.examples[0].detail) == ("error", "2 images")
    assert report.status == 1


def test_set_of_which_more_than_half_has_no_boxes_is_a_warning(coco):
    pictures = [encode(noise(number), "PNG") for number in range(3)]
    kinds = found(check(coco([(pictures[0], [BOX]), (pictures[1], [])])), "no-boxes")
    assert list(kinds) == ["no-boxes"]
    finding = one(
        check(coco([(pictures[0], [BOX]), *((data, []) for data in pictures[1:])], name="more")), "mostly-without-boxes"
    )
    assert (finding.severity, finding.count) == ("warning", 2)


def test_images_that_a_list_names_again_are_a_finding_and_nothing_is_left_out(formats, tmp_path):
    names = "".join(f"images/{path.name}\n" for path in sorted((tmp_path / "images").iterdir()) if path.stem in "ae")
    (tmp_path / "list.txt").write_text(names * 2)
    (tmp_path / "list.yaml").write_text("train: list.txt\nnames: [cat]\n")
    report = check(partial(read_yolo, tmp_path / "list.yaml"))
    finding = found(report)["listed-again"]
    assert (finding.severity, finding.count) == ("error", 2)
    assert "again - at line 3, first at line 1" in finding.examples[0].detail
    assert (report.checked[0].unread, len(report.checked[0].annotations)) == (0, 2)


def test_size_that_a_csv_file_states_wrongly_is_a_finding_about_the_size(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(encode(picture(24, 40), "PNG"))
    rows = "a.png,1,2,9,9,cat,80,48\nb.png,1,2,9,9,cat,40,24\n"
    (tmp_path / "boxes.csv").write_text(rows)
    report = check(partial(read_csv, tmp_path / "boxes.csv"))
    (example,) = found(report)["size-mismatch"].examples
    assert example.file == str(tmp_path / "a.png") and "as line 1 of" in example.detail
    assert len(report.checked[0].annotations) == 1


def test_class_of_few_boxes_is_rare(coco):
    (example,) = one(check(coco([(encode(noise(0), "PNG"), [BOX])])), "rare-class").examples
    assert example.detail == "cat: 1 boxes"


def test_class_names_that_differ_in_case_or_spaces_only_are_reported(coco):
    names = ("traffic light", "Traffic  Light", "trafficlight", "traffic-light")
    (example,) = one(check(coco(class_names=names)), "similar-class-names").examples
    assert example.detail == "'traffic light', 'Traffic  Light', 'trafficlight'"


def test_classes_of_one_name_are_reported_and_their_boxes_counted_together(coco):
    report = check(coco([(encode(noise(0), "PNG"), [BOX] * 1)], class_names=("cat", "cat")))
    finding = one(report, "similar-class-names")
    assert finding.what.startswith("class names are equal")
    assert finding.examples[0].detail == "'cat', 'cat'"
    assert report.to_dict()["data"][0]["classes"] == {"cat": 1}


def test_federated_images_without_boxes_are_not_called_background(shapes, annotate):
    pairs = np.zeros((0, 2), np.int32)
    table = dataclasses.replace(
        annotate([(60, 80)] * 2, [[[1, 2, 30, 40]], []]), neg_classes=pairs, not_exhaustive_classes=pairs
    )
    what = one(check(table), "no-boxes").what
    assert what == "images have no boxes; only some classes are known to be absent from them"


@pytest.mark.parametrize("resize", [ShortSide(30), Fixed((30, 40))])
def test_objects_that_are_fed_too_small_are_reported_once(coco, resize):
    boxes = [BOX, [10, 10, 1.9, 40], [5, 5, 14, 14], [5, 5, 18, 18]]
    report = check(coco([(encode(noise(0), "PNG"), boxes)]), resize=resize, smallest_anchor=16)
    by_kind = found(report)
    assert {kind: [example.box for example in finding.examples] for kind, finding in by_kind.items()} == {
        "fed-below-a-pixel": [1],
        "fed-below-half-an-anchor": [2],
    }
    assert by_kind["fed-below-a-pixel"].examples[0].detail == "[10, 10, 11.9, 50], fed 0.95 wide and 20 high"
    np.testing.assert_allclose(report.checked[0].fed_sides, [20, 0.5 * np.sqrt(1.9 * 40), 7, 9], rtol=1e-6)


def test_fast_reads_headers_only(coco):
    read = coco([(encode(noise(0), "PNG")[:-30], [BOX]), (b"nonsense", [BOX])])
    assert one(check(read, fast=True), "damaged-image").count == 1


def test_table_that_was_read_already_is_checked_as_it_is(shapes):
    report = check(shapes, smallest_anchor=0, resize=ShortSide(96))
    assert report.status == 0
    assert report.checked[0].annotations is shapes


def test_progress_is_reported_and_workers_make_no_difference(coco):
    read = coco([(encode(noise(number), "PNG"), [BOX]) for number in range(5)])
    calls = []
    reports = [check(read, workers=n, on_progress=lambda *call: calls.append(call)).to_dict() for n in (1, 3)]
    assert reports[0] == reports[1]
    assert calls == [(done, 5) for done in range(1, 6)] * 2
    with pytest.raises(ValueError, match=r"workers to be at least 1\. Received: 0"):
        check(read, workers=0)


def test_interrupted_check_does_not_wait_for_the_remaining_images(coco, monkeypatch):
    read = coco([(encode(noise(number), "PNG"), [BOX]) for number in range(40)])
    looked_at = []

    def slow(path, *, fast):
        looked_at.append(path)
        time.sleep(0.01)
        return inspection.inspect_image(path, fast=fast)

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "inspect_image", slow)
    with pytest.raises(KeyboardInterrupt):
        check(read, workers=1, on_progress=interrupt)
    assert len(looked_at) < 20


def test_all_the_dirt_of_the_real_data_is_found(data):
    by_kind = found(check(lambda: read_voc(data / "bccd", "train"), lambda: read_voc(data / "bccd", "val")))
    assert "unreadable" not in by_kind
    # Two pictures of one smear, shifted by some pixels.
    assert (names(by_kind["leaked-images"]), by_kind["leaked-images"].count) == (["BloodImage_00037"], 1)
    by_kind = found(check(lambda: read_voc(data / "bccd"), fast=True))
    assert names(by_kind["thin-box"]) == ["BloodImage_00338", "BloodImage_00343"]

    kangaroo = check(lambda: read_voc(data / "dirt/kangaroo", annotation_dir="annots", image_dir="images"))
    by_kind = found(kangaroo)
    assert by_kind.keys() == {"damaged-image", "invalid-orientation"}
    assert names(by_kind["damaged-image"]) == ["00090"]
    assert names(by_kind["invalid-orientation"]) == ["00076"]
    assert "EXIF orientation 0" in by_kind["invalid-orientation"].examples[0].detail
    assert kangaroo.status == 1

    by_kind = found(check(lambda: read_voc(data / "dirt/helmet", annotation_dir="annotations", image_dir="images")))
    assert by_kind.keys() == {"orientation", "misnamed-format", "trailing-bytes"}
    assert names(by_kind["orientation"]) == ["000695"]
    assert names(by_kind["misnamed-format"]) == ["000004", "000307", "000397", "000692", "000695"]
    assert names(by_kind["trailing-bytes"]) == ["000692"]


def test_clean_real_data_has_notes_only(data):
    coco = data / "coco"
    report = check(lambda: read_coco(coco / "annotations/instances_train2017.json", coco / "train2017"))
    assert report.status == 0
    assert found(report).keys() == {"ignored-boxes", "fed-below-half-an-anchor"}
    assert found(report)["ignored-boxes"].count == 6


def test_16_bit_pictures_that_use_fewer_bits_are_a_warning_and_float_ones_are_not_damaged(coco):
    dark = noise(0).astype(np.uint16) * 8 + 7
    pictures = [(cv2.imencode(suffix, picture)[1].tobytes(), [BOX]) for suffix, picture in (
        (".png", dark), (".tiff", dark[::-1]), (".png", noise(1).astype(np.uint16) * 257), (".png", noise(2) // 4),
        (".tiff", noise(3).astype(np.float32)),
    )]  # fmt: skip
    by_kind = found(
        check(coco(pictures, names=[f"{n}.{s}" for n, s in enumerate(("png", "tif", "png", "png", "tif"))]))
    )
    assert by_kind.keys() == {"few-bits", "unsupported-image"}
    assert (by_kind["few-bits"].severity, by_kind["few-bits"].count) == ("warning", 2)
    assert by_kind["few-bits"].examples[0].detail == "its largest value takes 11 bits"
    assert "float32" in by_kind["unsupported-image"].examples[0].detail
