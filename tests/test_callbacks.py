import time

import keras
import numpy as np
import pytest

from detfeed import DetectionSequence, FeedMonitor, Fixed, ResumeFeed
from detfeed.callbacks import advise


class Slow(keras.Model):
    """A model of one weight that needs some seconds for a step."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.scale = keras.layers.Dense(1)
        self.seconds = seconds

    def call(self, inputs):
        return self.scale(keras.ops.cast(inputs["position"], "float32"))

    def train_step(self, data):
        time.sleep(self.seconds)
        return super().train_step(data)


def build(seconds=0.0):
    model = Slow(seconds)
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    return model


def make(shapes, seconds=0.0, **arguments):
    def position(sample):
        time.sleep(seconds / 4)
        return {"position": np.float32([sample.position])}, {"y": np.float32([0])}

    return Unnamed(shapes, targets=position, batch_size=4, resize=Fixed((32, 32)), **arguments)


class Unnamed(DetectionSequence):
    """With an array for y, as a model with one output has it."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y["y"]


def test_model_that_waits_for_its_own_thread_is_told_to_use_workers(shapes, capsys):
    sequence = make(shapes, 0.08)
    monitor = FeedMonitor(sequence)
    build().fit(sequence, epochs=2, callbacks=[monitor], verbose=0)
    first, second = monitor.history
    for measured in (first, second):
        assert measured["waiting"] > 0.5 and measured["busy"] is None
        assert "use workers=2 or more" in measured["advice"]
        assert measured["images_per_second"] < 1.5 * 4 / 0.08  # one batch was made before the clock started
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("feed: ") for line in lines)


def test_model_that_is_slower_than_its_feed_sets_the_pace(shapes, capsys):
    sequence = make(shapes, workers=2)
    monitor = FeedMonitor(sequence, verbose=False)
    build(0.15).fit(sequence, epochs=2, callbacks=[monitor], verbose=0)
    # The second epoch: in the first, the threads have just begun.
    assert monitor.history[1]["waiting"] < 0.15 and monitor.history[1]["busy"] < 0.5
    assert 4 / 0.4 < monitor.history[1]["images_per_second"] < 4 / 0.15
    assert capsys.readouterr().out == ""


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
    assert advice in advise(waiting, busy, workers, cores=4, processes=processes)


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
