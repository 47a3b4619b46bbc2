"""Which Events follow from a snapshot, and that saying them twice is saying them once."""

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.breakers import (
    CREATED,
    HALF_OPENED,
    INCARNATION,
    NOW,
    OPENED,
    OWNER,
    POLICY,
    UID,
    a_resource,
    a_snapshot,
    a_transition,
    an_open_snapshot,
)

from circuitbreaker_contract.state import Order, Reason, State
from circuitbreaker_operator import events
from circuitbreaker_operator.plan import Plan, Rejected
from circuitbreaker_operator.status import policy_map

IN_FORCE = Plan(policy=POLICY)
APPLIED = {"policy": policy_map(POLICY)}
STEM = f"pay.{UID[:8]}.{events.base36(INCARNATION)}"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def told(
    snapshot: Any, previous: dict[str, Any], decided: Plan = IN_FORCE, generation: int = 1
) -> list[tuple[str, str, str]]:
    resource = a_resource(generation=generation)
    found = events.due(resource, snapshot, decided, owner=OWNER, previous=previous, now_ms=NOW)
    assert all(_NAME.fullmatch(event.name) and len(event.name) <= 253 for event in found)
    return [(event.kind, event.reason, event.name) for event in found]


def after(generation: int, incarnation: int = INCARNATION) -> dict[str, Any]:
    return APPLIED | {"incarnation": incarnation, "stateGeneration": generation}


STORIES = {
    "a new breaker says its policy": (a_snapshot(), {}, [("Normal", "PolicyApplied", f"{STEM}.r1")]),
    "nothing new, nothing said": (a_snapshot(), after(1), []),
    "it opened": (an_open_snapshot(), after(1), [("Warning", "CircuitOpened", f"{STEM}.2")]),
    "it opened and went on while nobody looked": (
        an_open_snapshot(history=(CREATED, OPENED, HALF_OPENED)),
        after(1),
        [("Warning", "CircuitOpened", f"{STEM}.2"), ("Normal", "CircuitHalfOpen", f"{STEM}.3")],
    ),
    "it was closed by a person": (
        a_snapshot(history=(a_transition(State.CLOSED, 4, Reason.RESET, previous=State.OPEN),)),
        after(3),
        [("Normal", "CircuitReset", f"{STEM}.4")],
    ),
    "its probes succeeded": (
        a_snapshot(history=(a_transition(State.CLOSED, 4, Reason.PROBES_SUCCEEDED, previous=State.HALF_OPEN),)),
        after(3),
        [("Normal", "CircuitClosed", f"{STEM}.4")],
    ),
    "it was made again": (
        an_open_snapshot(history=(replace(OPENED, previous=None, reason=Reason.RESTORED, generation=3),)),
        after(2, INCARNATION - 5),
        [("Normal", "CircuitRestored", f"{STEM}.3")],
    ),
    "the history does not reach back": (
        an_open_snapshot(history=(replace(HALF_OPENED, generation=300),)),
        after(20),
        [("Normal", "TransitionsSkipped", f"{STEM}.299.skipped"), ("Normal", "CircuitHalfOpen", f"{STEM}.300")],
    ),
    "an edit was applied": (
        a_snapshot(order=Order(INCARNATION, 1, 4)),
        after(1) | {"policy": policy_map(POLICY) | {"failureThreshold": 9}},
        [("Normal", "PolicyApplied", f"{STEM}.r4")],
    ),
    "another installation's breaker": (an_open_snapshot(owner="cluster-2"), {}, []),
}


@pytest.mark.parametrize(("snapshot", "previous", "expected"), STORIES.values(), ids=STORIES)
def test_events(snapshot: Any, previous: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    """Each transition after the last one that the status tells of, oldest first."""
    assert told(snapshot, previous) == expected


def test_skipped_transitions_are_counted() -> None:
    """Past the limit they are one Event with a number."""
    history = tuple(
        a_transition(State.OPEN, generation, Reason.PROBE_FAILED) for generation in range(100, 100 + events.LIMIT + 5)
    )
    found = events.due(a_resource(), a_snapshot(history=history), IN_FORCE, owner=OWNER, previous=after(89), now_ms=NOW)
    assert len(found) == events.LIMIT + 1
    assert found[0].message.startswith("15 earlier transitions")


def test_a_rejected_spec_is_said_once_a_generation() -> None:
    """The status remembers what was said."""
    refused = Plan(rejected=Rejected("NotSupported", "no backoff"))
    name = f"pay.{UID[:8]}.g2.notsupported"
    assert told(a_snapshot(), after(1), refused, 2) == [("Warning", "PolicyRejected", name)]
    ready = {"type": "Ready", "status": "False", "reason": "NotSupported", "observedGeneration": 2}
    assert told(a_snapshot(), after(1) | {"conditions": [ready]}, refused, 2) == []
    assert told(a_snapshot(), after(1) | {"conditions": [ready]}, refused, 3) != []


@pytest.mark.parametrize(
    ("history", "previous", "expected"),
    [
        ((CREATED, OPENED), {}, True),
        ((OPENED,), after(1), True),
        ((OPENED,), after(2), True),
        ((OPENED,), {}, False),
        ((HALF_OPENED,), after(1), False),
        ((HALF_OPENED,), after(3, INCARNATION - 1), False),
    ],
)
def test_reaches_back(history: Any, previous: dict[str, Any], expected: bool) -> None:
    """Whether more history has to be asked for before Events are told."""
    assert events.reaches_back(an_open_snapshot(history=history), previous) is expected


def test_the_object_of_an_event() -> None:
    """What `kubectl describe` needs to find it, and the time of what it tells."""
    (event,) = events.due(a_resource(), an_open_snapshot(), IN_FORCE, owner=OWNER, previous=after(1), now_ms=NOW)
    body = event.body(instance="pod-1")
    assert body["involvedObject"]["uid"] == UID
    assert body["metadata"] == {"name": f"{STEM}.2", "namespace": "shop"}
    assert (body["firstTimestamp"], body["lastTimestamp"]) == ("2027-01-15T08:00:02Z", "2027-01-15T08:00:02Z")
    assert body["message"] == ("5 consecutive failures reached failureThreshold 5; calls are not permitted for 30s")


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (35, "z"), (36, "10"), (INCARNATION, "mywg5b7k")])
def test_base36(number: int, text: str) -> None:
    """As short as a name can have it; `int` reads it back."""
    assert int(events.base36(number), 36) == number
    assert len(events.base36(number)) == len(text)
