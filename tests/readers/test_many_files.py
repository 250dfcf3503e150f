"""Sets of many files, read with the help of processes."""

import json
import sys
import threading
import warnings

import numpy as np
import pytest

from detfeed import read_coco, read_csv, read_images, read_kitti, read_openimages, read_voc, read_yolo
from detfeed.processes import helpers
from detfeed.processes.process import Process
from detfeed.readers import many_files
from detfeed.readers.many_files import read_files
from written_formats import (
    draw_set,
    through_csv,
    through_kitti,
    through_openimages,
    through_voc,
    through_yolo,
)

LONG = 60.0  # seconds, a bound for waits that end at once unless something is wrong


@pytest.fixture
def helped(monkeypatch):
    """Two processes that read all files but the first two; a list of how many jobs each call asked them for."""
    shares, started = [], []
    all_done = threading.Event()
    call, share = Process.call, helpers.Helpers.share

    def noted(self, *jobs):
        answer = call(self, *jobs)
        shares.append(len(jobs))
        if sum(shares) == self.jobs - 1:
            all_done.set()
        return answer

    def patient(self, jobs, do, receive):
        for process in self._processes:
            process.jobs = len(jobs)
        started.append(len(self._processes))

        def wait_and_do(number):
            if self._processes:
                assert all_done.wait(LONG)
            return do(number)

        yield from share(self, jobs, wait_and_do, receive)

    monkeypatch.setattr(Process, "call", noted)
    monkeypatch.setattr(helpers.Helpers, "share", patient)
    monkeypatch.setattr(many_files, "FILES_A_PROCESS", 1)
    monkeypatch.setattr(many_files, "_AT_ONCE", 2)
    monkeypatch.setattr(helpers, "cores", lambda: 3)
    yield shares
    assert set(started) <= {0, 2}


def results(context):
    with context as reads:
        return list(map(result, reads))


def result(read):
    try:
        return read()
    except ValueError as error:
        return str(error)


TEXTS = [str(number) if number % 5 else "no number" for number in range(23)]
EXPECTED = [number if number % 5 else "Expecting value: line 1 column 1 (char 0)" for number in range(23)]


def test_each_file_gives_its_own_result_or_error_whoever_reads_it(helped):
    assert results(read_files(json.loads, TEXTS)) == EXPECTED
    assert sum(helped) == 11, "all jobs of two files but the first"


def test_few_files_are_read_by_this_process_alone(monkeypatch):
    monkeypatch.setattr(helpers, "Process", None)
    assert results(read_files(json.loads, TEXTS)) == EXPECTED
    assert results(read_files(json.loads, [])) == []


@pytest.mark.parametrize("fault", ["killed", "without threads", "unable to start", "without Python"])
def test_files_are_read_whatever_becomes_of_the_helping_processes(monkeypatch, fault):
    monkeypatch.setattr(many_files, "FILES_A_PROCESS", 1)
    monkeypatch.setattr(helpers, "cores", lambda: 3)
    if fault == "killed":
        call = Process.call

        def killed(self, *jobs):
            self.kill()
            return call(self, *jobs)

        monkeypatch.setattr(Process, "call", killed)
    elif fault == "without threads":

        def start(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python" if fault == "unable to start" else None)
    assert results(read_files(json.loads, TEXTS)) == EXPECTED


def test_helping_processes_end_with_a_reading_that_is_broken_off(monkeypatch):
    started = []

    class Counted(Process):
        def __init__(self, task):
            super().__init__(task)
            started.append(self)

    monkeypatch.setattr(helpers, "Process", Counted)
    monkeypatch.setattr(many_files, "FILES_A_PROCESS", 1)
    monkeypatch.setattr(helpers, "cores", lambda: 3)
    with pytest.raises(ZeroDivisionError) as kept, read_files(json.loads, TEXTS) as reads:
        next(reads)
        _ = 1 // 0
    assert kept.value.__traceback__ is not None, "which keeps the frame that reads"
    assert [process.ended for process in started] == [True, True]


def spoil_voc(folder):
    files = sorted((folder / "Annotations").iterdir())
    files[3].write_text("<annotation>")
    files[5].write_text(files[5].read_text().replace("<xmin>", "<xmin>x", 1))
    files[8].write_text("<annotation><object><name>only here</name></object></annotation>")
    files[9].rename(files[9].with_name("without an image.xml"))
    files[10].write_text(files[10].read_text().replace("<size>", "<other>").replace("</size>", "</other>"))
    return lambda on_problem: read_voc(folder, on_problem=on_problem)


def spoil_split(folder):
    spoil_voc(folder)
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    stems = sorted(file.stem for file in (folder / "Annotations").iterdir())
    (folder / "ImageSets" / "Main" / "few.txt").write_text("\n".join(stems[::4]))
    return lambda on_problem: read_voc(folder, "few", on_problem=on_problem)


def spoil_kitti(folder):
    files = sorted((folder / "label_2").iterdir())
    files[3].write_text("car 1 2\n")
    files[4].write_bytes(b"\xff")
    files[9].rename(files[9].with_name("without an image.txt"))
    return lambda on_problem: read_kitti(folder, on_problem=on_problem)


def spoil_yolo(folder):
    files = sorted((folder / "labels").iterdir())
    files[3].write_text("99 0.5 0.5 0.1 0.1\n")
    files[4].write_text("0 0.1 0.1 0.2 0.1 0.2 0.2\n")
    files[6].unlink()
    (folder / "labels" / "without an image.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    return lambda on_problem: read_yolo(folder / "data.yaml", on_problem=on_problem)


def spoil_csv(folder):
    lines = (folder / "boxes.csv").read_text().splitlines()
    lines[7] = lines[7].replace(",", ",x", 1)
    (folder / "boxes.csv").write_text("\n".join([*lines, "images/missing.jpg,1,2,3,4,disc"]))
    return lambda on_problem: read_csv(folder / "boxes.csv", folder / "classes.csv", on_problem=on_problem)


def spoil_openimages(folder):
    boxes, descriptions = folder / "boxes_norm.csv", folder / "descriptions.csv"
    return lambda on_problem: read_openimages(boxes, descriptions, folder / "images", on_problem=on_problem)


def spoil_nothing(folder):
    return lambda on_problem: read_images(folder / "images", on_problem=on_problem)


@pytest.mark.parametrize(
    ("through", "spoil", "problems"),
    [
        (through_voc, spoil_voc, 4),
        (through_voc, spoil_split, 2),
        (through_kitti, spoil_kitti, 5),
        (through_yolo, spoil_yolo, 4),
        (through_csv, spoil_csv, 4),
        (through_openimages, spoil_openimages, 2),
        (read_images, spoil_nothing, 2),
    ],
)
def test_tables_problems_and_warnings_do_not_depend_on_who_reads_the_files(
    tmp_path, monkeypatch, helped, through, spoil, problems
):
    folder = draw_set(tmp_path)
    if through is not read_images:
        with monkeypatch.context() as alone:
            alone.setattr(helpers, "cores", lambda: 1)
            through(read_coco(folder / "instances.json", folder / "images"), folder)
    images = sorted((folder / "images").glob("*.jpg"))
    images[12].write_bytes(b"no image")
    images[13].write_bytes(b"")
    read = spoil(folder)
    found = []
    for cores in (3, 1):
        monkeypatch.setattr(helpers, "cores", lambda cores=cores: cores)
        told = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = read(lambda path, error, told=told: told.append((path, type(error), str(error))))
        found.append((table, told, [str(one.message) for one in caught]))
    assert sum(helped) > 0
    (table, told, warned), (other, told_alone, warned_alone) = found
    assert (told, warned) == (told_alone, warned_alone)
    assert len(told) == problems
    assert (table.paths, table.class_names) == (other.paths, other.class_names)
    for name in ("image_ids", "image_hw", "boxes", "class_ids", "ignore", "offsets", "category_ids", "annotation_ids"):
        np.testing.assert_array_equal(getattr(table, name), getattr(other, name), err_msg=name)
