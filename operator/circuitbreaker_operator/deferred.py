"""Events of creations, told after the statuses while many breakers wait for their first one.

PolicyApplied of a breaker that was just made says what its first status says as well; where thousands are applied at
once all are Ready sooner when those Events come after. Everything else is told before the status that records it.

A crash loses none. Before the first is put off, a mark in Redis says from which incarnation on breakers may be untold,
and it goes when all are told. Who begins to lead and finds one tells them all: what was told answers 409. Only a Redis
that is emptied just before such a crash takes the mark with it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final, NamedTuple

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
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store
from circuitbreaker_operator.workqueue import wait_until

logger = logging.getLogger(__name__)

MANY: Final = 64  # breakers that wait to be looked at: so many are more than anybody works on at once
QUIET_SECONDS: Final = 1.0  # without another one: then they are told
LONGEST_SECONDS: Final = 60.0  # an Event waits, whatever else there is to do
_TOGETHER: Final = 8  # half of the requests that may be in flight: statuses keep the other half
_RETRY_SECONDS: Final = 1.0
_REFUSED_SECONDS: Final = 60.0


def installation_of(settings: Settings, owner: str) -> str:
    """Whose mark it is: two operators of one owner have namespaces of their own."""
    return " ".join((owner, *sorted(settings.namespaces)))


class _Held(NamedTuple):
    event: events.Event
    since: float  # time of the loop


class Deferred:
    """Holds Events that may wait, and `run` tells them; `installation` is whose mark it is.

    `post` raises ClusterUnavailableError for what has to be posted once more.
    """

    def __init__(
        self,
        store: Store,
        cache: Cache,
        *,
        installation: str,
        post: Callable[[events.Event], Awaitable[None]],
        queue: QueueMetrics,
    ) -> None:
        self._store = store
        self._cache = cache
        self._installation = installation
        self._post = post
        self._queue = queue
        self._held: dict[BreakerKey, _Held] = {}  # the oldest first
        self._newest_at = 0.0
        self._mark: int | None = None  # in Redis for certain: from this incarnation on Events may wait
        self._marked = False  # there may be one in Redis
        self._wanted: int | None = None
        self._refused_until = 0.0
        self._begun = False
        self._inherited: int | None = None  # the mark that another leader left
        self._compared = False
        self._wake = asyncio.Event()
        queue.depth_of(self._held.__len__)

    def takes(self, event: events.Event, incarnation: int, *, waiting: int) -> bool:
        """Whether this Event of a breaker of that incarnation is told later; `waiting` breakers want to be looked at.

        The status may be written then.
        """
        if waiting < MANY and not self._held:
            return False
        now = asyncio.get_running_loop().time()
        if self._mark is None:
            if self._wanted is None and now >= self._refused_until:
                self._wanted = incarnation
                self._wake.set()
            return False
        if incarnation < self._mark:
            return False
        if not self._held:
            self._wake.set()
        self._held[event.key] = _Held(event, now)
        self._newest_at = now
        self._queue.adds.inc()
        return True

    async def tell_now(self, key: BreakerKey) -> None:
        """Tells what is held of this breaker, before anything else of it is told."""
        held = self._held.get(key)
        if held is not None:
            await self._post(held.event)
            self._told(key, held)

    def hurry(self) -> None:
        """What could not be posted is tried again at once: the API server is back."""
        self._wake.set()

    def compared(self) -> None:
        """The cache holds every resource."""
        if not self._compared:
            self._compared = True
            self._wake.set()

    async def run(self) -> None:
        """Tells them, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._store.up.wait()
            try:
                again_at = await self._turn()
            except ClusterUnavailableError as error:
                self._queue.retries.inc()
                again_at = loop.time() + max(_RETRY_SECONDS, error.retry_after_seconds)
            except (StoreUnavailableError, SlotMovingError):
                again_at = loop.time() + _RETRY_SECONDS
            await wait_until(self._wake, again_at)

    async def _turn(self) -> float | None:
        """Does what is to be done now; says when to come back without being woken."""
        if not self._begun:
            self._mark = self._inherited = await self._store.deferred_since(self._installation)
            self._marked = self._mark is not None
            self._begun = True
        if self._inherited is not None and self._compared:
            self._take_over(self._inherited)
            self._inherited = None
        if self._wanted is not None:
            await self._set_mark(self._wanted)
        while self._held:
            due = self._due()
            if due > asyncio.get_running_loop().time():
                return due
            await self._tell_some()
        if not self._marked or self._inherited is not None:
            return None
        if (quiet_at := self._newest_at + QUIET_SECONDS) > asyncio.get_running_loop().time():
            return quiet_at
        await self._clear_mark()
        return None

    def _due(self) -> float:
        oldest = next(iter(self._held.values()))
        return min(self._newest_at + QUIET_SECONDS, oldest.since + LONGEST_SECONDS)

    async def _tell_some(self) -> None:
        """Posts the oldest. Raises ClusterUnavailableError when one has to be posted once more."""
        some = list(islice(self._held.items(), _TOGETHER))
        answers = await asyncio.gather(*(self._post(held.event) for _, held in some), return_exceptions=True)
        unavailable = None
        for (key, held), answer in zip(some, answers, strict=True):
            if isinstance(answer, ClusterUnavailableError):
                unavailable = answer
                continue
            if isinstance(answer, BaseException):
                logger.error("cannot tell of a creation", extra={"breaker": key}, exc_info=answer)
            self._told(key, held)
        if unavailable is not None:
            raise unavailable

    def _told(self, key: BreakerKey, held: _Held) -> None:
        if self._held.get(key) is held:
            del self._held[key]
            self._queue.queue_seconds.observe(asyncio.get_running_loop().time() - held.since)

    async def _set_mark(self, incarnation: int) -> None:
        self._marked = True
        try:
            await self._store.mark_deferred(self._installation, incarnation)
        except StoreRefusedError as error:
            self._refused_until = asyncio.get_running_loop().time() + _REFUSED_SECONDS
            logger.debug("no Event is put off: %s", error)
        else:
            self._mark = incarnation
            self._newest_at = asyncio.get_running_loop().time()
        self._wanted = None

    async def _clear_mark(self) -> None:
        self._mark = None  # before it goes: nothing is put off meanwhile
        try:
            await self._store.unmark_deferred(self._installation)
        except StoreRefusedError as error:
            logger.debug("the mark of Events that were put off stays: %s", error)
        else:
            self._marked = False

    def _take_over(self, since: int) -> None:
        """Holds what another leader put off and may not have told."""
        now = asyncio.get_running_loop().time()
        for resource in self._cache:
            event = events.of_shown_creation(resource, since=since)
            if event is not None and event.key not in self._held:
                self._held[event.key] = _Held(event, now)
        if self._held:
            logger.info("Events that another leader put off are told now", extra={"count": len(self._held)})
