"""What a resource and a breaker in Redis make the operator write."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.breakers import OWNER, POLICY, UID, a_resource, a_snapshot

from circuitbreaker_contract.policy import LATEST_MS, Mode, Override, Policy
from circuitbreaker_contract.state import Projection, Resume, State
from circuitbreaker_operator.plan import Plan, Rejected, plan, reset_token
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
HOLD = {"state": "Open", "reason": "maintenance"}
HELD = {name: value for name, value in SHOWN.items() if name != "openUntil"} | {"forced": True}


def decided(resource: dict[str, Any], snapshot: dict[str, Any] | None, settings: Settings = SETTINGS) -> Plan:
    seen = None if snapshot is None else a_snapshot(**snapshot)
    return plan(a_resource(**resource), seen, owner=OWNER, settings=settings)


DECISIONS = {
    "a new resource makes a breaker": ({}, None, Plan(policy=POLICY, configure=True)),
    "what is in force is left alone": ({}, {}, Plan(policy=POLICY)),
    "a breaker that is older than its status begins again: Redis went back in time": (
        {"status": SHOWN},
        {},
        Plan(policy=POLICY, configure=True, resume=RESUMED),
    ),
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
        {"projection": Projection.NOTHING},
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
    "what is gone while its Events were ahead of the status takes no name that they have": (
        {"status": SHOWN | {"catchUp": {"incarnation": RESUMED.order[0], "stateGeneration": 9}}},
        None,
        Plan(policy=POLICY, configure=True, resume=replace(RESUMED, order=(RESUMED.order[0], 9))),
    ),
    "a reset asked for while Redis was empty is done afterwards": (
        {"status": SHOWN, "reset": "two"},
        None,
        Plan(policy=POLICY, configure=True, resume=RESUMED, reset="two"),
    ),
    "what was held Open without an end comes back held Open": (
        {"status": HELD, "spec": {"override": HOLD}},
        None,
        Plan(
            policy=replace(POLICY, override=Override("Open", 0, "maintenance")),
            configure=True,
            resume=replace(RESUMED, open_until_ms=None, forced=State.OPEN),
        ),
    ),
    "what was held Open until a time comes back held Open": (
        {"status": SHOWN | {"forced": True}},
        None,
        Plan(policy=POLICY, configure=True, resume=replace(RESUMED, forced=State.OPEN)),
    ),
    "what was held Closed comes back held Closed": (
        {"status": SHOWN | {"forced": True, "state": "Closed"}},
        None,
        Plan(
            policy=POLICY,
            configure=True,
            resume=replace(RESUMED, state=State.CLOSED, open_until_ms=None, forced=State.CLOSED),
        ),
    ),
    "an override that is in force is left alone": (
        {"spec": {"override": HOLD}},
        {"policy": replace(POLICY, override=Override("Open", 0, "maintenance")), "forced": State.OPEN},
        Plan(policy=replace(POLICY, override=Override("Open", 0, "maintenance"))),
    ),
    "an override that is over is left alone": (
        {"spec": {"override": HOLD | {"until": "2020-01-01T00:00:00Z"}}},
        {"policy": replace(POLICY, override=Override("Open", 1_577_836_800_000, "maintenance"))},
        Plan(policy=replace(POLICY, override=Override("Open", 1_577_836_800_000, "maintenance"))),
    ),
    "a reset works while it is held": (
        {"spec": {"override": HOLD}, "reset": "one"},
        {"policy": replace(POLICY, override=Override("Open", 0, "maintenance")), "forced": State.OPEN},
        Plan(policy=replace(POLICY, override=Override("Open", 0, "maintenance")), reset="one"),
    ),
    "a reset works in mode Observe": (
        {"spec": {"mode": "Observe"}, "reset": "one"},
        {"policy": replace(POLICY, mode=Mode.OBSERVE)},
        Plan(policy=replace(POLICY, mode=Mode.OBSERVE), reset="one"),
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
    "forced": "yes",
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


@pytest.mark.parametrize("wrong", [{"state": "HalfOpen"}, {"forced": False}], ids=["held HalfOpen", "Open for ever"])
def test_a_status_that_contradicts_itself_is_no_start(wrong: dict[str, Any]) -> None:
    """Nothing is held HalfOpen, and only what is held is Open without an end."""
    afresh = decided({"status": HELD | wrong}, None)
    assert (afresh.resume, len(afresh.remarks)) == (None, 1)


RATES = {"failure_rate_percent": 50}
POLICIES = {
    "nothing": ({}, {"window_ms": 60_000, "minimum_calls": 10}),
    "a window of calls": ({"window": {"calls": 100}}, {"window_calls": 100, "minimum_calls": 10}),
    "a window of fewer calls than are needed by default": (
        {"window": {"calls": 4}},
        {"window_calls": 4, "minimum_calls": 4},
    ),
    "a window of time": ({"window": {"duration": "2m"}}, {"window_ms": 120_000, "minimum_calls": 10}),
    "minimumCalls": ({"minimumCalls": 3}, {"window_ms": 60_000, "minimum_calls": 3}),
    "a failure rate": ({"failureRatePercent": 50}, RATES),
    "only a failure rate": ({"failureThreshold": 0, "failureRatePercent": 50}, RATES | {"failure_threshold": 0}),
    "slow calls": (
        {"slowCallDuration": "2s", "slowCallRatePercent": 80},
        {"slow_call_duration_ms": 2_000, "slow_call_rate_percent": 80},
    ),
    "backoff without jitter": (
        {"backoff": {"factor": 2, "max": "5m"}},
        {"backoff_factor": 2, "backoff_max_ms": 300_000, "jitter_percent": 0},
    ),
    "backoff with jitter": (
        {"backoff": {"factor": 2, "max": "5m", "jitterPercent": 20}},
        {"backoff_factor": 2, "backoff_max_ms": 300_000, "jitter_percent": 20},
    ),
    "a quorum": ({"quorum": {"minReporters": 3}}, {"min_reporters": 3}),
    "mode Enforce": ({"mode": "Enforce"}, {}),
    "mode Observe": ({"mode": "Observe"}, {"mode": Mode.OBSERVE}),
    "an override without an end": ({"override": HOLD}, {"override": Override("Open", 0, "maintenance")}),
    "an override with an end": (
        {"override": HOLD | {"state": "Closed", "until": "2030-01-31T18:00:00.25Z"}},
        {"override": Override("Closed", 1_896_112_800_250, "maintenance")},
    ),
    "an override until the epoch is over, not endless": (
        {"override": HOLD | {"until": "1970-01-01T00:00:00Z"}},
        {"override": Override("Open", 1, "maintenance")},
    ),
    "an override until before the epoch is over too": (
        {"override": HOLD | {"until": "1066-10-14T09:00:00Z"}},
        {"override": Override("Open", 1, "maintenance")},
    ),
    "an override until the last moment": (
        {"override": HOLD | {"until": "2255-03-14T16:00:00Z"}},
        {"override": Override("Open", LATEST_MS, "maintenance")},
    ),
    "a reason of the longest kind": (
        {"override": HOLD | {"reason": "\U0001f525" * 256}},
        {"override": Override("Open", 0, "\U0001f525" * 256)},
    ),
}


@pytest.mark.parametrize(("spec", "asked"), POLICIES.values(), ids=POLICIES)
def test_every_field_becomes_policy(spec: dict[str, Any], asked: dict[str, Any]) -> None:
    """With the defaults for the rest; what is not asked for is off."""
    expected = Policy(**{"failure_threshold": 5} | dict(zip(TIMES, (30_000, 3, 3, 30_000), strict=True)) | asked)
    assert decided({"spec": spec}, None) == Plan(policy=expected, configure=True)


TIMES = ("recovery_timeout_ms", "half_open_limit", "success_threshold", "probe_timeout_ms")
TOO_SHORT = "must not be shorter than recoveryTimeout, which is 30s by default (CB_RECOVERY_TIMEOUT)"
NOW_INVALID = {
    "a backoff that ends before the default begins": (
        {"backoff": {"factor": 2, "max": "20s"}},
        f"spec.backoff.max: {TOO_SHORT}; set spec.recoveryTimeout as well, or a longer max",
    ),
    "an override until a year that the functions do not know": (
        {"override": HOLD | {"until": "9999-12-31T00:00:00Z"}},
        "spec.override.until: must not be after 2255-03-14T16:00:00Z; leave it out to hold without an end",
    ),
}


@pytest.mark.parametrize(("spec", "sentence"), NOW_INVALID.values(), ids=NOW_INVALID)
def test_what_only_a_default_makes_wrong_is_said(spec: dict[str, Any], sentence: str) -> None:
    """The schema cannot know the operator's environment: one sentence names the field and the way out."""
    refused = decided({"spec": spec, "generation": 2}, {})
    assert (refused.policy, refused.configure) == (None, False)
    assert refused.rejected == Rejected("InvalidSpec", f"{sentence}; the last policy stays in force")


def test_a_default_that_fits_makes_it_right() -> None:
    """The same spec under another environment, or with the field that was missing."""
    spec = {"backoff": {"factor": 2, "max": "20s"}}
    assert decided({"spec": spec}, {}, Settings.load(recovery_timeout_ms=20_000)).rejected is None
    assert decided({"spec": spec | {"recoveryTimeout": "20s"}}, {}).rejected is None


def test_success_threshold_follows_half_open_limit() -> None:
    """Unless the environment has a value for it."""
    spec = {"spec": {"halfOpenLimit": 7}}
    for given, expected in ((None, 7), (2, 2)):
        policy = decided(spec, None, Settings.load(success_threshold=given)).policy
        assert policy is not None
        assert policy.success_threshold == expected


def test_an_invalid_spec_leaves_the_last_policy() -> None:
    """It may be stored since before the schema became stricter; a reset still works."""
    refused = decided({"spec": {"recoveryTimeout": "soon"}, "reset": "one", "generation": 2}, {})
    assert refused.rejected is not None
    assert (refused.rejected.reason, refused.configure, refused.reset) == ("InvalidSpec", False, "one")
    assert "spec.recoveryTimeout" in refused.rejected.message


def test_an_invalid_spec_at_first_sight_puts_nothing_in_force() -> None:
    """There is no last policy to speak of."""
    refused = decided({"spec": {"recoveryTimeout": "soon"}}, None)
    assert refused.rejected is not None
    assert refused.rejected.message.endswith("no policy is in force")
    assert not refused.writes


def test_an_invalid_spec_leaves_nothing_of_an_earlier_resource() -> None:
    """Its breaker goes, as it would if this one had never been made; that of a client without Kubernetes stays."""
    spec = {"spec": {"recoveryTimeout": "soon"}}
    left = decided(spec, {"uid": "an-earlier-one"})
    assert left.rejected is not None
    assert left.rejected.message.endswith("no policy is in force")
    assert left == Plan(rejected=left.rejected, remove="an-earlier-one")
    assert not decided(spec, {}).remove
    assert not decided(spec, {"owner": "env", "uid": "env"}).remove
    assert not decided({}, {"uid": "an-earlier-one"}).remove, "the valid one takes its place"


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
