"""Peers of the feed: other libraries' loaders that decode, resize, flip and batch the same images on the same canvases.

`bench_feed.py --peers` times them. Those "over ours" call `BatchLoader.load` in the workers of another library, so that
its way of handing batches over is compared alone, and they make targets as well; the others make images alone.
"""

from __future__ import annotations

import concurrent.futures
import importlib.util
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from detfeed import BatchLoader, Feed

Image = NDArray[np.uint8]


class Place(NamedTuple):
    """One image of a batch: its file, and the height and width that it is resized to."""

    path: str
    size_hw: tuple[int, int]


class Plan(NamedTuple):
    """The batches of an epoch, by index: the canvas of each and its images."""

    canvas_hw: list[tuple[int, int]]
    places: list[list[Place]]


def plan_of(loader: BatchLoader) -> Plan:
    """The work of the loader's first epoch, but for targets."""
    plan = Plan([], [])
    for positions in loader.batches(0):
        height, width = loader.canvases[loader.canvas_ids[positions[0]]].tolist()
        plan.canvas_hw.append((height, width))
        plan.places.append([Place(loader.annotations.paths[p], loader.placed_hw(p)) for p in positions.tolist()])
    return plan


# Each makes an iterator over the number of images of each batch of an epoch, as often as it is called.
Epoch = Callable[[], Iterator[int]]


def of_detfeed(loader: BatchLoader, workers: int, *, processes: bool) -> Epoch:
    """detfeed's own processes or threads."""
    feed = Feed(loader, workers=workers, use_multiprocessing=processes)
    keys = [(0, index) for index in range(loader.num_batches)]

    def epoch() -> Iterator[int]:
        for place, key in enumerate(keys):
            # Of the next epoch, which is the same, as much is made ahead as of this one.
            ahead = (keys + keys)[place + 1 : place + 11]
            yield len(feed.get(key, ahead)[0]["image"])

    return epoch


def in_place(loader: BatchLoader, workers: int) -> Epoch:
    """One core, without workers."""
    return lambda: (len(loader.load(0, index)[0]["image"]) for index in range(loader.num_batches))


_buffer = np.zeros(0, np.uint8)


def _decode_and_resize(places: list[Place]) -> int:
    """As little as can be done for a batch: decoded by simplejpeg, resized by cv2 into memory that is used again."""
    global _buffer
    cv2.setNumThreads(0)
    for path, (height, width) in places:
        with open(path, "rb") as file:
            image = simplejpeg.decode_jpeg(file.read())
        if _buffer.size < height * width * 3:
            _buffer = np.zeros(height * width * 3, np.uint8)
        cv2.resize(image, (width, height), dst=_buffer[: height * width * 3].reshape(height, width, 3))
    return len(places)


def bound(loader: BatchLoader, workers: int) -> Epoch:
    """What no feed can pass: processes that decode and resize, and hand nothing over."""
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    plan = plan_of(loader)
    return lambda: pool.map(_decode_and_resize, plan.places)


class _Images:
    """Batches of images alone, by index, as a data set for torch and grain; `read` makes one image."""

    def __init__(self, plan: Plan, read: Callable[[Place], Image]) -> None:
        self.plan = plan
        self.read = read

    def __len__(self) -> int:
        return len(self.plan.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        places = self.plan.places[index]
        batch = np.zeros((len(places), *self.plan.canvas_hw[index], 3), np.uint8)
        for canvas, place in zip(batch, places, strict=True):
            height, width = place.size_hw
            canvas[:height, :width] = self.read(place)
        return {"image": batch}


class _Ours:
    """Batches of our loader, by index."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return self.loader.num_batches

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        x, y, *_ = self.loader.load(0, index)
        return {**x, **y}


def _decode(path: str) -> Any:
    cv2.setNumThreads(0)
    image: Any = cv2.imread(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _read_by_cv2(place: Place) -> Image:
    image: Any = cv2.resize(_decode(place.path), place.size_hw[::-1])
    if np.random.default_rng().random() < 0.5:
        image = cv2.flip(image, 1)
    return image  # type: ignore[no-any-return]


def _read_by_albumentations(place: Place) -> Image:
    import albumentations

    transform = albumentations.Compose([albumentations.Resize(*place.size_hw), albumentations.HorizontalFlip(p=0.5)])
    image: Image = transform(image=_decode(place.path))["image"]
    return image


def _read_by_torchvision(place: Place) -> Image:
    from torchvision.io import ImageReadMode, read_image  # pyright: ignore[reportMissingImports]
    from torchvision.transforms import v2  # pyright: ignore[reportMissingImports]

    image = read_image(place.path, ImageReadMode.RGB)
    image = v2.functional.resize(image, list(place.size_hw), antialias=False)
    array: Image = v2.RandomHorizontalFlip(0.5)(image).permute(1, 2, 0).numpy()
    return array


def _through_torch(data: Any, workers: int) -> Epoch:
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(1)
    batches: Iterable[Any] = torch.utils.data.DataLoader(
        data, batch_size=None, num_workers=workers, prefetch_factor=4, persistent_workers=True
    )
    return lambda: (len(batch["image"]) for batch in batches)


def _through_grain(data: Any, workers: int) -> Epoch:
    import grain  # type: ignore[import-not-found,unused-ignore]  # pyright: ignore[reportMissingImports]
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # grain reads its own from there
    options = grain.multiprocessing.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=4)
    # grain's default of 16 threads in each worker makes 20 images/s of these 170, and each iterator would start
    # processes of its own: one serves all epochs.
    dataset = grain.MapDataset.source(data).repeat()
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    batches = iter(dataset.to_iter_dataset(reading).mp_prefetch(options))
    return lambda: (len(batch["image"]) for batch in itertools.islice(batches, len(data)))


def _through_tf_data(loader: BatchLoader, workers: int) -> Epoch:
    import tensorflow as tf

    plan = plan_of(loader)

    def one(path: Any, size: Any, canvas: Any, batch: Any) -> tuple[Any, Any]:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        pixels = tf.cast(tf.round(tf.image.resize(pixels, size)), tf.uint8)
        pixels = tf.image.random_flip_left_right(pixels)
        return tf.pad(pixels, [[0, canvas[0] - size[0]], [0, canvas[1] - size[1]], [0, 0]]), batch

    paths = [place.path for places in plan.places for place in places]
    sizes = [place.size_hw for places in plan.places for place in places]
    canvases = [canvas for canvas, places in zip(plan.canvas_hw, plan.places, strict=True) for _ in places]
    batches = [index for index, places in enumerate(plan.places) for _ in places]
    dataset = tf.data.Dataset.from_tensor_slices((paths, sizes, canvases, np.array(batches, np.int64)))
    # Images of different canvases have different shapes, so each batch of the plan is a window of its own.
    dataset = dataset.map(one, num_parallel_calls=workers).group_by_window(
        key_func=lambda _, batch: batch,  # pyright: ignore[reportArgumentType]
        reduce_func=lambda _, images: images.map(lambda pixels, _: pixels).batch(loader.batch_size),
        window_size=loader.batch_size,
    )
    dataset = dataset.prefetch(4)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    dataset = dataset.with_options(options)
    return lambda: (len(images) for images in dataset.as_numpy_iterator())


BOUND = "bound: simplejpeg and cv2.resize"


class Peer(NamedTuple):
    """A way to make batches.

    Attributes:
        needs: the modules that must be installed.
        targets: whether it can make targets.
        images: whether it is worth timing without targets.
        start: makes its epochs, from our loader and a number of workers.
    """

    needs: tuple[str, ...]
    targets: bool
    images: bool
    start: Callable[[BatchLoader, int], Epoch]


PEERS = {
    "detfeed processes": Peer((), True, True, lambda loader, n: of_detfeed(loader, n, processes=True)),
    "detfeed threads": Peer((), True, True, lambda loader, n: of_detfeed(loader, n, processes=False)),
    "detfeed in place, one core": Peer((), True, True, in_place),
    "torch DataLoader over ours": Peer(("torch",), True, False, lambda loader, n: _through_torch(_Ours(loader), n)),
    "grain over ours": Peer(("grain",), True, False, lambda loader, n: _through_grain(_Ours(loader), n)),
    "torch DataLoader, cv2": Peer(
        ("torch",), False, True, lambda loader, n: _through_torch(_Images(plan_of(loader), _read_by_cv2), n)
    ),
    "torch DataLoader, albumentations": Peer(
        ("torch",), False, True, lambda loader, n: _through_torch(_Images(plan_of(loader), _read_by_albumentations), n)
    ),
    "torch DataLoader, torchvision v2": Peer(
        ("torch", "torchvision"),
        False,
        True,
        lambda loader, n: _through_torch(_Images(plan_of(loader), _read_by_torchvision), n),
    ),
    "grain, cv2": Peer(
        ("grain",), False, True, lambda loader, n: _through_grain(_Images(plan_of(loader), _read_by_cv2), n)
    ),
    "tf.data": Peer(("tensorflow",), False, True, _through_tf_data),
    BOUND: Peer((), False, True, bound),
}


def installed(peer: Peer) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in peer.needs)
