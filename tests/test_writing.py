import errno
import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from detfeed import writing
from detfeed.writing import append_lines, new_folder, replace_file, replacing
from full_disk import full_disk


def test_no_line_is_added_but_the_file_made(tmp_path):
    append_lines(tmp_path / "log", "")
    assert (tmp_path / "log").read_bytes() == b""


def test_lines_are_added_where_neither_pipes_nor_positioned_reads_are_known(tmp_path, monkeypatch):
    for name in ("O_NONBLOCK", "O_CLOEXEC", "pread"):  # as on Windows
        monkeypatch.delattr(os, name)
    monkeypatch.setattr(writing, "fcntl", None)
    (tmp_path / "log").write_bytes(b"a\nhalf")
    append_lines(tmp_path / "log", "b\n")
    assert (tmp_path / "log").read_bytes() == b"a\nhalf\nb\n"


@pytest.mark.parametrize("before", [None, b"old"])
def test_full_disk_leaves_what_was_there_and_names_the_file(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with full_disk(after=100), pytest.raises(OSError, match=r"File too large: '.*/file'"):
        replace_file(path, b"x" * 101)
    assert (path.read_bytes() if path.exists() else None) == before
    assert os.listdir(tmp_path) == ([] if before is None else ["file"])
    replace_file(path, b"x" * 101)
    assert path.read_bytes() == b"x" * 101


def test_error_of_a_writer_that_names_no_file_gets_its_name(tmp_path):
    with pytest.raises(OSError, match=r"weights.h5: unable to write"), replacing(tmp_path / "a.weights.h5") as path:
        assert path.endswith(".weights.h5")
        raise OSError("unable to write")
    with pytest.raises(FileNotFoundError, match=r"'.*/none/file'"):
        replace_file(tmp_path / "none" / "file", b"")
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        replace_file(tmp_path, b"")


def test_lines_that_a_full_disk_cuts_are_not_there_and_the_file_is_named(tmp_path):
    path = tmp_path / "log"
    append_lines(path, "whole\n")
    with full_disk(after=10), pytest.raises(OSError, match=r"File too large: '.*/log'"):
        append_lines(path, "one\ntwo\n")
    assert path.read_text() == "whole\n"
    append_lines(path, "one\n")
    assert path.read_text() == "whole\none\n"


def test_line_of_another_process_stays_where_a_full_disk_cuts_ours(tmp_path, monkeypatch):
    path = tmp_path / "log"
    write = os.write

    def cut(descriptor, data):
        if path.stat().st_size:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[:2])
        with path.open("a") as other:
            other.write("\ntheirs\n")
        return written

    monkeypatch.setattr(os, "write", cut)
    with pytest.raises(OSError, match=r"No space left on device: .*log"):
        append_lines(path, "ours\n")
    assert path.read_text() == "ou\ntheirs\n"


def test_line_after_a_cut_one_begins_anew(tmp_path):
    (tmp_path / "log").write_text('{"a": 1}\n{"a"')
    append_lines(tmp_path / "log", "")
    append_lines(tmp_path / "log", '{"a": 2}\n')
    assert (tmp_path / "log").read_text().splitlines() == ['{"a": 1}', '{"a"', '{"a": 2}']


def add(path, number):
    for line in range(50):
        append_lines(path, f"{number} {line} {'x' * 9000}\n")


def test_lines_of_several_processes_do_not_mix(tmp_path):
    path = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    expected = {f"{number} {line} {'x' * 9000}" for number in range(3) for line in range(50)}
    assert set(path.read_text().splitlines()) == expected


@pytest.mark.parametrize("fails", [False, True])
def test_lines_that_begin_while_others_are_half_written_wait_for_them(tmp_path, monkeypatch, fails):
    path = tmp_path / "log"
    write, flock = os.write, writing.fcntl.flock
    came = threading.Event()  # the other one waits for the lock, or has written

    def tell_and_lock(descriptor, operation):
        if threading.current_thread() is other:
            came.set()
        flock(descriptor, operation)

    def append_other():
        append_lines(path, "theirs\n")
        came.set()

    def cut(descriptor, data):
        if threading.current_thread() is other:
            return write(descriptor, data)
        if not came.is_set():
            written = write(descriptor, data[:2])
            other.start()
            assert came.wait(60)
            return written
        if fails:
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    other = threading.Thread(target=append_other)
    monkeypatch.setattr(os, "write", cut)
    monkeypatch.setattr(writing.fcntl, "flock", tell_and_lock)
    if fails:
        with pytest.raises(OSError, match=r"No space left on device: .*log"):
            append_lines(path, "ours\n")
    else:
        append_lines(path, "ours\n")
    other.join(60)
    assert path.read_text() == ("theirs\n" if fails else "ours\ntheirs\n")


def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")


def test_lines_are_added_where_the_file_system_knows_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(writing.fcntl, "flock", refuse)
    append_lines(tmp_path / "log", "line\n")
    assert (tmp_path / "log").read_text() == "line\n"


@pytest.mark.parametrize("kind", ["folder", "pipe", "pipe with a reader", "device"])
def test_lines_go_to_a_regular_file_alone_and_nothing_is_waited_for(tmp_path, kind):
    path = tmp_path / "log"
    reader = None
    if kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/full")
    else:
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if "reader" in kind else None
    with pytest.raises(OSError, match=rf"expected a regular file, got a {kind.split()[0]}: '.*/log'"):
        append_lines(path, "line\n")
    if reader is not None:
        os.close(reader)


def test_pipe_that_takes_a_files_place_is_refused_too(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(os, "stat", lambda path, stat=os.stat: stat(__file__))
    with pytest.raises(OSError, match="expected a regular file, got a pipe"):
        append_lines(tmp_path / "pipe", "line\n")
    os.close(reader)


def test_folder_gets_its_name_when_all_is_written_and_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "a") as folder:
        Path(folder, "x").write_text("part")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with new_folder(tmp_path / "a") as folder:
        Path(folder, "x").write_text("whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "x").read_text() == "whole"
    for path in (tmp_path / "a", tmp_path / "a" / "x"):
        with pytest.raises(FileExistsError, match="expected a new folder"), new_folder(path):
            pass
    with pytest.raises(FileNotFoundError, match=r"none/a'"), new_folder(tmp_path / "none" / "a"):
        pass
    assert os.listdir(tmp_path) == ["a"]


def in_two_threads(write):
    """Let two threads write at once, each with a number and what waits until both have begun; return their errors."""
    both = threading.Barrier(2, timeout=60)
    errors = []

    def run(number):
        try:
            write(number, both.wait)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_two_threads_that_write_one_file_leave_that_of_one_of_them_whole(tmp_path):
    texts = ["a" * 9000, "b" * 8000]

    def write(number, wait):
        with replacing(tmp_path / "file.txt") as path:
            assert path.endswith("file.txt")
            with open(path, "w") as file:
                file.write(texts[number][:4000])
                file.flush()
                wait()
                file.write(texts[number][4000:])
            wait()

    assert in_two_threads(write) == []
    assert (tmp_path / "file.txt").read_text() in texts
    assert os.listdir(tmp_path) == ["file.txt"]


def test_of_two_threads_that_write_one_folder_the_later_one_is_told_that_it_exists(tmp_path, monkeypatch):
    both_looked = threading.Barrier(2, timeout=60)

    def rename(source, target, rename=os.rename):
        both_looked.wait()
        rename(source, target)

    def write(number, wait):
        with new_folder(tmp_path / "a") as folder:
            for name in "xyz":
                Path(folder, name).write_text(str(number))
            wait()

    monkeypatch.setattr(os, "rename", rename)
    (error,) = in_two_threads(write)
    assert isinstance(error, FileExistsError)
    assert "expected a new folder, got one that exists" in str(error) and str(tmp_path / "a") in str(error)
    assert len({(tmp_path / "a" / name).read_text() for name in "xyz"}) == 1
    assert os.listdir(tmp_path) == ["a"]
