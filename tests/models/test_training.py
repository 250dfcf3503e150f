"""The schedule of a training run, and the packages that a run needs. tests/scripts/test_train_rpn.py trains."""

import sys

import pytest

from detfeed.models import Schedule, train


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (Schedule(learning_rate=1.0, warmup_steps=4, decay="cosine"), {0: 0, 2: 0.5, 4: 1, 12: 0.505, 20: 0.01}),
        (Schedule(learning_rate=1.0, warmup_steps=4, decay="none"), {0: 0, 2: 0.5, 4: 1, 20: 1}),
        (Schedule(learning_rate=1.0, warmup_steps=0, decay="cosine"), {0: 1, 10: 0.505, 20: 0.01}),
        (Schedule(learning_rate=1.0, warmup_steps=0, decay="none"), {0: 1, 20: 1}),
    ],
)
def test_learning_rate_rises_and_falls_as_the_schedule_says(schedule, rates):
    rate = schedule.build_optimizer(20)._learning_rate
    for step, expected in rates.items():
        assert float(rate(step) if callable(rate) else rate) == pytest.approx(expected, abs=1e-6)


def test_schedule_with_unknown_words_is_refused():
    with pytest.raises(ValueError, match=r'"cosine" or "none"\. Received: \'linear\''):
        Schedule(decay="linear")
    with pytest.raises(ValueError, match=r'"adam", "adamw" or "sgd"\. Received: \'lion\''):
        Schedule(optimizer="lion")


def test_steps_are_those_of_the_epochs_up_to_the_limit():
    assert Schedule(epochs=3).total_steps(7) == 21
    assert Schedule(epochs=3, steps=30).total_steps(7) == 21
    assert Schedule(epochs=3, steps=10).total_steps(7) == 10


@pytest.mark.parametrize("missing", ["matplotlib", "tensorboard", "tensorflow"])
def test_missing_package_is_named_with_its_extra_before_the_run_starts(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"needs {missing}\. Install with: pip install 'detfeed\[train\]'"):
        train(None, None, None, tmp_path / "run", schedule=Schedule())
    assert not (tmp_path / "run").exists()
