"""The one clock of recoveries: a heap of deadlines and a single timer. What is due is asked for with `cb_tick`.

It only makes visible, in time, what Redis does for whoever asks first; breakers recover for clients without it.
Deadlines are times of the loop, made from durations that Redis measured, so no two clocks are ever compared.
"""

import asyncio
import heapq
import logging
import math
from collections.abc import Callable
from typing import Final

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.state import Snapshot, State, Tick
from circuitbreaker_operator.errors import SlotMovingError, StoreUnavailableError
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.store import BATCH, Store
from circuitbreaker_operator.workqueue import Backoff, wait_until

logger = logging.getLogger(__name__)

_LEASE_SECONDS: Final = 30.0
_PIPELINES: Final = 4  # under way at most: others need connections too. What comes due meanwhile goes in the next
_SOON_SECONDS: Final = 10.0  # a lease may be given back, and another one taken: look before its whole length is over


class Deadlines:
    """When each key is due, earliest first. A key has one deadline; the last one set counts."""

    def __init__(self) -> None:
        self._at: dict[BreakerKey, float] = {}
        self._heap: list[tuple[float, BreakerKey]] = []

    def __len__(self) -> int:
        return len(self._at)

    def set(self, key: BreakerKey, at: float) -> None:
        if self._at.get(key) != at:
            self._at[key] = at
            heapq.heappush(self._heap, (at, key))
            if len(self._heap) > 2 * len(self._at) + 64:
                self._heap = [(at, key) for key, at in self._at.items()]
                heapq.heapify(self._heap)

    def of(self, key: BreakerKey) -> float | None:
        return self._at.get(key)

    def forget(self, key: BreakerKey) -> None:
        self._at.pop(key, None)

    def next_at(self) -> float | None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float, limit: int) -> list[tuple[BreakerKey, float]]:
        """Up to `limit` keys that are due, with their deadlines; they have none any more."""
        due: list[tuple[BreakerKey, float]] = []
        while len(due) < limit and (at := self.next_at()) is not None and at <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            due.append((key, at))
        return due


def due_in_seconds(snapshot: Snapshot) -> float | None:
    """When to come back to a breaker in this state; None when only a caller or a person can change it."""
    if snapshot.due:
        return 0.0
    if snapshot.state is State.HALF_OPEN:
        # Only a tick says when a lease expires. Leases are given without a message, so look when one may be over.
        return 0.0 if snapshot.probes_live else snapshot.policy.probe_timeout_ms / 1000
    until_ms = snapshot.open_until_ms
    if snapshot.forced is not None:
        until_ms = snapshot.policy.override.until_ms if snapshot.policy.override else 0
    elif snapshot.shadow is not None and snapshot.shadow.state is State.OPEN:
        until_ms = snapshot.shadow.open_until_ms
    return max(0, until_ms - snapshot.now_ms) / 1000 if until_ms else None


def next_in_seconds(tick: Tick, lease_seconds: float) -> float | None:
    """The same from the answer to a tick; `lease_seconds` is how long a lease lasts that nobody has told of yet."""
    if tick.due_in_ms is None:
        return math.ceil(lease_seconds) if tick.standing.state is State.HALF_OPEN else None
    due = (tick.due_in_ms + 1) / 1000  # its clock is cut to milliseconds: one more, and it is surely due
    return min(due, _SOON_SECONDS) if tick.standing.state is State.HALF_OPEN else due


class Clock:
    """Ticks breakers when they are due. `ticked` hears each answer, `lost` each breaker that has none.

    `refusals` is what Redis said to the last tick of a breaker where repeating may not help; such a one is asked again
    after a pause that grows, however often it is found to be due.
    """

    def __init__(
        self,
        store: Store,
        keys: Keys,
        metrics: Metrics,
        *,
        ticked: Callable[[BreakerKey, Tick], None],
        lost: Callable[[BreakerKey], None],
    ) -> None:
        self._store = store
        self._keys = keys
        self._metrics = metrics
        self._ticked = ticked
        self._lost = lost
        self._deadlines = Deadlines()
        self._lease_seconds: dict[BreakerKey, float] = {}
        self._backoff: Backoff[BreakerKey] = Backoff(first=0.1, longest=30.0)
        self._not_before: dict[BreakerKey, float] = {}
        self.refusals: dict[BreakerKey, str] = {}
        self._wake = asyncio.Event()
        self._ticking: set[asyncio.Task[None]] = set()

    def follow(self, key: BreakerKey, snapshot: Snapshot) -> None:
        """Sets the deadline that follows from a snapshot just taken."""
        self._lease_seconds[key] = snapshot.policy.probe_timeout_ms / 1000
        leased = snapshot.state is State.HALF_OPEN and snapshot.probes_live > 0 and not snapshot.due
        if leased and self._deadlines.of(key) is not None:
            return  # a tick has said when the lease ends, which a snapshot does not; asking again would never stop
        self._schedule(key, due_in_seconds(snapshot))

    def expect(self, key: BreakerKey, seconds: float) -> None:
        """A hint says when it is due. It may be forged: it can bring a tick forward, and never put one off."""
        at = self._at(key, seconds)
        known = self._deadlines.of(key)
        if known is None or at < known:
            self._deadlines.set(key, at)
            self._wake.set()

    def forget(self, key: BreakerKey) -> None:
        self._deadlines.forget(key)
        self._lease_seconds.pop(key, None)
        self.pardon(key)

    def pardon(self, key: BreakerKey) -> None:
        """It is served, or was written anew: what was refused before counts no more."""
        self._backoff.forget(key)
        self._not_before.pop(key, None)
        self.refusals.pop(key, None)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._store.up.wait()
                due = self._deadlines.pop(loop.time(), BATCH)
                if due:
                    task = group.create_task(self._tick_due(due))
                    self._ticking.add(task)
                    task.add_done_callback(self._ticking.discard)
                    if len(self._ticking) >= _PIPELINES:
                        await asyncio.wait(self._ticking, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await wait_until(self._wake, self._deadlines.next_at())

    async def first(self) -> None:
        """Lets what is due go first: waits for the ticks that are on their way, and not for those that come meanwhile.

        With many breakers Open and a Redis some milliseconds away there is always one.
        """
        if self._ticking:
            await asyncio.wait(self._ticking.copy())

    async def tick(self, keys: list[BreakerKey]) -> list[Tick | CircuitBreakerError]:
        """Ticks these now, whether due or not, and follows what they say. Raises StoreUnavailableError."""
        answers = await self._store.in_batches([protocol.tick(self._keys.breaker(key)) for key in keys])
        for key, answer in zip(keys, answers, strict=True):
            self._take(key, answer)
        return answers

    async def _tick_due(self, due: list[tuple[BreakerKey, float]]) -> None:
        loop = asyncio.get_running_loop()
        keys = [key for key, _ in due]
        try:
            answers = await self._store.batch([protocol.tick(self._keys.breaker(key)) for key in keys])
        except StoreUnavailableError:
            for key in keys:
                self._deadlines.set(key, loop.time() + self._backoff.next(key))
            return
        now = loop.time()
        for _, at in due:
            self._metrics.timer_lag.observe(max(0.0, now - at))
        for key, answer in zip(keys, answers, strict=True):
            self._take(key, answer)

    def _take(self, key: BreakerKey, answer: Tick | CircuitBreakerError) -> None:
        if isinstance(answer, Tick):
            was_refused = key in self.refusals
            self.pardon(key)
            self._schedule(key, next_in_seconds(answer, self._lease_seconds.get(key, _LEASE_SECONDS)))
            self._ticked(key, answer)
            if was_refused:
                self._lost(key)
            return
        # It is not there, or damaged: the reconciler puts that right or says so, and then it is followed again.
        if isinstance(answer, UnknownBreakerError):
            self.forget(key)
        else:
            self._deadlines.forget(key)
            self._not_before[key] = asyncio.get_running_loop().time() + self._backoff.next(key)
            if not isinstance(answer, StoreUnavailableError | SlotMovingError):
                self.refusals[key] = str(answer)[:1024]
        self._lost(key)

    def _schedule(self, key: BreakerKey, seconds: float | None) -> None:
        if seconds is None:
            self._deadlines.forget(key)
        else:
            self._deadlines.set(key, self._at(key, seconds))
            self._wake.set()

    def _at(self, key: BreakerKey, seconds: float) -> float:
        return max(asyncio.get_running_loop().time() + seconds, self._not_before.get(key, float("-inf")))
