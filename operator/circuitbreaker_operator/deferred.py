"""Events of creations, told after the statuses while many breakers wait to be shown.

PolicyApplied of a breaker that was just made says what its first status says as well; where thousands are applied at
once all are Ready sooner when those Events come after. Everything else is told before the status that records it.

A crash loses none. Before the first is put off, a mark in Redis says from which incarnation on breakers may be untold,
and it goes when all are told. Who begins to lead and finds one tells them all: what was told answers 409. They are lost
only where the mark is lost with the leader: Redis is emptied, or fails over without it, and nobody is there to set it
again.
"""

import asyncio
import logging
from itertools import islice
from typing import Final, NamedTuple, Protocol

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_operator import events
from circuitbreaker_operator.cache import Cache
from circuitbreaker_operator.errors import (
    ClusterUnavailableError,
    SlotMovingError,
    StoreRefusedError,
    StoreUnavailableError,
)
from circuitbreaker_operator.metrics import QueueMetrics
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store
from circuitbreaker_operator.workqueue import wait_until

logger = logging.getLogger(__name__)

MANY: Final = 64  # breakers that wait to be looked at: twice as many as are worked on at once
QUIET_SECONDS: Final = 1.0  # without so many: then Events are told
LONGEST_SECONDS: Final = 60.0  # an Event waits for that
_TOGETHER: Final = 4  # half of the Events that may be in flight: those that statuses wait for keep the other half
_RETRY_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 60.0
_BLOCK: Final = 200  # resources looked at in one turn of the loop


class Post(Protocol):
    """Posts an Event. Raises ClusterUnavailableError for what has to be posted once more.

    Where Events alone cannot be written it raises that as well for one that `waits`, and drops any other.
    """

    async def __call__(self, event: events.Event, *, waits: bool) -> None: ...


class _Held(NamedTuple):
    event: events.Event
    since: float  # time of the loop


class Deferred:
    """Holds Events that may wait, and `run` tells them."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        cache: Cache,
        *,
        owner: str,
        post: Post,
        queue: QueueMetrics,
    ) -> None:
        self._store = store
        self._cache = cache
        self._owner = owner
        self._namespaces = frozenset(settings.namespaces)
        self._post = post
        self._queue = queue
        self._held: dict[BreakerKey, _Held] = {}  # the next one first
        self._passed: dict[str, ClusterUnavailableError] = {}  # namespaces that wait for the next turn, and why
        self._burst_at = float("-inf")
        self._mark: int | None = None  # in Redis: from this incarnation on Events may wait
        self._marks: set[frozenset[str]] = set()  # the namespaces of those that may be there and go when all are told
        self._wanted: int | None = None
        self._refused_until = float("-inf")
        self._looked = asyncio.Event()  # for a mark that another leader left
        self._knows = False  # whether there was one; then only Events may wait
        self._inherited: int | None = None  # that mark, until all that it means is held here
        self._compared = False
        self._wake = asyncio.Event()
        queue.depth_of(self._held.__len__)

    def takes(self, event: events.Event, incarnation: int, *, waiting: int) -> bool:
        """Whether this Event of a breaker of that incarnation is told later; `waiting` breakers want to be looked at.

        The status may be written then.
        """
        known = self._held.get(event.key)
        if known is not None:
            # Another resource of that name is told first; and what waits without a mark is told now.
            return known.event.name == event.name and self._mark is not None
        now = asyncio.get_running_loop().time()
        if not self._knows or (waiting < MANY and now >= self._burst_at + QUIET_SECONDS):
            return False
        if self._mark is None:
            if self._wanted is None and now >= self._refused_until:
                self._wanted = incarnation
                self._wake.set()
            return False
        if incarnation < self._mark:
            return False
        if waiting >= MANY:
            self._burst_at = now
        if not self._held:
            self._wake.set()
        self._held[event.key] = _Held(event, now)
        self._queue.adds.inc()
        return True

    async def tell_now(self, resource: Resource) -> None:
        """Tells the creation of this one if it may be untold, before anything else of it is told."""
        await self._looked.wait()
        held = self._held.get(resource.key)
        if held is not None:
            await self._post(held.event, waits=False)
            self._told(resource.key, held)
        elif self._inherited is not None:
            event = events.of_shown_creation(resource, since=self._inherited)
            if event is not None:
                await self._post(event, waits=False)

    def hurry(self) -> None:
        """What could not be posted is tried again at once: the API server is back."""
        self._wake.set()

    def compared(self) -> None:
        """The cache holds every resource."""
        if not self._compared:
            self._compared = True
            self._wake.set()

    def mark_again(self) -> None:
        """Redis is back, and may be another one, empty, or older than it was."""
        if self._mark is not None:
            self._mark, self._wanted = None, self._mark
        self._marks.add(self._namespaces)
        self._wake.set()

    async def run(self) -> None:
        """Tells them, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                again_at = await self._turn()
            except ClusterUnavailableError as error:
                self._passed.clear()
                self._queue.retries.inc()
                again_at = loop.time() + max(_RETRY_SECONDS, error.retry_after_seconds)
            except (StoreUnavailableError, SlotMovingError):
                again_at = loop.time() + _RETRY_SECONDS
            await wait_until(self._wake, again_at)

    async def _turn(self) -> float | None:
        """Does what is to be done now; says when to come back without being woken."""
        now = asyncio.get_running_loop().time
        if self._store.up.is_set():  # else `mark_again` wakes us
            if not self._knows and now() >= self._refused_until:
                await self._look()
            if self._wanted is not None:
                await self._set_mark(self._wanted)
        if self._inherited is not None and self._compared:
            await self._take_over(self._inherited)
            self._inherited = None
        while self._held:
            if (due := self._due()) > now():
                return due
            await self._tell_some()
        if not self._store.up.is_set():
            return None
        if not self._knows:
            return self._refused_until
        if self._inherited is not None or not self._marks:
            return None
        if (quiet_at := self._burst_at + QUIET_SECONDS) > now():
            return quiet_at
        await self._clear_marks()
        return None

    def _due(self) -> float:
        first = next(iter(self._held.values()))
        return min(self._burst_at + QUIET_SECONDS, first.since + LONGEST_SECONDS)

    async def _tell_some(self) -> None:
        """Posts the next ones of namespaces that took all so far.

        Raises ClusterUnavailableError when there are no others, and one has to be posted once more.
        """
        some = list(islice((each for each in self._held.items() if each[0].namespace not in self._passed), _TOGETHER))
        if not some:
            raise max(self._passed.values(), key=lambda error: error.retry_after_seconds)
        answers = await asyncio.gather(
            *(self._post(held.event, waits=True) for _, held in some), return_exceptions=True
        )
        for (key, held), answer in zip(some, answers, strict=True):
            if isinstance(answer, ClusterUnavailableError):
                self._passed[key.namespace] = answer
                if self._held.get(key) is held:
                    self._held[key] = self._held.pop(key)
                continue
            if isinstance(answer, BaseException):
                logger.error("cannot tell of a creation", extra={"breaker": key}, exc_info=answer)
            self._told(key, held)

    def _told(self, key: BreakerKey, held: _Held) -> None:
        if self._held.get(key) is held:
            del self._held[key]
            self._queue.queue_seconds.observe(asyncio.get_running_loop().time() - held.since)

    async def _look(self) -> None:
        """Finds the marks that were left for namespaces of ours. Those of other ones are of another installation."""
        try:
            found = await self._store.deferred(self._owner)
        except StoreRefusedError as error:
            self._refused_until = asyncio.get_running_loop().time() + _REFUSED_SECONDS
            logger.warning("cannot see whether another leader has put off Events: %s", error)
        else:
            ours = {spaces: mark for spaces, mark in found.items() if _overlap(spaces, self._namespaces)}
            self._marks |= ours.keys()
            self._mark = self._inherited = min(ours.values(), default=None)
            self._knows = True
        self._looked.set()

    async def _set_mark(self, incarnation: int) -> None:
        self._marks.add(self._namespaces)
        try:
            await self._store.mark_deferred(self._owner, self._namespaces, incarnation)
        except StoreRefusedError as error:
            self._refused_until = asyncio.get_running_loop().time() + _REFUSED_SECONDS
            logger.debug("no Event is put off: %s", error)
        else:
            self._mark = incarnation
            self._burst_at = asyncio.get_running_loop().time()
        self._wanted = None

    async def _clear_marks(self) -> None:
        self._mark = None  # before it goes: nothing is put off meanwhile
        gone, self._marks = self._marks, set()
        try:
            await self._store.unmark_deferred(self._owner, gone)
        except StoreRefusedError as error:
            self._marks |= gone
            logger.debug("the mark of Events that were put off stays: %s", error)
        except BaseException:
            self._marks |= gone
            raise

    async def _take_over(self, since: int) -> None:
        """Holds what another leader put off and may not have told."""
        now = asyncio.get_running_loop().time()
        count = 0
        for number, resource in enumerate(self._cache):
            if number % _BLOCK == 0:
                await asyncio.sleep(0)
            event = events.of_shown_creation(resource, since=since)
            if event is not None:
                self._held.setdefault(event.key, _Held(event, now))
                count += 1
        if count:
            logger.info("Events that another leader put off are told now", extra={"count": count})


def _overlap(some: frozenset[str], others: frozenset[str]) -> bool:
    """None at all are all."""
    return not some or not others or not some.isdisjoint(others)
