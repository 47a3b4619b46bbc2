"""What a client has to know of its process: fork, and the end of the interpreter."""

import atexit
import os
import sys
from threading import RLock
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

if TYPE_CHECKING:
    from circuitbreaker_client._engine import Engine

AT_EXIT_SECONDS: Final = 2.0

_engines: "WeakSet[Engine]" = WeakSet()
_lock = RLock()  # of `_engines`; held while a process forks, so that nobody joins between the two halves
_held: "list[Engine]" = []  # in between
_is_heeded = False  # whether multiprocessing tells us of each child that begins; what is forked knows it, too
_listed_pid = 0


def register(engine: "Engine") -> None:
    with _lock:
        _engines.add(engine)
    _heed_multiprocessing()


def _heed_multiprocessing() -> None:
    """A process of multiprocessing that was forked ends without `atexit`; it has a list of its own."""
    global _is_heeded  # noqa: PLW0603 # of this process, like what it says
    util, process = (sys.modules.get(f"multiprocessing.{name}") for name in ("util", "process"))
    if util is None or process is None or not hasattr(util, "Finalize"):
        return  # not imported, or not to its end: looked at again in a child
    if not _is_heeded:
        _is_heeded = True
        util.register_after_fork(_engines, _list)  # a child clears the list as it begins, maybe with a thread of ours
    if process.parent_process() and _listed_pid != os.getpid():
        _list()


def _list(_: object = None) -> None:
    global _listed_pid  # noqa: PLW0603 # of this process, like the list
    _listed_pid = os.getpid()
    sys.modules["multiprocessing.util"].Finalize(None, _flush, exitpriority=0)


def _before_fork() -> None:
    _lock.acquire()
    _held[:] = [*_engines]
    for engine in _held:
        engine.before_fork()


def _after_fork_in_parent() -> None:
    for engine in _held:
        engine.after_fork_in_parent()
    _held.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    for engine in _held:
        engine.after_fork()
    _held.clear()
    _lock.release()
    _heed_multiprocessing()


def _flush() -> None:
    """What there is goes out. Threads of the process may be at work still, and end before `atexit`."""
    with _lock:
        engines = [*_engines]
    for done in [engine.flush() for engine in engines]:
        done.wait(AT_EXIT_SECONDS)


def _at_exit() -> None:
    """The last outcomes go out; Redis is not waited for longer than a moment."""
    with _lock:
        engines = [*_engines]
    stopping = [engine.stop() for engine in engines]
    for done in stopping:
        done.wait(AT_EXIT_SECONDS)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
