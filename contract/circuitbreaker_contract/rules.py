"""The state machine: the pure twin of the Lua in functions/. Everything that decides a state is in this file.

Laws (the same stand at the top of functions/laws.lua):
  1. A breaker is ordered by (incarnation, generation, revision). The incarnation is Redis' time in ms when its hash was
     made, larger than any it resumes from. The generation rises by one with each transition or reset, and never
     otherwise. The revision rises with each change of policy.
  2. A permit and a batch carry (incarnation, generation); an outcome of another pair changes nothing but `late`.
  3. Closed opens when a trip rule holds. Open becomes HalfOpen when Redis' time >= open_until_ms, by whoever asks
     first. HalfOpen has at most half_open_limit live leases.
  4. HalfOpen closes on the success_threshold-th success of its generation, and opens on its first failure.
     half_open_limit expired leases in one generation without a success open it again.
  5. An ignored outcome is neither success nor failure and frees its lease. An expired lease frees its slot and never
     counts as success; its answer in the same generation still counts, once.
  6. Closing resets attempt and streak.
  7. Nothing but the functions changes a breaker.
  8. The time is handed in, once a call. A stored instant is never believed farther ahead than its own length, so that a
     clock that jumps back cannot freeze a breaker.

Every function takes a breaker and the time and returns the breaker that follows; none has an effect. `notes` hold what
the last step has to say to the two shared names.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from circuitbreaker_contract.errors import OwnershipError
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import (
    NOT_PERMITTED_RUN,
    Configured,
    Decision,
    Order,
    Outcome,
    Permit,
    ProbeTotals,
    Reason,
    Resume,
    Standing,
    State,
    Tick,
    Totals,
    Transition,
)

ENV: Final = "env"  # owner and uid of a breaker that a client defined from its environment
MAX_HISTORY: Final = 256
MAX_ENDED_LEASES: Final = 1_000
MAX_REPORTERS: Final = 1_000
REPORTER_SEEN_MS: Final = 60_000
REPORTER_KEPT_MS: Final = 600_000
FULL_RETRY_MS: Final = 250

_SUCCESSES = (Outcome.SUCCESS, Outcome.SLOW_SUCCESS)
_FAILURES = (Outcome.FAILURE, Outcome.SLOW_FAILURE)
_SLOW = (Outcome.SLOW_SUCCESS, Outcome.SLOW_FAILURE)


class Ended(NamedTuple):
    """A lease that holds no slot: when it expired, or (settled) when its outcome came."""

    settled: bool
    at_ms: int


class Reporter(NamedTuple):
    """A client process: its last batch seen, when it was last here, when it last saw a failure (0: never)."""

    seq: int
    seen_ms: int
    bad_ms: int


class Note(NamedTuple):
    """What the shared names are told: a change, or (previous == state) a new policy. `state` None: deleted."""

    previous: State | None
    state: State | None
    reason: Reason
    at_ms: int
    incarnation: int
    generation: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Definition:
    """Who wants which policy: the arguments of `cb_configure`."""

    owner: str
    uid: str
    generation: int
    policy: Policy
    projects: bool = True
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """All that is stored of a breaker."""

    owner: str
    uid: str
    resource_generation: int
    policy: Policy
    projects: bool
    incarnation: int
    since_ms: int
    counted_at_ms: int
    generation: int = 1
    revision: int = 1
    state: State = State.CLOSED
    reason: Reason = Reason.CREATED
    open_until_ms: int = 0
    open_length_ms: int = 0
    attempt: int = 0
    streak: int = 0
    probe_successes: int = 0
    probes_lost: int = 0
    probe_length_ms: int = 0
    last_reset: str = ""
    totals: Totals = field(default_factory=Totals)
    probes: ProbeTotals = field(default_factory=ProbeTotals)
    state_ms: Mapping[State, int] = field(default_factory=lambda: MappingProxyType({}))
    transition_totals: Mapping[tuple[State, State, Reason], int] = field(default_factory=lambda: MappingProxyType({}))
    live: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # lease -> expiry
    ended: Mapping[str, Ended] = field(default_factory=lambda: MappingProxyType({}))
    reporters: Mapping[str, Reporter] = field(default_factory=lambda: MappingProxyType({}))
    history: tuple[Transition, ...] = ()
    notes: tuple[Note, ...] = ()  # of the last step only

    @property
    def order(self) -> Order:
        return Order(self.incarnation, self.generation, self.revision)


# --- what the functions do -------------------------------------------------------------------------------------------


def configured(breaker: Breaker | None, now_ms: int, wanted: Definition) -> tuple[Breaker, Configured]:
    """Puts a policy in force; an edit never causes a transition by itself. Raises OwnershipError."""
    if breaker is not None and breaker.owner not in {wanted.owner, ENV}:
        raise OwnershipError(f"the breaker belongs to owner {breaker.owner}")
    if breaker is None or breaker.uid != wanted.uid:
        return _begun(breaker, now_ms, wanted)
    breaker = timely(breaker, now_ms)
    if wanted.generation < breaker.resource_generation:
        return breaker, Configured.STALE
    breaker = replace(breaker, resource_generation=wanted.generation, projects=wanted.projects)
    if wanted.policy == breaker.policy:
        return breaker, Configured.UNCHANGED
    breaker = replace(breaker, policy=wanted.policy, revision=breaker.revision + 1)
    if breaker.state is State.OPEN:
        length_ms = wanted.policy.recovery_timeout_ms
        breaker = replace(breaker, open_length_ms=length_ms, open_until_ms=breaker.since_ms + length_ms)
    return _noted(breaker, now_ms, breaker.state, Reason.POLICY_APPLIED), Configured.UPDATED


def acquired(breaker: Breaker, now_ms: int, *, client: str, lease: str) -> tuple[Breaker, Permit]:
    """May this call be made? In HalfOpen a permit is a probe with a lease."""
    breaker = timely(breaker, now_ms)
    if breaker.state is State.CLOSED:
        return breaker, _permit(breaker, now_ms, client, Decision.PERMITTED)
    if breaker.state is State.HALF_OPEN:
        if lease in breaker.live:
            lease_ms = min(breaker.live[lease] - now_ms, breaker.probe_length_ms)
            return breaker, _permit(breaker, now_ms, client, Decision.PROBE, lease_ms)
        if lease not in breaker.ended and len(breaker.live) < breaker.policy.half_open_limit:
            breaker = _granted(breaker, now_ms, lease)
            return breaker, _permit(breaker, now_ms, client, Decision.PROBE, breaker.policy.probe_timeout_ms)
    breaker = _with_totals(breaker, not_permitted=1)
    return breaker, _permit(breaker, now_ms, client, Decision.NOT_PERMITTED)


def reported(
    breaker: Breaker, now_ms: int, *, client: str, seq: int, order: tuple[int, int], runs: tuple[tuple[str, int], ...]
) -> Breaker:
    """Counts a batch, in order; once, however often it is sent."""
    breaker = timely(breaker, now_ms)
    known = breaker.reporters.get(client, Reporter(0, 0, 0))
    if seq <= known.seq:
        return breaker
    bad_ms = known.bad_ms
    for letter, count in runs:
        if letter == NOT_PERMITTED_RUN:
            breaker = _with_totals(breaker, not_permitted=count)
        elif letter == Outcome.IGNORED:
            breaker = _with_totals(breaker, ignored=count)
        elif breaker.state is State.CLOSED and order == breaker.order[:2]:
            outcome = Outcome(letter)
            bad_ms = now_ms if outcome in _FAILURES else bad_ms
            breaker = _counted(breaker, now_ms, outcome, count)
        else:
            breaker = _with_totals(breaker, late=count)
    return _touched(breaker, now_ms, client, Reporter(seq, now_ms, bad_ms))


def settled(
    breaker: Breaker, now_ms: int, *, client: str, lease: str, order: tuple[int, int], outcome: Outcome
) -> Breaker:
    """The outcome of a probe; counted once, however often it is sent."""
    breaker = timely(breaker, now_ms, spared=lease)
    ended = breaker.ended.get(lease)
    if ended is None or not ended.settled:
        known = breaker.state is State.HALF_OPEN and (lease in breaker.live or ended is not None)
        asked = known and order == breaker.order[:2]
        if asked or not known:  # law 2: a lease of this generation is not touched by an outcome of another
            live = {name: at for name, at in breaker.live.items() if name != lease}
            answered = {**breaker.ended, lease: Ended(settled=True, at_ms=now_ms)}
            breaker = replace(breaker, live=live, ended=_trimmed(answered))
        breaker = _probe_answered(breaker, now_ms, outcome) if asked else breaker
        if outcome is Outcome.IGNORED:
            breaker = _with_totals(breaker, ignored=1)
        elif not asked:
            breaker = _with_totals(breaker, late=1)
    seen = breaker.reporters.get(client, Reporter(0, 0, 0))
    return _touched(breaker, now_ms, client, Reporter(seen.seq, now_ms, seen.bad_ms))


def ticked(breaker: Breaker, now_ms: int) -> tuple[Breaker, Tick]:
    """Does what is due and says when the next thing is."""
    breaker = timely(breaker, now_ms)
    due_in_ms: int | None = None
    if breaker.state is State.OPEN:
        due_in_ms = max(0, breaker.open_until_ms - now_ms)
    elif breaker.state is State.HALF_OPEN and breaker.live:
        due_in_ms = min(min(breaker.live.values()) - now_ms, breaker.probe_length_ms)
    return breaker, Tick(standing(breaker, now_ms), due_in_ms, breaker.totals.activity)


def was_reset(breaker: Breaker, now_ms: int, *, uid: str, token: str) -> tuple[Breaker, bool]:
    """Closes the breaker and forgets attempts and streak; once per token. Raises OwnershipError."""
    if breaker.uid != uid:
        raise OwnershipError(f"the breaker belongs to uid {breaker.uid}")
    breaker = timely(breaker, now_ms)
    if breaker.last_reset == token:
        return breaker, False
    return _moved(replace(breaker, last_reset=token), now_ms, State.CLOSED, Reason.RESET), True


def noted_again(breaker: Breaker, now_ms: int) -> Breaker:
    """Says the present state once more to the shared names: they did not show it."""
    return _noted(breaker, now_ms, breaker.state, breaker.reason)


def deletion(breaker: Breaker, now_ms: int) -> Note:
    """What the shared names are told when a breaker goes."""
    return Note(breaker.state, None, Reason.DELETED, now_ms, breaker.incarnation, breaker.generation, 0)


# --- what is read of a breaker ---------------------------------------------------------------------------------------


def standing(breaker: Breaker, now_ms: int, salt: str = "") -> Standing:
    return Standing(breaker.state, breaker.order, retry_after_ms(breaker, now_ms, salt))


def retry_after_ms(breaker: Breaker, now_ms: int, salt: str = "") -> int:
    """How long until a call may be tried, in ms; 0: now.

    Slots full: at most until the next lease ends and at most 250 ms, jittered downwards by up to half, so that waiters
    do not come back together. The jitter comes from `salt` and the time, so that every implementation agrees on it.
    """
    if breaker.state is State.OPEN:
        return max(0, breaker.open_until_ms - now_ms)
    live = [at for at in breaker.live.values() if at > now_ms]
    if breaker.state is State.CLOSED or len(live) < breaker.policy.half_open_limit:
        return 0
    most = max(1, min(min(live) - now_ms, breaker.probe_length_ms, FULL_RETRY_MS))
    return most - int(most / 2 * _unit(f"{salt}:{now_ms}"))


def believed(breaker: Breaker, now_ms: int) -> Breaker:
    """Law 8 applied to the breaker's own instants."""
    if breaker.since_ms > now_ms:
        breaker = replace(breaker, since_ms=now_ms)
    if breaker.counted_at_ms > now_ms:
        breaker = replace(breaker, counted_at_ms=now_ms)
    farthest = now_ms + breaker.open_length_ms
    if breaker.state is State.OPEN and breaker.open_until_ms > farthest:
        breaker = replace(breaker, open_until_ms=farthest)
    return breaker


def timely(breaker: Breaker, now_ms: int, *, spared: str = "") -> Breaker:
    """The breaker after what is due. `spared`: a lease whose answer has just come, its end unnoticed."""
    breaker = believed(replace(breaker, notes=()), now_ms)
    if breaker.state is State.OPEN and now_ms >= breaker.open_until_ms:
        return _moved(breaker, now_ms, State.HALF_OPEN, Reason.RECOVERY_TIMEOUT_ELAPSED)
    if breaker.state is State.HALF_OPEN:
        breaker = _expired(breaker, now_ms, spared)
        if breaker.probe_successes == 0 and breaker.probes_lost >= breaker.policy.half_open_limit:
            return _moved(breaker, now_ms, State.OPEN, Reason.PROBES_LOST)
    return breaker


def reporters_seen(breaker: Breaker, now_ms: int) -> int:
    """Client processes that reported within the last minute."""
    return sum(reporter.seen_ms > now_ms - REPORTER_SEEN_MS for reporter in breaker.reporters.values())


# --- steps -----------------------------------------------------------------------------------------------------------


def _begun(old: Breaker | None, now_ms: int, wanted: Definition) -> tuple[Breaker, Configured]:
    resume, policy = wanted.resume, wanted.policy
    resumed = resume if resume is not None and resume.order is not None and old is None else None
    least = max(old.incarnation if old else 0, resume.order[0] if resume and resume.order else 0) + 1
    breaker = Breaker(
        owner=wanted.owner,
        uid=wanted.uid,
        resource_generation=wanted.generation,
        policy=policy,
        projects=wanted.projects,
        incarnation=max(now_ms, least),
        since_ms=now_ms,
        counted_at_ms=now_ms,
        last_reset=resume.last_reset if resume else "",
    )
    if resumed is not None and resumed.order is not None:
        breaker = replace(
            breaker,
            generation=resumed.order[1] + 1,
            state=resumed.state,
            reason=Reason.RESTORED,
            since_ms=min(resumed.since_ms, now_ms),
            attempt=0 if resumed.state is State.CLOSED else max(1, resumed.attempt),
        )
        if resumed.state is State.OPEN:
            length_ms = policy.recovery_timeout_ms
            until_ms = min(resumed.open_until_ms or 0, now_ms + length_ms)
            breaker = replace(breaker, open_length_ms=length_ms, open_until_ms=until_ms)
        elif resumed.state is State.HALF_OPEN:
            breaker = replace(breaker, probe_length_ms=policy.probe_timeout_ms)
    result = Configured.REPLACED if old else Configured.RESTORED if resumed else Configured.CREATED
    return _recorded(breaker, now_ms, None), result


def _moved(breaker: Breaker, now_ms: int, state: State, reason: Reason) -> Breaker:
    """A transition: the only way in which a state changes."""
    previous, key = breaker.state, (breaker.state, state, reason)
    spent_ms = breaker.state_ms.get(previous, 0) + now_ms - breaker.counted_at_ms
    is_open = state is State.OPEN
    length_ms = breaker.policy.recovery_timeout_ms if is_open else 0
    breaker = replace(
        breaker,
        state=state,
        reason=reason,
        since_ms=now_ms,
        counted_at_ms=now_ms,
        generation=breaker.generation + 1,
        attempt=breaker.attempt + is_open,
        open_length_ms=length_ms,
        open_until_ms=now_ms + length_ms if is_open else 0,
        probe_successes=0,
        probes_lost=0,
        state_ms={**breaker.state_ms, previous: spent_ms},
        transition_totals={**breaker.transition_totals, key: breaker.transition_totals.get(key, 0) + 1},
    )
    if state is State.HALF_OPEN:
        # Leases of an earlier generation hold no slot here. Settled ones stay: their outcome may be sent again.
        answered = {lease: ended for lease, ended in breaker.ended.items() if ended.settled}
        breaker = replace(breaker, live={}, ended=answered, probe_length_ms=breaker.policy.probe_timeout_ms)
    if state is State.CLOSED:
        breaker = replace(breaker, attempt=0, streak=0)
    return _recorded(breaker, now_ms, previous)


def _recorded(breaker: Breaker, now_ms: int, previous: State | None) -> Breaker:
    entry = Transition(
        previous=previous,
        state=breaker.state,
        at_ms=now_ms,
        reason=breaker.reason,
        incarnation=breaker.incarnation,
        generation=breaker.generation,
        attempt=breaker.attempt,
        consecutive_failures=breaker.streak,
        open_until_ms=breaker.open_until_ms or None,
    )
    breaker = replace(breaker, history=(*breaker.history, entry)[-MAX_HISTORY:])
    return _noted(breaker, now_ms, previous, breaker.reason)


def _noted(breaker: Breaker, now_ms: int, previous: State | None, reason: Reason) -> Breaker:
    retry_ms = max(0, breaker.open_until_ms - now_ms) if breaker.state is State.OPEN else 0
    note = Note(previous, breaker.state, reason, now_ms, breaker.incarnation, breaker.generation, retry_ms)
    return replace(breaker, notes=(*breaker.notes, note))


def _expired(breaker: Breaker, now_ms: int, spared: str) -> Breaker:
    farthest = now_ms + breaker.probe_length_ms
    live = {lease: min(at, farthest) for lease, at in breaker.live.items()}
    over = {lease: Ended(settled=False, at_ms=at) for lease, at in live.items() if at <= now_ms and lease != spared}
    if not over and live == breaker.live:
        return breaker
    return replace(
        breaker,
        live={lease: at for lease, at in live.items() if lease not in over},
        ended=_trimmed({**breaker.ended, **over}),
        probes_lost=breaker.probes_lost + len(over),
        probes=replace(breaker.probes, expired=breaker.probes.expired + len(over)),
    )


def _granted(breaker: Breaker, now_ms: int, lease: str) -> Breaker:
    length_ms = breaker.policy.probe_timeout_ms
    return replace(
        breaker,
        live={**breaker.live, lease: now_ms + length_ms},
        probe_length_ms=max(breaker.probe_length_ms, length_ms),
        probes=replace(breaker.probes, granted=breaker.probes.granted + 1),
    )


def _probe_answered(breaker: Breaker, now_ms: int, outcome: Outcome) -> Breaker:
    probes = breaker.probes
    if outcome is Outcome.IGNORED:
        return replace(breaker, probes=replace(probes, ignored=probes.ignored + 1))
    breaker = _with_outcomes(breaker, outcome, 1)
    if outcome in _FAILURES:
        breaker = replace(breaker, probes=replace(probes, failed=probes.failed + 1))
        return _moved(breaker, now_ms, State.OPEN, Reason.PROBE_FAILED)
    successes = breaker.probe_successes + 1
    breaker = replace(breaker, probe_successes=successes, probes=replace(probes, succeeded=probes.succeeded + 1))
    if successes >= breaker.policy.success_threshold:
        return _moved(breaker, now_ms, State.CLOSED, Reason.PROBES_SUCCEEDED)
    return breaker


def _counted(breaker: Breaker, now_ms: int, outcome: Outcome, count: int) -> Breaker:
    """One run in Closed, as if each outcome came alone; when one of them opens the breaker, the rest is late."""
    if outcome in _SUCCESSES:
        return replace(_with_outcomes(breaker, outcome, count), streak=0)
    threshold = breaker.policy.failure_threshold
    used = min(count, max(1, threshold - breaker.streak))
    breaker = replace(_with_outcomes(breaker, outcome, used), streak=breaker.streak + used)
    if breaker.streak >= threshold:
        breaker = _moved(breaker, now_ms, State.OPEN, Reason.CONSECUTIVE_FAILURES)
    return _with_totals(breaker, late=count - used)


def _with_outcomes(breaker: Breaker, outcome: Outcome, count: int) -> Breaker:
    return _with_totals(
        breaker,
        successes=count * (outcome in _SUCCESSES),
        failures=count * (outcome in _FAILURES),
        slow=count * (outcome in _SLOW),
    )


def _with_totals(breaker: Breaker, **added: int) -> Breaker:
    totals = breaker.totals
    return replace(breaker, totals=replace(totals, **{name: getattr(totals, name) + n for name, n in added.items()}))


def _touched(breaker: Breaker, now_ms: int, client: str, reporter: Reporter) -> Breaker:
    reporters = dict(breaker.reporters)
    if client not in reporters:
        reporters = {name: r for name, r in reporters.items() if r.seen_ms >= now_ms - REPORTER_KEPT_MS}
        if len(reporters) >= MAX_REPORTERS:
            del reporters[min(reporters, key=lambda name: (reporters[name].seen_ms, name))]
    return replace(breaker, reporters={**reporters, client: reporter})


def _trimmed(ended: Mapping[str, Ended]) -> Mapping[str, Ended]:
    """The newest MAX_ENDED_LEASES of each class; of two that ended together the one whose id sorts first stays."""
    if len(ended) <= MAX_ENDED_LEASES:
        return ended
    kept: dict[str, Ended] = {}
    for settled in (True, False):
        ranked = sorted((name for name in ended if ended[name].settled is settled), key=lambda n: (-ended[n].at_ms, n))
        kept |= {name: ended[name] for name in ranked[:MAX_ENDED_LEASES]}
    return kept


def _permit(breaker: Breaker, now_ms: int, client: str, decision: Decision, lease_ms: int = 0) -> Permit:
    current = standing(breaker, now_ms, client)
    wait_ms = max(1, current.retry_after_ms) if decision is Decision.NOT_PERMITTED else 0
    return Permit(decision, replace(current, retry_after_ms=wait_ms), lease_ms)


def _unit(text: str) -> float:
    """A number in [0, 1) that is the same wherever it is computed."""
    return int(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:6], 16) / 16777216
