import json

from detfeed import check
from detfeed.check.findings import MAX_EXAMPLES
from image_files import encode, noise
from reports import BOX, one


def test_examples_are_few_and_counts_are_whole(coco):
    read = coco([(None, [BOX])] * 12)
    finding = one(check(read), "missing-image")
    assert (finding.count, len(finding.examples)) == (12, MAX_EXAMPLES)


def test_worst_comes_first(coco):
    read = coco([(None, [BOX]), (encode(noise(0), "JPEG"), [BOX, BOX])])
    severities = [finding.severity for finding in check(read).findings]
    assert severities == ["error", "warning", "note", "note"]


def test_json_has_these_names_and_no_others(coco):
    content = json.loads(json.dumps(check(coco([(None, [BOX])])).to_dict()))
    assert content["version"] == 1
    assert content.keys() == {"version", "status", "data", "findings"}
    assert content["data"][0].keys() == {
        "name", "source", "images", "usable_images", "unread_files", "boxes", "ignored_boxes", "classes",
        "fed_side_quantiles",
    }  # fmt: skip
    assert content["data"][0]["classes"] == {"cat": 1}
    assert content["findings"][0].keys() == {"kind", "severity", "data", "count", "what", "advice", "examples"}
    assert content["findings"][0]["examples"][0].keys() == {"file", "image_id", "box", "detail", "corners", "other"}
    assert check(coco([], name="none")).to_dict()["data"][0]["fed_side_quantiles"] is None
