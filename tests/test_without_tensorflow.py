"""Whoever trains on JAX or torch needs no TensorFlow: here, nothing can import it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# What an installation for JAX or torch lacks. Finders are wrapped, and not preceded by one that raises: torch asks
# whether there is a TensorFlow, and takes no for an answer.
REFUSED = """
import sys

class Refusing:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        refused = name.split(".")[0] in ("tensorflow", "tensorboard", "matplotlib")
        return None if refused else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Refusing, sys.meta_path)
"""

FIT = """
import keras, numpy as np
import detfeed
from detfeed import DetectionSequence, FeedMonitor, Fixed, PaddedBoxes, ScoreDetections, read_coco
from detfeed.models import nms

for name in detfeed.__all__:
    getattr(detfeed, name)
data = read_coco(*sys.argv[1:])
targets = PaddedBoxes.for_annotations(data, form="rel_xyxy", names={"boxes": "boxes"})
arguments = {"targets": targets, "inputs": "image", "batch_size": 4, "resize": Fixed((48, 64))}
train = DetectionSequence(data, augment="flip", workers=2, use_multiprocessing=True, **arguments)
validation = DetectionSequence(data, shuffle=False, **arguments)
image = keras.Input((48, 64, 3))
mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))
box = keras.layers.Dense(4, "sigmoid")(mean)
model = keras.Model(image, {"boxes": keras.layers.RepeatVector(targets.num_boxes)(box)})
model.compile("adam", {"boxes": "mae"})

def detect(model, x):
    boxes = np.sort(model.predict_on_batch(x)["boxes"].reshape(len(x), -1, 2, 2), axis=2).reshape(len(x), -1, 4)
    kept = nms(boxes, keras.ops.ones(boxes.shape[:2]), iou=0.5)  # equal boxes: the first of each image
    class_ids = keras.ops.where(kept, 0, -1)
    return boxes * np.float32([64, 48, 64, 48]), np.ones(boxes.shape[:2]), class_ids

score = ScoreDetections(validation, detect)
callbacks = [FeedMonitor(train, verbose=False), score]
logs = model.fit(train, validation_data=validation, epochs=2, callbacks=callbacks, verbose=0).history
train.close()
print(keras.backend.backend(), train.epoch, np.isfinite([*logs["loss"], *logs["val_loss"]]).sum())
print([len(boxes) for boxes in score.detections.boxes] == [1] * len(data))
print("loaded", *{"tensorflow", "tensorboard", "matplotlib"} & sys.modules.keys())
train.to_tf_data()
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fit_runs_where_there_is_no_tensorflow(shapes, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED + FIT, shapes.source, str(Path(shapes.source).parent / "images")],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
        timeout=240,
    )
    assert done.stdout.splitlines() == [f"{backend} 2 4", "True", "loaded"], done.stderr
    assert "pip install 'detfeed[tensorflow]'" in done.stderr
