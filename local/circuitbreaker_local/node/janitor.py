"""Somebody outside who clears away when we cannot: SIGKILL ends a node, and would leave its folder and empty cgroups.

The janitor is a process with a session of its own, so that what is sent to our group does not reach it. It holds the
reading end of a pipe; the other end is held by us and by what we forked, and closes with the last of these.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from circuitbreaker_local.node import cgroups

PATIENCE_SECONDS = 60.0


@contextmanager
def janitor() -> Iterator[Callable[[Path], object]]:
    """What is yielded wants to be told the node's folder, once. To be entered by a process with one thread."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(tell)
            _wait_and_clear(told)
        finally:
            os._exit(0)
    os.close(told)
    try:
        yield lambda folder: os.write(tell, str(folder).encode())
    finally:
        os.close(tell)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _wait_and_clear(told: int) -> None:
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # nobody who reads what we print waits for the janitor too
        os.dup2(nowhere, standard)
    with open(told, encoding="utf-8") as pipe:
        name = pipe.read()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while name and _is_there(Path(name)) and time.monotonic() < deadline:
        cgroups.sweep()
        time.sleep(0.05)


def _is_there(folder: Path) -> bool:
    return folder.exists() or any((each / cgroups.name_of(folder)).exists() for each in cgroups.hierarchies())
