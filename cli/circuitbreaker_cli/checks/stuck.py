"""Breakers that stay where they should not: from the resource, the time and, where it was asked, what Redis has. Pure.

The lengths are those of the alerts in manifests/components/monitoring, and of what an operator takes at most to act.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from circuitbreaker_cli.breakers.view import View, instant
from circuitbreaker_cli.checks.findings import Finding, Verdict, grouped
from circuitbreaker_cli.words import length, safe
from circuitbreaker_contract.state import Snapshot, State

CHECK: Final = "breakers"
NOT_IN_REDIS: Final = "CBUNKNOWN"
_ACTS_WITHIN_MS: Final = 10_000  # an operator that runs shows a transition in the status
_PUT_IN_FORCE_MS: Final = 30_000
_HALF_OPEN_MS: Final = 900_000
_FORGOTTEN_MS: Final = 86_400_000
_OPERATOR: Final = "see the checks of the operator above; it must serve this namespace (CB_NAMESPACES)"
# Reasons of Ready that are not True, and the way out.
_REMEDIES: Final = {
    "InvalidSpec": "mend the field that the message names: kubectl breaker explain NAME",
    "StoreConflict": "the message says why: Redis is full (give it room), another's (CB_KEY_PREFIX), or damaged keys",
    "StoreUnavailable": "the operator cannot reach Redis: its log says why",
}

Seen = Snapshot | str  # what Redis said: a snapshot, or why there is none


def examined(views: Iterable[View], now_ms: int, seen: Mapping[str, Seen] | None) -> list[Finding]:
    """What is wrong with any of them; one finding when nothing is. `seen`: by full name; None: Redis was not asked."""
    every = list(views)
    found = grouped(each for view in every for each in _of(view, now_ms, seen))
    if found:
        return found
    beside = " and statuses agree with Redis" if seen is not None else ""
    many = "there are none" if not every else f"{len(every)}, none is stuck{beside}"
    return [Finding(CHECK, Verdict.OK, many)]


def _of(view: View, now_ms: int, seen: Mapping[str, Seen] | None) -> Iterator[Finding]:
    if not view.state:
        if view.condition("Ready")[0]:  # never in force, and an operator says why
            yield from _not_ready(view)
        elif view.created_ms is not None and now_ms - view.created_ms > _PUT_IN_FORCE_MS:
            yield _said(
                view, Verdict.PROBLEM, "no operator has put it in force", _OPERATOR, _ago(view.created_ms, now_ms)
            )
        return
    yield from _not_ready(view)
    yield from _held(view, now_ms)
    found = (seen or {}).get(view.full_name)
    if not view.forced:
        yield from _waiting(view, now_ms, found)
    if found is not None:
        yield from _beside_redis(view, found)


def _not_ready(view: View) -> Iterator[Finding]:
    status, reason, message = view.condition("Ready")
    if status and status != "True":
        verdict = Verdict.PROBLEM if status == "False" else Verdict.WARNING
        remedy = _REMEDIES.get(reason, "kubectl breaker explain NAME tells more")
        yield _said(view, verdict, f"Ready is {status}, {reason}", remedy, message)
    elif view.number("observedGeneration") < view.generation:
        numbers = f"generation {view.generation}, status of {view.number('observedGeneration')}"
        yield _said(view, Verdict.WARNING, "its last edit is not in force", f"if it stays so: {_OPERATOR}", numbers)


def _held(view: View, now_ms: int) -> Iterator[Finding]:
    until_ms = instant(view.override, "until")
    release = "kubectl breaker release NAME"
    if view.override and not view.forced and until_ms is not None and until_ms < now_ms:
        yield _said(view, Verdict.WARNING, "spec.override is over and still there", release, _ago(until_ms, now_ms))
    elif view.forced and until_ms is not None and until_ms < now_ms - _ACTS_WITHIN_MS:
        yield _said(view, Verdict.PROBLEM, "held, although its override is over", _OPERATOR, _ago(until_ms, now_ms))
    elif view.forced and until_ms is None and view.since_ms is not None and now_ms - view.since_ms > _FORGOTTEN_MS:
        text = f"held {view.state} for more than a day, without an end"
        yield _said(
            view, Verdict.WARNING, text, f"{release}, or give it an end", safe(view.override.get("reason", ""), 80)
        )


def _waiting(view: View, now_ms: int, seen: Seen | None) -> Iterator[Finding]:
    until_ms, since_ms = view.open_until_ms, view.since_ms
    if view.state == State.OPEN and until_ms is not None and until_ms < now_ms - _ACTS_WITHIN_MS:
        text = "Open, and past the time for probes"
        yield _said(view, Verdict.PROBLEM, text, f"the next call is a probe; {_OPERATOR}", _ago(until_ms, now_ms))
    if view.state == State.HALF_OPEN and since_ms is not None and now_ms - since_ms > _HALF_OPEN_MS:
        text = "HalfOpen for more than 15 minutes: too few probes come"
        remedy = "are there callers, and do they settle their permits? docs/runbooks/CircuitBreakerHalfOpenStuck.md"
        probes = ""
        if isinstance(seen, Snapshot):
            probes = f"; {seen.probes_live} probes in flight, {seen.probe_successes} have succeeded"
        yield _said(view, Verdict.WARNING, text, remedy, f"{_ago(since_ms, now_ms)}{probes}")


def _beside_redis(view: View, seen: Seen) -> Iterator[Finding]:
    if isinstance(seen, str):
        missing = seen.startswith(NOT_IN_REDIS)
        text = "not in Redis, so clients decide alone" if missing else "cannot be read in Redis"
        remedy = "an operator makes it again: is it another Redis than the operator's?" if missing else _OPERATOR
        yield _said(view, Verdict.PROBLEM, text, remedy, "" if missing else safe(seen, 200))
        return
    if seen.uid != view.uid:
        yield _said(
            view, Verdict.PROBLEM, "Redis has another breaker of this name", _OPERATOR, f"uid {safe(seen.uid, 64)}"
        )
        return
    shown = view.state, view.number("incarnation"), view.number("stateGeneration")
    settled = seen.since_ms < seen.now_ms - _ACTS_WITHIN_MS  # a younger transition may be on its way
    if settled and shown != (seen.state.value, *seen.order[:2]):
        detail = f"status {view.state}, Redis {seen.state.value}"
        yield _said(view, Verdict.PROBLEM, "its status tells another story than Redis", _OPERATOR, detail)


def _said(view: View, verdict: Verdict, text: str, remedy: str, detail: str) -> Finding:
    named = f"{view.full_name} ({detail})" if detail else view.full_name
    return Finding(CHECK, verdict, text, remedy, (named,))


def _ago(ms: int, now_ms: int) -> str:
    return f"{length(now_ms - ms)} ago"
