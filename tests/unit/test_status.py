"""How a status reads, what of it is worth a write, and what the write says."""

from typing import Any

import pytest
from tests.unit.breakers import (
    CREATED,
    INCARNATION,
    NOW,
    OPENED,
    OWNER,
    POLICY,
    a_resource,
    a_snapshot,
    an_open_snapshot,
)

from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Order, Reason, State, Totals
from circuitbreaker_operator import status
from circuitbreaker_operator.plan import Plan, Rejected
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.status import Change

IN_FORCE = Plan(policy=POLICY)


def shown(
    snapshot: Any, decided: Plan = IN_FORCE, previous: dict[str, Any] | None = None, resource: Resource | None = None
) -> dict[str, Any]:
    before = previous or {}
    built = status.build(resource or a_resource(), snapshot, decided, owner=OWNER, previous=before)
    return status.stamped(built, before, NOW)


def condition(of: dict[str, Any], kind: str) -> tuple[str, str]:
    (found,) = [each for each in of["conditions"] if each["type"] == kind]
    return found["status"], found["reason"]


def test_an_open_breaker() -> None:
    """The whole status, field by field as the schema has it."""
    assert shown(an_open_snapshot()) == {
        "observedGeneration": 1,
        "state": "Open",
        "since": "2027-01-15T08:00:02.000Z",
        "reason": "ConsecutiveFailures",
        "message": "5 consecutive failures reached failureThreshold 5",
        "incarnation": INCARNATION,
        "stateGeneration": 2,
        "openUntil": "2027-01-15T08:00:32.000Z",
        "attempt": 1,
        "consecutiveFailures": 5,
        "totals": {"successes": 0, "failures": 5, "slow": 0, "ignored": 0, "notPermitted": 0, "late": 0},
        "reporters": 1,
        "trips": 1,
        "transitions": [
            {
                "from": "",
                "to": "Closed",
                "at": "2027-01-15T08:00:01.000Z",
                "reason": "Created",
                "stateGeneration": 1,
            },
            {
                "from": "Closed",
                "to": "Open",
                "at": "2027-01-15T08:00:02.000Z",
                "reason": "ConsecutiveFailures",
                "stateGeneration": 2,
            },
        ],
        "policy": {
            "failureThreshold": 5,
            "recoveryTimeout": "30s",
            "halfOpenLimit": 3,
            "successThreshold": 3,
            "probeTimeout": "30s",
            "mode": "Enforce",
        },
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "PolicyInForce",
                "message": "generation 1 is in force in Redis",
                "observedGeneration": 1,
                "lastTransitionTime": "2027-01-15T08:01:00Z",
            },
            {
                "type": "Healthy",
                "status": "False",
                "reason": "Open",
                "message": "calls are not permitted",
                "observedGeneration": 1,
                "lastTransitionTime": "2027-01-15T08:01:00Z",
            },
            {
                "type": "QuorumReachable",
                "status": "True",
                "reason": "QuorumReachable",
                "message": "at least 1 client process reports, which is all that is needed",
                "observedGeneration": 1,
                "lastTransitionTime": "2027-01-15T08:01:00Z",
            },
        ],
    }


def test_an_idle_breaker_does_not_look_broken() -> None:
    """Nobody reports: that is unknown, not wrong."""
    idle = shown(a_snapshot())
    assert [condition(idle, kind) for kind in ("Ready", "Healthy", "QuorumReachable")] == [
        ("True", "PolicyInForce"),
        ("True", "Closed"),
        ("Unknown", "NoReporters"),
    ]


def test_open_until_goes_with_open() -> None:
    """A field that no longer holds is gone, and the patch says null."""
    was = shown(an_open_snapshot())
    now = shown(a_snapshot(order=Order(INCARNATION, 3, 1)), previous=was)
    assert "openUntil" not in now
    patch = status.merge_patch(was, now)
    assert patch is not None
    assert patch["openUntil"] is None


def test_conditions_keep_their_time_while_their_status_is_the_same() -> None:
    """Another reason is no transition; another status is."""
    was = shown(an_open_snapshot())
    was["conditions"][1]["lastTransitionTime"] = was["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    half_open = an_open_snapshot(state=State.HALF_OPEN, order=Order(INCARNATION, 3, 1), open_until_ms=None)
    now = shown(half_open, previous=was)
    assert condition(now, "Healthy") == ("False", "HalfOpen")
    assert now["conditions"][1]["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    closed = shown(a_snapshot(), previous=now)
    assert closed["conditions"][1]["lastTransitionTime"] == "2027-01-15T08:01:00Z"


def test_a_message_tells_of_the_policy_of_its_time() -> None:
    """A later edit does not rewrite why the breaker opened."""
    was = shown(an_open_snapshot())
    edited = an_open_snapshot(policy=Policy(9, 30_000, 3, 3, 30_000))
    assert shown(edited, previous=was)["message"] == "5 consecutive failures reached failureThreshold 5"
    assert shown(edited)["message"] == "5 consecutive failures"


def test_transitions_of_before_a_restore_stay_while_there_is_room() -> None:
    """Redis emptied: generations go on, so what happened before is still in order."""
    was = shown(an_open_snapshot())
    restored = CREATED.__class__(
        previous=None,
        state=State.OPEN,
        at_ms=NOW,
        reason=Reason.RESTORED,
        incarnation=NOW,
        generation=3,
        attempt=1,
        consecutive_failures=0,
        open_until_ms=NOW + 1,
    )
    now = shown(an_open_snapshot(order=Order(NOW, 3, 1), history=(restored,)), previous=was)
    assert [entry["stateGeneration"] for entry in now["transitions"]] == [1, 2, 3]


def test_a_rejected_spec_keeps_what_is_known() -> None:
    """The state goes on being shown; Ready says what is wrong, and with which generation."""
    was = shown(an_open_snapshot())
    refused = Plan(rejected=Rejected("InvalidSpec", "spec.x: is wrong"))
    now = shown(an_open_snapshot(), refused, was, a_resource(generation=2))
    assert condition(now, "Ready") == ("False", "InvalidSpec")
    assert (now["state"], now["observedGeneration"], now["conditions"][0]["observedGeneration"]) == ("Open", 2, 2)


def test_a_breaker_that_never_was_has_no_state() -> None:
    """Rejected at first sight."""
    never = shown(None, Plan(rejected=Rejected("NotSupported", "no")))
    assert "state" not in never
    assert [condition(never, kind)[0] for kind in ("Ready", "Healthy", "QuorumReachable")] == [
        "False",
        "Unknown",
        "Unknown",
    ]


def test_another_installations_breaker_is_not_shown_as_ours() -> None:
    """Its state is none of ours; what we last knew stays."""
    was = shown(a_snapshot())
    theirs = an_open_snapshot(owner="cluster-2")
    now = shown(theirs, Plan(rejected=Rejected("StoreConflict", "belongs to cluster-2")), was)
    assert (now["state"], condition(now, "Ready")) == ("Closed", ("False", "StoreConflict"))


DIFFERENCES = {
    "the same": ({}, Change.NOTHING),
    "calls were counted": ({"totals": Totals(failures=5, not_permitted=9)}, Change.COUNTERS),
    "the streak moved": ({"consecutive_failures": 4}, Change.COUNTERS),
    "the last reporter left": ({"reporters": 0}, Change.COUNTERS),
    "a transition": ({"state": State.HALF_OPEN, "open_until_ms": None}, Change.SHOWN),
    "a reset": ({"last_reset": "one"}, Change.SHOWN),
    "a policy": ({"policy": Policy(6, 30_000, 3, 3, 30_000)}, Change.SHOWN),
}


@pytest.mark.parametrize(("changed", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_what_a_change_is_worth(changed: dict[str, Any], expected: Change) -> None:
    """Counters move with every call and wait for the refresh; all else shows at once."""
    was = shown(an_open_snapshot())
    assert status.compare(was, shown(an_open_snapshot(**changed), previous=was)) is expected


def test_equal_inputs_make_equal_statuses() -> None:
    """Built again from itself, a status does not change: no endless writes."""
    was = shown(an_open_snapshot())
    assert shown(an_open_snapshot(now_ms=NOW + 3_600_000), previous=was) == was
    assert status.merge_patch(was, was) is None


PATCHES = {
    "a new field": ({}, {"a": 1}, {"a": 1}),
    "a changed field": ({"a": 1, "b": 2}, {"a": 3, "b": 2}, {"a": 3}),
    "a field that goes": ({"a": 1}, {}, {"a": None}),
    "inside an object": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}, {"a": {"c": None, "d": 3}}),
    "a list is replaced as a whole": ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 3]}),
    "an object in the place of a number": ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "nothing": ({"a": {"b": [1]}}, {"a": {"b": [1]}}, None),
}


@pytest.mark.parametrize(("old", "new", "patch"), PATCHES.values(), ids=PATCHES)
def test_merge_patch(old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any] | None) -> None:
    """RFC 7386: what is not named stays, null removes."""
    assert status.merge_patch(old, new) == patch


def test_an_outage_is_shown_only_where_something_waits() -> None:
    """A breaker whose spec is in force loses nothing while Redis is away."""
    fine = shown(a_snapshot())
    assert not status.has_something_to_apply(a_resource(), fine, last_reset="")
    assert status.has_something_to_apply(a_resource(generation=2), fine, last_reset="")
    assert status.has_something_to_apply(a_resource(), fine, last_reset="one")
    assert status.has_something_to_apply(a_resource(), {}, last_reset="")


def test_an_outage_keeps_what_is_known() -> None:
    """Ready is Unknown, the rest is what it last was."""
    fine = shown(a_snapshot())
    waiting = status.unavailable(a_resource(generation=2), fine)
    assert condition(waiting, "Ready") == ("Unknown", "StoreUnavailable")
    assert (waiting["state"], condition(waiting, "Healthy")) == ("Closed", ("True", "Closed"))


def test_trips_are_openings() -> None:
    """From the totals in Redis, so a restart of the operator forgets none."""
    totals = {
        (State.CLOSED, State.OPEN, Reason.CONSECUTIVE_FAILURES): 2,
        (State.HALF_OPEN, State.OPEN, Reason.PROBE_FAILED): 3,
        (State.OPEN, State.HALF_OPEN, Reason.RECOVERY_TIMEOUT_ELAPSED): 5,
    }
    assert status.trips(an_open_snapshot(transition_totals=totals)) == 5
    assert OPENED.state is State.OPEN
