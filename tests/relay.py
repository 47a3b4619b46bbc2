"""A relay on the way to a server: it can be slow, hold back or swallow what is said, refuse, and be listened to.

A connection that was swallowed once stays so, as one whose peer has vanished does; what connects after `heal` passes.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Self

PIECE = 65_536


class _Connection:
    """`swallowed`: nothing passes any more, not even an end."""

    def __init__(self, task: asyncio.Task[None], *, swallowed: bool) -> None:
        self.task = task
        self.swallowed = swallowed
        self.subscribes = False


class Relay:
    """Listens on `port`. `asked` is told what comes before it goes on; an OSError of it ends that connection.

    `delay_seconds`: each answer comes that late; may change at any time.
    `loses_subscriptions`: what is for a subscriber of Redis never arrives, though its connection stays.
    `accepted`: how many connections there were.
    """

    def __init__(self, target_port: int, *, asked: Callable[[bytes], None] = lambda _: None) -> None:
        self._target_port = target_port
        self._asked = asked
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._connections: set[_Connection] = set()
        self._swallows = self._refuses = False
        self._passes = asyncio.Event()
        self._passes.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.delay_seconds = 0.0
        self.loses_subscriptions = False
        self.accepted = 0
        self.port = 0

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop)
        self._server = listening.result(5)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def swallow(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._swallows = True
        for each in list(self._connections):
            each.swallowed = True

    def heal(self) -> None:
        """New connections pass again."""
        self._swallows = self._refuses = False

    def hold(self) -> None:
        """Nothing passes and nobody is told until `release`; then all of it does, in order."""
        self._loop.call_soon_threadsafe(self._passes.clear)

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._passes.set)

    def refuse(self) -> None:
        """Every connection ends, and so does each new one at once, as while a server is restarted; until `heal`."""
        self._refuses = True
        for each in list(self._connections):
            self._loop.call_soon_threadsafe(each.task.cancel)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.accepted += 1
        if self._refuses:
            to_near.transport.abort()
            return
        self._tasks.add(task)
        connection = _Connection(task, swallowed=self._swallows)
        self._connections.add(connection)
        writers = [to_near]
        try:
            if connection.swallowed:
                while await near.read(PIECE):
                    pass
                return
            far, to_far = await asyncio.open_connection("127.0.0.1", self._target_port)
            writers.append(to_far)
            await asyncio.gather(
                self._pass(connection, near, to_far, answers=False), self._pass(connection, far, to_near, answers=True)
            )
        except (OSError, asyncio.CancelledError):
            return  # either side ended it, or we do
        finally:
            self._tasks.discard(task)
            self._connections.discard(connection)
            for writer in writers:
                writer.transport.abort()

    async def _pass(
        self, connection: _Connection, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """Bytes in order, each piece as late as it has to be; an end is passed on too."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            data = b"-"
            while data:
                try:
                    data = await source.read(PIECE)
                except OSError:
                    data = b""
                pieces.put_nowait((loop.time() + (self.delay_seconds if answers else 0.0), data))

        reading = asyncio.create_task(read())
        try:
            data = b"-"
            while data:
                due, data = await pieces.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._passes.wait()
                if not answers:
                    connection.subscribes |= b"SUBSCRIBE" in data
                    self._asked(data)
                if connection.swallowed or (answers and connection.subscribes and self.loses_subscriptions):
                    continue
                if data:
                    target.write(data)
                    await target.drain()
                else:
                    target.write_eof()
        finally:
            reading.cancel()
