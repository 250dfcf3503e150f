"""`detfeed split` writes parts in which what belongs together is together."""

import json
import os
from pathlib import Path

import pytest

from detfeed import make_shapes, read_coco, read_voc
from image_files import encode, noise


@pytest.fixture
def run(detfeed):
    return lambda *arguments: detfeed("split", *arguments)


@pytest.fixture
def frames(tmp_path):
    """A COCO set of ten videos of three frames that differ, of which the last two videos show the same."""
    folder = tmp_path / "images"
    folder.mkdir()
    images, boxes = [], []
    for number in range(30):
        name = f"video{number // 3}_frame{number % 3}.png"
        (folder / name).write_bytes(encode(noise(number if number < 27 else number - 3), "PNG"))
        images.append({"id": number, "file_name": name, "height": 60, "width": 80})
        category = 2 if number in (0, 15) else 1
        boxes.append({"id": number, "image_id": number, "category_id": category, "bbox": [1, 2, 30, 40]})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (tmp_path / "all.json").write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return ("--coco", tmp_path / "all.json", "--images", folder)


def videos(path, folder):
    return {Path(name).name.partition("_")[0] for name in read_coco(path, folder).paths}


def test_groups_and_images_that_are_alike_stay_together_and_classes_are_in_all_parts(run, frames, tmp_path):
    for seed in range(3):
        out = tmp_path / f"parts{seed}"
        result = run(*frames, "--shares", 0.7, 0.3, "--group", "(.*)_frame", "--seed", seed, "--to-coco", out)
        assert result.status == 0, result.stderr
        assert "30 images stay together in 9 groups; the largest has 6" in result.stdout
        train, val = (videos(out / f"{name}.json", frames[3]) for name in ("train", "val"))
        assert not train & val
        assert len(train | val) == 10
        assert ("video8" in train) == ("video9" in train)
        for name in ("train", "val"):
            table = read_coco(out / f"{name}.json", frames[3])
            assert set(table.class_ids.tolist()) == {0, 1}
            assert f"wrote {name}: {len(table)} images" in result.stdout


def test_same_seed_gives_the_same_parts_and_fast_looks_at_no_pixels(run, frames, tmp_path):
    (tmp_path / "images" / "video0_frame0.png").write_bytes(b"damaged")
    for name in ("a", "b"):
        result = run(*frames, "--shares", 0.5, 0.25, 0.25, "--fast", "--to-lists", tmp_path / name)
        assert (result.status, result.stderr) == (0, "warning: test has no object of ['dog']\n")
        assert "stay together" not in result.stdout
    lists = [[(tmp_path / name / f"{part}.txt").read_text() for part in ("train", "val", "test")] for name in "ab"]
    assert lists[0] == lists[1]
    lines = "".join(lists[0]).splitlines()
    assert sorted(lines) == sorted(str(path) for path in (tmp_path / "images").iterdir())


def test_lists_of_voc_hold_image_ids_that_a_split_reads(run, detfeed, tmp_path):
    shapes = make_shapes(tmp_path / "shapes", num_images=6, image_hw=(96, 128), seed=0)
    voc = tmp_path / "voc"
    detfeed("convert", "--coco", shapes, "--images", shapes.parent / "images", "--to-voc", voc)
    assert run("--voc", voc, "--shares", 0.5, 0.5, "--names", "one", "two", "--to-lists", tmp_path / "out").status == 0
    for name in ("one", "two"):
        os.rename(tmp_path / "out" / f"{name}.txt", voc / "ImageSets" / "Main" / f"{name}.txt")
    assert len(read_voc(voc, "one")) + len(read_voc(voc, "two")) == 6


def test_names_without_a_match_and_large_groups_are_told(run, frames, tmp_path):
    result = run(*frames, "--fast", "--group", "video[1-9]", "--to-lists", tmp_path / "out")
    assert "--group: nothing is found in 3 of 30 names of images, such as " in result.stderr
    result = run(*frames, "--fast", "--group", "video", "--to-lists", tmp_path / "one")
    assert "one group has 30 of 30 images" in result.stderr
    assert "warning: val has no object of ['cat', 'dog']\n" in result.stderr


def damage(folder, how):
    """Three images of frames that can't be fed: their names."""
    names = ["video0_frame0.png", "video4_frame1.png", "video9_frame2.png"]
    for name in names:
        content = (folder / name).read_bytes()
        if how == "missing":
            (folder / name).unlink()
        else:
            other = {"cut short": content[:-30], "no image": b"text", "another size": encode(noise(0, 30, 50), "PNG")}
            (folder / name).write_bytes(other[how])
    return names


@pytest.mark.parametrize("how", ["cut short", "no image", "another size", "missing"])
def test_images_that_can_not_be_fed_are_told_and_left_out_if_asked(run, frames, tmp_path, how):
    names = damage(frames[3], how)
    result = run(*frames, "--to-lists", tmp_path / "all")
    assert result.status == 0
    assert f"warning: the parts hold 3 images that can't be fed, such as {frames[3]}/{names[0]}: " in result.stderr
    assert "--skip-unreadable leaves them out, and detfeed check names them all\n" in result.stderr
    assert [name for name in names if name in listed(tmp_path / "all")] == names
    result = run(*frames, "--to-lists", tmp_path / "usable", "--skip-unreadable")
    assert result.status == 0
    skipped = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert [name for name in names if any(f"/{name}: " in line for line in skipped)] == names
    assert "left out 3 images that can't be fed\n" in result.stdout
    assert "warning: the parts hold" not in result.stderr
    assert sorted(listed(tmp_path / "usable")) == sorted(set(listed(tmp_path / "all")) - set(names))


def listed(folder):
    return [Path(line).name for file in folder.glob("*.txt") for line in file.read_text().splitlines()]


def test_nothing_is_written_if_no_image_can_be_fed(run, frames, tmp_path):
    for file in frames[3].iterdir():
        file.write_bytes(b"text")
    result = run(*frames, "--to-lists", tmp_path / "out", "--skip-unreadable")
    assert result.status == 1
    assert result.stderr.endswith(f"{tmp_path}/out was not written: no image can be fed\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.5, 0.25, 0.25)])
def test_objects_of_each_class_are_printed_for_each_part_the_most_frequent_class_first(run, frames, tmp_path, shares):
    result = run(*frames, "--shares", *shares, "--to-coco", tmp_path / "out")
    lines = result.stdout.splitlines()
    parts = [line.partition(":")[0].removeprefix("wrote ") for line in lines if line.startswith("wrote ")]
    assert len(parts) == len(shares)
    for name in parts:
        table = read_coco(tmp_path / "out" / f"{name}.json", frames[3])
        (place,) = (row for row, line in enumerate(lines) if line.startswith(f"wrote {name}: "))
        counts = [table.class_ids.tolist().count(class_id) for class_id in (0, 1)]
        assert lines[place + 1] == f"  objects: cat {counts[0]}, dog {counts[1]}"
        assert (f"warning: {name} has no object of ['dog']" in result.stderr) == (counts[1] == 0)


def test_of_many_classes_only_those_that_a_part_lacks_are_named(run, frames, tmp_path):
    content = json.loads(frames[1].read_text())
    content["categories"] += [{"id": number, "name": f"class {number}"} for number in range(3, 22)]
    frames[1].write_text(json.dumps(content))
    result = run(*frames, "--shares", 0.4, 0.3, 0.3, "--to-coco", tmp_path / "out")
    assert "objects:" not in result.stdout
    assert result.stderr == "warning: test has no object of ['dog']\n"


def test_wrong_options_are_refused_and_nothing_is_written_over(run, frames, tmp_path):
    out = tmp_path / "out"
    for arguments, message in (
        (("--to-coco", out, "--shares", 0.8, 0.3), "--shares: expected shares that add up to 1, got 1.1"),
        (("--to-coco", out, "--names", "a"), "--names: expected 2 names, one for each share, got a"),
        (("--to-coco", out, "--names", "a", "../b"), "--names: expected names of files, got '../b'"),
        (("--to-coco", out, "--group", "("), "--group: expected a regular expression, got (: "),
        ((), "expected one of --to-coco and --to-lists, got none"),
        (("--to-coco", tmp_path), "--to-coco: expected a new name, got "),
    ):
        result = run(*frames, *arguments)
        assert (result.status, result.stdout) == (2, "")
        assert message in result.stderr
    assert not out.exists()
