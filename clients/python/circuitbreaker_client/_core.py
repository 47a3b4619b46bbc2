"""What one process knows of one breaker, and how a call is decided from it. No I/O in this file.

`record` and `retry_at` are all that the hot path reads. `record` is the bound append of the buffer that belongs to the
generation in force, while calls are simply permitted; None sends a call to `step`.

Who decides: the shared snapshot, or (`local` is there) a local breaker. A snapshot of a lower order never replaces one
of a higher, unless that has expired: then Redis itself has gone back in time and stays there.

Seconds are those of perf_counter. `lock` guards everything but the hot path; events are told after it is released.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING
from uuid import uuid4

from circuitbreaker_client._estimate import TripEstimate
from circuitbreaker_client._grants import Ask, Grant, Record
from circuitbreaker_client._local import LocalBreaker
from circuitbreaker_client._outbox import Batch, Outbox
from circuitbreaker_client._recording import NO_ORDER, Recording, Runs
from circuitbreaker_client.errors import CallNotPermittedError, StoreUnavailableError
from circuitbreaker_client.events import (
    CallRefused,
    Degraded,
    Event,
    OutcomesDropped,
    Recovered,
    Source,
    StateChanged,
)
from circuitbreaker_client.outcomes import is_failure, outcome_of
from circuitbreaker_client.snapshots import BreakerSnapshot, BreakerStatistics
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import (
    Decision,
    Order,
    Outcome,
    Permit,
    Resume,
    Snapshot,
    Standing,
    State,
)

if TYPE_CHECKING:
    from circuitbreaker_client._engine import Engine
    from circuitbreaker_contract.policy import Policy


def _discard(_mark: float) -> None:
    """Where nothing is recorded any more."""


class Core:
    """The engine calls what begins with `saw_`, callers the rest."""

    __slots__ = (
        "__weakref__", "_asking", "_attempt", "_events", "_known_policy", "_last_failure_at", "_looking",
        "_promised", "_until", "aliases", "closed", "degraded_at", "engine", "epoch", "fresh_at", "is_active",
        "key", "leases", "local", "lock", "name", "order", "policy", "record", "recording", "redis_key", "retry_at",
        "settings", "settling", "state", "used_at",
    )  # fmt: skip

    def __init__(self, engine: "Engine", key: BreakerKey) -> None:
        self.engine = engine
        self.settings = engine.settings
        self.key = key
        self.name = str(key)
        self.redis_key = engine.settings.keys.breaker(key)
        self.aliases: set[str] = set()
        self.policy: Policy = engine.settings.policy
        self.closed = False
        self.used_at = perf_counter()
        self.begin()

    def begin(self) -> None:
        """As new: at the beginning, and in a child after fork, where other threads and their locks are gone."""
        now = perf_counter()
        self.lock = RLock()
        self.epoch = self.engine.epoch
        self.record: Record | None = None
        self.retry_at = 0.0
        self._until = 0.0  # when a call may be tried, as far as is known
        self._promised = 0.0  # the same, as Redis told a caller that it refused
        self.state = State.CLOSED
        self.order: Order | None = None
        self.fresh_at = -inf
        self.local: LocalBreaker | None = None
        self.degraded_at: float | None = None
        self.is_active = False
        self.recording = Recording(Outbox(self.settings.max_staleness_seconds, self.engine.next_seq), self.policy, now)
        self.leases: dict[str, tuple[int, int]] = {}  # probes of ours that are under way
        self.settling: list[tuple[str, tuple[int, int], Outcome]] = []  # and those that have ended
        self._attempt = 0
        self._known_policy: tuple[int, int] | None = None  # incarnation and revision of `policy`
        self._last_failure_at = -inf
        self._asking: Ask | None = None
        self._looking: Ask | None = None
        self._events: list[Event] = []
        if self.closed:
            self.record = _discard

    # --- callers -----------------------------------------------------------------------------------------------------

    def step(self, waited: Ask | None, now: float, *, is_own: bool, is_late: bool) -> tuple[Grant | Ask, bool]:
        """A grant, or the question to wait for and whether it is the caller's own.

        `waited`: the one it has waited for, `is_own` or another caller's. `is_late`: no more waiting.
        Raises CallNotPermittedError, and (strict) StoreUnavailableError.
        """
        with self._changing():
            self.used_at = now
            if self.closed:
                return Grant(self, _discard), False
            if not self.is_active:
                self._activate()
            if waited is not None and is_own and waited.permit is not None:
                return self._answered(waited, waited.permit), False
            if waited is not None and waited.error is not None:
                self._unanswered(str(waited.error), now, waited.error)
            elif is_late and self.local is None and not self._is_decided(now):
                if waited is not None and is_own:
                    waited.given_up = True
                self._unanswered("Redis gave no answer in time", now)
            if self.local is not None:
                return self._locally(self.local, now), False
            if self.order is not None and self.state is State.CLOSED and not self.settings.strict:
                return Grant(self, self.recording.buffer.append), False
            if now < self.retry_at:
                raise self._refusal(now)
            return self._question()

    def give_up(self, ask: Ask) -> None:
        """The caller of `ask` waits no more."""
        with self.lock:
            ask.given_up = True
            if ask.permit is not None and ask.permit.decision is Decision.PROBE and ask.lease:
                self._settle(ask.lease, Outcome.IGNORED)

    def refusal(self) -> CallNotPermittedError:
        """The error of a call that is refused here and now; counted."""
        self.recording.refusals.append(None)
        retry_at = self.retry_at
        error = CallNotPermittedError(self.name, None if retry_at == inf else max(0.0, retry_at - perf_counter()))
        if self.engine.on_event is not None:
            self.engine.tell([CallRefused(self.name, error.retry_after_seconds)])
        return error

    def ended(self, record: Record, mark: float) -> None:
        """How a simply permitted call ended. A failure may have to be acted on at once."""
        record(mark)
        if not is_failure(mark) or self.closed:
            return
        now = perf_counter()
        if self.local is not None:
            with self._changing():
                self._drain(now)
            return
        pause, self._last_failure_at = now - self._last_failure_at, now
        trips = self.recording.estimate.trips(self.recording.buffer)
        if trips or pause >= self.settings.flush_interval_seconds:
            self.engine.hurry(self)

    def recorded(self, mark: float) -> None:
        """An outcome that no grant belongs to."""
        self.activate()
        if not self.closed:
            self.ended(self.recording.buffer.append, mark)

    def settled(self, grant: Grant, mark: float) -> None:
        """How a probe ended."""
        if grant.epoch != self.epoch or self.closed:
            return
        outcome = outcome_of(mark, self._slow_seconds())
        with self._changing():
            if not grant.is_local:
                self._settle(grant.lease, outcome)
                return
            # To Redis it was no probe: it adds to totals.
            self.recording.add(self.recording.buffer.order, outcome, perf_counter())
            if self.local is not None:
                self.local.settle(self.engine.now_ms(), grant.lease, grant.order, outcome)
                self._follow_local()

    def activate(self) -> None:
        """Has the engine keep it up to date; asks in the background for what there is."""
        if self.is_active or self.closed:
            return
        with self._changing():
            if not self.is_active and not self.closed:
                self._activate()

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

    # --- the engine --------------------------------------------------------------------------------------------------

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

    def saw_permit(self, ask: Ask, permit: Permit, sent_at: float) -> None:
        """The answer to `ask`. A probe that nobody waits for any more goes back."""
        with self._changing():
            self._see(permit.standing, sent_at, is_refusal=permit.decision is Decision.NOT_PERMITTED)
            ask.permit = permit
            if permit.decision is Decision.PROBE and ask.lease:
                self.leases[ask.lease] = permit.standing.order[:2]
                if ask.given_up:
                    self._settle(ask.lease, Outcome.IGNORED)

    def saw_nothing(self, reason: str) -> None:
        """Redis answers, and has no such breaker, or no library. What it had is gone; a new one has a new order."""
        with self._changing():
            if self.settings.strict or (not self.recording.reports and self.local is not None):
                return
            self.recording.reports = False
            self.recording.outbox.discard()
            self._degrade(reason, perf_counter())
            self.order = None
            self.fresh_at = -inf

    def saw_report_acknowledged(self) -> None:
        with self.lock:
            self.recording.reported += self.recording.outbox.acknowledged(perf_counter())

    def saw_report_refused(self) -> None:
        """It will never be taken."""
        with self._changing():
            self.recording.outbox.dropped += self.recording.outbox.acknowledged(perf_counter())

    def saw_settled(self, lease: str) -> None:
        with self.lock:
            self.settling = [each for each in self.settling if each[0] != lease]

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

    def expire(self, now: float) -> None:
        """Gives up a snapshot that is too old. A strict client asks anyway."""
        age = now - self.fresh_at
        if age > self.settings.max_staleness_seconds and self.local is None and not self.settings.strict:
            with self._changing():
                if self.order is not None:
                    self._degrade(f"Redis has been silent for {age:.1f} s", now)

    def deactivate(self) -> None:
        """Makes it ask anew at its next use; what is buffered still goes out."""
        with self.lock:
            self.is_active = False
            if not self.closed:
                self.record, self.retry_at = None, 0.0

    def close(self) -> None:
        """Calls pass from now on; leases go back."""
        with self.lock:
            for lease in [*self.leases]:
                self._settle(lease, Outcome.IGNORED)
            self._drain(perf_counter())
            self.closed = True
            self.record, self.retry_at = _discard, 0.0

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

    def _activate(self) -> None:
        self.is_active = True
        if self.settings.state_sync:
            self._asking = self._looking = None
            self.order, self.local, self.degraded_at = None, None, None
            self.recording.reports = True
        elif self.local is None:
            self.local = LocalBreaker(self.policy, self.engine.now_ms())
            self.recording.reports = False
        self.engine.add(self)
        if self.local is not None:
            self._follow_local(new_buffer=True)

    def _is_decided(self, now: float) -> bool:
        """Whether the snapshot alone is enough."""
        if self.settings.strict or self.order is None:
            return False
        return self.state is State.CLOSED or now < self.retry_at

    def _question(self) -> tuple[Ask, bool]:
        strict = self.settings.strict
        if self.order is None and not strict:
            if self._looking is None or self._looking.is_set:
                self._looking = Ask(self, None)
                self.engine.submit(self._looking)
            return self._looking, False
        if self._asking is not None and not self._asking.is_set and not strict:
            return self._asking, False  # one in flight; its answer is for all who wait
        self._asking = ask = Ask(self, self.engine.next_lease())
        self.engine.submit(ask)
        return ask, True

    def _unanswered(self, reason: str, now: float, cause: Exception | None = None) -> None:
        """The local breaker decides; a strict client says so instead."""
        if self.settings.strict:
            raise StoreUnavailableError(f"{self.name}: {reason}") from cause
        self._degrade(reason, now)

    def _answered(self, ask: Ask, permit: Permit) -> Grant:
        """What the caller's own question has brought."""
        match permit.decision:
            case Decision.PROBE:
                assert ask.lease is not None
                return Grant(self, None, ask.lease, permit.standing.order[:2])
            case Decision.PERMITTED:
                return Grant(self, self.recording.of(permit.standing.order[:2]).append)
            case Decision.NOT_PERMITTED:
                self.recording.refused += 1  # and not into N: Redis has counted it
                after_ms = permit.standing.retry_after_ms
                raise self._refused_error(None if after_ms < 0 else after_ms / 1000)

    def _locally(self, local: LocalBreaker, now: float) -> Grant:
        if now < self.retry_at:
            raise self._refusal(now)
        lease = uuid4().hex
        self._drain(now)
        permit = local.acquire(self.engine.now_ms(), lease)
        self._follow_local()
        if permit.decision is Decision.NOT_PERMITTED:
            after_ms = permit.standing.retry_after_ms
            self.retry_at = inf if after_ms < 0 else now + after_ms / 1000
            raise self._refusal(now)
        if permit.decision is Decision.PROBE:
            return Grant(self, None, lease, permit.standing.order[:2], is_local=True)
        return Grant(self, self.recording.buffer.append)

    def _refusal(self, now: float) -> CallNotPermittedError:
        self.recording.refusals.append(None)
        return self._refused_error(None if self.retry_at == inf else max(0.0, self.retry_at - now))

    def _refused_error(self, retry_after_seconds: float | None) -> CallNotPermittedError:
        self._events.append(CallRefused(self.name, retry_after_seconds))
        return CallNotPermittedError(self.name, retry_after_seconds)

    def _settle(self, lease: str, outcome: Outcome) -> None:
        order = self.leases.pop(lease, None)
        if order is not None:
            self.recording.tallies[outcome.value] += 1
            self.settling.append((lease, order, outcome))
            self.engine.hurry(self)

    def _see(self, standing: Standing, sent_at: float, *, is_refusal: bool = False) -> bool:
        """Takes a standing that Redis has told; False when it is lower than what is known."""
        now = perf_counter()
        known, order = self.order, standing.order
        if known is not None and order < known and now - self.fresh_at <= self.settings.max_staleness_seconds:
            return False
        was_local, same = self.local is not None, known == order
        if not same:
            self._promised = 0.0
        self.order, self.fresh_at = order, max(sent_at, self.fresh_at)
        self.recording.reports = True
        if self.local is not None:
            self.local = None
            if self.degraded_at is not None:
                self._events.append(Recovered(self.name, now - self.degraded_at))
                self.degraded_at = None
        if was_local or known is None or order[:2] != known[:2]:
            self.recording.renew(order[:2], None)
        if self._known_policy != (order.incarnation, order.revision):
            self.engine.look(self)
        retry_at = inf if standing.retry_after_ms < 0 else now + standing.retry_after_ms / 1000
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
            wait = self.retry_at - now
            until_ms = None if wait == inf else now_ms + max(1, int(wait * 1000))
            is_open = self.state is State.OPEN
            until_ms = (
                until_ms if is_open and until_ms else (now_ms + self.policy.recovery_timeout_ms if is_open else None)
            )
            resume = Resume("", self.order[:2], self.state, now_ms, until_ms, self._attempt)
        self.local = LocalBreaker(self.policy, now_ms, resume)
        self.degraded_at = now
        self._events.append(Degraded(self.name, reason))
        self.engine.look(self)
        self._follow_local(new_buffer=True)

    def _follow_local(self, *, new_buffer: bool = False) -> None:
        """Brings what the hot path sees to what the local breaker says."""
        local = self.local
        assert local is not None
        if new_buffer or self.recording.buffer.local_order != local.order:
            self.recording.renew(self.order[:2] if self.order else NO_ORDER, local.order)
        after_ms = local.retry_after_ms(self.engine.now_ms())
        wait = inf if after_ms < 0 else after_ms / 1000
        self._set(local.state, perf_counter() + wait if local.state is State.OPEN else 0.0)

    def _set(self, state: State, retry_at: float) -> None:
        previous, self.state = self.state, state
        simply = state is State.CLOSED and not (self.settings.strict and self.local is None)
        self._until = retry_at
        if self.is_active and not self.closed:
            self.retry_at = 0.0 if self.settings.strict else retry_at
            self.record = self.recording.buffer.append if simply else None
        if previous is not state:
            source = Source.LOCAL if self.local is not None else Source.SHARED
            self._events.append(StateChanged(self.name, previous, state, source))

    def _drain(self, now: float) -> None:
        """Takes what is in the buffers: into the local breaker, and on the way to Redis."""
        recording = self.recording
        if recording.drain(now, self._slow_seconds(), self._counted):
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
