"""What a resource and a breaker in Redis make the operator write."""

from typing import Any

import pytest
from tests.unit.breakers import OWNER, POLICY, UID, a_resource, a_snapshot

from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Resume, State
from circuitbreaker_operator.plan import Plan, plan, reset_token
from circuitbreaker_operator.settings import Settings

SETTINGS = Settings.load()
SHOWN = {
    "state": "Open",
    "since": "2027-01-15T08:00:02.000Z",
    "openUntil": "2027-01-15T08:00:32.000Z",
    "incarnation": 1_800_000_000_000,
    "stateGeneration": 2,
    "attempt": 1,
    "lastReset": "one",
}
RESUMED = Resume(
    last_reset="one",
    order=(1_800_000_000_000, 2),
    state=State.OPEN,
    since_ms=1_800_000_002_000,
    open_until_ms=1_800_000_032_000,
    attempt=1,
)


def decided(resource: dict[str, Any], snapshot: dict[str, Any] | None, settings: Settings = SETTINGS) -> Plan:
    seen = None if snapshot is None else a_snapshot(**snapshot)
    return plan(a_resource(**resource), seen, owner=OWNER, settings=settings)


DECISIONS = {
    "a new resource makes a breaker": ({}, None, Plan(policy=POLICY, configure=True)),
    "what is in force is left alone": ({}, {}, Plan(policy=POLICY)),
    "an edit is applied": (
        {"spec": {"failureThreshold": 2}, "generation": 2},
        {},
        Plan(policy=Policy(2, 30_000, 3, 3, 30_000), configure=True),
    ),
    "a new generation with the same policy is recorded": ({"generation": 2}, {}, Plan(policy=POLICY, configure=True)),
    "a newer generation in Redis means that we are behind": (
        {},
        {"resource_generation": 2},
        Plan(policy=POLICY, stale=True),
    ),
    "successThreshold follows the resource's halfOpenLimit": (
        {"spec": {"halfOpenLimit": 7}},
        None,
        Plan(policy=Policy(5, 30_000, 7, 7, 30_000), configure=True),
    ),
    "a breaker that a client defined is taken over": (
        {},
        {"owner": "env", "uid": "env"},
        Plan(policy=POLICY, configure=True),
    ),
    "a breaker of a deleted resource of that name is replaced": (
        {},
        {"uid": "another"},
        Plan(policy=POLICY, configure=True),
    ),
    "functions that do not keep the shared names are told to": (
        {},
        {"projects": False},
        Plan(policy=POLICY, configure=True),
    ),
    "a reset is done once for its value": ({"reset": "one"}, {}, Plan(policy=POLICY, reset="one")),
    "a reset that was done is not done again": ({"reset": "one"}, {"last_reset": "one"}, Plan(policy=POLICY)),
    "no annotation, no reset": ({}, {"last_reset": "one"}, Plan(policy=POLICY)),
    "a reset on first sight is recorded and not done": (
        {"reset": "one"},
        None,
        Plan(policy=POLICY, configure=True, resume=Resume(last_reset="one")),
    ),
    "a reset on first sight is recorded when the name was another's": (
        {"reset": "one"},
        {"uid": "another", "last_reset": "two"},
        Plan(policy=POLICY, configure=True, resume=Resume(last_reset="one")),
    ),
    "what is gone from Redis comes back as the status says": (
        {"status": SHOWN},
        None,
        Plan(policy=POLICY, configure=True, resume=RESUMED),
    ),
    "a reset asked for while Redis was empty is done afterwards": (
        {"status": SHOWN, "reset": "two"},
        None,
        Plan(policy=POLICY, configure=True, resume=RESUMED, reset="two"),
    ),
    "a status of another breaker in Redis is no start for this one": (
        {"status": SHOWN},
        {"uid": "another"},
        Plan(policy=POLICY, configure=True),
    ),
}


@pytest.mark.parametrize(("resource", "snapshot", "expected"), DECISIONS.values(), ids=DECISIONS)
def test_plan(resource: dict[str, Any], snapshot: dict[str, Any] | None, expected: Plan) -> None:
    """The same question has the same answer, whatever happened before."""
    assert decided(resource, snapshot) == expected


def test_another_default_of_the_operator_is_applied_to_the_same_generation() -> None:
    """What the spec leaves out follows the operator's environment."""
    later = decided({}, {}, Settings.load(failure_threshold=9))
    assert (later.configure, later.policy) == (True, Policy(9, 30_000, 3, 3, 30_000))


BAD_STATUSES = {
    "state": "Ajar",
    "since": "yesterday",
    "openUntil": None,
    "incarnation": "1",
    "stateGeneration": -1,
    "attempt": 1.5,
    "lastReset": "a b",
}


@pytest.mark.parametrize(("field", "value"), BAD_STATUSES.items(), ids=BAD_STATUSES)
def test_a_status_that_does_not_look_right_is_no_start(field: str, value: Any) -> None:
    """It may have been written by anybody; the breaker starts Closed, and a line of the log says so."""
    afresh = decided({"status": SHOWN | {field: value}, "reset": "two"}, None)
    assert (afresh.resume, len(afresh.remarks)) == (Resume(last_reset="two"), 1)


NOT_SUPPORTED = {
    "window": {"window": {"calls": 10}},
    "minimumCalls": {"minimumCalls": 10},
    "failureRatePercent": {"failureRatePercent": 50},
    "slowCallDuration, slowCallRatePercent": {"slowCallDuration": "1s", "slowCallRatePercent": 50},
    "backoff": {"backoff": {"factor": 2, "max": "1m"}},
    "quorum": {"quorum": {"minReporters": 2}},
    "mode Observe": {"mode": "Observe"},
    "override": {"override": {"state": "Open", "reason": "maintenance"}},
    "failureThreshold 0, failureRatePercent": {"failureThreshold": 0, "failureRatePercent": 50},
}


@pytest.mark.parametrize(("fields", "spec"), NOT_SUPPORTED.items(), ids=NOT_SUPPORTED)
def test_rules_that_are_not_there_yet_are_refused_by_name(fields: str, spec: dict[str, Any]) -> None:
    """Nothing that a person asks for is silently ignored."""
    refused = decided({"spec": spec, "generation": 2}, {}).rejected
    assert refused is not None
    assert refused.reason == "NotSupported"
    assert refused.message == (
        f"this version of the operator does not support {fields}; the last policy stays in force"
    )


@pytest.mark.parametrize("spec", [{"mode": "Enforce"}, {"quorum": {"minReporters": 1}}])
def test_saying_what_is_the_default_is_supported(spec: dict[str, Any]) -> None:
    """Mode Enforce and one reporter are what there is."""
    assert decided({"spec": spec}, {}) == Plan(policy=POLICY)


def test_an_invalid_spec_leaves_the_last_policy() -> None:
    """It may be stored since before the schema became stricter; a reset still works."""
    refused = decided({"spec": {"recoveryTimeout": "soon"}, "reset": "one", "generation": 2}, {})
    assert refused.rejected is not None
    assert (refused.rejected.reason, refused.configure, refused.reset) == ("InvalidSpec", False, "one")
    assert "spec.recoveryTimeout" in refused.rejected.message


def test_an_invalid_spec_at_first_sight_puts_nothing_in_force() -> None:
    """There is no last policy to speak of."""
    refused = decided({"spec": {"recoveryTimeout": "soon"}}, None).rejected
    assert refused is not None
    assert refused.message.endswith("no policy is in force")


def test_a_breaker_of_another_installation_is_left_alone() -> None:
    """Two clusters on one Redis under one prefix: the second one says so, and writes nothing."""
    refused = decided({"reset": "one"}, {"owner": "cluster-2"})
    assert refused.rejected is not None
    assert (refused.rejected.reason, refused.configure, refused.reset) == ("StoreConflict", False, "")
    assert "cluster-2" in refused.rejected.message


TOKENS = {
    "2026-01-01": "2026-01-01",
    "a" * 64: "a" * 64,
    "a" * 65: "sha256-635361c48bb9eab14198e76ea8ab7f1a",
    "not an id": "sha256-3c741084fca4a164592115575518afa1",
    "": "",
}


@pytest.mark.parametrize(("annotation", "token"), TOKENS.items())
def test_reset_token(annotation: str, token: str) -> None:
    """Whatever a person writes becomes an id that the functions accept, the same one each time."""
    assert reset_token(annotation) == token


def test_no_annotation_has_no_token() -> None:
    """None is the annotation that is not there."""
    assert (reset_token(None), UID) == ("", a_resource().uid)
