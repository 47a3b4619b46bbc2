"""What the page shows of a breaker: one row of the list, and the whole of it. Pure.

A row is a list, since ten thousand of them go over the wire at once; COLUMNS names its places. Texts that others wrote
are in one printable line, as wherever they are shown; the page puts them in as text besides.
"""

from array import array
from collections.abc import Iterable, Mapping
from typing import Any, Final

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.policy import Mode
from circuitbreaker_contract.state import Snapshot, State, Transition
from circuitbreaker_operator import times
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.status import last_entry, trips
from circuitbreaker_operator.wording import LONGEST_REASON, because, plain, policy_map

COLUMNS: Final = (
    *("namespace", "name", "state", "sinceMs", "reason", "openUntilMs", "failureRatePercent", "slowCallRatePercent"),
    *("consecutiveFailures", "notPermitted", "trips", "mode", "forced", "notReady", "past"),
)
PAST_MS: Final = 3_600_000  # the timeline
MOST_OF_ONE: Final = 64  # transitions of the last hour that are kept of one breaker; the newest
_CODES: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2, None: 3}
_NAMES: Final = {code: state.value if state else "" for state, code in _CODES.items()}
_WORD: Final = 64  # characters of what should be one word


class Past:
    """The last hour of every breaker that changed in it: a transition is one number, its time and its two states."""

    def __init__(self) -> None:
        self._of: dict[BreakerKey, array[int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def learn(self, key: BreakerKey, history: Iterable[Transition], now_ms: int) -> None:
        """Takes what is new of a history; forgets what is older than an hour."""
        # In the order of the history: several may happen in one millisecond.
        told = [_packed(each) for each in history if now_ms - PAST_MS <= each.at_ms <= now_ms]
        known = self._of.get(key)
        if known is None and not told:
            return
        kept = [each for each in known or () if each >> 4 >= now_ms - PAST_MS]
        if told:
            begin, end = told[0] >> 4, told[-1] >> 4
            older = [each for each in kept if each >> 4 < begin or (each >> 4 == begin and each not in told)]
            kept = older + told + [each for each in kept if each >> 4 > end]
        if kept:
            self._of[key] = array("q", kept[-MOST_OF_ONE:])
        else:
            self._of.pop(key, None)

    def of(self, key: BreakerKey) -> list[Any]:
        """`[state before, time in ms, state, time in ms, state, ...]`, oldest first; empty when nothing changed."""
        entries = self._of.get(key)
        if not entries:
            return []
        told: list[Any] = [_NAMES[entries[0] >> 2 & 3]]
        for each in entries:
            told += (each >> 4, _NAMES[each & 3])
        return told

    def drop(self, key: BreakerKey) -> None:
        self._of.pop(key, None)


def _packed(entry: Transition) -> int:
    return entry.at_ms << 4 | _CODES[entry.previous] << 2 | _CODES[entry.state]


def row(resource: Resource, seen: Snapshot | None, past: list[Any]) -> list[Any]:
    """A breaker in the order of COLUMNS; state is "" while nothing is known of it."""
    ready = _condition(resource.status, "Ready")
    not_ready = "" if not ready or ready["status"] == "True" else plain(ready["reason"] or "Unknown", _WORD)
    name: list[Any] = [resource.key.namespace, resource.key.name]
    if seen is None:
        return [*name, "", None, "", None, None, None, 0, 0, 0, "", False, not_ready or "Pending", past]
    policy, window = seen.policy, seen.window
    slow = window.slow_call_rate_percent(policy.minimum_calls) if policy.counts_slow else None
    return [
        *name,
        seen.state.value,
        seen.since_ms,
        seen.reason.value,
        seen.open_until_ms if seen.state is State.OPEN else None,
        _rounded(window.failure_rate_percent(policy.minimum_calls)),
        _rounded(slow),
        seen.consecutive_failures,
        seen.totals.not_permitted,
        trips(seen),
        policy.mode.value if policy.mode is not Mode.ENFORCE else "",
        seen.forced is not None,
        not_ready,
        past,
    ]


def whole(resource: Resource, seen: Snapshot | None) -> dict[str, Any]:
    """Everything about one breaker. Without a snapshot only what its resource tells."""
    status = resource.status
    told: dict[str, Any] = {
        "namespace": resource.key.namespace,
        "name": resource.key.name,
        "conditions": [each for kind in ("Ready", "Healthy", "QuorumReachable") if (each := _condition(status, kind))],
    }
    if seen is None:
        return told | {"state": ""}
    policy, window, totals, probes = seen.policy, seen.window, seen.totals, seen.probes
    return told | {
        "state": seen.state.value,
        "sinceMs": seen.since_ms,
        "reason": seen.reason.value,
        "message": because(last_entry(seen), policy),
        "openUntilMs": seen.open_until_ms if seen.state is State.OPEN else None,
        "forced": seen.forced is not None,
        "overrideManager": resource.override_manager if seen.forced is not None else "",
        "overrideUntilMs": policy.override.until_ms if policy.override and seen.forced is not None else 0,
        "generation": generation(seen),
        "takenMs": seen.now_ms,
        "policy": policy_map(policy, forced=seen.forced is not None),
        "attempt": seen.attempt,
        "window": {
            "calls": window.calls,
            "failures": window.failures,
            "slow": window.slow,
            "failureRatePercent": _rounded(window.failure_rate_percent(policy.minimum_calls)),
            "slowCallRatePercent": _rounded(window.slow_call_rate_percent(policy.minimum_calls)),
        },
        "counters": {
            "consecutiveFailures": seen.consecutive_failures,
            "successes": totals.successes,
            "failures": totals.failures,
            "slow": totals.slow,
            "ignored": totals.ignored,
            "notPermitted": totals.not_permitted,
            "late": totals.late,
            "trips": trips(seen),
            "reporters": seen.reporters,
        },
        "probes": {
            "inFlight": seen.probes_live,
            "succeededNow": seen.probe_successes,
            "granted": probes.granted,
            "succeeded": probes.succeeded,
            "failed": probes.failed,
            "ignored": probes.ignored,
            "expired": probes.expired,
        },
        "shadow": _shadow(seen),
        "history": [_entry(each, seen) for each in reversed(seen.history)],
    }


def generation(seen: Snapshot) -> str:
    """Changes with each transition: who has this one has its history."""
    return f"{seen.order.incarnation}.{seen.order.generation}.{seen.order.revision}"


def _shadow(seen: Snapshot) -> dict[str, Any] | None:
    shadow = seen.shadow
    if shadow is None:
        return None
    return {"state": shadow.state.value, "wouldHaveOpened": shadow.opened, "notPermitted": shadow.not_permitted}


def _entry(entry: Transition, seen: Snapshot) -> dict[str, Any]:
    return {
        "atMs": entry.at_ms,
        "at": times.to_text(entry.at_ms),
        "from": entry.previous.value if entry.previous is not None else "",
        "to": entry.state.value,
        "reason": entry.reason.value,
        "message": plain(because(entry, seen.policy), 4 * LONGEST_REASON),
    }


def _condition(status: Mapping[str, Any], kind: str) -> dict[str, str]:
    """One condition of a status that anybody with the right may have written; empty when it is not there."""
    for each in status.get("conditions") or []:
        if isinstance(each, Mapping) and each.get("type") == kind:
            return {name: plain(str(each.get(name) or ""), 1_024) for name in ("type", "status", "reason", "message")}
    return {}


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 1)
