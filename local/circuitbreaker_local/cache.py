"""Where what was built or fetched once is kept, outside the checkout."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.progress import Report

REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR}


def cache_folder() -> Path:
    """`$CB_CACHE_DIR`, else `circuitbreaker-operator` below `$XDG_CACHE_HOME` or `~/.cache`. `scripts/uv` agrees."""
    chosen = os.environ.get("CB_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "circuitbreaker-operator"


@contextmanager
def translated_errors() -> Iterator[None]:
    """What the system refuses us of the cache becomes a LocalError that says what to do. Decorates functions, too."""
    try:
        yield
    except OSError as error:
        where, cache = Path(str(error.filename or "")), cache_folder()
        if error.errno not in REFUSALS or not (where.is_relative_to(cache) or cache.is_relative_to(where)):
            raise
        raise LocalError(f"{where}: {error.strerror}: set CB_CACHE_DIR to a folder of yours") from error


@contextmanager
def exclusive(folder: Path, report: Report) -> Iterator[None]:
    """Alone in `folder`, which is made when it is not there. The lock goes with its holder, whatever ends it."""
    with translated_errors(), _locked(folder, report):
        yield


@contextmanager
def _locked(folder: Path, report: Report) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.say(f"another process fills {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
