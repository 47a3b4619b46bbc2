"""Asks every breaker, once in a refresh interval, whether it moved: counters for status and metrics, and lost hints.

Only ticks, in pipelines. Each breaker has a moment of its own within the interval, so the load is even and a start does
not make ten thousand breakers ask at once for ever after. `ask` is for when messages may have been lost, or another
Redis serves, which may know less: then all that were seen before are asked at once.

A Redis that is emptied tells nobody, and its connections stay. So one breaker, any of them, is asked every few seconds;
when it has gone, all others may have too.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from zlib import crc32

from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Tick
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.clock import Clock
from circuitbreaker_operator.errors import StoreUnavailableError
from circuitbreaker_operator.metrics import Book
from circuitbreaker_operator.store import Store

logger = logging.getLogger(__name__)

LONGEST_MS: Final = 60_000  # metrics and lost hints do not wait for a status that is to be refreshed less often
_STEP_SECONDS: Final = 1.0
_SAMPLE_SECONDS: Final = 3.0


def slice_of(key: BreakerKey, slices: int) -> int:
    """Which of the slices of the interval a breaker belongs to; the same in every process."""
    return crc32(str(key).encode()) % slices


class Refresh:
    """Ticks each breaker of the cache once in an interval. What comes of it is told to the clock's listeners.

    `emptied` is called when a breaker that was there has gone without a word.
    """

    def __init__(
        self, cache: Cache, store: Store, clock: Clock, book: Book, *, interval_ms: int, emptied: Callable[[], None]
    ) -> None:
        self._cache = cache
        self._book = book
        self._asked = asyncio.Event()
        self._store = store
        self._clock = clock
        self._emptied = emptied
        seconds = min(interval_ms or LONGEST_MS, LONGEST_MS) / 1000
        self._slices = max(1, round(seconds / _STEP_SECONDS))
        self._step_seconds = seconds / self._slices

    def ask(self) -> None:
        """Look at every breaker now."""
        self._asked.set()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._go_round(), name="refresh, evenly")
            group.create_task(self._when_asked(), name="refresh, at once")
            group.create_task(self._sample(), name="refresh, a sample")

    async def _when_asked(self) -> None:
        while True:
            await self._asked.wait()
            await self._store.up.wait()
            self._asked.clear()
            await self._tick(self._seen())

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            await self._store.up.wait()
            key = self._cache.any()
            if key is not None and self._book.get(key) is not None:
                answers = await self._tick([key])
                if any(isinstance(each, UnknownBreakerError) for each in answers):
                    self._emptied()

    def _seen(self) -> list[BreakerKey]:
        """One that is not in the book yet is going to be looked at by the reconciler."""
        return [each.key for each in self._cache if self._book.get(each.key) is not None]

    async def _tick(self, keys: list[BreakerKey]) -> list[Tick | CircuitBreakerError]:
        try:
            return await self._clock.tick(keys)
        except StoreUnavailableError as error:
            logger.debug("refresh skipped: %s", error)
            return []

    async def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        at = loop.time()
        while True:
            # Sorted into slices once an interval; what is made meanwhile has just been looked at anyway.
            slices: list[list[BreakerKey]] = [[] for _ in range(self._slices)]
            for each in self._cache:
                slices[slice_of(each.key, self._slices)].append(each.key)
            for due in slices:
                at = max(at + self._step_seconds, loop.time())
                await asyncio.sleep(at - loop.time())
                await self._store.up.wait()
                await self._tick(due)
