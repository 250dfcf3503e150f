import json
import sys
import threading

import numpy as np
import pytest

from detfeed import AnnotationError, read_coco
from detfeed.processes import helpers
from detfeed.processes.process import Process
from detfeed.readers import coco_blocks as blocks
from detfeed.readers import coco_entries

LONG = 60.0  # seconds, a bound for waits that end at once unless something is wrong


def instances(annotations, **more):
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 40, "width": 60} for n in (7, 3, 5)]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 2, "name": "bicycle"}]
    return {**more, "images": images, "annotations": annotations, "categories": categories}


def objects(count, **fields):
    return [
        {"id": n, "image_id": (7, 3, 5)[n % 3], "category_id": 2, "bbox": [n, 1, 2, 3], **fields} for n in range(count)
    ]


def crowds(count):
    """Objects each with an area of its own, every third a crowd with runs of its own."""
    annotations = objects(count)
    for n in range(count):
        annotations[n] |= {"bbox": [n % 25, n // 25, 2, 3], "area": n}
        if n % 3 == 0:
            annotations[n] |= {"iscrowd": 1, "segmentation": {"counts": [n, 1, 40 * 60 - n - 1], "size": [40, 60]}}
    return instances(annotations)


@pytest.fixture
def read(tmp_path):
    def write_and_read(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "instances.json").write_text(text)
        return read_coco(tmp_path / "instances.json", tmp_path / "images")

    return write_and_read


def assert_same(table, other):
    for name in ("image_ids", "image_hw", "boxes", "class_ids", "ignore", "areas", "offsets", "category_ids"):
        mine, theirs = getattr(table, name), getattr(other, name)
        np.testing.assert_array_equal(mine, theirs, err_msg=name)
        assert mine.dtype == theirs.dtype, name
    assert (table.paths, table.class_names) == (other.paths, other.class_names)
    assert {row: runs.tolist() for row, runs in table.masks.items()} == {
        row: runs.tolist() for row, runs in other.masks.items()
    }


def reordered(*names):
    content = instances(objects(9))
    return {name: content[name] for name in names}


@pytest.mark.parametrize("block", [1, 300, 2**23])
@pytest.mark.parametrize(
    "content",
    [
        crowds(3),
        instances([]),
        instances(objects(20)),
        instances(objects(20, parts=[{"a": 1}, {"b": [{}, {}]}])),  # may be cut within an annotation
        instances(objects(20, caption='a }, { b }], "c": [')),  # or within a text
        instances(objects(3), note={"annotations": objects(3)}),
        reordered("annotations", "categories", "images"),
        reordered("images", "categories", "annotations"),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (" , ", " : ")])
def test_file_cut_into_blocks_is_the_same_as_a_whole_one(read, monkeypatch, content, block, separators):
    text = json.dumps(content, separators=separators)
    monkeypatch.setattr(blocks, "BLOCK", block)
    table = read(text)
    monkeypatch.setattr(blocks, "cut", lambda path, form: None)
    assert_same(table, read(text))


def test_usual_file_is_cut_and_an_odd_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 300)
    file = tmp_path / "a.json"
    file.write_text(json.dumps(instances(objects(20))))
    content, spans = blocks.cut(str(file), coco_entries.CocoFile)
    assert [image.id for image in content.images.entries] == [7, 3, 5]
    sizes = [len(blocks.Pieces(str(file)).read(span).boxes) for span in spans]
    assert sum(sizes) == 20
    assert len(sizes) > 3
    file.write_text(json.dumps(instances(objects(3), note={"annotations": objects(3)})))
    assert blocks.cut(str(file), coco_entries.CocoFile) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 99}, r"the image_id of an image in the file, got 99 - at `annotations\[17\]`"),
        ({"category_id": 99}, r"a category_id among \[2, 90\], got 99 - at `annotations\[17\]` \(image_id 5\)"),
        ({"bbox": [1, 2]}, r"expected `array` of length 4, got \[1,2\] - at `annotations\[17\].bbox` \(image_id 5\)"),
        ({"iscrowd": 1, "segmentation": {}}, r"does not parse: .* - at `annotations\[17\].segmentation`"),
    ],
)
def test_errors_have_their_place_in_whichever_block(read, monkeypatch, change, message):
    monkeypatch.setattr(blocks, "BLOCK", 300)
    annotations = objects(20)
    annotations[17] |= change
    with pytest.raises(AnnotationError, match=message):
        read(instances(annotations))


@pytest.fixture
def helped(monkeypatch):
    """Blocks of 300 bytes, which two processes help to read; a list of those started."""
    started = []

    class Counted(Process):
        def __init__(self, task):
            super().__init__(task)
            started.append(self)

    monkeypatch.setattr(helpers, "Process", Counted)
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(blocks, "BLOCKS_A_PROCESS", 1)
    monkeypatch.setattr(helpers, "cores", lambda: 3)
    return started


@pytest.fixture
def before_own(monkeypatch):
    """Let this process wait for an event before it reads its first block, so that helpers read others meanwhile."""
    event = threading.Event()
    own = blocks.Pieces.read

    def read(self, span, **arguments):
        assert event.wait(LONG)
        return own(self, span, **arguments)

    monkeypatch.setattr(blocks.Pieces, "read", read)
    return event


def test_file_read_by_several_processes_is_the_same(read, monkeypatch, helped):
    table = read(crowds(60))
    assert len(helped) == 2
    monkeypatch.setattr(helpers, "cores", lambda: 1)
    assert_same(table, read(crowds(60)))
    assert len(helped) == 2
    assert len(table.masks) == 20
    for row, runs in table.masks.items():
        assert runs.tolist() == [table.areas[row], 1, 40 * 60 - 1 - table.areas[row]]


def test_helping_processes_do_their_share_and_are_gone_afterwards(read, monkeypatch, helped, before_own):
    shares = []
    call = Process.call

    def noted(self, *spans):
        answer = call(self, *spans)
        shares.append(len(spans))
        if len(shares) == 6:
            before_own.set()
        return answer

    monkeypatch.setattr(Process, "call", noted)
    table = read(crowds(90))
    assert len(shares) >= 6 and max(shares) > 1
    assert [process.end() for process in helped] == ["was killed by SIGKILL"] * 2
    monkeypatch.setattr(helpers, "cores", lambda: 1)
    assert_same(table, read(crowds(90)))


@pytest.mark.parametrize("fault", ["killed", "without threads", "unable to start", "without Python"])
def test_file_is_read_whatever_becomes_of_the_helping_processes(read, monkeypatch, helped, before_own, fault):
    with monkeypatch.context() as alone:
        alone.setattr(helpers, "cores", lambda: 1)
        before_own.set()
        expected = read(crowds(60))
    if fault == "killed":
        before_own.clear()
        call = Process.call
        deaths = []

        def killed(self, *spans):
            self.kill()
            deaths.append(self)
            if len(deaths) == 2:
                before_own.set()
            return call(self, *spans)

        monkeypatch.setattr(Process, "call", killed)
    elif fault == "without threads":

        def start(self):
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)
    else:
        monkeypatch.setattr(sys, "executable", "/nowhere/python" if fault == "unable to start" else None)
    assert_same(read(crowds(60)), expected)
    assert len(helped) == (2 if fault in ("killed", "without threads") else 0)


def test_faults_in_blocks_that_helping_processes_read_have_their_places_too(read, tmp_path, monkeypatch, helped):
    content = crowds(60)
    content["annotations"][57]["segmentation"]["counts"] = "~"
    content["annotations"][54]["segmentation"]["counts"] = "~"
    content["annotations"][30]["bbox"] = [1, 2]
    content["annotations"][2]["category_id"] = "cat"
    text = json.dumps(content)
    (tmp_path / "a.json").write_text(text)
    for processes in (3, 1):
        monkeypatch.setattr(helpers, "cores", lambda processes=processes: processes)
        told = []
        read_coco(tmp_path / "a.json", "", on_problem=lambda path, error, told=told: told.append(str(error)))
        assert [message.partition(" - at ")[2] for message in told] == [
            "`annotations[2].category_id` (image_id 5)",
            "`annotations[30].bbox` (image_id 7)",
            "`annotations[54].segmentation` (image_id 7)",
            "`annotations[57].segmentation` (image_id 7)",
        ]
    assert len(helped) == 2
    message = r'got "cat" - at `annotations\[2\].category_id` \(image_id 5\); and 3 more; detfeed check lists them all'
    with pytest.raises(AnnotationError, match=message):
        read(content)
