import concurrent.futures
import multiprocessing
import os

import pytest

from detfeed import Feed, SampleError, WorkerError
from feeds import keys_of, make_loader, same, take


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_executor_of_somebody_else_makes_the_same_batches_and_stays_open(shapes, kind):
    loader = make_loader(shapes)
    if kind == "threads":
        executor = concurrent.futures.ThreadPoolExecutor(2)
    else:
        executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))
    with executor:
        feed = Feed(loader, executor=executor)
        keys = keys_of(loader)
        for key, batch in zip(keys, take(feed, keys), strict=True):
            assert same(batch, loader.load(*key))
        feed.close()
        assert executor.submit(max, 1, 2).result() == 2


def test_executor_that_breaks_is_an_error_that_names_the_images(shapes):
    loader = make_loader(shapes, lambda sample: os._exit(1))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
        feed = Feed(loader, executor=executor)
        first = shapes.paths[loader.batches(0)[0][0]]
        with pytest.raises(WorkerError, match=f"The executor failed at batch 0 of epoch 0: BrokenProcessPool.*{first}"):
            feed.get((0, 0))


def test_errors_of_samples_come_out_of_an_executor_as_they_are(shapes):
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        feed = Feed(make_loader(shapes, lambda sample: 1 // 0), executor=executor)
        with pytest.raises(SampleError, match="ZeroDivisionError"):
            feed.get((0, 0))


def test_executor_that_does_not_answer_is_asked_again_and_then_an_error(shapes):
    class Silent(concurrent.futures.Executor):
        asked = 0

        def submit(self, function, /, *arguments, **named):
            self.asked += 1
            return concurrent.futures.Future()

    executor = Silent()
    feed = Feed(make_loader(shapes), executor=executor, timeout=0.2)
    with (
        pytest.warns(UserWarning, match="did not come from the executor within 0.2 s. It is asked for again"),
        pytest.raises(WorkerError, match=r"did not come from .* within 0.2 s, 2 times\. Its images: "),
    ):
        feed.get((0, 0))
    assert executor.asked == 2


def test_executor_that_takes_no_jobs_is_an_error_that_names_the_images_until_it_does(shapes):
    executor = concurrent.futures.ThreadPoolExecutor(1)
    executor.shutdown()
    feed = Feed(make_loader(shapes), executor=executor)
    keys = keys_of(feed.loader, epochs=1)
    first = shapes.paths[feed.loader.batches(0)[0][0]]
    with pytest.raises(WorkerError, match=f"The executor failed at batch 0 of epoch 0: RuntimeError: .*{first}"):
        feed.get(keys[0], keys[1:])


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, GeneratorExit])
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_target_function_that_would_end_the_training_is_an_error_of_an_executor_too(shapes, kind, end):
    def targets(sample):
        raise end(0)

    if kind == "threads":
        executor = concurrent.futures.ThreadPoolExecutor(1)
    else:
        executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    with executor:
        loader = make_loader(shapes, targets, augment=None)
        first = shapes.paths[loader.batches(0)[0][0]]
        with pytest.raises((SampleError, WorkerError), match=rf"{end.__name__}: 0|{first}"):
            Feed(loader, executor=executor).get((0, 0))
