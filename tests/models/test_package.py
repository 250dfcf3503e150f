"""The folder `models` is one package, `detfeed.models`, in a clone and in the wheel."""

import pickle
import subprocess
import sys
from pathlib import Path

import keras

import detfeed.models

ROOT = Path(__file__).resolve().parents[2]


def test_package_is_the_folder_at_the_top_of_the_clone():
    assert Path(detfeed.models.__file__).samefile(ROOT / "models" / "__init__.py")


def test_models_of_a_clone_is_the_same_package():
    code = (
        "from models import RPN; import models.rpn, detfeed.models as same;"
        "assert models is same and models.rpn is same.rpn and RPN is same.RPN"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stderr


def test_layers_are_pickled_and_saved_under_one_name():
    for layer in (detfeed.models.CaffeNormalize, detfeed.models.UpsampleLike):
        assert layer.__module__.startswith("detfeed.models.")
        assert pickle.loads(pickle.dumps(layer)) is layer
        assert keras.saving.get_registered_object(f"detfeed>{layer.__name__}") is layer


def test_every_public_name_of_the_package_resolves():
    for name in detfeed.models.__all__:
        assert getattr(detfeed.models, name) is not None
