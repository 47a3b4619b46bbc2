"""`status` as it should read, from a resource, a snapshot and a plan. Pure: equal inputs, equal bytes.

What moves with every call (totals, streak, reporters) is told apart from what a person waits for: counters alone are
worth a write only now and then, everything else at once. No message holds a clock, so that a status that says the same
is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Final

from circuitbreaker_contract.state import Shadow, Snapshot, State, Transition
from circuitbreaker_operator import times
from circuitbreaker_operator.plan import Plan, own
from circuitbreaker_operator.resource import CATCH_UP, Resource
from circuitbreaker_operator.wording import because, plain, policy_map

TRANSITIONS_SHOWN: Final = 5
UNAVAILABLE_AFTER_SECONDS: Final = 60.0  # a restart of Redis is no news
_COUNTERS = frozenset({"consecutiveFailures", "totals", "reporters", "window"})
_SOMETIMES = frozenset({"forced", "openUntil", "shadow", "lastReset", CATCH_UP})  # gone when they do not hold


class Change(Enum):
    """How much one status differs from another."""

    NOTHING = auto()
    COUNTERS = auto()  # only numbers that every call moves
    SHOWN = auto()


def build(
    resource: Resource, snapshot: Snapshot | None, decided: Plan, *, owner: str, previous: Mapping[str, Any]
) -> dict[str, Any]:
    """The status to show. `previous` is the one that is shown now, {} for none; needs a clock in neither.

    Conditions come without lastTransitionTime: `stamped` adds it.
    """
    mine = own(resource, snapshot, owner=owner)
    status = {name: value for name, value in previous.items() if name != "conditions"}
    if mine is not None:
        status = {name: value for name, value in status.items() if name not in _SOMETIMES} | _facts(mine, previous)
    decides = decided.in_force or decided.rejected is not None
    if decides or "observedGeneration" not in status:
        status["observedGeneration"] = resource.generation
    before = _by_type(previous)
    ready = (
        _ready(decided, resource, mine) if decides else before.get("Ready") or _condition("Ready", "Unknown", "Pending")
    )
    status["conditions"] = [
        {**condition, "observedGeneration": resource.generation if decides else status["observedGeneration"]}
        for condition in (ready, _healthy(mine, before), _quorum(mine))
    ]
    return status


def unavailable(resource: Resource, previous: Mapping[str, Any]) -> dict[str, Any]:
    """The status of a breaker that waits for Redis: what it last said, with Ready Unknown."""
    before = _by_type(previous)
    ready = _condition("Ready", "Unknown", "StoreUnavailable", "Redis does not answer; the spec waits to be applied")
    kept = [before[kind] for kind in ("Healthy", "QuorumReachable") if kind in before]
    conditions = [{**ready, "observedGeneration": resource.generation}, *kept]
    return {"observedGeneration": resource.generation, **previous, "conditions": conditions}


def has_something_to_apply(resource: Resource, status: Mapping[str, Any], *, last_reset: str) -> bool:
    """Whether the spec, as far as the status tells, is not in force yet. `last_reset` is the annotation's token."""
    ready = _by_type(status).get("Ready", {})
    settled = ready.get("status") in {"True", "False"} and ready.get("observedGeneration") == resource.generation
    return not settled or (last_reset != "" and last_reset != status.get("lastReset", ""))


def stamped(status: Mapping[str, Any], previous: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """The status with lastTransitionTime: now where the condition's status changed, else what it was."""
    before = _by_type(previous)
    conditions = []
    for condition in status["conditions"]:
        old = before.get(condition["type"], {})
        same = old.get("status") == condition["status"] and "lastTransitionTime" in old
        since = old["lastTransitionTime"] if same else times.to_seconds_text(now_ms)
        conditions.append({**condition, "lastTransitionTime": since})
    return {**status, "conditions": conditions}


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Change:
    """How much `new` says that `old` does not."""
    if old == new:
        return Change.NOTHING
    return Change.COUNTERS if _without_counters(old) == _without_counters(new) else Change.SHOWN


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON merge patch (RFC 7386) from `old` to `new`; None when there is nothing to change."""
    patch: dict[str, Any] = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif name not in old or before != value:
            patch[name] = value
    return patch or None


def trips(snapshot: Snapshot) -> int:
    """How often the breaker opened in this incarnation; one that is Open already does not open."""
    totals = snapshot.transition_totals.items()
    return sum(count for (before, state, _), count in totals if state is State.OPEN and before is not State.OPEN)


def last_entry(mine: Snapshot) -> Transition:
    """The transition that led to the present state: of the history, or as far as the snapshot itself tells."""
    if mine.history and (mine.history[-1].incarnation, mine.history[-1].generation) == mine.order[:2]:
        return mine.history[-1]
    return Transition(
        previous=None,
        state=mine.state,
        at_ms=mine.since_ms,
        reason=mine.reason,
        incarnation=mine.order.incarnation,
        generation=mine.order.generation,
        attempt=mine.attempt,
        consecutive_failures=mine.consecutive_failures,
        open_until_ms=mine.open_until_ms,
        window=mine.window,
        forced=mine.forced,
    )


def _facts(mine: Snapshot, previous: Mapping[str, Any]) -> dict[str, Any]:
    totals = mine.totals
    facts: dict[str, Any] = {
        "state": mine.state.value,
        "since": times.to_text(mine.since_ms),
        "reason": mine.reason.value,
        "message": _message(mine, previous),
        "incarnation": mine.order.incarnation,
        "stateGeneration": mine.order.generation,
        "attempt": mine.attempt,
        "consecutiveFailures": mine.consecutive_failures,
        "totals": {
            "successes": totals.successes,
            "failures": totals.failures,
            "slow": totals.slow,
            "ignored": totals.ignored,
            "notPermitted": totals.not_permitted,
            "late": totals.late,
        },
        "window": _window(mine),
        "reporters": mine.reporters,
        "trips": trips(mine),
        "transitions": _transitions(mine.history, previous.get("transitions") or []),
        "policy": policy_map(mine.policy, forced=mine.forced is not None),
    }
    if mine.forced is not None:
        facts["forced"] = True
    if mine.state is State.OPEN and mine.open_until_ms is not None:
        facts["openUntil"] = times.to_text(mine.open_until_ms)
    if mine.shadow is not None:
        facts["shadow"] = _shadow(mine.shadow)
    if mine.last_reset:
        facts["lastReset"] = mine.last_reset
    return facts


def _window(mine: Snapshot) -> dict[str, Any]:
    window, policy = mine.window, mine.policy
    shown: dict[str, Any] = {"calls": window.calls, "failures": window.failures, "slow": window.slow}
    rates = {"failureRatePercent": window.failure_rate_percent(policy.minimum_calls)}
    if policy.counts_slow:
        rates["slowCallRatePercent"] = window.slow_call_rate_percent(policy.minimum_calls)
    return shown | {name: _rounded(rate) for name, rate in rates.items() if rate is not None}


def _rounded(rate: float) -> float | int:
    """To one decimal. A whole one is an int, which is what the API server makes of 50.0."""
    shown = round(rate, 1)
    return int(shown) if shown.is_integer() else shown


def _shadow(shadow: Shadow) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "state": shadow.state.value,
        "since": times.to_text(shadow.since_ms),
        "attempt": shadow.attempt,
        "wouldHaveOpened": shadow.opened,
        "notPermitted": shadow.not_permitted,
    }
    if shadow.open_until_ms is not None:
        shown["openUntil"] = times.to_text(shadow.open_until_ms)
    return shown


def _message(mine: Snapshot, previous: Mapping[str, Any]) -> str:
    entry = last_entry(mine)
    if mine.forced is not None:
        # Its reason may be edited without a transition; nothing else in such a message comes from the policy.
        override = mine.policy.override
        note = override.reason if override is not None else entry.note
        return because(replace(entry, forced=mine.forced, note=note), mine.policy)
    same = (previous.get("incarnation"), previous.get("stateGeneration"), previous.get("reason"))
    if same == (mine.order.incarnation, mine.order.generation, mine.reason.value) and previous.get("message"):
        return str(previous["message"])  # said with the policy of that time
    return because(entry, mine.policy)


def _transitions(history: Sequence[Transition], shown: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The newest five. Those of an earlier incarnation stay while there is room: generations go on after a restore."""
    entries: list[dict[str, Any]] = [
        {
            "from": entry.previous.value if entry.previous is not None else "",
            "to": entry.state.value,
            "at": times.to_text(entry.at_ms),
            "reason": entry.reason.value,
            "stateGeneration": entry.generation,
        }
        for entry in history[-TRANSITIONS_SHOWN:]
    ]
    first = entries[0]["stateGeneration"] if entries else 0
    earlier = [dict(entry) for entry in shown if entry.get("stateGeneration", first) < first]
    return (earlier + entries)[-TRANSITIONS_SHOWN:]


def _condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": plain(message, 1_024)}


def _ready(decided: Plan, resource: Resource, mine: Snapshot | None) -> dict[str, Any]:
    if decided.rejected is not None:
        return _condition("Ready", "False", decided.rejected.reason, decided.rejected.message)
    text = f"generation {resource.generation} is in force in Redis"
    if mine is not None and mine.policy.override is not None and mine.forced is None:
        text = f"{text}; spec.override has no effect, since its until is past"
    return _condition("Ready", "True", "PolicyInForce", text)


def _healthy(mine: Snapshot | None, before: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    if mine is None:
        kept = before.get("Healthy")
        return (
            dict(kept) if kept else _condition("Healthy", "Unknown", "NotDefined", "there is no such breaker in Redis")
        )
    match mine.state:
        case State.CLOSED:
            return _condition("Healthy", "True", "Closed", "calls are permitted")
        case State.OPEN:
            return _condition("Healthy", "False", "Open", "calls are not permitted")
        case State.HALF_OPEN:
            return _condition("Healthy", "False", "HalfOpen", "only probes are permitted")


def _quorum(mine: Snapshot | None) -> dict[str, Any]:
    """With nobody reporting there is nothing wrong: an idle breaker does not look broken, it is Unknown."""
    if mine is None or mine.reporters == 0:
        return _condition("QuorumReachable", "Unknown", "NoReporters", "no client process reported within a minute")
    needed = mine.policy.min_reporters
    if mine.reporters < needed:
        text = f"fewer client processes report than quorum.minReporters {needed}, so failures cannot open the breaker"
        return _condition("QuorumReachable", "False", "TooFewReporters", text)
    text = f"at least {needed} client {'process reports' if needed == 1 else 'processes report'}, as many as are needed"
    return _condition("QuorumReachable", "True", "QuorumReachable", text)


def _by_type(status: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {condition["type"]: condition for condition in status.get("conditions") or []}


def _without_counters(status: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in status.items() if name not in _COUNTERS and name != "conditions"}
    if isinstance(kept.get("shadow"), Mapping):
        kept["shadow"] = {name: value for name, value in kept["shadow"].items() if name != "notPermitted"}
    kept["conditions"] = [each for each in status.get("conditions") or [] if each.get("type") != "QuorumReachable"]
    return kept
