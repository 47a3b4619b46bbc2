"""What one process knows of one breaker, and who decides for it. No I/O in this file.

`record` and `retry_at` are all that the hot path reads. `record` is the bound append of the buffer that belongs to the
generation in force, while calls are simply permitted; None sends a call to `Core.step`.

Who decides: the shared snapshot, or (`local` is there) a local breaker. A snapshot of a lower order never replaces one
of a higher, unless that has expired: then Redis itself has gone back in time and stays there.

Seconds are those of perf_counter. `lock` guards everything but the hot path; events are told after it is released.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING

from circuitbreaker_client._estimate import TripEstimate
from circuitbreaker_client._local import LocalBreaker
from circuitbreaker_client._outbox import Batch, Outbox
from circuitbreaker_client._recording import NO_ORDER, Buffer, Recording, Runs
from circuitbreaker_client.events import Degraded, Event, OutcomesDropped, Recovered, Source, StateChanged
from circuitbreaker_client.snapshots import BreakerSnapshot, BreakerStatistics
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Order, Resume, Snapshot, Standing, State

if TYPE_CHECKING:
    from circuitbreaker_client._engine import Engine
    from circuitbreaker_client._grants import Record
    from circuitbreaker_contract.policy import Policy


def discard(_mark: float) -> None:
    """Where nothing is recorded any more."""


class Knowledge(ABC):
    """The background thread calls what begins with `saw_`."""

    __slots__ = (
        "__weakref__", "_attempt", "_dozes_on", "_events", "_known_policy", "_promised", "_until", "closed",
        "degraded_at", "engine", "epoch", "fresh_at", "is_active", "key", "lapsed", "local", "lock", "name", "order",
        "policy", "record", "recording", "redis_key", "retry_at", "settings", "state", "used_at",
    )  # fmt: skip

    def __init__(self, engine: "Engine", key: BreakerKey) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.key = key
        self.name = str(key)
        self.redis_key = engine.settings.keys.breaker(key)
        self.policy: Policy = engine.settings.policy
        self.closed = False
        self.begin()

    def begin(self) -> None:
        """As new: at the beginning, and in a child after fork, where other threads and their locks are gone."""
        now = self.used_at = perf_counter()
        self.lock = RLock()
        self.epoch = self.engine.epoch
        self.record: Record | None = discard if self.closed else None
        self.retry_at = 0.0
        self._until = 0.0  # when a call may be tried, as far as is known
        self._promised = 0.0  # the same, as Redis told a caller that it refused
        self.state = State.CLOSED
        self.order: Order | None = None
        self.fresh_at = -inf
        self.local: LocalBreaker | None = None
        self.degraded_at: float | None = None
        self.is_active = False
        self.lapsed = False
        self.recording = Recording(Outbox(self.settings.max_staleness_seconds, self.engine.next_seq), self.policy, now)
        self._dozes_on: Buffer | None = None  # the buffer whose next mark wakes the background thread
        self._attempt = 0
        self._known_policy: tuple[int, int] | None = None  # incarnation and revision of `policy`
        self._events: list[Event] = []

    @abstractmethod
    def read_again(self) -> None:
        """Has the background thread read the whole of it, soon."""

    @abstractmethod
    def rouse(self) -> None:
        """Has the background thread look at it often from now on."""

    def snapshot(self) -> BreakerSnapshot:
        with self.lock:
            now = perf_counter()
            retry_at = self._until
            return BreakerSnapshot(
                breaker=self.name,
                state=self.state,
                source=Source.LOCAL if self.local is not None else Source.SHARED,
                degraded=self.degraded_at is not None,
                policy=self.policy,
                order=self.order,
                retry_after_seconds=None if retry_at == inf else max(0.0, retry_at - now),
                age_seconds=self._age(now),
            )

    def statistics(self) -> BreakerStatistics:
        with self.lock:
            recording, outcomes = self.recording, self.recording.outcomes
            return BreakerStatistics(
                permitted=sum(outcomes.values()),
                refused=recording.refused + len(recording.refusals),
                outcomes=outcomes,
                reported=recording.reported,
                dropped=recording.outbox.dropped,
                buffered=recording.buffered,
                state=self.state,
                degraded=self.degraded_at is not None,
                snapshot_age_seconds=self._age(perf_counter()),
            )

    def saw_snapshot(self, snapshot: Snapshot, sent_at: float) -> None:
        """The whole of it, asked for at `sent_at`."""
        with self._changing():
            standing = Standing(snapshot.state, snapshot.order, snapshot.retry_after_ms)
            if not self._see(standing, sent_at):
                return
            self._known_policy = (snapshot.order.incarnation, snapshot.order.revision)
            self._attempt = snapshot.attempt
            if snapshot.policy != self.policy:
                self.policy = snapshot.policy
                self.recording.estimate = TripEstimate(self.policy, perf_counter())

    def saw_standing(self, standing: Standing, sent_at: float) -> None:
        """The beginning of each reply."""
        with self._changing():
            self._see(standing, sent_at)

    def saw_nothing(self, reason: str) -> None:
        """Redis answers, and has no such breaker, or no library. What it had is gone; a new one has a new order."""
        with self._changing():
            if not self.settings.strict or self.order is None:
                self.fresh_at = perf_counter()  # it is not asked for again sooner than one that is there
            if self.settings.strict or (not self.recording.reports and self.local is not None):
                return
            self.recording.reports = False
            self.recording.outbox.discard()
            self._degrade(reason, perf_counter())
            self.order = None

    def saw_report_acknowledged(self) -> None:
        with self.lock:
            self.recording.reported += self.recording.outbox.acknowledged(perf_counter())

    def saw_report_refused(self) -> None:
        """It will never be taken."""
        with self._changing():
            self.recording.outbox.dropped += self.recording.outbox.acknowledged(perf_counter())

    def next_batch(self) -> Batch | None:
        """What to report now."""
        outbox = self.recording.outbox
        if not outbox:
            return None
        with self.lock:
            return outbox.next(perf_counter())

    def repeatable(self, now: float) -> Batch | None:
        """A report that Redis has seen, for the sake of its reply."""
        with self.lock:
            return self.recording.outbox.repeatable(now)

    def drain(self, now: float) -> None:
        """Empties the buffers."""
        if self.recording.has_any:
            with self._changing():
                self._drain(now)

    def lapse(self) -> None:
        """Nobody has used it for long, so it is read no more: the next call asks first. Hints still tell of changes."""
        with self.lock:
            if self.local is None and not self.closed and self.is_active:
                self.lapsed, self._dozes_on = True, None
                self.record, self.retry_at = None, 0.0

    def doze(self) -> None:
        """Has the next call wake the background thread, which otherwise looks seldom from now on."""
        with self.lock:
            if self.record is not None and not self.closed:
                self._dozes_on = self.recording.buffer
                self.record = partial(self._roused, self._dozes_on)

    def _roused(self, buffer: Buffer, mark: float) -> None:
        buffer.append(mark)
        with self.lock:
            if self._dozes_on is not None and self.record is not None and not self.closed:
                self.record = self.recording.buffer.append
            self._dozes_on = None
        self.rouse()

    def expire(self, now: float) -> None:
        """Gives up a snapshot that is too old. A strict client asks anyway."""
        age = now - self.fresh_at
        if age > self.settings.max_staleness_seconds and self.local is None and not self.settings.strict:
            with self._changing():
                if self.order is not None:
                    self._degrade(f"Redis has been silent for {age:.1f} s", now)

    # --- inside, under the lock --------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        events: list[Event] = []
        try:
            with self.lock:
                try:
                    yield
                finally:
                    events, self._events = self._events, []
        finally:
            if events:
                self.engine.tell(events)

    def _see(self, standing: Standing, sent_at: float, *, is_refusal: bool = False) -> bool:
        """Takes a standing that Redis has told; False when it is lower than what is known."""
        now = perf_counter()
        known, order = self.order, standing.order
        if known is not None and order < known and now - self.fresh_at <= self.settings.max_staleness_seconds:
            return False
        was_local, same = self.local is not None, known == order
        if not same:
            self._promised = 0.0
        self.order, self.fresh_at, self.lapsed = order, max(sent_at, self.fresh_at), False
        self.recording.reports = True
        if self.local is not None:
            self.local = None
            if self.degraded_at is not None:
                self._events.append(Recovered(self.name, now - self.degraded_at))
                self.degraded_at = None
        if was_local or known is None or order[:2] != known[:2]:
            self.recording.renew(order[:2], None)
        if self._known_policy != (order.incarnation, order.revision):
            self.read_again()
        retry_at = due(standing.retry_after_ms, now)
        if is_refusal:
            self._promised = retry_at
        elif standing.state is State.HALF_OPEN and same:
            retry_at = max(retry_at, self._promised)  # a refused caller comes back no earlier than it was told
        self._set(standing.state, retry_at if standing.state is not State.CLOSED else 0.0)
        return True

    def _degrade(self, reason: str, now: float) -> None:
        """The local breaker takes over, in the state and with the policy that were last known."""
        if self.local is not None:
            return
        now_ms = self.engine.now_ms()
        resume = None
        if self.order is not None:
            wait = self._until - now
            until_ms = None if wait == inf else now_ms + max(1, int(wait * 1000))
            is_open = self.state is State.OPEN
            until_ms = (
                until_ms if is_open and until_ms else (now_ms + self.policy.recovery_timeout_ms if is_open else None)
            )
            resume = Resume("", self.order[:2], self.state, now_ms, until_ms, self._attempt)
        self.local, self.lapsed = LocalBreaker(self.policy, now_ms, resume), False
        self.degraded_at = now
        self._events.append(Degraded(self.name, reason))
        self.read_again()
        self._follow_local(new_buffer=True)

    def _follow_local(self, *, new_buffer: bool = False) -> None:
        """Brings what the hot path sees to what the local breaker says."""
        local = self.local
        assert local is not None
        if new_buffer or self.recording.buffer.local_order != local.order:
            self.recording.renew(self.order[:2] if self.order else NO_ORDER, local.order)
        after_ms = local.retry_after_ms(self.engine.now_ms())
        self._set(local.state, due(after_ms, perf_counter()) if local.state is State.OPEN else 0.0)

    def _set(self, state: State, retry_at: float) -> None:
        previous, self.state = self.state, state
        simply = state is State.CLOSED and not (self.settings.strict and self.local is None)
        self._until = retry_at
        if self.is_active and not self.closed:
            self.retry_at = 0.0 if self.settings.strict else retry_at
            if not simply or self.engine.is_threadless:  # nobody would empty the buffer but whoever calls
                self.record = None
            elif self._dozes_on is not self.recording.buffer:
                self.record = self.recording.buffer.append
                self.rouse()
        if previous is not state:
            source = Source.LOCAL if self.local is not None else Source.SHARED
            self._events.append(StateChanged(self.name, previous, state, source))

    def _drain(self, now: float) -> None:
        """Takes what is in the buffers: into the local breaker, and on the way to Redis."""
        recording = self.recording
        count = recording.drain(now, self._slow_seconds(), self._counted)
        if count:
            self.used_at = now
        if recording.outbox.dropped > recording.told:
            self._events.append(OutcomesDropped(self.name, recording.outbox.dropped - recording.told))
            recording.told = recording.outbox.dropped

    def _counted(self, order: tuple[int, int], runs: Runs) -> None:
        if self.local is not None:
            self.local.count(self.engine.now_ms(), order, runs)
            if self.local.order != order:
                self._follow_local()

    def _slow_seconds(self) -> float:
        return self.policy.slow_call_duration_ms / 1000 or inf

    def _age(self, now: float) -> float | None:
        return None if self.local is not None or self.order is None else max(0.0, now - self.fresh_at)

    def __repr__(self) -> str:
        return f"<Core {self.name} {self.state.value}>"


def due(after_ms: int, now: float) -> float:
    """When a call may be tried. At once is 0.0: whoever has looked at a clock before us would still be too early."""
    return inf if after_ms < 0 else now + after_ms / 1000 if after_ms else 0.0
