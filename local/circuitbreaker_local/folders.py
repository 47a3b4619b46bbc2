"""Temporary folders that are removed even when their owner was not given the time to.

Each holds an exclusive `flock` on the folder itself for as long as its owner lives; the kernel drops it with the
process, whatever ended it. A folder with our name and no lock is therefore rubbish, and the next start removes it. The
owner makes the folder and locks it in two steps; should a sweep come in between, the owner notices and makes another.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

PREFIX = "circuitbreaker-local-"


class TemporaryFolder:
    """A locked folder of mode 0700. Close it, or use it as a context manager, to remove it."""

    def __init__(self) -> None:
        sweep()
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            lock = _lock(self.path)
            if lock is not None:
                self._lock = lock
                return

    def close(self) -> None:
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sweep() -> None:
    """Remove the folders of owners that are gone. Leaves other users' alone, and symbolic links too."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = _lock(path)
        if lock is not None:
            if os.fstat(lock).st_uid == os.getuid():  # root may lock what is not root's
                shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def held() -> list[Path]:
    """The folders that somebody holds, ourselves included; the others are removed."""
    sweep()
    return list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def _lock(path: Path) -> int | None:
    """The descriptor that holds the lock of `path`; None when someone else has it, or has removed the folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
