"""Counting outcomes in Closed, until a trip rule holds. Pure; the twin of the part "Counting" in functions/rules.lua.

Rules are tested after each outcome as if it came alone. Within a stretch of equal outcomes every sum moves by the same
step each time, so the first outcome at which a rule holds is computed and not searched for.
"""

from dataclasses import replace
from typing import Final, NamedTuple

from circuitbreaker_contract.breaker import Breaker, Reporter
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Reason
from circuitbreaker_contract.window import Stretch, Sums, is_bad, is_slow

COUNT_QUORUM_MS: Final = 60_000  # how far a count window looks back for reporters of a rate


class Counted(NamedTuple):
    """What became of a run: how many outcomes were counted, and the rule that the last one of them fulfilled."""

    breaker: Breaker
    reporter: Reporter
    used: int
    reason: Reason | None


def count_run(breaker: Breaker, now_ms: int, client: str, reporter: Reporter, letter: str, count: int) -> Counted:
    """Takes outcomes of one letter into streak and window, until a rule holds with its quorum."""
    if is_bad(letter):
        reporter = reporter._replace(bad_ms=now_ms, streak_id=breaker.streak_id)
    elif breaker.streak > 0:
        breaker = replace(breaker, streak=0, streak_id=breaker.streak_id + 1)
    if is_slow(letter):
        reporter = reporter._replace(slow_ms=now_ms)
    breaker = replace(breaker, window=breaker.window.at(now_ms))
    used = 0
    while used < count:
        stretch = breaker.window.stretch(letter, count - used)
        at, reason = _first_trip(breaker, now_ms, client, reporter, letter, stretch)
        taken = stretch.length if at is None else at
        streak = breaker.streak + taken * is_bad(letter)
        breaker = replace(breaker, streak=streak, window=breaker.window.slid(now_ms, letter, taken))
        used += taken
        if at is not None:
            return Counted(breaker, reporter, used, reason)
    return Counted(breaker, reporter, used, None)


def _first_trip(
    breaker: Breaker, now_ms: int, client: str, reporter: Reporter, letter: str, stretch: Stretch
) -> tuple[int, Reason] | tuple[None, None]:
    policy, sums = breaker.policy, breaker.window.sums(now_ms)
    grows = int(stretch.leaving is None)
    found: list[tuple[int, Reason]] = []
    if policy.failure_threshold and is_bad(letter) and _has_streak_quorum(breaker, client, reporter):
        found.append((max(1, policy.failure_threshold - breaker.streak), Reason.CONSECUTIVE_FAILURES))
    known, leaving = [*_others(breaker, client), reporter], stretch.leaving or ""
    for percent, part, step, seen_ms, reason in (
        (
            policy.failure_rate_percent,
            sums.failures,
            is_bad(letter) - is_bad(leaving),
            [r.bad_ms for r in known],
            Reason.FAILURE_RATE,
        ),
        (
            policy.slow_call_rate_percent,
            sums.slow,
            is_slow(letter) - is_slow(leaving),
            [r.slow_ms for r in known],
            Reason.SLOW_CALL_RATE,
        ),
    ):
        first = _first_at_rate(percent, sums, part, step, grows, policy.minimum_calls) if percent else None
        if first is not None and _has_rate_quorum(policy, now_ms, seen_ms):
            found.append((first, reason))
    found = [each for each in found if each[0] <= stretch.length]
    return min(found, key=lambda each: each[0]) if found else (None, None)


def _first_at_rate(percent: int, sums: Sums, part: int, step: int, grows: int, minimum_calls: int) -> int | None:
    """The first step n >= 1 after which 100 * part >= percent * calls, with at least `minimum_calls`; or None.

    After n steps `part` has moved by n * step and the calls by n * grows, so the comparison is linear in n.
    """
    first = 1
    if sums.calls + grows < minimum_calls:
        if not grows:
            return None
        first = minimum_calls - sums.calls
    start, slope = 100 * part - percent * sums.calls, 100 * step - percent * grows
    if start + slope * first >= 0:
        return first
    return -(start // slope) if slope > 0 else None


def _has_streak_quorum(breaker: Breaker, client: str, reporter: Reporter) -> bool:
    """Enough distinct clients have seen a bad outcome of the present streak."""
    if breaker.policy.min_reporters <= 1:
        return True
    known = [*_others(breaker, client), reporter]
    return sum(r.bad_ms > 0 and r.streak_id == breaker.streak_id for r in known) >= breaker.policy.min_reporters


def _has_rate_quorum(policy: Policy, now_ms: int, seen_ms: list[int]) -> bool:
    """Enough distinct clients have seen what the rate counts within the window's time; `seen_ms`: each one's last.

    What lies ahead of now comes from a clock that has jumped back and does not count, as in the window.
    """
    if policy.min_reporters <= 1:
        return True
    since_ms = now_ms - (policy.window_ms or COUNT_QUORUM_MS)
    return sum(since_ms < at_ms <= now_ms for at_ms in seen_ms) >= policy.min_reporters


def _others(breaker: Breaker, client: str) -> list[Reporter]:
    return [reporter for name, reporter in breaker.reporters.items() if name != client]
