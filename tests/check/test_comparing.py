from detfeed import check
from image_files import encode, noise
from reports import BOX, found, one


def test_fast_check_finds_image_files_that_stand_twice_by_their_paths(coco, tmp_path):
    data = encode(noise(0), "PNG")
    images = [(data, [BOX]), (data, [BOX]), (None, [BOX]), (None, [BOX])]
    table = coco(images, names=["a.png", "./a.png", "none.png", "none.png"])()
    report = check(table, table, fast=True)
    assert [
        (finding.kind, finding.data, finding.count) for finding in report.findings if finding.severity != "note"
    ] == [
        ("missing-image", "train", 2),
        ("missing-image", "val", 2),
        ("identical-images", "train", 1),
        ("identical-images", "val", 1),
        ("leaked-images", "val", 2),
    ]
    by_kind = found(report)
    assert by_kind["leaked-images"].examples[0].detail == f"the same file as {tmp_path}/set/a.png"


def test_images_that_are_the_same_or_alike_are_told_within_a_set(coco):
    png, jpeg = encode(noise(0), "PNG"), encode(noise(0), "JPEG")
    read = coco([(png, [BOX]), (encode(noise(1), "PNG"), [BOX]), (png, [BOX]), (jpeg, [BOX])], names=list("abcd"))
    by_kind = found(check(read))
    assert {kind: [example.image_id for example in finding.examples] for kind, finding in by_kind.items()} == {
        "identical-images": [2],
        "similar-images": [3],
    }
    assert by_kind["identical-images"].examples[0].detail.startswith("the same file as ")
    assert by_kind["similar-images"].examples[0].detail.endswith("/a")


def test_identical_images_are_told_whatever_looks_like_them(coco):
    png, jpeg = encode(noise(0), "PNG"), encode(noise(0), "JPEG")
    by_kind = found(check(coco([(jpeg, [BOX]), (png, [BOX]), (png, [BOX])], names=list("abc"))))
    assert {kind: [example.image_id for example in finding.examples] for kind, finding in by_kind.items()} == {
        "identical-images": [2],
        "similar-images": [1],
    }
    assert by_kind["identical-images"].examples[0].detail.endswith("/b")


def test_leaked_image_is_told_as_the_same_file_if_it_is_and_twice_in_validation_data_as_well(coco):
    png, jpeg = encode(noise(0), "PNG"), encode(noise(0), "JPEG")
    train = coco([(jpeg, [BOX]), (png, [BOX])], names=list("ab"))
    val = coco([(png, [BOX]), (png, [BOX])], names=list("cd"), name="val")
    by_kind = found(check(train, val))
    assert by_kind.keys() == {"leaked-images", "identical-images", "similar-images"}
    details = [example.detail.rsplit("/")[-1] for example in by_kind["leaked-images"].examples]
    assert details == ["b", "b"]
    assert by_kind["leaked-images"].examples[0].detail.startswith("the same file as ")
    assert (by_kind["identical-images"].data, by_kind["identical-images"].count) == ("val", 1)
    assert by_kind["similar-images"].data == "train"


def test_images_of_both_sets_are_a_leak_and_damaged_ones_do_not_disturb_it(coco):
    train = coco([(b"", [BOX]), (encode(noise(0), "PNG"), [BOX])])
    val = coco([(encode(noise(1), "PNG"), [BOX]), (encode(noise(0), "JPEG"), [BOX])], name="val", names=["a", "b"])
    by_kind = found(check(train, val))
    assert by_kind.keys() == {"damaged-image", "leaked-images"}
    leak = by_kind["leaked-images"]
    assert (leak.data, leak.count, leak.examples[0].image_id) == ("val", 1, 1)
    assert leak.examples[0].detail.endswith("set/1.png")
    assert found(check(train, val, fast=True)).keys() == {"damaged-image"}


def test_validation_classes_in_another_order_are_told(coco):
    val = coco([(encode(noise(0), "PNG"), [BOX])], class_names=("dog", "cat"), name="val")
    report = check(coco(class_names=("cat", "dog")), val)
    (example,) = one(report, "different-classes").examples
    assert example.detail == "class 0 is 'cat' in training data, 'dog' in validation data"
