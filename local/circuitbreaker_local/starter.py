"""The one thread that starts every child.

The kernel ends a child with the *thread* that started it (PR_SET_PDEATHSIG of `_launcher.py`). A thread of a test may
end long before its process; this one lives as long as the interpreter.
"""

import os
import queue
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future

Child = subprocess.Popen[bytes]


class _Starter:
    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Child], Future[Child]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, start: Callable[[], Child]) -> Future[Child]:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="starts-children", daemon=True)
                self._thread.start()
        future: Future[Child] = Future()
        self._jobs.put((start, future))
        return future

    def _run(self) -> None:
        while True:
            start, future = self._jobs.get()
            try:
                future.set_result(start())
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the future
                future.set_exception(error)


_starter = _Starter()


def _after_fork() -> None:
    global _starter  # noqa: PLW0603 - a forked copy of us has no such thread, and needs its own
    _starter = _Starter()


os.register_at_fork(after_in_child=_after_fork)


def submit(start: Callable[[], Child]) -> Future[Child]:
    """Have `start` called there."""
    return _starter.submit(start)
