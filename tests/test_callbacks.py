import copy
import time
from types import SimpleNamespace

import albumentations
import keras
import numpy as np
import pytest

from detfeed import DetectionSequence, FeedMonitor, Fixed, ResumeFeed
from detfeed.callbacks import advise


class Small(keras.Model):
    """A model of one weight."""

    def __init__(self):
        super().__init__()
        self.scale = keras.layers.Dense(1)

    def call(self, inputs):
        return self.scale(keras.ops.cast(inputs["position"], "float32"))


def build(*, optimizer="sgd", run_eagerly=True):
    model = Small()
    model.compile(optimizer=optimizer, loss="mse", run_eagerly=run_eagerly)
    return model


def make(shapes, **arguments):
    def position(sample):
        return {"position": np.float32([sample.position])}, {"y": np.float32([0])}

    return Unnamed(shapes, targets=position, batch_size=4, resize=Fixed((32, 32)), **arguments)


class Unnamed(DetectionSequence):
    """With an array for y, as a model with one output has it."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y["y"]


def test_fit_is_measured_epoch_by_epoch_and_a_line_printed_for_each(shapes, capsys):
    sequence = make(shapes)
    monitor = FeedMonitor(sequence)
    build().fit(sequence, epochs=2, callbacks=[monitor], verbose=0)
    for measured in monitor.history:
        assert 0 <= measured["waiting"] <= 1 and measured["busy"] is None and measured["images_per_second"] > 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("feed: ") for line in lines)
    assert sequence.feed.on_handed is None


def test_nothing_is_printed_unless_verbose(shapes, capsys):
    sequence = make(shapes, workers=2)
    monitor = FeedMonitor(sequence, verbose=False)
    build().fit(sequence, epochs=2, callbacks=[monitor], verbose=0)
    assert [0 <= measured["busy"] <= 1 for measured in monitor.history] == [True, True]
    assert capsys.readouterr().out == ""


@pytest.fixture
def clocked(shapes, monkeypatch):
    """Run a monitor through one epoch of steps, by a clock of its own; returns what it measured.

    Each step is (asked, handed, ended): seconds since the epoch began.
    """

    def run(steps, *, busy=0.0, **arguments):
        clock = [100.0]
        monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
        sequence = make(shapes, **arguments)
        feed = sequence.feed = SimpleNamespace(
            busy=7.0, on_handed=None, executor=None, num_workers=sequence.feed.num_workers,
            in_background=sequence.feed.in_background, use_multiprocessing=False,
        )  # fmt: skip
        monitor = FeedMonitor(sequence, verbose=False)
        monitor.on_train_begin()
        monitor.on_epoch_begin(0)
        feed.on_handed((90.0, 95.0, 4))
        monitor.on_train_batch_end(0)  # the step in which Keras compiles
        for place, (asked, handed, ended) in enumerate(steps):
            feed.on_handed((100 + asked, 100 + handed, 4))
            clock[0] = 100 + ended
            monitor.on_train_batch_end(1 + place)
        feed.busy += busy
        clock[0] += 50  # a validation, say
        monitor.on_epoch_end(0)
        return monitor.history[0]

    return run


def test_model_that_waits_for_its_own_thread_is_told_to_use_workers(clocked):
    # Each batch is asked for at the end of the step before and takes 3 s, each step 1 s.
    measured = clocked([(0, 3, 4), (4, 7, 8)])
    assert (measured["images_per_second"], measured["waiting"], measured["busy"]) == (1, 0.75, None)
    assert "use workers=2 or more" in measured["advice"]


def test_model_that_is_slower_than_its_feed_sets_the_pace(clocked):
    # Each batch is handed out 1 s after it is asked for, during the step before, which takes 4 s.
    measured = clocked([(-2, -1, 4), (1, 2, 8)], busy=2.0, workers=2)
    assert (measured["images_per_second"], measured["waiting"], measured["busy"]) == (1, 0, 0.125)
    assert measured["advice"] == "The model sets the pace; 1 worker would do."


def test_wait_for_a_batch_that_was_asked_for_early_begins_with_the_end_of_the_step_before(clocked):
    measured = clocked([(-1, 1, 4), (2, 6, 8)], busy=8.0, workers=2)
    assert (measured["waiting"], measured["busy"]) == (3 / 8, 0.5)


@pytest.mark.parametrize("callback", [ResumeFeed, FeedMonitor])
def test_callback_without_a_sequence_is_refused_at_once(callback):
    with pytest.raises(TypeError, match=r"Expected sequence to be a DetectionSequence. Received: \[1\]"):
        callback([1])


@pytest.mark.parametrize(
    ("waiting", "busy", "workers", "processes", "advice"),
    [
        (0.01, None, 1, False, "the feed keeps up"),
        (0.01, 0.9, 2, True, "the feed keeps up"),
        (0.01, 0.2, 8, True, "2 workers would do"),
        (0.3, None, 1, False, "use workers=2 or more"),
        (0.3, None, 0, False, "executor does not keep up"),
        (0.3, 0.95, 2, True, "use more workers, up to 4"),
        (0.3, 0.95, 4, True, "all cores are at work"),
        (0.3, 0.4, 4, False, "use_multiprocessing=True"),
        (0.3, 0.4, 4, True, "shuffle=False"),
    ],
)
def test_advice_follows_from_who_waits_for_whom(waiting, busy, workers, processes, advice):
    assert advice in advise(waiting, busy, workers, num_cores=4, processes=processes)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_restored_model_goes_on_in_the_midst_of_the_epoch_with_what_it_was_not_trained_on(shapes, tmp_path):
    seen = []

    class Interrupt(keras.callbacks.Callback):
        def __init__(self, after):
            super().__init__()
            self.after = after

        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(self.model.optimizer.iterations))
            if len(seen) == self.after:
                raise KeyboardInterrupt

    def fit(after=None):
        sequence = make(shapes, workers=2)
        model = build()
        model(sequence[0][0])
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1, double_checkpoint=True)
        callbacks = [backup, ResumeFeed(sequence), *([Interrupt(after)] if after else [])]
        model.fit(sequence, shuffle=False, epochs=3, callbacks=callbacks, verbose=0)
        return sequence, model

    for after in (3, 11):  # in the midst of an epoch, and after its last step
        with pytest.raises(KeyboardInterrupt):
            fit(after)
    assert seen[:3] == [1, 2, 3] and seen[3] in (3, 4)  # a backup stands for the step before it or that step
    sequence, model = fit()
    assert int(model.optimizer.iterations) == 18
    assert (sequence.epoch, len(sequence)) == (3, 6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("steps_per_execution", [1, 4])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_resumed_run_counts_its_steps_and_ends_as_one_that_was_never_interrupted(
    shapes, tmp_path, run_eagerly, steps_per_execution
):
    class Watch(keras.callbacks.Callback):
        def __init__(self, last=None):
            super().__init__()
            self.last = last
            self.counted = []

        def on_train_batch_end(self, batch, logs=None):
            if self.last is not None and int(self.model.optimizer.iterations) >= self.last:
                raise KeyboardInterrupt

        def on_epoch_end(self, epoch, logs=None):
            self.counted.append(int(self.model.optimizer.iterations))

    def fit(folder, last=None):
        keras.utils.set_random_seed(0)
        sequence = make(shapes)
        model = build(optimizer="adam", run_eagerly=run_eagerly)
        model.steps_per_execution = steps_per_execution
        model(sequence[0][0])
        watch = Watch(last)
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=2, double_checkpoint=True, delete_checkpoint=False)
        model.fit(sequence, shuffle=False, epochs=3, callbacks=[backup, ResumeFeed(sequence), watch], verbose=0)
        return watch.counted, model.get_weights()

    counted, weights = fit(tmp_path / "whole")
    assert counted == [6, 12, 18]
    for last in (3, 4, 10):  # in the first epoch, and in the second
        folder = tmp_path / str(last)
        with pytest.raises(KeyboardInterrupt):
            fit(folder, last)
        resumed, its_weights = fit(folder)
        assert resumed == counted[-len(resumed) :]
        for ours, theirs in zip(its_weights, weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_resumed_run_is_fed_the_stage_of_its_epoch(shapes, tmp_path):
    def look(sample):
        gray = (sample.image[..., 0] == sample.image[..., 2]).all()
        return {"position": np.float32([sample.position]), "look": np.float32([gray, sample.image.mean()])}, {
            "y": np.float32([0])
        }

    seen = []

    class Recorded(Small):
        def train_step(self, data):
            x, y = data
            seen.append([np.asarray(x[name]).tolist() for name in ("position", "look")])
            return super().train_step((x, y["y"]))

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(seen) == int(name):
                raise KeyboardInterrupt

    def fit(name, *more):
        seen.clear()
        sequence = DetectionSequence(
            shapes.select(range(12)),
            targets=look,
            batch_size=4,
            resize=Fixed((32, 32)),
            augment=albumentations.ToGray(p=1),
            schedule={1: {"augment": "flip"}, 2: {"augment": None, "sampler": lambda table: np.arange(len(table)) % 3}},
        )
        model = Recorded()
        model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
        model({"position": np.zeros((4, 1), np.float32)})
        backup = keras.callbacks.BackupAndRestore(tmp_path / name, save_freq=1, double_checkpoint=True)
        callbacks = [backup, ResumeFeed(sequence), *more]
        model.fit(sequence, shuffle=False, epochs=3, callbacks=callbacks, verbose=0)
        return list(seen)

    whole = fit("whole")
    assert len(whole) == 9 and len({str(step) for step in whole}) == 9
    for name in ("3", "7"):  # as the second stage begins, and within the third
        with pytest.raises(KeyboardInterrupt):
            fit(name, Interrupt())
        assert seen == whole[: int(name)]
        # A backup stands for the step before it or that step.
        assert fit(name) in (whole[int(name) :], whole[int(name) - 1 :])


@pytest.mark.parametrize("make_callback", [ResumeFeed, FeedMonitor])
def test_deep_copy_of_a_callback_has_the_same_sequence_and_nothing_else_in_common(shapes, make_callback):
    sequence = DetectionSequence(shapes, targets=lambda sample: {}, batch_size=4, resize=Fixed((32, 32)))
    callback = make_callback(sequence)
    callback.notes = [sequence]
    copied = copy.deepcopy(callback)
    assert type(copied) is make_callback and copied is not callback
    assert copied.sequence is copied.notes[0] is sequence
    assert copied.notes is not callback.notes
