import numpy as np
import pytest

import bench_boxes


class Forgetful:
    """A layer that mirrors images and forgets their boxes."""

    def __call__(self, batch, training):
        return {**batch, "images": batch["images"][:, :, ::-1]}


def test_layer_of_keras_that_moves_boxes_is_told_from_one_that_forgets_them():
    flip = bench_boxes.keras_layers()["RandomFlip()"]
    assert not (np.abs(bench_boxes.judge_keras("RandomFlip()", flip, 8, 0)) > 1).any()
    found = bench_boxes.judge_keras("forgetful", lambda seed: Forgetful(), 8, 0)
    assert (np.abs(found) > 1).sum() > 12


def test_layer_that_takes_no_boxes_is_said_so():
    layers = bench_boxes.keras_layers()
    assert bench_boxes.judge_keras("CutMix()", layers["CutMix()"], 4, 0) == "NotImplementedError"


@pytest.mark.parametrize("pictures", [1, 8])
def test_feed_is_judged_by_as_many_pictures_as_are_asked_for(pictures):
    found = bench_boxes.judge_detfeed("nothing", None, pictures, 0)
    assert bench_boxes.summary(found) == {
        "objects": 12 * -(-pictures // 4),
        "off by > 1 px": 0,
        "off by > 2 px": 0,
        "lost": 0,
        "invented": 0,
        "worst px": 0.5,
    }


def test_summary_counts_each_kind_once():
    assert bench_boxes.summary(np.array([0, 1.5, 3.25, np.inf, -np.inf, -np.inf, np.nan])) == {
        "objects": 6,
        "off by > 1 px": 2,
        "off by > 2 px": 1,
        "lost": 1,
        "invented": 2,
        "worst px": 3.2,
    }
    assert bench_boxes.summary(np.array([np.nan]))["worst px"] is None


def test_names_of_the_pool_say_which_of_it_turns_rectangles():
    turning = [name for name in bench_boxes.pool() if bench_boxes._turns(name)]
    assert turning == [
        "Affine, rotate", "Affine, shear", "Perspective", "ElasticTransform", "OpticalDistortion", "GridDistortion"
    ]  # fmt: skip
