"""A disk that is full: for this process, after a number of bytes in a file."""

import contextlib
import resource
import signal


@contextlib.contextmanager
def full_disk(*, after):
    """Let files of this process grow to no more bytes than `after`: a write stops there, and the next one fails."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
