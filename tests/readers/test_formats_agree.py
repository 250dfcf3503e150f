"""All formats of one set agree: a drawn set is written in each and read back."""

import numpy as np
import pytest

from detfeed import IgnoreReason, read_coco
from written_formats import (
    draw_set,
    objects,
    stem,
    through_csv,
    through_image_folder,
    through_kitti,
    through_lvis,
    through_ndjson,
    through_openimages,
    through_voc,
    through_yolo,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_set(tmp_path_factory.mktemp("formats"))


@pytest.fixture(scope="module")
def table(folder):
    return read_coco(folder / "instances.json", folder / "images")


@pytest.mark.parametrize(
    ("through", "pixels"),
    [
        (through_lvis, 0),
        (through_csv, 0),
        (through_image_folder, 1e-5),
        (through_ndjson, 1e-4),
        (through_voc, 1e-5),
        (through_openimages, 1e-5),
        (through_yolo, 1e-4),
        (through_kitti, 0.006),
    ],
)
def test_every_format_of_a_set_agrees_within_its_rounding(table, folder, through, pixels):
    other = through(table, folder)
    boxed = [position for position in range(len(table)) if objects(table, position)]
    positions = boxed if through is through_openimages else range(len(table))
    assert len(boxed) < len(table)
    assert [stem(other, i) for i in range(len(other))] == [stem(table, position) for position in positions]
    for place, position in enumerate(positions):
        assert other.image_hw[place].tolist() == table.image_hw[position].tolist()
        for ours, theirs in zip(objects(table, position), objects(other, place), strict=True):
            np.testing.assert_allclose(theirs[0], ours[0], rtol=0, atol=pixels)
            if through in (
                through_yolo,
                through_csv,
                through_image_folder,
                through_ndjson,
            ):  # which know no ignore regions
                assert theirs[1] == ours[1]
            elif through is through_kitti and ours[2]:
                assert theirs[1:] == ("DontCare", True)
            else:
                assert theirs[1:] == ours[1:]
    reason = {through_voc: "DIFFICULT", through_kitti: "UNLABELLED", through_openimages: "GROUP", through_lvis: "CROWD"}
    assert set(other.ignore_reasons[other.ignore].tolist()) <= {IgnoreReason[reason.get(through, "NONE")]}
    assert other.ignore.any() == (through in reason)
    assert len(set(other.annotation_ids.tolist())) == len(other.boxes)
