"""How a call is decided: permitted, refused, a probe, or a question to wait for. No I/O in this file."""

from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from circuitbreaker_client._grants import Ask, Grant, Record
from circuitbreaker_client._knowledge import Knowledge, discard, due
from circuitbreaker_client._local import LocalBreaker
from circuitbreaker_client.errors import CallNotPermittedError, StoreUnavailableError
from circuitbreaker_client.events import CallRefused
from circuitbreaker_client.outcomes import is_failure, outcome_of
from circuitbreaker_contract.state import Decision, Outcome, Permit, State

if TYPE_CHECKING:
    from circuitbreaker_client._engine import Engine
    from circuitbreaker_contract.keys import BreakerKey

_GRACE_SECONDS: Final = 1.0  # the engine gives up what is too old within two of its rounds
_MOMENT_SECONDS: Final = 0.5


class Core(Knowledge):
    """A breaker in this process, as callers see it. The engine calls what begins with `saw_`."""

    __slots__ = (
        "_asking",
        "_last_failure_at",
        "_looking",
        "_oldest_seconds",
        "_stale_at",
        "aliases",
        "leases",
        "settling",
    )

    def __init__(self, engine: "Engine", key: "BreakerKey") -> None:
        self.aliases: set[str] = set()
        super().__init__(engine, key)

    def begin(self) -> None:
        super().begin()
        self.leases: dict[str, tuple[int, int]] = {}  # probes of ours that are under way
        self.settling: list[tuple[str, tuple[int, int], Outcome]] = []  # and those that have ended
        self._last_failure_at = self._stale_at = -inf
        self._asking: Ask | None = None
        self._looking: Ask | None = None
        self._oldest_seconds = self.settings.max_staleness_seconds + _GRACE_SECONDS

    def read_again(self) -> None:
        self.engine.look(self)

    def rouse(self) -> None:
        self.engine.rouse(self)

    def grant_simply(self) -> Grant | None:
        """In Closed, without a lock; None when a call needs more than that."""
        record = self.record
        return None if record is None else Grant(self, record)

    def step(
        self, waited: Ask | None, now: float, *, is_own: bool, is_late: bool, has_heard: bool = False
    ) -> tuple[Grant | Ask, bool]:
        """A grant, or the question to wait for and whether it is the caller's own.

        `waited`: the one it has waited for, `is_own` or another caller's. `is_late`: no more waiting. `has_heard`: a
        question that it has waited for was answered, so Redis is not silent; there were others before it.
        Raises CallNotPermittedError, and (strict) StoreUnavailableError.
        """
        with self._changing():
            self.used_at = now
            if self.closed:
                return Grant(self, discard), False
            self.rouse()
            if not self.is_active:
                self._activate()
            if waited is not None and is_own and waited.permit is not None:
                return self._answered(waited, waited.permit), False
            if waited is not None and is_own and (is_late or waited.error is not None):
                waited.given_up = True  # whoever decides now; its answer may still come
            if waited is not None and waited.error is not None:
                self._unanswered(str(waited.error), now, waited.error)
            elif is_late and self.local is None and not self._is_decided(now):
                if has_heard and not self._is_unknown():
                    self.recording.refusals.append(None)
                    raise self._refused_error(self.settings.redis_timeout_seconds)
                self._unanswered("Redis gave no answer in time", now)
            if self.local is not None:
                return self._locally(self.local, now), False
            if not self._is_unknown() and self.state is State.CLOSED and not self.settings.strict:
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
        if not self.is_active and not self.closed:
            with self.lock:  # it was forgotten while the call was under way, or is just now
                if self.recording.buffered:
                    self.engine.hurry(self)
        if not is_failure(mark) or self.closed:
            return
        now = perf_counter()
        if self.local is not None:
            with self._changing():
                self._drain(now)
            return
        if now - self.fresh_at > self._oldest_seconds and self.is_active and not self.lapsed:
            # The engine would have seen to it: its thread is held up, by a name that is looked up for example. Or all
            # of this process was, and then it will in a moment.
            if self._stale_at <= self.fresh_at:
                self._stale_at = now
            elif now - self._stale_at > _MOMENT_SECONDS:
                self.expire(now)
        pause, self._last_failure_at = now - self._last_failure_at, now
        trips = self.recording.estimate.trips(self.recording.buffer)
        if trips or pause >= self.settings.flush_interval_seconds:
            self.engine.hurry(self)

    def recorded(self, mark: float) -> None:
        """An outcome that no grant belongs to."""
        self.activate()
        if not self.closed:
            self.rouse()
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

    def saw_permit(self, ask: Ask, permit: Permit, sent_at: float) -> None:
        """The answer to `ask`. A probe that nobody waits for any more goes back."""
        with self._changing():
            self._see(permit.standing, sent_at, is_refusal=permit.decision is Decision.NOT_PERMITTED)
            ask.permit = permit
            if permit.decision is Decision.PROBE and ask.lease:
                self.leases[ask.lease] = permit.standing.order[:2]
                if ask.given_up or self.closed:
                    self._settle(ask.lease, Outcome.IGNORED)

    def saw_settled(self, lease: str) -> None:
        with self.lock:
            self.settling = [each for each in self.settling if each[0] != lease]

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
            self.record, self.retry_at = discard, 0.0

    # --- inside, under the lock --------------------------------------------------------------------------------------

    def _activate(self) -> None:
        self.is_active = True
        if self.settings.state_sync:
            self._asking = self._looking = None
            self.order, self.local, self.degraded_at, self.lapsed = None, None, None, False
            self.recording.reports = True
        elif self.local is None:
            self.local = LocalBreaker(self.policy, self.engine.now_ms())
            self.recording.reports = False
        self.engine.add(self)
        if self.local is not None:
            self._follow_local(new_buffer=True)

    def _is_unknown(self) -> bool:
        """Whether it is to be read first."""
        return self.order is None or self.lapsed

    def _is_decided(self, now: float) -> bool:
        """Whether the snapshot alone is enough."""
        if self.settings.strict or self._is_unknown():
            return False
        return self.state is State.CLOSED or now < self.retry_at

    def _question(self) -> tuple[Ask, bool]:
        strict = self.settings.strict
        if self._is_unknown() and not strict:
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
            self.retry_at = due(after_ms, now)
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
