"""Events of Kubernetes for what happened to a breaker since the status was last written. Pure.

Names are made from what they tell, so that saying it twice answers 409 and is said once. They are posted before the
status that records the generation: a crash between the two repeats them, and loses none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Reason, Snapshot, State, Transition
from circuitbreaker_operator import times
from circuitbreaker_operator.plan import Plan, own
from circuitbreaker_operator.resource import API_VERSION, KIND, Resource
from circuitbreaker_operator.status import because, policy_map

LIMIT: Final = 32  # transitions told one by one; what went before is one Event with a count
COMPONENT: Final = "circuitbreaker-operator"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Event:
    """One Event to be. `at_ms` is Redis' time of what it tells."""

    key: BreakerKey
    uid: str
    name: str
    kind: Literal["Normal", "Warning"]
    reason: str
    message: str
    at_ms: int

    def body(self, *, instance: str) -> dict[str, Any]:
        """The object for the API; `instance` is the pod or host that reports."""
        at = times.to_seconds_text(self.at_ms)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.key.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": self.key.namespace,
                "name": self.key.name,
                "uid": self.uid,
            },
            "type": self.kind,
            "reason": self.reason,
            "message": self.message[:1024],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": instance,
        }


def handled(status: Mapping[str, Any]) -> tuple[int, int]:
    """(incarnation, generation) of the last transition that the status tells of; zeros for none."""
    pair = status.get("incarnation"), status.get("stateGeneration")
    return pair if isinstance(pair[0], int) and isinstance(pair[1], int) else (0, 0)  # type: ignore[return-value]


def reaches_back(snapshot: Snapshot, status: Mapping[str, Any]) -> bool:
    """Whether the snapshot's history goes back to the last transition that was handled, or to the very first."""
    incarnation, generation = handled(status)
    if not snapshot.history:
        return snapshot.order.generation <= generation and snapshot.order.incarnation == incarnation
    oldest = snapshot.history[0]
    if oldest.previous is None:
        return True
    return oldest.incarnation == incarnation and oldest.generation <= generation + 1


def unhandled(snapshot: Snapshot, status: Mapping[str, Any]) -> list[Transition]:
    """The transitions in the history that the status does not tell of, oldest first."""
    last = handled(status)
    return [each for each in snapshot.history if (each.incarnation, each.generation) > last]


def due(
    resource: Resource,
    snapshot: Snapshot | None,
    decided: Plan,
    *,
    owner: str,
    previous: Mapping[str, Any],
    now_ms: int,
) -> list[Event]:
    """The Events to post before a status that follows from the same arguments is written."""
    mine = own(resource, snapshot, owner=owner)
    found: list[Event] = []
    if mine is not None:
        found += _of_transitions(resource, mine, previous)
        if decided.in_force and policy_map(mine.policy) != previous.get("policy"):
            found.append(_policy_applied(resource, mine))
    if decided.rejected is not None and not _said(previous, resource, decided.rejected.reason):
        reason = decided.rejected.reason
        name = f"{resource.key.name}.{resource.uid[:8]}.g{resource.generation}.{reason.lower()}"
        text = f"{reason}: {decided.rejected.message}"
        found.append(Event(resource.key, resource.uid, name, "Warning", "PolicyRejected", text, now_ms))
    return found


def base36(number: int) -> str:
    """The number in base 36, in lower case as names of objects are."""
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _of_transitions(resource: Resource, mine: Snapshot, previous: Mapping[str, Any]) -> list[Event]:
    new = unhandled(mine, previous)
    told, found = new[-LIMIT:], []
    if not told:
        return []
    skipped = len(new) - len(told)
    if not reaches_back(mine, previous):
        skipped += max(0, mine.history[0].generation - handled(previous)[1] - 1)
    if skipped:
        name = f"{_stem(resource, told[0].incarnation)}.{told[0].generation - 1}.skipped"
        text = f"{skipped} earlier transitions happened while no operator watched, and are not told one by one"
        at_ms = told[0].at_ms
        found.append(Event(resource.key, resource.uid, name, "Normal", "TransitionsSkipped", text, at_ms))
    return found + [event for each in told if (event := _of_transition(resource, mine, each)) is not None]


def _of_transition(resource: Resource, mine: Snapshot, entry: Transition) -> Event | None:
    if entry.reason is Reason.CREATED:
        return None  # PolicyApplied says it
    kind: Literal["Normal", "Warning"] = "Normal"
    text = because(entry.reason, entry.consecutive_failures, mine.policy)
    match entry.reason, entry.state:
        case Reason.RESTORED, _:
            reason, text = "CircuitRestored", f"made again in Redis as {entry.state.value}, from the status"
        case Reason.RESET, _:
            reason = "CircuitReset"
        case _, State.OPEN:
            kind, reason = "Warning", "CircuitOpened"
            if entry.open_until_ms is not None:
                text = (
                    f"{text}; calls are not permitted for {format_duration(max(0, entry.open_until_ms - entry.at_ms))}"
                )
        case _, State.HALF_OPEN:
            reason = "CircuitHalfOpen"
        case _:
            reason = "CircuitClosed"
    name = f"{_stem(resource, entry.incarnation)}.{entry.generation}"
    return Event(resource.key, resource.uid, name, kind, reason, text, entry.at_ms)


def _policy_applied(resource: Resource, mine: Snapshot) -> Event:
    words = ", ".join(f"{name} {value}" for name, value in policy_map(mine.policy).items())
    name = f"{_stem(resource, mine.order.incarnation)}.r{mine.order.revision}"
    return Event(resource.key, resource.uid, name, "Normal", "PolicyApplied", words, mine.now_ms)


def _stem(resource: Resource, incarnation: int) -> str:
    return f"{resource.key.name}.{resource.uid[:8]}.{base36(incarnation)}"


def _said(previous: Mapping[str, Any], resource: Resource, reason: str) -> bool:
    for condition in previous.get("conditions") or []:
        if condition.get("type") == "Ready":
            same = condition.get("reason") == reason and condition.get("observedGeneration") == resource.generation
            return bool(same and condition.get("status") == "False")
    return False
