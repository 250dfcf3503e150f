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


def test_import_of_models_without_detfeed_names_the_package():
    code = """
import detfeed.models, importlib
for name in ("models", "models.rpn"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    message = "Expected the package to be imported as detfeed.models. Received: import models."
    assert run.stdout.splitlines() == [message] * 2, run.stderr


def test_layers_are_pickled_and_saved_under_one_name():
    for layer in (detfeed.models.CaffeNormalize, detfeed.models.UpsampleLike):
        assert layer.__module__.startswith("detfeed.models.")
        assert pickle.loads(pickle.dumps(layer)) is layer
        assert keras.saving.get_registered_object(f"detfeed>{layer.__name__}") is layer


def test_every_public_name_of_the_package_resolves():
    for name in detfeed.models.__all__:
        assert getattr(detfeed.models, name) is not None
