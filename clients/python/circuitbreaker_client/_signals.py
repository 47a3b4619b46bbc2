"""Something that will have happened: set once by the background thread, waited for by threads and by tasks."""

import asyncio
from contextlib import suppress
from threading import Event, Lock


class Signal:
    __slots__ = ("_event", "_lock", "_tasks")

    def __init__(self) -> None:
        self._event = Event()
        self._lock = Lock()
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        with self._lock:
            self._event.set()
            tasks, self._tasks = self._tasks, []
        for loop, future in tasks:
            with suppress(RuntimeError):  # its loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(_finish, future)

    def wait(self, timeout_seconds: float) -> bool:
        """Whether it has happened in time."""
        return self._event.wait(max(0.0, timeout_seconds))

    async def wait_async(self, timeout_seconds: float) -> bool:
        """As `wait`, in any loop."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self._event.is_set():
                return True
            self._tasks.append((loop, future))
        try:
            async with asyncio.timeout(max(0.0, timeout_seconds)):
                await future
        except TimeoutError:
            return self._event.is_set()
        return True


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
