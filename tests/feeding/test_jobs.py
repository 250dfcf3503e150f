import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from detfeed import WorkerError
from detfeed.feeding.jobs import MAX_DEATHS, MAX_TIMEOUTS, Job, seconds_left, timed_load
from feeds import make_loader, same


@pytest.fixture
def loader(shapes):
    return make_loader(shapes, lambda sample: {"position": np.array(sample.position)})


def test_job_is_late_when_its_timeout_has_passed_since_it_was_begun(loader, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first, second = Job(loader, (0, 0)), Job(loader, (0, 1))
    assert first.seconds_left(5) == 5
    assert seconds_left([], 5) == seconds_left([first], 5) == 5
    first.begin()
    clock[0] = 102.0
    second.begin()
    assert (first.seconds_left(5), second.seconds_left(5), seconds_left([second, first], 5)) == (3, 5, 3)
    clock[0] = 110.0
    assert seconds_left([first, second], 5) == 0


def test_job_is_done_again_after_a_death_until_there_were_too_many(loader, shapes):
    job = Job(loader, (2, 1))
    for _ in range(MAX_DEATHS - 1):
        note = job.note_death("ended with status 3")
        assert note.startswith(
            "A worker process ended with status 3 while it made batch 1 of epoch 2. It was replaced;"
        )
        assert not job.result.done()
    assert job.note_death("ended with status 3") is None
    with pytest.raises(
        WorkerError, match=r"batch 1 of epoch 2, the last of 3 that died of it\. Its images: .*memory"
    ) as e:
        job.result.get()
    assert all(shapes.paths[position] in str(e.value) for position in loader.batches(2)[1])


def test_job_is_done_again_after_a_timeout_until_there_were_too_many(loader):
    job = Job(loader, (2, 1))
    for _ in range(MAX_TIMEOUTS - 1):
        assert job.note_timeout("was late", then="Again.", advice="Wait.") == "Batch 1 of epoch 2 was late. Again."
        assert not job.result.done()
    assert job.note_timeout("was late", then="Again.", advice="Wait.") is None
    with pytest.raises(WorkerError, match=r"^Batch 1 of epoch 2 was late, 2 times\. Its images: .*\. Wait\.$"):
        job.result.get()


def test_cancelled_job_is_an_error_for_all_that_wait_unless_it_is_done(loader):
    open_job, done = Job(loader, (0, 0)), Job(loader, (0, 1))
    done.finish(timed_load(loader, (0, 1))[0])
    for job in (open_job, done):
        job.cancel()
    with pytest.raises(CancelledError):
        open_job.result.get()
    batch, replaced = done.result.get()
    assert same(batch, loader.load(0, 1)) and replaced == []


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), GeneratorExit()])
def test_error_that_would_end_the_program_fails_a_job_as_one_that_names_its_images(loader, shapes, error):
    job = Job(loader, (2, 1))
    job.fail(error)
    with pytest.raises(WorkerError, match=rf"{type(error).__name__}.* batch 1 of epoch 2\. Its images: ") as caught:
        job.result.get()
    assert caught.value.__cause__ is error
    assert all(shapes.paths[position] in str(caught.value) for position in loader.batches(2)[1])


def test_job_that_failed_before_anybody_began_with_it_is_to_be_asked_for_anew(loader):
    job = Job(loader, (0, 0))
    assert not job.missed
    job.fail(WorkerError("no worker"))
    assert job.missed
    begun = Job(loader, (0, 0))
    begun.begin()
    begun.fail(ValueError())
    assert not begun.missed
    ended = Job(loader, (0, 0))
    ended.begin()
    ended.cancel()
    assert ended.missed
