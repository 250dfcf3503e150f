import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from detfeed import AnnotationError, read_proposals


@pytest.fixture
def table(annotate):
    """Three images, with ids 100, 101 and 102."""
    return annotate([(20, 30), (20, 30), (30, 20)], [[], [], []])


def write(path, results):
    path.write_text(json.dumps(results))
    return path


def result(image_id, bbox=(1, 2, 3, 4), score=0.5, **more):
    return {"image_id": image_id, "category_id": 1, "bbox": bbox, "score": score, **more}


def test_empty_file_is_no_proposals_where_that_is_allowed(table, tmp_path):
    proposals = read_proposals(write(tmp_path / "p.json", []), table, missing="allow")
    assert len(proposals) == 3
    assert proposals.boxes.shape == (0, 4)
    assert proposals.boxes.dtype == proposals.scores.dtype == np.float32
    assert proposals.scores.shape == (0,)
    assert proposals.offsets.tolist() == [0, 0, 0, 0]
    assert repr(proposals).startswith("Proposals(3 images, 0 boxes, from ")


def test_no_images_have_no_proposals(annotate, tmp_path):
    proposals = read_proposals(write(tmp_path / "p.json", []), annotate([], []))
    assert len(proposals) == 0
    assert proposals.offsets.tolist() == [0]


RESULTS = [
    result(102, (0, 0, 20, 30), 0.25),
    result(100, (1, 2, 3, 4), 0.5, segmentation=[]),
    result(101, (5, 6, 0.5, 1), 1),
    result(100, (0, 0, 30.5, 20), 0.75),
]
BOXES = [[1, 2, 4, 6], [0, 0, 30.5, 20], [5, 6, 5.5, 7], [0, 0, 20, 30]]


def test_results_are_matched_by_image_id_and_keep_their_order(table, tmp_path):
    proposals = read_proposals(write(tmp_path / "p.json", RESULTS), table)
    assert proposals.image_ids.tolist() == [100, 101, 102]
    assert proposals.boxes.tolist() == BOXES
    assert proposals.scores.tolist() == [0.5, 0.75, 1, 0.25]
    assert proposals.offsets.tolist() == [0, 2, 3, 4]
    assert proposals.rows(0) == slice(0, 2)
    assert not proposals.boxes.flags.writeable


def test_npz_with_its_images_in_another_order_is_the_same(table, tmp_path):
    path = tmp_path / "p.npz"
    boxes = np.array([BOXES[3], BOXES[0], BOXES[1], BOXES[2]], np.float64)
    np.savez_compressed(
        path, image_ids=np.uint16([102, 100, 101]), boxes=boxes, scores=[0.25, 0.5, 0.75, 1], offsets=[0, 1, 3, 4]
    )
    proposals = read_proposals(path, table)
    assert proposals.boxes.tolist() == BOXES
    assert proposals.boxes.dtype == np.float32
    assert proposals.scores.tolist() == [0.5, 0.75, 1, 0.25]
    assert proposals.offsets.tolist() == [0, 2, 3, 4]


def test_saving_and_reading_gives_the_same_back(table, tmp_path):
    proposals = read_proposals(write(tmp_path / "p.json", RESULTS), table)
    proposals.save(tmp_path / "p.npz")
    for again in (read_proposals(tmp_path / "p.npz", table), pickle.loads(pickle.dumps(proposals))):
        for name in ("image_ids", "boxes", "scores", "offsets"):
            np.testing.assert_array_equal(getattr(again, name), getattr(proposals, name))
            assert getattr(again, name).dtype == getattr(proposals, name).dtype


def test_ids_may_be_names(data, tmp_path):
    from detfeed import read_voc

    voc = read_voc(data / "voc" / "VOC2007")
    names = voc.image_ids.tolist()
    proposals = read_proposals(write(tmp_path / "p.json", [result(name) for name in reversed(names)]), voc)
    assert proposals.image_ids.tolist() == names
    proposals.save(tmp_path / "p.npz")
    assert read_proposals(tmp_path / "p.npz", voc).image_ids.tolist() == names
    with pytest.raises(AnnotationError, match=rf"\(such as '{names[0]}'\), got 5 - at `\[0\].image_id`"):
        read_proposals(write(tmp_path / "p.json", [result(5)]), voc)


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_image_without_proposals_is_an_error_that_names_it_unless_allowed(table, tmp_path, suffix):
    path = write(tmp_path / "p.json", [result(100), result(102)])
    if suffix == "npz":
        read_proposals(path, table, missing="allow").save(tmp_path / "p.npz")
        path = tmp_path / "p.npz"
    message = rf"p\.{suffix}: expected .* each of 3 images, got none for 1 of them, .* image_id 101 \(.*001\.png\)"
    with pytest.raises(AnnotationError, match=message):
        read_proposals(path, table)
    assert read_proposals(path, table, missing="allow").offsets.tolist() == [0, 1, 1, 2]
    with pytest.raises(ValueError, match=r"one of \('raise', 'allow'\). Received: 'ignore'"):
        read_proposals(path, table, missing="ignore")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"p\.json: expected JSON, got a file that does not parse"),
        ("{}", r"expected `array`, got \{\} - at `top level`"),
        (
            '[{"image_id": 100, "bbox": [12, 5], "score": 1}]',
            r"length 4, got \[12,5\] - at `\[0\].bbox` \(image_id 100",
        ),
        (
            '[{"image_id": 100, "bbox": [1, 2, 3, 4]}]',
            r"missing required field `score` in .* - at `\[0\]` \(image_id 100",
        ),
        (
            '[{"image_id": 1.5, "bbox": [1, 2, 3, 4], "score": 1}]',
            r"expected `int \| str`, got 1.5 - at `\[0\].image_id`",
        ),
        (
            '[{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 1}]',
            r"image in made up \(such as 100\), got 7 - at `\[0\].im",
        ),
        (
            '[{"image_id": 102, "bbox": [1, 2, 3, -4], "score": 1}]',
            r"at least 0, got \[1.0, 2.0, 3.0, -4.0\] - at `\[0\].bbox` \(image_id 102\)",
        ),
        ('[{"image_id": 102, "bbox": [1, 2, 3, 4], "score": 1e99}]', "finite scores, .* at proposal 0 of image 102"),
    ],
)
def test_damaged_results_are_an_error_with_an_address(table, tmp_path, content, message):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(AnnotationError, match=message):
        read_proposals(path, table, missing="allow")


GOOD = {"image_ids": [100, 101], "boxes": [[1, 2, 3, 4]], "scores": [0.5], "offsets": [0, 0, 1]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "the arrays image_ids, boxes, scores, offsets, got image_ids, boxes, offsets$"),
        ({"boxes": [1, 2, 3, 4]}, r"numbers with 2 axes, got int64 \(4,\) - at `boxes`"),
        ({"boxes": [[1, 2, 3]]}, r"`boxes` to be float32 \(1, 4\), got float32 \(1, 3\)"),
        ({"boxes": [[3, 2, 1, 4]]}, r"x0 <= x1 .*, got box \[3.0, 2.0, 1.0, 4.0\] .* at proposal 0 of image 101"),
        ({"boxes": [[1, np.nan, 3, 4]]}, "finite box corners, .* at proposal 0 of image 101"),
        ({"scores": ["high"]}, r"numbers with 1 axes, got <U4 \(1,\) - at `scores`"),
        ({"scores": [1, 2]}, r"`scores` to be float32 \(1,\), got float32 \(2,\)"),
        ({"offsets": [0, 1]}, r"`offsets` to be int64 \(3,\), got int64 \(2,\)"),
        ({"offsets": [0, 2, 1]}, r"to rise from 0 to 1, got \[0 2 1\]"),
        ({"image_ids": [100, 100]}, "each image id once, got 2 images with id 100"),
        (
            {"image_ids": [1, 1, 2, 2, 2], "offsets": [0, 0, 0, 0, 0, 1]},
            "each image id once, got 2 images with id 1",
        ),
        ({"image_ids": np.array(["x" * 256, "y"])}, r"a header that asks for <U256 \(2,\) of .* at `image_ids\.npy`"),
        ({"image_ids": [100, 7]}, r"\(such as 100\), got 7 - at `image_ids\[1\]`"),
        ({"image_ids": [100.0, 101.0]}, r"integers or strings with 1 axes, got float64 \(2,\) - at `image_ids`"),
        ({"image_ids": np.array([100, None])}, "npz file without pickled objects, got: Object arrays cannot be loaded"),
    ],
)
def test_damaged_npz_is_an_error_with_an_address(table, tmp_path, change, message):
    path = tmp_path / "p.npz"
    np.savez(path, **{name: value for name, value in {**GOOD, **change}.items() if value is not None})
    with pytest.raises(AnnotationError, match=rf"p\.npz: expected .*{message}"):
        read_proposals(path, table, missing="allow")


def test_file_that_is_missing_or_no_npz_is_an_error_that_names_it(table, tmp_path):
    for name in ("absent.json", "absent.npz"):
        with pytest.raises(AnnotationError, match=rf"{name}: expected .* file, got No such file"):
            read_proposals(tmp_path / name, table)
    path = tmp_path / "p.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(AnnotationError, match=r"p\.npz: .* got: File is not a zip file"):
        read_proposals(path, table)


def pack(path, **entries):
    """Write an npz file of the bytes of its entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def npy(array):
    out = io.BytesIO()
    np.save(out, np.asarray(array))
    return out.getvalue()


def header(dtype, shape, version=b"\1\0"):
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            header("<f4", (10**12,)),
            r"a header that asks for float32 \(1000000000000,\) of \d+ bytes - at `scores\.npy`",
        ),
        (header("<U100000", (10**6,)), r"a header that asks for <U100000 \(1000000,\)"),
        (header("<U0", (10**12,)), r"a header that asks for <U0 \(1000000000000,\)"),
        (header("<f4", (-3,)), "got: "),
        (header("<f4", (1,), b"\2\0"), r"a header of version \(2, 0\) - at `scores\.npy`"),
        (header("<f4", (1,))[:20], "got: "),
        (b"\x93NUMPY\1\0\xff\x01" + b"(" * 511, "got: "),
        (b"", "got: "),
    ],
)
def test_header_that_lies_is_an_error_before_anything_is_made_of_it(table, tmp_path, entry, message):
    pack(tmp_path / "p.npz", **{name: npy(value) for name, value in GOOD.items()} | {"scores": entry})
    with pytest.raises(AnnotationError, match=rf"p\.npz: expected an npz file without pickled objects, .*{message}"):
        read_proposals(tmp_path / "p.npz", table, missing="allow")


def test_damaged_encrypted_and_strangely_packed_entries_are_errors(table, tmp_path):
    path = tmp_path / "p.npz"
    pack(path, **{name: npy(np.repeat(np.asarray(value), 1, axis=0)) for name, value in GOOD.items()})
    good = path.read_bytes()
    assert len(read_proposals(path, table, missing="allow").boxes) == 1
    start, central = good.index(b"boxes.npy") + len("boxes.npy"), good.rindex(b"PK\1\2", 0, good.rindex(b"boxes.npy"))
    local = good.rindex(b"PK\3\4", 0, start)
    for name, edits in {
        "damaged": [(start, b"\xff" * 8)],  # zlib.error
        "cut": [(central + 20, struct.pack("<I", 4))],  # EOFError
        "encrypted": [(local + 6, b"\1"), (central + 8, b"\1")],  # RuntimeError
        "unknown method": [(local + 8, b"\x63"), (central + 10, b"\x63")],  # NotImplementedError
    }.items():
        data = bytearray(good)
        for at, new in edits:
            data[at : at + len(new)] = new
        path.write_bytes(data)
        with pytest.raises(AnnotationError, match=r"p\.npz: expected an npz file .*, got: \w+"):
            print(name, read_proposals(path, table, missing="allow"))


def test_pipes_are_not_waited_for(table, tmp_path):
    for name in ("p.npz", "p.json"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(AnnotationError, match=rf"{name}: expected .* file, got a folder, pipe or device"):
            read_proposals(tmp_path / name, table)
