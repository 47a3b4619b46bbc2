"""Keys that wait to be worked on: each at most once, and never by two workers at once.

`Pending` is the bookkeeping, told the time and without any I/O. `WorkQueue` runs a handler over it: a key that fails
comes back after a delay that doubles, with jitter; a key that is added while it is worked on is worked on once more.
The names of the metrics are those of client-go's work queues.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from itertools import count
from typing import Generic, TypeVar

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_operator.errors import ClusterUnavailableError, StoreUnavailableError
from circuitbreaker_operator.metrics import QueueMetrics

K = TypeVar("K", bound=Hashable)

logger = logging.getLogger(__name__)


class Backoff(Generic[K]):
    """How long each key waits after a failure: `first`, then twice as long each time, at most `longest` seconds.

    Each delay is shortened at random by up to a quarter, so that what failed together does not come back together.
    """

    def __init__(
        self, *, first: float = 0.2, longest: float = 60.0, chance: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._chance = chance
        self._failures: dict[K, int] = {}

    def next(self, key: K) -> float:
        """Seconds to wait now that the key failed once more."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._longest, self._first * 2.0 ** min(failures, 30))
        return delay * (1.0 - 0.25 * self._chance())

    def clear(self) -> None:
        """What made all of them fail is over."""
        self._failures.clear()

    def forget(self, key: K) -> None:
        """The key succeeded."""
        self._failures.pop(key, None)


class Pending(Generic[K]):
    """Which key is next. Levels go first to last, keys of one level in the order in which they came."""

    def __init__(self, levels: int = 1) -> None:
        self._waiting: list[dict[K, float]] = [{} for _ in range(levels)]
        self._working: set[K] = set()
        self._again: dict[K, int] = {}
        self._later: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._ticket = count()

    def __len__(self) -> int:
        return sum(map(len, self._waiting))

    def __contains__(self, key: K) -> bool:
        return key in self._again or key in self._later or any(key in level for level in self._waiting)

    def add(self, key: K, now: float, level: int = 0) -> bool:
        """The key is to be worked on; True when it was not waiting for that already. The more urgent level wins."""
        if key in self._working:
            before = self._again.get(key)
            self._again[key] = level if before is None else min(level, before)
            return before is None
        self._later.pop(key, None)
        for at_level, keys in enumerate(self._waiting):
            if key in keys:
                if level < at_level:
                    self._waiting[level][key] = keys.pop(key)
                return False
        self._waiting[level][key] = now
        return True

    def add_at(self, key: K, at: float, level: int = 0) -> None:
        """The key is to be added at that time, unless it is sooner for another cause."""
        if any(key in keys for keys in self._waiting):
            return
        known = self._later.get(key)
        if known is None or at < known[0]:
            self._later[key] = (at, level)
            heapq.heappush(self._heap, (at, next(self._ticket), key))

    def hurry(self, now: float, wanted: Callable[[K], bool] = lambda _: True) -> list[K]:
        """Whatever comes back later does so now; which keys that are."""
        keys = [key for key in self._later if wanted(key)]
        for key in keys:
            self._later[key] = (now, self._later[key][1])
            heapq.heappush(self._heap, (now, next(self._ticket), key))
        return keys

    def take(self, now: float) -> tuple[K, int, float] | None:
        """The next key to work on, its level, and for how long it has waited; None when nothing is due."""
        self._ripen(now)
        for level, keys in enumerate(self._waiting):
            if keys:
                key = next(iter(keys))
                since = keys.pop(key)
                self._working.add(key)
                return key, level, now - since
        return None

    def done(self, key: K, now: float) -> None:
        """The work on a key is over, one way or the other."""
        self._working.discard(key)
        level = self._again.pop(key, None)
        if level is not None:
            self.add(key, now, level)

    def drop(self, key: K) -> None:
        """Nothing has to be done for the key any more."""
        self._again.pop(key, None)
        self._later.pop(key, None)
        for keys in self._waiting:
            keys.pop(key, None)

    def next_at(self) -> float | None:
        """When the next delayed key ripens; None when there is none."""
        while self._heap and self._later.get(self._heap[0][2], (None, 0))[0] != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _ripen(self, now: float) -> None:
        while (at := self.next_at()) is not None and at <= now:
            _, _, key = heapq.heappop(self._heap)
            _, level = self._later.pop(key)
            self.add(key, now, level)


class WorkQueue(Generic[K]):
    """Runs `handle` for keys, at most `workers` at once. It must be safe to repeat at any moment."""

    def __init__(
        self,
        handle: Callable[[K], Awaitable[None]],
        *,
        metrics: QueueMetrics,
        gate: asyncio.Event,
        workers: int = 16,
        backoff: Backoff[K] | None = None,
    ) -> None:
        self._handle = handle
        self._metrics = metrics
        self._gate = gate  # nothing is begun while it is closed: what cannot succeed need not be tried
        self._slots = asyncio.Semaphore(workers)
        self._backoff: Backoff[K] = backoff or Backoff()
        self._pending: Pending[K] = Pending()
        self._said: dict[K, str] = {}  # why each key failed last: the same is not said again
        self._wake = asyncio.Event()
        metrics.depth_of(self._pending.__len__)

    def __contains__(self, key: K) -> bool:
        return key in self._pending

    def add(self, key: K) -> None:
        if self._pending.add(key, asyncio.get_running_loop().time()):
            self._metrics.adds.inc()
        self._wake.set()

    def hurry(self) -> None:
        """What failed is tried again at once: the cause is over."""
        self._backoff.clear()
        self._pending.hurry(asyncio.get_running_loop().time())
        self._wake.set()

    async def run(self) -> None:
        """Works until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._gate.wait()
                await self._slots.acquire()
                taken = self._pending.take(loop.time())
                if taken is None:
                    self._slots.release()
                    await wait_until(self._wake, self._pending.next_at())
                    continue
                key, _, waited = taken
                self._metrics.queue_seconds.observe(waited)
                group.create_task(self._work(key))

    async def _work(self, key: K) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._handle(key)
        except Exception as error:  # one key's failure is not the end of the others
            delay = self._backoff.next(key)
            if isinstance(error, ClusterUnavailableError):
                delay = max(delay, error.retry_after_seconds)
            if not isinstance(error, StoreUnavailableError | ClusterUnavailableError):
                trace = None if isinstance(error, CircuitBreakerError) else error
                extra = {"breaker": key, "retry_in_seconds": round(delay, 1)}
                level = logging.DEBUG if self._said.get(key) == str(error) else logging.WARNING
                self._said[key] = str(error)
                logger.log(level, "failed, will be repeated: %s", error, extra=extra, exc_info=trace)
            self._metrics.retries.inc()
            self._pending.add_at(key, loop.time() + delay)
        else:
            self._backoff.forget(key)
            self._said.pop(key, None)
        finally:
            self._metrics.work_seconds.observe(loop.time() - began)
            self._pending.done(key, loop.time())
            self._slots.release()
            self._wake.set()


async def wait_until(wake: asyncio.Event, at: float | None) -> None:
    """Until `wake` is set (it is cleared again) or the loop's time is `at`."""
    loop = asyncio.get_running_loop()
    timer = loop.call_at(at, wake.set) if at is not None else None
    try:
        await wake.wait()
    finally:
        wake.clear()
        if timer is not None:
            timer.cancel()
