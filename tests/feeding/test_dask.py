"""A Dask cluster of two processes makes the batches."""

import numpy as np
import pytest
from distributed import Client, LocalCluster

from detfeed import AnchorGrid, AnchorTargets, BatchLoader, SampleError, ShortSide
from detfeed.feeding.feed import Feed

GRID = AnchorGrid(strides=(32,), cell_sizes_wh=(((32.0, 32.0), (64.0, 64.0)),), offset=0.5)


@pytest.fixture(scope="module")
def executor():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client.get_executor()


@pytest.mark.filterwarnings("default")
def test_cluster_makes_the_same_batches(shapes, executor):
    loader = BatchLoader(shapes, AnchorTargets(GRID), batch_size=4, resize=ShortSide(96))
    feed = Feed(loader, executor=executor)
    keys = [(epoch, index) for epoch in range(2) for index in range(loader.num_batches)]
    for place, key in enumerate(keys):
        batch, expected = feed.get(key, keys[place + 1 :]), loader.load(*key)
        for part, other in zip(batch, expected, strict=True):
            assert part.keys() == other.keys()
            assert all(np.array_equal(part[name], other[name]) for name in part)
    assert feed.busy > 0


@pytest.mark.filterwarnings("default")
def test_errors_of_samples_come_out_of_the_cluster_as_they_are(shapes, executor):
    feed = Feed(BatchLoader(shapes, lambda s: 1 // 0, batch_size=4, resize=ShortSide(96)), executor=executor)
    with pytest.raises(SampleError, match=r"epoch 0, batch 0\): ZeroDivisionError"):
        feed.get((0, 0))
