"""The state machine: the pure twin of the Lua in functions/. Everything that decides a state is in this file.

Laws (the same stand at the top of functions/laws.lua):
  1. A breaker is ordered by (incarnation, generation, revision). The incarnation is Redis' time in ms when its hash was
     made, larger than any it resumes from. The generation rises by one when (state, forced, mode) changes or by a
     reset, and never otherwise. The revision rises with each change of policy.
  2. A permit and a batch carry (incarnation, generation); an outcome of another pair changes nothing but `late`.
  3. Closed opens when a trip rule holds and the quorum is met. Open becomes HalfOpen when Redis' time >= open_until_ms,
     by whoever asks first. HalfOpen has at most half_open_limit live leases.
  4. HalfOpen closes on the success_threshold-th success of its generation, and opens on its first failure.
     half_open_limit expired leases in one generation without a success open it again.
  5. An ignored outcome is neither success nor failure and frees its lease. An expired lease frees its slot and never
     counts as success; its answer in the same generation still counts, once.
  6. Closing resets attempt, streak and window. Opening by override does not raise attempt. An override ends when
     Redis' time >= until or the field goes, once: Open -> HalfOpen, Closed -> Closed with counts reset; an `until`
     already past has no effect at all. Under override Closed, outcomes add to totals only.
  7. Nothing but the functions changes a breaker.
  8. The time is handed in, once a call. A stored instant is never believed farther ahead than its own length, so that a
     clock that jumps back cannot freeze a breaker.
Counting: rules are tested after each counted outcome as if it came alone; when one causes a transition the rest of the
batch is late. S and L end the streak, F and M lengthen it. In mode Observe the state stays Closed and the same rules
run on a shadow, whose probes are the outcomes in order.

Every function takes a breaker and the time and returns the breaker that follows; none has an effect. `notes` hold what
the last step has to say to the two shared names.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from circuitbreaker_contract.breaker import Breaker, Definition, Ended, Forced, Note, Reporter, empty_window
from circuitbreaker_contract.counting import count_run
from circuitbreaker_contract.errors import OwnershipError
from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.state import (
    NOT_PERMITTED_RUN,
    Configured,
    Decision,
    Outcome,
    Permit,
    Reason,
    Resume,
    Shadow,
    Standing,
    State,
    Tick,
    Transition,
    WindowCounts,
)
from circuitbreaker_contract.window import is_bad, is_slow, reshaped

ENV: Final = "env"  # owner and uid of a breaker that a client defined from its environment
MAX_HISTORY: Final = 256
MAX_ENDED_LEASES: Final = 1_000
MAX_REPORTERS: Final = 1_000
REPORTER_SEEN_MS: Final = 60_000
REPORTER_KEPT_MS: Final = 600_000
FULL_RETRY_MS: Final = 250

# --- what the functions do -------------------------------------------------------------------------------------------


def configured(breaker: Breaker | None, now_ms: int, wanted: Definition) -> tuple[Breaker, Configured]:
    """Puts a policy in force. Raises OwnershipError.

    An edit never causes a transition by itself, but for a change of mode and for an override that comes or goes.
    """
    if breaker is not None and breaker.owner not in {wanted.owner, ENV}:
        raise OwnershipError(f"the breaker belongs to owner {breaker.owner}")
    if breaker is None or breaker.uid != wanted.uid or _is_behind(breaker, wanted.resume):
        return _begun(breaker, now_ms, wanted)
    breaker = timely(breaker, now_ms)
    if wanted.generation < breaker.resource_generation:
        return breaker, Configured.STALE
    breaker = replace(breaker, resource_generation=wanted.generation, projection=wanted.projection)
    if wanted.policy == breaker.policy:
        return breaker, Configured.UNCHANGED
    return _edited(breaker, now_ms, wanted.policy), Configured.UPDATED


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
    reporter = breaker.reporters.get(client, Reporter())
    if seq <= reporter.seq:
        return breaker
    for letter, count in runs:
        if letter == NOT_PERMITTED_RUN:
            breaker = _with_totals(breaker, not_permitted=count)
        elif letter == Outcome.IGNORED:
            breaker = _with_totals(breaker, ignored=count)
        elif breaker.state is not State.CLOSED or order != breaker.order[:2]:
            breaker = _with_totals(breaker, late=count)
        elif breaker.forced is not None:
            breaker = _with_outcomes(breaker, letter, count)
        elif breaker.policy.mode is Mode.OBSERVE:
            breaker, reporter = _observed(breaker, now_ms, client, reporter, letter, count)
        else:
            breaker, reporter = _counted(breaker, now_ms, client, reporter, letter, count)
    return _touched(breaker, client, reporter._replace(seq=seq, seen_ms=now_ms))


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
    return _touched(breaker, client, breaker.reporters.get(client, Reporter())._replace(seen_ms=now_ms))


def ticked(breaker: Breaker, now_ms: int) -> tuple[Breaker, Tick]:
    """Does what is due and says when the next thing is."""
    breaker = timely(breaker, now_ms)
    return breaker, Tick(standing(breaker, now_ms), _due_in_ms(breaker, now_ms), breaker.totals.activity)


def was_reset(breaker: Breaker, now_ms: int, *, uid: str, token: str) -> tuple[Breaker, bool]:
    """Closes the breaker and forgets attempts, streak and window; once per token. Raises OwnershipError.

    An override stays in force. In Observe the shadow is cleared too.
    """
    if breaker.uid != uid:
        raise OwnershipError(f"the breaker belongs to uid {breaker.uid}")
    breaker = timely(breaker, now_ms)
    if breaker.last_reset == token:
        return breaker, False
    breaker = replace(breaker, last_reset=token)
    if breaker.policy.mode is Mode.OBSERVE:
        breaker = _shadow_begun(breaker, now_ms)
    state = breaker.forced.state if breaker.forced else State.CLOSED
    return _moved(_with_counts_forgotten(breaker), now_ms, state, Reason.RESET), True


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
    """How long until a call may be tried, in ms; 0: now; -1: until a person ends the override.

    Slots full: at most until the next lease ends and at most 250 ms, jittered downwards by up to half, so that waiters
    do not come back together. The jitter comes from `salt` and the time, so that every implementation agrees on it.
    """
    if breaker.state is State.CLOSED:
        return 0
    if breaker.state is State.OPEN:
        return max(0, breaker.open_until_ms - now_ms) if breaker.open_until_ms else -1
    live = [at for at in breaker.live.values() if at > now_ms]
    if len(live) < breaker.policy.half_open_limit:
        return 0
    most = max(1, min(min(live) - now_ms, breaker.probe_length_ms, FULL_RETRY_MS))
    return most - int(most / 2 * _unit(f"{salt}:{now_ms}"))


def believed(breaker: Breaker, now_ms: int) -> Breaker:
    """Law 8 applied to the breaker's own instants."""
    if breaker.since_ms > now_ms:
        breaker = replace(breaker, since_ms=now_ms)
    farthest = now_ms + breaker.open_length_ms
    if breaker.state is State.OPEN and breaker.open_until_ms > farthest:
        breaker = replace(breaker, open_until_ms=farthest)
    forced = breaker.forced
    if forced is not None and forced.until_ms > now_ms + forced.length_ms:
        breaker = replace(breaker, forced=forced._replace(until_ms=now_ms + forced.length_ms))
    if breaker.policy.mode is Mode.OBSERVE:
        shadow = breaker.shadow
        until_ms = min(shadow.open_until_ms or 0, now_ms + breaker.shadow_length_ms) or None
        shadow = replace(shadow, since_ms=min(shadow.since_ms, now_ms), open_until_ms=until_ms)
        breaker = replace(breaker, shadow=shadow)
    return breaker


def is_override_over(breaker: Breaker, now_ms: int) -> bool:
    return breaker.forced is not None and 0 < breaker.forced.until_ms <= now_ms


def is_opening_over(breaker: Breaker, now_ms: int) -> bool:
    return breaker.state is State.OPEN and breaker.forced is None and breaker.open_until_ms <= now_ms


def is_shadow_due(breaker: Breaker, now_ms: int) -> bool:
    shadow = breaker.shadow
    observing = breaker.policy.mode is Mode.OBSERVE
    return observing and shadow.state is State.OPEN and (shadow.open_until_ms or 0) <= now_ms


def timely(breaker: Breaker, now_ms: int, *, spared: str = "") -> Breaker:
    """The breaker after what is due. `spared`: a lease whose answer has just come, its end unnoticed."""
    breaker = believed(replace(breaker, notes=()), now_ms)
    if is_override_over(breaker, now_ms):
        override = breaker.policy.override
        breaker = replace(breaker, override_ended=_override_text(override) if override else "")
        return _released(breaker, now_ms)
    if is_opening_over(breaker, now_ms):
        return _moved(breaker, now_ms, State.HALF_OPEN, Reason.RECOVERY_TIMEOUT_ELAPSED)
    if breaker.state is State.HALF_OPEN:
        breaker = _expired(breaker, now_ms, spared)
        if breaker.probe_successes == 0 and breaker.probes_lost >= breaker.policy.half_open_limit:
            return _moved(breaker, now_ms, State.OPEN, Reason.PROBES_LOST)
    elif is_shadow_due(breaker, now_ms):
        return _shadow_moved(breaker, now_ms, State.HALF_OPEN, Reason.RECOVERY_TIMEOUT_ELAPSED)
    return breaker


def window_counts(breaker: Breaker, now_ms: int) -> WindowCounts:
    """What is in the window at that time."""
    return WindowCounts(*breaker.window.sums(now_ms))


def reporters_seen(breaker: Breaker, now_ms: int) -> int:
    """Client processes that reported within the last minute."""
    return sum(reporter.seen_ms > now_ms - REPORTER_SEEN_MS for reporter in breaker.reporters.values())


# --- steps -----------------------------------------------------------------------------------------------------------


def _begun(old: Breaker | None, now_ms: int, wanted: Definition) -> tuple[Breaker, Configured]:
    resume, policy = wanted.resume, wanted.policy
    again = old is not None and old.uid == wanted.uid
    resumed = resume if resume is not None and resume.order is not None and (old is None or again) else None
    least = max(old.incarnation if old else 0, resume.order[0] if resume and resume.order else 0) + 1
    breaker = Breaker(
        owner=wanted.owner,
        uid=wanted.uid,
        resource_generation=wanted.generation,
        policy=policy,
        projection=wanted.projection,
        incarnation=max(now_ms, least),
        since_ms=now_ms,
        counted_at_ms=now_ms,
        window=empty_window(policy),
        last_reset=resume.last_reset if resume else "",
        shadow=Shadow(since_ms=now_ms),
    )
    if resumed is not None:
        breaker = _resumed(breaker, now_ms, resumed)
    breaker = _recorded(breaker, now_ms, None)
    if policy.mode is Mode.OBSERVE and breaker.state is not State.CLOSED:
        # Observe never refuses, whatever held the breaker before.
        breaker = _moved(replace(breaker, forced=None), now_ms, State.CLOSED, Reason.MODE_CHANGED)
    result = Configured.RESTORED if resumed else Configured.REPLACED if old else Configured.CREATED
    return _with_override_applied(breaker, now_ms), result


def _is_behind(breaker: Breaker, resume: Resume | None) -> bool:
    """Redis went back in time: clients know a higher order, and may not take a lower one."""
    return resume is not None and resume.order is not None and resume.order > breaker.order[:2]


def _resumed(breaker: Breaker, now_ms: int, resume: Resume) -> Breaker:
    assert resume.order is not None
    policy, state = breaker.policy, resume.state
    breaker = replace(
        breaker,
        generation=resume.order[1] + 1,
        state=state,
        reason=Reason.RESTORED,
        since_ms=min(resume.since_ms, now_ms),
        attempt=0 if state is State.CLOSED else resume.attempt,
    )
    if resume.forced is not None:
        until_ms = policy.override.until_ms if policy.override else 0
        length_ms = max(0, until_ms - now_ms) if until_ms else 0
        breaker = replace(breaker, forced=Forced(resume.forced, until_ms, length_ms))
    if state is State.OPEN and breaker.forced is not None:
        return replace(breaker, open_length_ms=breaker.forced.length_ms, open_until_ms=breaker.forced.until_ms)
    if state is State.OPEN:
        breaker = replace(breaker, attempt=max(1, breaker.attempt))
        length_ms = opening_length_ms(breaker, breaker.attempt)
        until_ms = max(1, min(resume.open_until_ms or 0, now_ms + length_ms))
        return replace(breaker, open_length_ms=length_ms, open_until_ms=until_ms)
    if state is State.HALF_OPEN:
        return replace(breaker, probe_length_ms=policy.probe_timeout_ms)
    return breaker


def _edited(breaker: Breaker, now_ms: int, policy: Policy) -> Breaker:
    old, generation = breaker.policy, breaker.generation
    window = reshaped(breaker.window, policy.window_calls, policy.window_ms)
    breaker = replace(breaker, policy=policy, revision=breaker.revision + 1, window=window)
    if old.mode is not policy.mode:
        breaker = _shadow_begun(breaker, now_ms)
        wanted = policy.override.state if policy.override else None
        if breaker.forced is not None and breaker.forced.state != wanted:
            breaker = replace(breaker, forced=None)
        keep = policy.mode is Mode.OBSERVE and breaker.state is State.CLOSED
        breaker = _moved(breaker, now_ms, State.CLOSED, Reason.MODE_CHANGED, keep=keep)
    if breaker.state is State.OPEN and breaker.forced is None and _lengths(old) != _lengths(policy):
        length_ms = opening_length_ms(breaker, breaker.attempt)
        breaker = replace(breaker, open_length_ms=length_ms, open_until_ms=breaker.since_ms + length_ms)
    if policy.override is None:
        breaker = replace(breaker, override_ended="")
    breaker = _with_override_applied(breaker, now_ms)
    if breaker.generation == generation:
        breaker = _noted(breaker, now_ms, breaker.state, Reason.POLICY_APPLIED)
    return breaker


def _lengths(policy: Policy) -> tuple[int, int, int, int | None]:
    return policy.recovery_timeout_ms, policy.backoff_factor, policy.backoff_max_ms, policy.jitter_percent


def _moved(breaker: Breaker, now_ms: int, state: State, reason: Reason, *, keep: bool = False) -> Breaker:
    """The only way in which a state, what is forced or the mode changes. `keep`: counts stay although it is Closed."""
    previous, key = breaker.state, (breaker.state, state, reason)
    spent_ms = breaker.state_ms.get(previous, 0) + max(0, now_ms - breaker.counted_at_ms)
    breaker = replace(
        breaker,
        state=state,
        reason=reason,
        since_ms=now_ms,
        counted_at_ms=now_ms,
        generation=breaker.generation + 1,
        open_length_ms=0,
        open_until_ms=0,
        probe_successes=0,
        probes_lost=0,
        state_ms={**breaker.state_ms, previous: spent_ms},
        transition_totals={**breaker.transition_totals, key: breaker.transition_totals.get(key, 0) + 1},
    )
    if state is State.OPEN and breaker.forced is not None:
        breaker = replace(breaker, open_length_ms=breaker.forced.length_ms, open_until_ms=breaker.forced.until_ms)
    elif state is State.OPEN:
        breaker = replace(breaker, attempt=breaker.attempt + 1)
        length_ms = opening_length_ms(breaker, breaker.attempt)
        breaker = replace(breaker, open_length_ms=length_ms, open_until_ms=now_ms + length_ms)
    if state is State.HALF_OPEN:
        # Leases of an earlier generation hold no slot here. Settled ones stay: their outcome may be sent again.
        answered = {lease: ended for lease, ended in breaker.ended.items() if ended.settled}
        breaker = replace(breaker, live={}, ended=answered, probe_length_ms=breaker.policy.probe_timeout_ms)
    if state is State.CLOSED and not keep:
        breaker = _with_counts_forgotten(breaker)
    return _recorded(breaker, now_ms, previous)


def _with_counts_forgotten(breaker: Breaker) -> Breaker:
    window = empty_window(breaker.policy)
    return replace(breaker, attempt=0, streak=0, streak_id=breaker.streak_id + 1, window=window)


def opening_length_ms(breaker: Breaker, attempt: int) -> int:
    """How long the `attempt`-th opening in a row lasts. Whole numbers only, so that every implementation agrees.

    min(max, recovery timeout * factor^(attempt - 1)), less a jitter that comes from the opening's own name.
    """
    policy = breaker.policy
    length_ms = policy.recovery_timeout_ms
    if not policy.backoff_factor:
        return length_ms
    for _ in range(1, min(attempt, 64)):
        length_ms = min(policy.backoff_max_ms, length_ms * policy.backoff_factor)
    unit = _unit(f"{breaker.uid}:{breaker.incarnation}:{breaker.generation}")
    return int(length_ms * (1 - unit * (policy.jitter_percent or 0) / 100))


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
        window=window_counts(breaker, now_ms),
        forced=breaker.forced.state if breaker.forced else None,
        note=breaker.policy.override.reason if breaker.reason is Reason.FORCED and breaker.policy.override else "",
    )
    breaker = replace(breaker, history=(*breaker.history, entry)[-MAX_HISTORY:])
    return _noted(breaker, now_ms, previous, breaker.reason)


def _noted(breaker: Breaker, now_ms: int, previous: State | None, reason: Reason) -> Breaker:
    retry_ms = retry_after_ms(breaker, now_ms) if breaker.state is State.OPEN else 0
    note = Note(previous, breaker.state, reason, now_ms, breaker.incarnation, breaker.generation, retry_ms)
    return replace(breaker, notes=(*breaker.notes, note))


def _with_override_applied(breaker: Breaker, now_ms: int) -> Breaker:
    """Brings what is forced to what the policy asks for. An `until` that is past has no effect at all."""
    wanted, forced = breaker.policy.override, breaker.forced
    if wanted and (0 < wanted.until_ms <= now_ms or breaker.override_ended == _override_text(wanted)):
        wanted = None
    if wanted is None:
        return breaker if forced is None else _released(breaker, now_ms)
    setting = Forced(State(wanted.state), wanted.until_ms, wanted.until_ms - now_ms if wanted.until_ms else 0)
    if forced is None or forced.state is not setting.state:
        return _moved(replace(breaker, forced=setting), now_ms, setting.state, Reason.FORCED)
    if forced.until_ms != setting.until_ms:
        breaker = replace(breaker, forced=setting)
        if breaker.state is State.OPEN:
            breaker = replace(breaker, open_until_ms=setting.until_ms, open_length_ms=setting.length_ms)
    return breaker


def _released(breaker: Breaker, now_ms: int) -> Breaker:
    assert breaker.forced is not None
    state = State.HALF_OPEN if breaker.forced.state is State.OPEN else State.CLOSED
    return _moved(replace(breaker, forced=None), now_ms, state, Reason.OVERRIDE_EXPIRED)


def _override_text(override: Override) -> str:
    return f"{override.state}:{override.until_ms}"


def _due_in_ms(breaker: Breaker, now_ms: int) -> int | None:
    """In how many ms something is due by itself."""
    if breaker.forced is not None:
        return max(0, breaker.forced.until_ms - now_ms) if breaker.forced.until_ms else None
    if breaker.state is State.OPEN:
        return max(0, breaker.open_until_ms - now_ms)
    if breaker.state is State.HALF_OPEN:
        live = [at for at in breaker.live.values() if at > now_ms]
        return min(min(live) - now_ms, breaker.probe_length_ms) if live else None
    if breaker.policy.mode is Mode.OBSERVE and breaker.shadow.state is State.OPEN:
        return max(0, (breaker.shadow.open_until_ms or 0) - now_ms)
    return None


def _shadow_begun(breaker: Breaker, now_ms: int) -> Breaker:
    return replace(breaker, shadow=Shadow(since_ms=now_ms), shadow_length_ms=0)


def _shadow_moved(breaker: Breaker, now_ms: int, state: State, reason: Reason) -> Breaker:
    shadow = replace(
        breaker.shadow, state=state, since_ms=now_ms, reason=reason.value, probe_successes=0, open_until_ms=None
    )
    return replace(breaker, shadow=shadow, shadow_length_ms=0)


def _shadow_opened(breaker: Breaker, now_ms: int, reason: Reason) -> Breaker:
    breaker = _shadow_moved(breaker, now_ms, State.OPEN, reason)
    attempt = breaker.shadow.attempt + 1
    length_ms = opening_length_ms(breaker, attempt)
    opened = breaker.shadow.opened + 1
    shadow = replace(breaker.shadow, attempt=attempt, opened=opened, open_until_ms=now_ms + length_ms)
    breaker = replace(breaker, shadow=shadow, shadow_length_ms=length_ms)
    return _noted(breaker, now_ms, breaker.state, Reason.WOULD_HAVE_OPENED)


def _shadow_closed(breaker: Breaker, now_ms: int, reason: Reason) -> Breaker:
    breaker = _shadow_moved(breaker, now_ms, State.CLOSED, reason)
    return _with_counts_forgotten(replace(breaker, shadow=replace(breaker.shadow, attempt=0)))


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
    if _fails_probe(breaker, outcome):
        breaker = replace(breaker, probes=replace(probes, failed=probes.failed + 1))
        return _moved(breaker, now_ms, State.OPEN, Reason.PROBE_FAILED)
    successes = breaker.probe_successes + 1
    breaker = replace(breaker, probe_successes=successes, probes=replace(probes, succeeded=probes.succeeded + 1))
    if successes >= breaker.policy.success_threshold:
        return _moved(breaker, now_ms, State.CLOSED, Reason.PROBES_SUCCEEDED)
    return breaker


def _fails_probe(breaker: Breaker, letter: str) -> bool:
    return is_bad(letter) or (is_slow(letter) and breaker.policy.counts_slow)


def _counted(
    breaker: Breaker, now_ms: int, client: str, reporter: Reporter, letter: str, count: int
) -> tuple[Breaker, Reporter]:
    """One run in Closed, as if each outcome came alone; when one of them opens the breaker, the rest is late."""
    breaker, reporter, used, reason = count_run(breaker, now_ms, client, reporter, letter, count)
    breaker = _with_totals(_with_outcomes(breaker, letter, used), late=count - used)
    return (breaker if reason is None else _moved(breaker, now_ms, State.OPEN, reason)), reporter


def _observed(
    breaker: Breaker, now_ms: int, client: str, reporter: Reporter, letter: str, count: int
) -> tuple[Breaker, Reporter]:
    """One run in mode Observe: totals always; the rules run on the shadow, and its probes are the outcomes in order."""
    breaker = _with_outcomes(breaker, letter, count)
    while count > 0:
        shadow, used = breaker.shadow, count
        if shadow.state is State.OPEN:
            breaker = replace(breaker, shadow=replace(shadow, not_permitted=shadow.not_permitted + count))
        elif shadow.state is State.CLOSED:
            breaker, reporter, used, reason = count_run(breaker, now_ms, client, reporter, letter, count)
            breaker = breaker if reason is None else _shadow_opened(breaker, now_ms, reason)
        elif _fails_probe(breaker, letter):
            breaker, used = _shadow_opened(breaker, now_ms, Reason.PROBE_FAILED), 1
        else:
            needed = breaker.policy.success_threshold
            used = min(count, max(1, needed - shadow.probe_successes))
            successes = shadow.probe_successes + used
            breaker = replace(breaker, shadow=replace(shadow, probe_successes=successes))
            breaker = _shadow_closed(breaker, now_ms, Reason.PROBES_SUCCEEDED) if successes >= needed else breaker
        count -= used
    return breaker, reporter


def _with_outcomes(breaker: Breaker, letter: str, count: int) -> Breaker:
    return _with_totals(
        breaker,
        successes=count * (not is_bad(letter)),
        failures=count * is_bad(letter),
        slow=count * is_slow(letter),
    )


def _with_totals(breaker: Breaker, **added: int) -> Breaker:
    totals = breaker.totals
    return replace(breaker, totals=replace(totals, **{name: getattr(totals, name) + n for name, n in added.items()}))


def _touched(breaker: Breaker, client: str, reporter: Reporter) -> Breaker:
    """Remembers a client. A new one makes room: those unseen for long go, and the one unseen for longest when full."""
    reporters = dict(breaker.reporters)
    if client not in reporters:
        reporters = {name: r for name, r in reporters.items() if r.seen_ms >= reporter.seen_ms - REPORTER_KEPT_MS}
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
    wait_ms = (current.retry_after_ms or 1) if decision is Decision.NOT_PERMITTED else 0
    return Permit(decision, replace(current, retry_after_ms=wait_ms), lease_ms)


def _unit(text: str) -> float:
    """A number in [0, 1) that is the same wherever it is computed."""
    return int(hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:6], 16) / 16777216
