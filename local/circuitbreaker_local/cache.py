"""Where what was built or fetched once is kept, outside the checkout."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from circuitbreaker_local.progress import Report


def cache_folder() -> Path:
    """`$CB_CACHE_DIR`, else `circuitbreaker-operator` below `$XDG_CACHE_HOME` or `~/.cache`. `scripts/uv` agrees."""
    chosen = os.environ.get("CB_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "circuitbreaker-operator"


@contextmanager
def exclusive(folder: Path, report: Report) -> Iterator[None]:
    """Alone in `folder`, which is made when it is not there. The lock goes with its holder, whatever ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report.say(f"another process fills {folder}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
