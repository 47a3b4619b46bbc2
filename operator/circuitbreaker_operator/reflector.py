"""Shows in the API server what Redis says: dirty breakers -> snapshots in pipelines -> Events, then status.

Coalesced per breaker, Open first, at most so many writes a second over all and 16 requests in flight. A status is
computed from a snapshot just taken and written against the version it was computed from; whoever is overtaken looks
again. Where many are made at once, the Events of their creation come after: deferred.py.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import CircuitBreakerError, UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Snapshot, State, Tick
from circuitbreaker_operator import events, status
from circuitbreaker_operator.cache import Cache, Change
from circuitbreaker_operator.cluster import Cluster, is_terminating
from circuitbreaker_operator.credentials import IN_FLIGHT
from circuitbreaker_operator.deferred import Deferred
from circuitbreaker_operator.echoes import Echoes
from circuitbreaker_operator.errors import (
    FULL,
    ClusterRefusedError,
    ClusterUnavailableError,
    EventsUnavailableError,
    NoPlaceError,
    SlotMovingError,
    StoreUnavailableError,
)
from circuitbreaker_operator.logs import Outage
from circuitbreaker_operator.metrics import Book, Metrics
from circuitbreaker_operator.plan import STORE_CONFLICT, Plan, Rejected, own, plan, reset_token
from circuitbreaker_operator.refresh import LONGEST_MS
from circuitbreaker_operator.resource import CATCH_UP, Resource
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import Store
from circuitbreaker_operator.subscription import Hint
from circuitbreaker_operator.workqueue import Backoff, Pending, wait_until

if TYPE_CHECKING:
    from circuitbreaker_operator.clock import Clock

logger = logging.getLogger(__name__)

_AHEAD: Final = 2 * IN_FLIGHT  # breakers worked on; only so many requests as `cluster` allows are in flight
_TOGETHER: Final = IN_FLIGHT // 2  # of many that wait, so many are read in one pipeline
_HISTORY: Final = 8
_EARLY_SECONDS: Final = 1.0  # the refresh comes round in steps of about a second
_UNTOLD_SECONDS: Final = 600.0
_LOOK_INTERVALS: Final = 20  # at the default, each of 10,000 breakers every 20 minutes: 8 reads a second
_WITHOUT_EVENTS: Final = "look for what is in their way (a webhook, an etcd of their own); statuses go on without"
_WHOLE_HISTORY: Final = protocol.MAX_HISTORY


class Urgency(IntEnum):
    """Why a breaker is looked at; lower goes first."""

    OPEN = 0
    TRANSITION = 1
    COUNTERS = 2  # only this one may write what only counters changed


class Bucket:
    """So many tokens a second, and at most twice that at once. `taken` waits for one."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = max(1.0, 2.0 * per_second)
        self._tokens = self._burst
        self._clock = clock
        self._at = clock()

    def wait_seconds(self) -> float:
        """Takes a token, and says how long to wait before using it."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second) - 1.0
        self._at = max(now, self._at)
        return max(0.0, -self._tokens / self._per_second)

    def pause(self, seconds: float) -> None:
        """Nothing for that long: the API server asked for it."""
        now = self._clock()
        self._tokens = min(self._tokens + (now - self._at) * self._per_second, -seconds * self._per_second)
        self._at = now


class Reflector:
    """Marks come from hints, ticks, the watch and the reconciler; `run` works them off."""

    def __init__(
        self,
        settings: Settings,
        *,
        owner: str,
        cache: Cache,
        store: Store,
        cluster: Cluster,
        echoes: Echoes,
        book: Book,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._owner = owner
        self._cache = cache
        self._store = store
        self._cluster = cluster
        self._echoes = echoes
        self._book = book
        self._metrics = metrics
        self._pending: Pending[BreakerKey] = Pending(levels=len(Urgency))
        self._backoff: Backoff[BreakerKey] = Backoff(first=0.25, longest=60.0)
        self._crowd: Backoff[BreakerKey] = Backoff(first=0.5, longest=8.0)  # of those for whom there was no place
        self._bucket = Bucket(settings.status_qps)
        self._slots = asyncio.Semaphore(_AHEAD)
        self._wake = asyncio.Event()
        self._unshown: set[BreakerKey] = set()  # only counters moved: for the next refresh
        # A tick does not read all of a breaker: what it does not show, like damage, is found by looking now and then.
        self._look_seconds = _LOOK_INTERVALS * (settings.status_refresh_ms or LONGEST_MS) / 1000
        self._counters_from: dict[BreakerKey, float] = {}  # from when on counters alone are worth a write
        self._tries: set[asyncio.Task[None]] = set()  # Events that are sent beside their statuses
        self._untold: dict[str, float] = {}  # the namespaces in which Events are refused, and when that was
        self._events_outage = Outage(logger, "writing Events", remedy="grant create on events; statuses go on without")
        self._status_outage = Outage(logger, "writing statuses", remedy="grant patch on circuitbreakers/status")
        self._instance = os.environ.get("HOSTNAME") or socket.gethostname()
        self._queue = metrics.queue("status")
        self._queue.depth_of(self._pending.__len__)
        self.deferred = Deferred(settings, store, cache, owner=owner, post=self._post, queue=metrics.queue("events"))
        # Set by whoever wires the parts together, since these point back at us.
        self.clock: Clock
        self.reconcile: Callable[[BreakerKey], None]
        self.refusals: dict[BreakerKey, str] = {}

    # -- marks

    def mark(self, key: BreakerKey, urgency: Urgency) -> None:
        loop = asyncio.get_running_loop()
        if self._pending.add(key, loop.time(), urgency):
            self._queue.adds.inc()
        self._wake.set()

    def heard(self, hint: Hint) -> bool:
        """False when it names no breaker of ours."""
        if self._cache.get(hint.key) is None:
            return False
        if hint.due_seconds is not None:
            # Statuses are written at a limited rate; the clock must not wait for that to learn of a deadline.
            self.clock.expect(hint.key, hint.due_seconds)
        self.mark(hint.key, Urgency.OPEN if hint.claimed is State.OPEN else Urgency.TRANSITION)
        return True

    def ticked(self, key: BreakerKey, tick: Tick) -> None:
        """Looks at a breaker that is not as it was last seen."""
        seen = self._book.get(key)
        if self._cache.get(key) is None:
            return
        if seen is None or seen.order != tick.standing.order or seen.state != tick.standing.state:
            self.mark(key, Urgency.OPEN if tick.standing.state is State.OPEN else Urgency.TRANSITION)
        elif _shadow_moves(seen, tick):
            self.mark(key, Urgency.TRANSITION)
        elif (
            seen.totals.activity != tick.activity
            or _ages(seen)
            or key in self._unshown
            or self._book.age_seconds(key) > self._look_seconds
        ):
            self.mark(key, Urgency.COUNTERS)

    def changed(self, key: BreakerKey) -> None:
        self.mark(key, Urgency.TRANSITION)

    def written(self, key: BreakerKey) -> None:
        self.clock.pardon(key)
        self.changed(key)

    def settled(self, resource: Resource, snapshot: Snapshot, decided: Plan) -> None:
        """Redis is as it should be; the status may be as well, and then that is all (as after a restart)."""
        if not self._note(resource, snapshot) or decided.stale or resource.key in self.clock.refusals:
            self.changed(resource.key)
            return
        shown = resource.status
        new = status.build(resource, snapshot, decided, owner=self._owner, previous=shown)
        match status.compare(shown, status.stamped(new, shown, snapshot.now_ms)):
            case status.Change.SHOWN:
                self.changed(resource.key)
            case status.Change.COUNTERS:
                self._counters_moved(resource.key)
            case status.Change.NOTHING:
                pass

    def gone(self, key: BreakerKey) -> None:
        self._pending.drop(key)
        self._backoff.forget(key)
        self._crowd.forget(key)
        self._unshown.discard(key)
        self._counters_from.pop(key, None)
        self._forget(key)

    def _forget(self, key: BreakerKey) -> None:
        self._book.drop(key)
        self.clock.forget(key)

    def hurry(self) -> None:
        """What could not be written is tried again at once: the API server is back."""
        self._backoff.clear()
        self._pending.hurry(asyncio.get_running_loop().time())
        self._wake.set()

    def _hurry_there(self, namespace: str) -> None:
        """Events are waited for there no more."""
        now = asyncio.get_running_loop().time()
        for key in self._pending.hurry(now, lambda key: key.namespace == namespace):
            self._backoff.forget(key)
        self._wake.set()

    # -- work

    async def run(self) -> None:
        """Works until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                await self._store.up.wait()
                held = max(1, min(len(self._pending), _TOGETHER))
                for _ in range(held):
                    await self._slots.acquire()
                await self.clock.first()
                taken: list[tuple[BreakerKey, Urgency]] = []
                while len(taken) < held and (next_one := self._pending.take(loop.time())) is not None:
                    key, level, waited = next_one
                    self._queue.queue_seconds.observe(waited)
                    taken.append((key, Urgency(level)))
                for _ in range(held - len(taken)):
                    self._slots.release()
                if taken:
                    for (key, urgency), answer in zip(taken, await self._snapshots(taken), strict=True):
                        group.create_task(self._reflect(key, urgency, answer))
                else:
                    await wait_until(self._wake, self._pending.next_at())

    async def show_outage(self) -> None:
        """While Redis is away for long: says so on each breaker that waits for it, and only there."""
        for resource in self._cache:
            if self._store.up.is_set():
                return
            shown = resource.status
            token = reset_token(resource.reset)
            if status.has_something_to_apply(resource, shown, last_reset=token):
                new = status.stamped(status.unavailable(resource, shown), shown, int(time.time() * 1000))
                if new != shown:
                    try:
                        await self._write(resource, shown, new)
                    except (ClusterUnavailableError, ClusterRefusedError) as error:
                        logger.debug("cannot show the outage: %s", error, extra={"breaker": resource.key})
                        return

    async def _snapshots(self, taken: list[tuple[BreakerKey, Urgency]]) -> list[Snapshot | CircuitBreakerError]:
        calls = [protocol.observe(self._settings.keys.breaker(key), history=_HISTORY) for key, _ in taken]
        try:
            return await self._store.batch(calls)
        except CircuitBreakerError as error:
            return [error] * len(taken)

    async def _whole(self, key: BreakerKey) -> Snapshot | CircuitBreakerError:
        try:
            return await self._store.call(protocol.observe(self._settings.keys.breaker(key), history=_WHOLE_HISTORY))
        except CircuitBreakerError as error:
            return error

    async def _reflect(self, key: BreakerKey, urgency: Urgency, answer: Snapshot | CircuitBreakerError) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            await self._show(key, urgency, answer, began)
        except NoPlaceError:
            self._pending.add_at(key, loop.time() + self._crowd.next(key), urgency)
        except ClusterUnavailableError as error:
            self._retry(key, urgency, error.retry_after_seconds)
        except (StoreUnavailableError, SlotMovingError):
            self._retry(key, urgency, 0.0)
        except ClusterRefusedError as error:
            if error.status == 403:  # a matter of rights, and so of every breaker
                self._status_outage.failed(error)
            else:
                logger.warning("cannot write status: %s", error, extra={"breaker": key})
            self._retry(key, urgency, 0.0)
        except Exception:
            logger.exception("cannot show a breaker", extra={"breaker": key})
            self._retry(key, urgency, 0.0)
        else:
            self._backoff.forget(key)
            self._crowd.forget(key)
        finally:
            self._queue.work_seconds.observe(loop.time() - began)
            self._pending.done(key, loop.time())
            self._slots.release()
            self._wake.set()

    def _retry(self, key: BreakerKey, urgency: Urgency, at_least: float) -> None:
        self._queue.retries.inc()
        delay = max(self._backoff.next(key), at_least)
        self._pending.add_at(key, asyncio.get_running_loop().time() + delay, urgency)

    async def _show(
        self,
        key: BreakerKey,
        urgency: Urgency,
        answer: Snapshot | CircuitBreakerError,
        taken_at: float,
        *,
        is_whole: bool = False,
    ) -> None:
        resource = self._cache.get(key)
        if resource is None:
            return
        if isinstance(answer, StoreUnavailableError | SlotMovingError):
            raise answer
        snapshot = answer if isinstance(answer, Snapshot) else None
        decided = plan(resource, snapshot, owner=self._owner, settings=self._settings)
        refusal = (self.clock.refusals if decided.in_force else self.refusals).get(key)
        if isinstance(answer, CircuitBreakerError) and not isinstance(answer, UnknownBreakerError):
            refusal = str(answer)
        if refusal is not None:
            root = self._settings.keys.breaker(key)
            advice = "" if refusal.startswith(FULL) else ", look at its keys"
            text = f"Redis does not serve the breaker at {root}{advice}: {refusal}"[:1024]
            decided = replace(decided, rejected=Rejected(STORE_CONFLICT, text))
        elif decided.stale and snapshot is not None:
            older = await self._older_than_redis(resource, snapshot)
            if older is None:
                return
            decided = replace(decided, rejected=older)
        elif decided.writes:
            self.reconcile(key)  # it comes back here when Redis is as it should be
            if decided.rejected is None:
                return
        shown = resource.status
        if snapshot is not None and self._note(resource, snapshot):
            if not is_whole and not events.reaches_back(snapshot, shown):
                await self._show(key, urgency, await self._whole(key), taken_at, is_whole=True)
                return
        elif snapshot is not None or isinstance(answer, UnknownBreakerError):
            self._forget(key)  # what it was is no more, and nothing takes its place
        new = status.build(resource, snapshot, decided, owner=self._owner, previous=shown)
        now_ms = snapshot.now_ms if snapshot is not None else int(time.time() * 1000)
        new = status.stamped(new, shown, now_ms)
        change = status.compare(shown, new)
        now = asyncio.get_running_loop().time()
        refresh_ms = self._settings.status_refresh_ms
        refreshes = urgency is Urgency.COUNTERS and refresh_ms > 0 and now >= self._counters_from.get(key, 0.0)
        if change is status.Change.COUNTERS and not refreshes:
            self._counters_moved(key)
            return
        self._unshown.discard(key)
        if change is status.Change.NOTHING:
            return
        self._counters_from[key] = now + refresh_ms / 1000 - _EARLY_SECONDS
        told = events.unhandled(snapshot, shown) if snapshot is not None else []
        steps = events.steps(resource, snapshot, decided, owner=self._owner, previous=shown, now_ms=now_ms)
        if snapshot is not None and self._may_wait(resource, snapshot, shown, steps):
            steps = [events.Step((), None)]
        else:
            await self.deferred.tell_now(resource)
        if await self._tell(resource, new, steps) and snapshot is not None and told:
            late_ms = snapshot.now_ms - told[-1].at_ms
            lag = late_ms / 1000 + asyncio.get_running_loop().time() - taken_at
            self._metrics.reflect_lag.observe(max(0.0, lag))

    async def _older_than_redis(self, resource: Resource, snapshot: Snapshot) -> Rejected | None:
        """Why a resource that is older than what Redis holds is not in force; None when a newer one was on its way."""
        key = resource.key
        fresh = await self._cluster.get(key)
        if fresh is None or fresh.uid != resource.uid or fresh.generation >= snapshot.resource_generation:
            if fresh is not None and self._cache.put(fresh) is Change.ASKED:
                self.reconcile(key)
            return None
        root = self._settings.keys.breaker(key)
        text = f"the breaker at {root} holds generation {snapshot.resource_generation} of this resource, which has not"
        text = f"{text} come so far; remove its keys, and it is made again as its status last said"
        return Rejected(STORE_CONFLICT, text)

    def _counters_moved(self, key: BreakerKey) -> None:
        if self._settings.status_refresh_ms > 0:
            self._unshown.add(key)

    def _note(self, resource: Resource, snapshot: Snapshot) -> bool:
        """Keeps what metrics, clock and refresh need; False when the snapshot is not of this resource's breaker."""
        mine = own(resource, snapshot, owner=self._owner)
        if mine is None:
            return False
        self._book.put(resource.key, mine)
        self.clock.follow(resource.key, mine)
        return True

    def _may_wait(
        self, resource: Resource, snapshot: Snapshot, shown: dict[str, object], steps: list[events.Step]
    ) -> bool:
        """Whether the Event of these steps is told later, and the status may go ahead."""
        event = events.of_creation(resource, snapshot, shown, steps)
        if event is None:
            return False
        return self.deferred.takes(event, snapshot.order.incarnation, waiting=len(self._pending))

    async def _tell(self, resource: Resource, new: dict[str, object], steps: list[events.Step]) -> bool:
        """Goes step by step to the new status; False when somebody was faster."""
        for step in steps:
            shown = resource.status
            target = new if step.catch_up is None else shown | {CATCH_UP: dict(step.catch_up)}
            written = await self._write(resource, shown, target, step.events)
            if written is None:
                return False
            resource = written
        return True

    async def _write(
        self, resource: Resource, shown: dict[str, object], new: dict[str, object], news: Iterable[events.Event] = ()
    ) -> Resource | None:
        """Posts the Events, writes the status; None when somebody was faster: then the breaker is looked at again."""
        for event in news:
            await self._post(event, waits=False)
        patch = status.merge_patch(shown, new)
        if patch is None:
            return resource
        await asyncio.sleep(self._bucket.wait_seconds())
        try:
            written = await self._cluster.patch_status(resource, patch)
        except ClusterRefusedError as error:
            self._metrics.status_patches.labels("conflict" if error.status in {404, 409} else "refused").inc()
            if error.status == 404:
                return None  # the watch, or the sweep, says so in a moment
            if error.status == 409:
                before = self._cache.get(resource.key)
                fresh = await self._cluster.get(resource.key)
                if fresh is not None:
                    if self._cache.put_answer(fresh, before=before) is Change.ASKED:
                        self.reconcile(resource.key)  # an edit overtook us; the watch will find it known already
                    self.changed(resource.key)
                return None
            raise
        except ClusterUnavailableError as error:
            self._metrics.status_patches.labels("unavailable").inc()
            self._bucket.pause(error.retry_after_seconds)
            raise
        self._metrics.status_patches.labels("written").inc()
        self._status_outage.recovered()
        self._cache.put(written)
        self._echoes.expect(written.resource_version)
        return written

    async def _post(self, event: events.Event, *, waits: bool) -> None:
        try:
            await self._send(event, self._cluster.create_event)
        except EventsUnavailableError as error:
            namespace = event.key.namespace
            if error.begins:
                self._hurry_there(namespace)
            self._untold[namespace] = time.monotonic()
            self._events_outage.failed(error, remedy=_WITHOUT_EVENTS)
            if not self._cluster.may_try(namespace):
                if waits:
                    raise
                self._metrics.events.labels(event.reason, "dropped").inc()
            elif waits:
                await self._send(event, self._cluster.try_event)
            else:
                task = asyncio.create_task(self._try(event))
                self._tries.add(task)
                task.add_done_callback(self._tries.discard)

    async def _try(self, event: events.Event) -> None:
        """It may be taken all the same: its status does not wait for that."""
        try:
            await self._send(event, self._cluster.try_event)
        except CircuitBreakerError as error:
            logger.debug("not told: %s", error, extra={"breaker": event.key})
            self._metrics.events.labels(event.reason, "dropped").inc()

    async def _send(self, event: events.Event, post: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        result, namespace = "posted", event.key.namespace
        try:
            await post(event.body(instance=self._instance))
            self._told(namespace)
        except ClusterRefusedError as error:
            if error.status == 409:
                result = "repeated"
                self._told(namespace)
            elif is_terminating(error):
                result = "dropped"
                self._told(namespace)
            else:
                result = "refused"
                self._untold[namespace] = time.monotonic()
                self._events_outage.failed(error)
        self._metrics.events.labels(event.reason, result).inc()
        if result == "posted":
            extra = {"breaker": event.key, "reason": event.reason}
            level = logging.WARNING if event.kind == "Warning" else logging.INFO
            logger.log(level, "%s", event.message, extra=extra)

    def _told(self, namespace: str) -> None:
        if self._untold:
            self._untold.pop(namespace, None)
            since = time.monotonic() - _UNTOLD_SECONDS  # others may be gone, or have nothing to tell
            self._untold = {each: at for each, at in self._untold.items() if at > since}
            if not self._untold:
                self._events_outage.recovered()


def _shadow_moves(seen: Snapshot, tick: Tick) -> bool:
    """In mode Observe nothing in the order tells that the shadow moved; while it is Open a tick may have done it."""
    if seen.shadow is None:
        return False
    opened = tick.due_in_ms is not None and seen.forced is None  # a message of it was lost
    return seen.shadow.state is State.OPEN or opened


def _ages(seen: Snapshot) -> bool:
    """Reporters, and what a time window holds, leave without a sound: look until there are none."""
    return seen.reporters > 0 or (seen.policy.window_ms > 0 and seen.window.calls > 0)
