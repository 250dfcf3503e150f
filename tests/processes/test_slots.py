import os
import pickle
import resource

import numpy as np
import pytest

from detfeed.processes.slots import ALIGNMENT, GRAIN, Reader, Writer


def send(writer, reader, batch_of, *arguments):
    """Make a batch with a writer's memory and read it as another process would."""
    parcel, fd = writer.pack(batch_of(writer.allocate, *arguments))
    batch = reader.unpack(pickle.loads(pickle.dumps(parcel)), fd)
    writer.note_sent()
    return batch


def numbers(allocate, value, size=GRAIN):
    image = allocate((2, size // 2), np.uint8)
    image[...] = value
    deltas = allocate((2, 3), np.float32)
    deltas[...] = value + 0.5
    return {"image": image}, {"deltas": deltas, "nothing": allocate((2, 0, 4), np.float32)}


def check(batch, value):
    assert (batch[0]["image"] == value).all()
    assert (batch[1]["deltas"] == value + 0.5).all()
    assert batch[1]["deltas"].dtype == np.float32
    assert batch[1]["nothing"].shape == (2, 0, 4)


def test_batch_arrives_whole_aligned_writable_and_in_no_named_file():
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    writer, reader = Writer(), Reader()
    batch = send(writer, reader, numbers, 7)
    check(batch, 7)
    for array in (batch[0]["image"], batch[1]["deltas"]):
        assert array.ctypes.data % ALIGNMENT == 0
        assert array.flags.writeable
        assert not array.flags.owndata
    assert not os.path.isdir("/dev/shm") or set(os.listdir("/dev/shm")) <= before


def test_slot_is_used_again_only_after_its_last_view_is_gone():
    writer, reader = Writer(), Reader()
    batch = send(writer, reader, numbers, 1)
    row = batch[1]["deltas"][1:, ::2]  # a view of a view
    looked_at = memoryview(batch[0]["image"])
    del batch
    writer.release(reader.take_released())
    send(writer, reader, numbers, 2)
    assert (row == 1.5).all() and looked_at[0, 0] == 1
    del looked_at
    assert reader.take_released().free == [1]  # that of the second batch
    del row
    assert reader.take_released().free == [0]


def test_more_batches_can_be_held_than_files_be_open_and_keep_their_values():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    writer, reader = Writer(), Reader()
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
        for value in range(150):
            held.append(send(writer, reader, numbers, value, 4096))
            writer.release(reader.take_released())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for value, batch in enumerate(held):
        check(batch, value)


def test_released_slots_are_used_again_so_that_memory_and_descriptors_stay_the_same():
    writer, reader = Writer(), Reader()
    open_files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    seen = set()
    for value in range(50):
        batch = send(writer, reader, numbers, value)
        check(batch, value)
        seen.add(batch[0]["image"].ctypes.data)
        del batch
        writer.release(reader.take_released())
    assert len(seen) <= 2
    if open_files:
        assert len(os.listdir("/proc/self/fd")) == open_files


def test_what_outgrows_its_slot_goes_along_and_fits_the_next_time():
    writer, reader = Writer(), Reader()

    def large(allocate):
        batch = numbers(allocate, 3)
        more = allocate((2, GRAIN), np.uint8)
        more[...] = 4
        batch[1]["more"] = more
        return batch

    batch = send(writer, reader, large)
    check(batch, 3)
    assert (batch[1]["more"] == 4).all()
    assert batch[1]["more"].base is None or isinstance(batch[1]["more"].base, bytes | bytearray)
    second = send(writer, reader, large)
    assert (second[1]["more"] == 4).all()
    assert second[1]["more"].base is second[1]["deltas"].base


def test_slots_of_all_sizes_follow_batches_of_changing_sizes():
    writer, reader = Writer(), Reader()
    rng = np.random.default_rng(0)
    held = []
    for value in range(60):
        held.append((value, send(writer, reader, numbers, value, int(rng.integers(1, 8)) * GRAIN)))
        if len(held) > 3:
            value, batch = held.pop(int(rng.integers(len(held))))
            check(batch, value)
            del batch
            writer.release(reader.take_released())
    for value, batch in held:
        check(batch, value)


def test_batch_that_could_not_be_made_leaves_its_slot_to_the_next():
    writer, reader = Writer(), Reader()
    for _ in range(5):
        numbers(writer.allocate, 9)
        writer.abandon()
    check(send(writer, reader, numbers, 1), 1)
    assert len(reader._memories) == 1


def test_objects_and_arrays_of_others_go_along_as_they_are():
    writer, reader = Writer(), Reader()

    def odd(allocate):
        names = allocate((2,), object)
        names[:] = ["one", "two"]
        return {"names": names}, {"mine": np.arange(3)}

    batch = send(writer, reader, odd)
    assert batch[0]["names"].tolist() == ["one", "two"]
    assert batch[1]["mine"].tolist() == [0, 1, 2]


def test_memory_that_can_not_be_had_is_no_crash_and_the_batch_goes_along():
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer, reader = Writer(), Reader()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (GRAIN, hard))  # of anonymous files, too
        batch = send(writer, reader, numbers, 5)
        assert writer.refused.startswith("2 MiB of shared memory: ")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check(batch, 5)
    check(send(writer, reader, numbers, 6), 6)
    assert writer.refused == ""


@pytest.mark.parametrize("first", [True, False])
def test_empty_array_as_the_first_of_a_batch_is_no_special_case(first):
    writer, reader = Writer(), Reader()

    def batch_of(allocate):
        nothing = allocate((0, 3), np.uint8) if first else np.zeros((0, 3), np.uint8)
        some = allocate((4,), np.int32)
        some[...] = 8
        return {"nothing": nothing}, {"some": some}

    for _ in range(3):
        batch = send(writer, reader, batch_of)
        assert batch[0]["nothing"].shape == (0, 3) and (batch[1]["some"] == 8).all()
        del batch
        writer.release(reader.take_released())
