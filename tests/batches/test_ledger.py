"""Images that can't be read: what is fed in their place, and who is told."""

import concurrent.futures
import dataclasses
import json
import multiprocessing
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from detfeed import (
    AnchorGrid,
    AnchorTargets,
    BatchLoader,
    Fixed,
    ImageError,
    LimitEmpty,
    Replace,
    SampleError,
    ShortSide,
    read_voc,
)
from detfeed.batches.ledger import Ledger, Replacement
from detfeed.batches.loader import MAX_ATTEMPTS
from detfeed.batches.ordering import sample_rng
from detfeed.feeding.feed import Feed
from full_disk import full_disk


def position(sample):
    return {"position": np.array(sample.position), "boxes": np.array(len(sample.boxes))}


def broken(table, tmp_path, *positions):
    """The same table, some images of which are cut short."""
    paths = list(table.paths)
    for place in positions:
        cut = tmp_path / f"cut_{place}{Path(paths[place]).suffix}"
        cut.write_bytes(Path(paths[place]).read_bytes()[:300])
        paths[place] = str(cut)
    return dataclasses.replace(table, paths=tuple(paths))


def make_loader(table, **arguments):
    arguments = {"batch_size": 4, "resize": ShortSide(96), "on_error": Replace(), **arguments}
    return BatchLoader(table, arguments.pop("targets", position), **arguments)


def same(batch, other):
    return all(np.array_equal(a[name], b[name]) for a, b in zip(batch, other, strict=True) for name in {**a, **b})


def keys_of(loader, epochs=2):
    return [(epoch, index) for epoch in range(epochs) for index in range(loader.num_batches)]


def replacements(loader, epochs=2):
    found = []
    batches = {key: loader.load(*key, report=found.append) for key in keys_of(loader, epochs)}
    return batches, found


def test_nothing_is_replaced_where_all_can_be_read(shapes):
    plain, replacing = make_loader(shapes, on_error="raise"), make_loader(shapes)
    batches, found = replacements(replacing)
    assert not found
    assert all(same(batch, plain.load(*key)) for key, batch in batches.items())


def test_unreadable_image_is_replaced_by_another_of_its_canvas_and_nothing_else_changes(shapes, tmp_path):
    loader = make_loader(broken(shapes, tmp_path, 5))
    whole = make_loader(shapes)
    batches, found = replacements(loader, epochs=12)
    others = set()
    for (epoch, index), batch in batches.items():
        planned, fed = loader.batches(epoch)[index], batch[1]["position"]
        changed = planned != fed
        assert (planned[changed] == 5).all() and 5 not in fed
        expected = whole.load(epoch, index)
        assert batch[0]["image"].shape == expected[0]["image"].shape
        np.testing.assert_array_equal(batch[0]["image"][~changed], expected[0]["image"][~changed])
        for row in np.flatnonzero(changed):
            other = int(fed[row])
            others.add(other)
            assert loader.canvas_ids[other] == loader.canvas_ids[5]
            np.testing.assert_array_equal(
                batch[0]["image"][row, : batch[0]["image_hw"][row, 0], : batch[0]["image_hw"][row, 1]],
                loader.load_sample(epoch, other).image,
            )
            assert batch[1]["boxes"][row] == len(loader.load_sample(epoch, other).boxes)
    assert len(found) == 12 and len(others) > 4
    assert {r.position for r in found} == {5}
    first = found[0]
    assert first.path == loader.annotations.paths[5] and first.image_id == shapes.image_id(5)
    assert first.replacement_path in shapes.paths
    assert first.path in first.error


def test_replacement_is_augmented_by_a_generator_of_its_own(shapes, tmp_path):
    seen = []
    loader = make_loader(
        broken(shapes, tmp_path, 5), targets=lambda s: seen.append((s.position, s.rng.bit_generator.state)) or {}
    )
    replacements(loader, epochs=1)
    (odd,) = [(place, state) for place, state in seen if state != sample_rng(0, 0, place).bit_generator.state]
    assert odd[0] != 5
    rng = sample_rng(0, 0, 5, 0, 1)
    rng.choice(np.flatnonzero(loader.canvas_ids == loader.canvas_ids[5])[1:])  # which draws the replacement
    assert odd[1] == rng.bit_generator.state


def test_replacement_that_can_not_be_read_either_is_replaced_and_told_of(shapes, tmp_path):
    canvas_of = make_loader(shapes).canvas_ids
    alike = np.flatnonzero(canvas_of == canvas_of[5])
    loader = make_loader(broken(shapes, tmp_path, *alike[alike != alike[0]][:5], 5))
    batches, found = replacements(loader, epochs=3)
    bad = {r.position for r in found}
    assert len(bad) >= 5
    for key, (_, y) in batches.items():
        assert not bad & set(y["position"].tolist()), key
    assert len(found) > 3 * len(bad)


def test_image_that_nothing_can_replace_is_an_error_that_names_what_was_tried(annotate, tmp_path):
    table = annotate([(20, 30)] * 2, [[]] * 2)
    loader = make_loader(broken(table, tmp_path, 0, 1), resize=Fixed((20, 30)), batch_size=1, shuffle=False)
    with pytest.raises(SampleError, match=r"cut_0\.png.*None of the images drawn .*: .*cut_1\.png"):
        loader.load(0, 0)
    alone = make_loader(broken(table.select([0]), tmp_path, 0), resize=Fixed((20, 30)))
    with pytest.raises(SampleError, match="There is no other image to replace it"):
        alone.load(0, 0)


def test_image_that_is_alone_on_its_canvas_is_replaced_by_one_of_another(annotate, tmp_path):
    table = annotate([(20, 30)] * 4 + [(20, 100)], [[[0, 0, 10, 10]]] * 5)
    loader = make_loader(broken(table, tmp_path, 4), resize=ShortSide(32), targets=position)
    batches, found = replacements(loader)
    assert {r.position for r in found} == {4}
    shapes = {key: x["image"].shape for key, (x, _) in batches.items()}
    whole = make_loader(table, resize=ShortSide(32))
    assert shapes == {key: whole.load(*key)[0]["image"].shape for key in shapes}
    for x, y in batches.values():
        assert (y["position"] != 4).all()
        assert (x["image_hw"] <= x["image"].shape[1:3]).all()


def test_share_that_may_be_unreadable_is_of_all_images_that_may_come_in_any_shard(annotate):
    table = annotate([(20, 30)] * 400, [[]] * 380 + [[[0, 0, 10, 10]]] * 20)
    assert Feed(make_loader(table, shard=(1, 8))).ledger.limit == 4
    assert Feed(make_loader(table, sampler=LimitEmpty(), on_error=Replace(0.1))).ledger.limit == 2
    assert Ledger(Replace(0.29), 100).limit == 29


def test_replacement_that_could_not_be_written_down_is_written_the_next_time(tmp_path):
    ledger = Ledger(Replace(1, tmp_path / "ledger"), 10)
    replacement = Replacement(0, 1, 2, "a.png", 5, "broken", "b.png", 6)
    (tmp_path / "ledger").unlink()
    (tmp_path / "ledger").mkdir()
    with pytest.raises(IsADirectoryError):
        ledger.note([replacement])
    (tmp_path / "ledger").rmdir()
    with pytest.warns(UserWarning, match="is fed in its place"):
        ledger.note([replacement])
    assert ledger.count == len((tmp_path / "ledger").read_text().splitlines()) == 1


def test_no_more_than_a_few_images_are_tried(annotate, tmp_path):
    table = broken(annotate([(20, 30)] * 20, [[]] * 20), tmp_path, *range(20))
    with pytest.raises(SampleError) as caught:
        make_loader(table, resize=Fixed((20, 30))).load(0, 0)
    assert str(caught.value).split("None of the images")[1].count("cut_") == MAX_ATTEMPTS


def test_errors_of_a_target_function_raise_even_if_they_are_image_errors(shapes):
    def fail(sample):
        raise ImageError("of mine")

    with pytest.raises(SampleError, match="ImageError: of mine"):
        make_loader(shapes, targets=fail).load(0, 0)


def test_error_of_a_target_function_names_the_image_that_was_fed(shapes, tmp_path):
    def fail(sample):
        raise KeyError(sample.position)

    loader = make_loader(broken(shapes, tmp_path, 0), targets=fail, batch_size=1, shuffle=False)
    with pytest.raises(SampleError, match=r"position (\d+), epoch 0, batch 0\): KeyError: \1") as caught:
        loader.load(0, 0)
    assert "cut_0" not in str(caught.value)


def test_image_is_not_replaced_unless_asked_for(shapes, tmp_path):
    loader = make_loader(broken(shapes, tmp_path, 5), on_error="raise", shuffle=False)
    with pytest.raises(SampleError, match=r"cut_5\.jpg"):
        replacements(loader, epochs=1)
    with pytest.raises(ValueError, match=r"on_error to be \"raise\" or Replace\(\.\.\.\). Received: 'skip'"):
        make_loader(shapes, on_error="skip")


def test_loader_on_its_own_warns_of_each_replacement(shapes, tmp_path):
    loader = make_loader(broken(shapes, tmp_path, 5))
    index = next(i for i, batch in enumerate(loader.batches(0)) if 5 in batch)
    with pytest.warns(UserWarning, match=r"cut_5\.jpg could not be read, and .*\.jpg is fed in its place"):
        loader.load(0, index)


KINDS = {
    "in place": {},
    "threads": {"workers": 2},
    "processes": {"workers": 2, "use_multiprocessing": True},
    "executor": {"executor": None},
}


@pytest.mark.parametrize("kind", KINDS)
def test_ledger_count_and_one_warning_are_the_same_whoever_makes_the_batches(shapes, tmp_path, kind):
    on_error = Replace(0.2, tmp_path / "ledger.jsonl")
    loader = make_loader(broken(shapes, tmp_path, 5, 6, 7), on_error=on_error)
    expected, found = replacements(loader)
    arguments = dict(KINDS[kind])
    if kind == "executor":
        arguments["executor"] = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    feed = Feed(loader, **arguments)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keys = keys_of(loader)
        for place, key in enumerate(keys):
            assert same(feed.get(key, keys[place + 1 :]), expected[key])
        feed.get(keys[0])  # once more, as Keras does before an epoch
    feed.close()
    if kind == "executor":
        arguments["executor"].shutdown()
    (warning,) = caught
    first = found[0]
    assert str(warning.message).startswith(f"{first.path} could not be read, and {first.replacement_path} is fed")
    assert str(tmp_path / "ledger.jsonl") in str(warning.message)
    lines = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert lines == [r._asdict() for r in found]
    assert feed.ledger.count == len(found) >= 6
    assert feed.ledger.unreadable == {5, 6, 7}


def replacement(place, epoch=0, batch=0):
    return Replacement(epoch, batch, place, f"{place}.jpg", place, f"{place}.jpg: it is cut short", "other.jpg", 99)


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_too_many_unreadable_images_are_an_error_that_says_how_many_and_where_they_are_listed(tmp_path):
    ledger = Ledger(Replace(0.01, tmp_path / "ledger.jsonl"), 399)
    for epoch in range(3):
        ledger.note([replacement(place, epoch) for place in range(3)])
    message = (
        r"4 of 399 images could not be read, more than the 3 that max_share allows; the last is 7\.jpg: it is "
        r"cut short\. All are listed in .*ledger\.jsonl"
    )
    for batch in (1, 2):  # whoever goes on is told again
        with pytest.raises(ImageError, match=message):
            ledger.note([replacement(7, 3, batch)])
    assert ledger.count == 11
    assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 11


@pytest.mark.filterwarnings("ignore:.*could not be read")
def test_a_single_unreadable_image_is_no_error_in_the_smallest_set():
    with pytest.raises(ImageError, match="1 of 3 images could not be read, more than the 0"):
        Ledger(Replace(0), 3).note([replacement(0)])
    ledger = Ledger(Replace(), 3)
    ledger.note([replacement(0)])
    with pytest.raises(ImageError, match=r"2 of 3 images .* Replace\(ledger=path\) lists them all in a file"):
        ledger.note([replacement(1)])


def test_ledger_that_can_not_be_written_or_a_share_that_is_none_is_refused_at_once(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        Ledger(Replace(0.01, tmp_path / "nowhere" / "ledger.jsonl"), 10)
    with pytest.raises(ValueError, match=r"a share from 0 to 1\. Received: 5"):
        Replace(5)


def test_real_dirt_is_fed_with_every_effect_reported_or_stops_with_how_to_go_on(data):
    helmet = read_voc(data / "dirt" / "helmet", annotation_dir="annotations", image_dir="images")
    loader = make_loader(helmet, resize=ShortSide(200), targets=AnchorTargets(AnchorGrid.fpn()), on_error="raise")
    fed = [loader.load(0, index) for index in range(loader.num_batches)]
    assert sum(len(x["image"]) for x, _ in fed) == len(helmet) == 6
    assert all((y["anchor_state"] == 1).any(axis=1).all() for _, y in fed)

    kangaroo = read_voc(data / "dirt" / "kangaroo", annotation_dir="annots", image_dir="images")
    arguments = {"resize": ShortSide(200), "targets": AnchorTargets(AnchorGrid.fpn())}
    loader = make_loader(kangaroo, on_error="raise", **arguments)
    message = (
        r"00090\.jpg .*Premature end.*leave the image out; or on_error=Replace\(\) .--on-error replace. feeds others in"
    )
    with pytest.raises(SampleError, match=message):
        for index in range(loader.num_batches):
            loader.load(0, index)
    feed = Feed(make_loader(kangaroo, **arguments))
    with pytest.warns(UserWarning, match=r"00090\.jpg could not be read, and .*\.jpg is fed in its place"):
        fed = [feed.get((0, index)) for index in range(feed.loader.num_batches)]
    assert sum(len(x["image"]) for x, _ in fed) == len(kangaroo) == 4
    assert feed.ledger.count == 1


def replaced(batch):
    return Replacement(0, batch, batch, f"{batch}.png", batch, f"{batch}.png: cut", "other.png", 9)


def test_full_disk_cuts_no_line_of_the_ledger_and_the_error_names_it(tmp_path):
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(Replace(1, path), 9)
    with pytest.warns(UserWarning, match="All are listed"):
        ledger.note([replaced(0)])
    with full_disk(after=path.stat().st_size + 20), pytest.raises(OSError, match=r"'.*ledger.jsonl'"):
        ledger.note([replaced(1), replaced(2)])
    ledger.note([replaced(1), replaced(2)])
    assert [json.loads(line)["batch"] for line in path.read_text().splitlines()] == [0, 1, 2]


def test_cut_line_of_an_earlier_run_does_not_spoil_the_next_one(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"epoch": 0, "ba')
    with pytest.warns(UserWarning, match="All are listed"):
        Ledger(Replace(1, path), 9).note([replaced(1)])
    cut, line = path.read_text().splitlines()
    assert cut == '{"epoch": 0, "ba' and json.loads(line)["batch"] == 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_ledger_that_is_no_regular_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "ledger"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to(os.devnull)}[kind](path)
    with pytest.raises(OSError, match=rf"expected a regular file, got a {kind}: '{path}'"):
        Ledger(Replace(ledger=path), 9)
