"""Writing: files and folders that are whole or not there, and lines that are whole at the end of a file."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FilePath = str | os.PathLike[str]


@contextlib.contextmanager
def replacing(path: FilePath) -> Iterator[str]:
    """Yield a path to write to; what is there takes the place of a file in one step, unless there is an error.

    So neither a full disk nor a loss of power leaves a part of a file, or takes what was there before.

    Args:
        path: the file; of a link, its target is replaced.

    Raises:
        OSError: the file can't be written; it is named.
    """
    target = os.path.realpath(path)
    temporary = _temporary(target)
    try:
        with _named(path, temporary):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            with contextlib.suppress(FileNotFoundError):
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def replace_file(path: FilePath, data: bytes) -> None:
    """Write a file as `replacing` does. A pipe or device is written to, and not replaced.

    Raises:
        OSError: the file can't be written; it is named.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with _named(path), open(path, "wb") as file:
            file.write(data)
        return
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def new_folder(path: FilePath) -> Iterator[str]:
    """Yield a new folder to write to; it gets its name when all is written, and is removed if there is an error.

    Args:
        path: the folder, which must not exist, unless it is empty.

    Raises:
        FileExistsError: something is there.
        OSError: the folder can't be made.
    """
    target = os.path.realpath(path)
    temporary = _temporary(target)
    _check_free(path)
    with _named(path, temporary):
        os.mkdir(temporary)
    try:
        yield temporary
        _check_free(path)
        with _named(path, temporary):
            try:
                if os.path.isdir(target):
                    os.rmdir(target)
                os.rename(temporary, target)
            except OSError:
                _check_free(path)  # somebody else may have written it since
                raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _temporary(target: str) -> str:
    """A name beside the target that no other thread, process or machine uses, with its end, since writers go by it."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{secrets.token_hex(4)}.{name}")


def _check_free(path: FilePath) -> None:
    if os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(
            errno.EEXIST, "expected a new folder, got one that exists; give another name", os.fspath(path)
        )


def append_lines(path: FilePath, text: str) -> None:
    """Add whole lines to the end of a file, or none of them.

    One process adds at a time, where the system and the file system know locks. If the file ends in a part of a line,
    as an earlier failure may have left it, the lines begin on the next one.

    Args:
        path: the file; made if it is missing.
        text: the lines, each with its end; none only checks the file.

    Raises:
        OSError: the file can't be written, or is no regular file; it is named.
    """
    with _named(path), contextlib.closing(_Appended(path)) as file:
        data = text.encode()
        if data:
            with file.locked():
                file.append(b"\n" + data if file.ends_in_a_part() else data)


class _Appended:
    """A regular file that is open to add to its end."""

    def __init__(self, path: FilePath) -> None:
        # Looked at before it is opened, since a device may do something then; and after, since it may be another one.
        with contextlib.suppress(FileNotFoundError):
            _check_regular(os.stat(path), path)
        # Opening a pipe would wait for a reader. Windows has no such pipes, and no such flag.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        self._descriptor = os.open(path, flags, 0o666)
        try:
            _check_regular(os.fstat(self._descriptor), path)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep out others that add lines: a look at the end during their write would find a part of a line there."""
        if fcntl is None:
            yield
            return
        with contextlib.suppress(OSError):  # some file systems know no locks; without one, an empty line may appear
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # Closing the file is not enough: a process that was forked meanwhile would keep the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def ends_in_a_part(self) -> bool:
        size = os.fstat(self._descriptor).st_size
        return size > 0 and self._read(1, size - 1) != b"\n"

    def append(self, data: bytes) -> None:
        """Write all of the data, or nothing."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except BaseException:
            size = os.fstat(self._descriptor).st_size
            # Without a lock, another process may have added lines since.
            if written and self._read(written, size - written) == data[:written]:
                os.ftruncate(self._descriptor, size - written)
            raise

    def _read(self, count: int, at: int) -> bytes:
        os.lseek(self._descriptor, at, os.SEEK_SET)  # what is written goes to the end all the same
        return os.read(self._descriptor, count)

    def close(self) -> None:
        os.close(self._descriptor)


def _check_regular(status: os.stat_result, path: FilePath) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
        raise OSError(number, f"expected a regular file, got {kind}", os.fspath(path))


@contextlib.contextmanager
def _named(path: FilePath, temporary: str = "") -> Iterator[None]:
    """Let errors of writing name the file: those of `write` and of some libraries don't."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{os.fspath(path)}: {error}") from error
        if error.filename in (None, temporary):
            error.filename, error.filename2 = os.fspath(path), None
        raise
