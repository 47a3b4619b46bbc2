"""Answers over HTTP to whoever asks: made once for many, a bounded number under way, none for who does not read it.

What the kernel does not take waits in the transport for as long as the connection lives. So a body goes there in
pieces, an answer counts until the last one is gone, and whoever takes none for ten seconds is cut off.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

from aiohttp import web

T = TypeVar("T")

WRITE_SECONDS: Final = 10.0  # for one piece
LATER: Final = {"Retry-After": "10", "Cache-Control": "no-store"}
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_PIECE_BYTES: Final = 65_536
_REUSED_SECONDS: Final = 1.0
_REUSED_TIMES: Final = 10  # as long as it took: what is cheap is always new, what is not takes a tenth of a processor


class Room:
    """Room for so many answers at once."""

    def __init__(self, most: int) -> None:
        self._most, self.taken = most, 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """For one answer until it is written. Raises HTTPServiceUnavailable where there is none."""
        if self.taken >= self._most:
            raise web.HTTPServiceUnavailable(text="Too many answers are being read; try again later.\n", headers=LATER)
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def send(request: web.Request, answer: web.StreamResponse, *parts: bytes) -> web.StreamResponse:
    """Comes back when all of it is the kernel's, or whoever asked is cut off. `parts`: a body beside `answer`'s own."""
    transport = request.transport
    if transport is not None:
        transport.set_write_buffer_limits(high=0)  # a write is over when nothing is left of it
    if parts:
        answer.content_length = sum(map(len, parts))
    try:
        await answer.prepare(request)
        for piece in _pieces(parts) if request.method != "HEAD" else ():
            async with asyncio.timeout(WRITE_SECONDS):
                await answer.write(piece)
        async with asyncio.timeout(WRITE_SECONDS):
            await answer.write_eof()
            await request.writer.drain()
    except (ConnectionError, TimeoutError):
        if transport is not None:
            cut(transport)  # it does not read, so it would not hear of an end either
    return answer


def cut(transport: asyncio.Transport) -> None:
    """Ends it now. Without this option the kernel would keep what is not read for minutes, for nobody."""
    if not transport.is_closing():
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def _pieces(parts: tuple[bytes, ...]) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        for begin in range(0, len(view), _PIECE_BYTES):
            yield view[begin : begin + _PIECE_BYTES]


class Shared(Generic[T]):
    """What `make` returns, made in a thread for all who ask meanwhile, and for those who come soon after.

    Nobody gets what was begun more than a second before they asked. `lock`: for those of which one at a time is made.
    """

    def __init__(self, make: Callable[[], T], lock: asyncio.Lock) -> None:
        self._make, self._lock = make, lock
        self._made: T | None = None
        self._good_until = 0.0

    async def get(self) -> T:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        async with self._lock:
            if self._made is None or self._good_until < asked:
                began = loop.time()
                made, cost_seconds = await asyncio.to_thread(self._timed)
                self._made = made
                self._good_until = began + min(_REUSED_TIMES * cost_seconds, _REUSED_SECONDS)
                loop.call_later(_REUSED_SECONDS, self._forget, made)
                return made
            return self._made

    def _timed(self) -> tuple[T, float]:
        began = time.thread_time()  # of this thread alone: it waits for others on a busy machine
        return self._make(), time.thread_time() - began

    def _forget(self, made: T) -> None:
        """It is large, and the next scrape is far."""
        if self._made is made:
            self._made = None
