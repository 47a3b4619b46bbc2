"""How a status reads, what of it is worth a write, and what the write says."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.breakers import (
    CREATED,
    FORCED,
    HALF_OPENED,
    INCARNATION,
    NOW,
    OPENED,
    OWNER,
    POLICY,
    RELEASED,
    a_forced_snapshot,
    a_resource,
    a_snapshot,
    a_transition,
    an_observing_snapshot,
    an_open_snapshot,
)

from circuitbreaker_contract.policy import Mode, Override, Policy
from circuitbreaker_contract.state import Order, Reason, Shadow, State, Totals, Transition, WindowCounts
from circuitbreaker_operator import status
from circuitbreaker_operator.plan import Plan, Rejected
from circuitbreaker_operator.resource import Resource
from circuitbreaker_operator.status import Change
from circuitbreaker_operator.wording import because, plain, policy_map, spelled

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
        "window": {"calls": 5, "failures": 5, "slow": 0},
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
            "window": {"duration": "1m"},
            "minimumCalls": 10,
            "quorum": {"minReporters": 1},
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
                "message": "at least 1 client process reports, as many as are needed",
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
    never = shown(None, Plan(rejected=Rejected("InvalidSpec", "no")))
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
    "the window moved": ({"window": WindowCounts(12, 6, 1)}, Change.COUNTERS),
    "an override": ({"forced": State.OPEN}, Change.SHOWN),
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


def test_an_open_breaker_that_is_open_already_trips_no_more() -> None:
    """An override or a reset of what is Open is a transition, and no opening."""
    totals = {
        (State.OPEN, State.OPEN, Reason.FORCED): 2,
        (State.OPEN, State.OPEN, Reason.RESET): 3,
        (State.CLOSED, State.OPEN, Reason.FORCED): 1,
    }
    assert status.trips(an_open_snapshot(transition_totals=totals)) == 1


# -- the window and its rates

RATED = replace(POLICY, minimum_calls=4, slow_call_duration_ms=1_000, slow_call_rate_percent=80)
WINDOWS = {
    "empty": (POLICY, WindowCounts(), {"calls": 0, "failures": 0, "slow": 0}),
    "below minimumCalls": (RATED, WindowCounts(3, 3, 3), {"calls": 3, "failures": 3, "slow": 3}),
    "whole rates are whole": (
        RATED,
        WindowCounts(4, 2, 4),
        {"calls": 4, "failures": 2, "slow": 4, "failureRatePercent": 50, "slowCallRatePercent": 100},
    ),
    "others have one decimal": (
        RATED,
        WindowCounts(6, 1, 4),
        {"calls": 6, "failures": 1, "slow": 4, "failureRatePercent": 16.7, "slowCallRatePercent": 66.7},
    ),
    "slow calls are not told apart": (
        POLICY,
        WindowCounts(10, 0, 0),
        {"calls": 10, "failures": 0, "slow": 0, "failureRatePercent": 0},
    ),
}


@pytest.mark.parametrize(("policy", "window", "expected"), WINDOWS.values(), ids=WINDOWS)
def test_window(policy: Policy, window: WindowCounts, expected: dict[str, Any]) -> None:
    """Rates are absent below minimumCalls, and written as the API server writes them back."""
    found = shown(a_snapshot(policy=policy, window=window))["window"]
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


def test_a_rate_that_is_unknown_again_goes() -> None:
    """A time window empties by itself."""
    was = shown(a_snapshot(window=WindowCounts(10, 5, 0)))
    now = shown(a_snapshot(window=WindowCounts(9, 5, 0)), previous=was)
    assert status.merge_patch(was, now) == {"window": {"calls": 9, "failureRatePercent": None}}


# -- overrides and Observe


def test_a_breaker_held_open() -> None:
    """Without an end there is no openUntil; the reason stands in the message and in the policy."""
    held = shown(a_forced_snapshot(Override("Open", 0, "maintenance")))
    assert (held["state"], held["reason"], held["forced"]) == ("Open", "Forced", True)
    assert held["message"] == "held Open: maintenance"
    assert "openUntil" not in held
    assert held["policy"]["override"] == {"state": "Open", "reason": "maintenance"}
    assert condition(held, "Healthy") == ("False", "Open")


def test_a_breaker_held_until_a_time() -> None:
    """The end shows in the policy, and while Open as openUntil."""
    for state in ("Open", "Closed"):
        held = shown(a_forced_snapshot(Override(state, NOW, "maintenance")))
        assert held["policy"]["override"]["until"] == "2027-01-15T08:01:00.000Z"
        assert held.get("openUntil") == ("2027-01-15T08:01:00.000Z" if state == "Open" else None)


def test_another_reason_of_the_same_override_shows() -> None:
    """It is no transition, but it is what a person reads."""
    was = shown(a_forced_snapshot(Override("Open", 0, "maintenance")))
    edited = a_forced_snapshot(Override("Open", 0, "still broken"), history=(CREATED, FORCED))
    assert shown(edited, previous=was)["message"] == "held Open: still broken"


def test_what_a_person_writes_is_one_bounded_line() -> None:
    """Whatever it is, and wherever it stands."""
    reason = "a\u2028b\x9bc\u202ed" + "x" * 500
    held = shown(a_forced_snapshot(Override("Open", 0, reason)))
    for text in (held["message"], held["policy"]["override"]["reason"]):
        assert text.isprintable()
        assert len(text) <= len("held Open: ") + 256


def test_an_override_that_is_over_leaves_nothing_behind() -> None:
    """Neither forced nor in the policy; Ready says why the spec has one."""
    override = Override("Open", NOW - 1, "maintenance")
    was = shown(a_forced_snapshot(override))
    over = a_snapshot(
        policy=replace(POLICY, override=override),
        state=State.HALF_OPEN,
        order=Order(INCARNATION, 3, 2),
        reason=Reason.OVERRIDE_EXPIRED,
        history=(CREATED, FORCED, RELEASED),
    )
    now = shown(over, previous=was)
    assert now.keys().isdisjoint({"forced", "openUntil"})
    assert "override" not in now["policy"]
    assert now["message"] == "the override is over; probes are permitted"
    assert now["conditions"][0]["message"] == (
        "generation 1 is in force in Redis; spec.override has no effect, since its until is past"
    )


def test_a_reset_while_it_is_held() -> None:
    """It clears counts; the override stays, and so does its reason in the message."""
    entry = replace(FORCED, previous=State.OPEN, reason=Reason.RESET, generation=3, note="")
    held = a_forced_snapshot(
        Override("Open", 0, "maintenance"), reason=Reason.RESET, order=Order(INCARNATION, 3, 2), history=(entry,)
    )
    assert shown(held)["message"] == (
        "counts were cleared by the annotation circuitbreaker.dev/reset; held Open: maintenance"
    )


OBSERVED = Shadow(State.OPEN, NOW - 5, "ConsecutiveFailures", NOW + 5, attempt=1, opened=3, not_permitted=7)


def test_what_observe_would_have_done() -> None:
    """The state stays Closed; the shadow tells the rest."""
    watched = shown(an_observing_snapshot(OBSERVED))
    assert (watched["state"], watched["policy"]["mode"], condition(watched, "Healthy")[0]) == (
        "Closed",
        "Observe",
        "True",
    )
    assert watched["shadow"] == {
        "state": "Open",
        "since": "2027-01-15T08:00:59.995Z",
        "openUntil": "2027-01-15T08:01:00.005Z",
        "attempt": 1,
        "wouldHaveOpened": 3,
        "notPermitted": 7,
    }
    assert "shadow" not in shown(a_snapshot(), previous=watched), "it goes with mode Observe"


SHADOWS = {
    "the same": (OBSERVED, Change.NOTHING),
    "calls that would have been refused": (replace(OBSERVED, not_permitted=9), Change.COUNTERS),
    "it would have opened again": (replace(OBSERVED, opened=4), Change.SHOWN),
    "it would probe": (replace(OBSERVED, state=State.HALF_OPEN, open_until_ms=None), Change.SHOWN),
}


@pytest.mark.parametrize(("shadow", "expected"), SHADOWS.values(), ids=SHADOWS)
def test_what_a_change_of_the_shadow_is_worth(shadow: Shadow, expected: Change) -> None:
    """As with the breaker itself: counters wait, all else shows at once."""
    was = shown(an_observing_snapshot(OBSERVED))
    assert status.compare(was, shown(an_observing_snapshot(shadow), previous=was)) is expected


QUORUMS = {
    "nobody": (2, 0, ("Unknown", "NoReporters", "no client process reported within a minute")),
    "too few": (
        2,
        1,
        (
            "False",
            "TooFewReporters",
            "fewer client processes report than quorum.minReporters 2, so failures cannot open the breaker",
        ),
    ),
    "enough": (2, 2, ("True", "QuorumReachable", "at least 2 client processes report, as many as are needed")),
}


@pytest.mark.parametrize(("needed", "seen", "expected"), QUORUMS.values(), ids=QUORUMS)
def test_quorum_reachable(needed: int, seen: int, expected: tuple[str, str, str]) -> None:
    """Whether failures could open it at all."""
    found = shown(a_snapshot(policy=replace(POLICY, min_reporters=needed), reporters=seen))["conditions"][2]
    assert (found["status"], found["reason"], found["message"]) == expected


# -- sentences

RULES = replace(
    POLICY,
    failure_rate_percent=50,
    slow_call_duration_ms=1_500,
    slow_call_rate_percent=60,
)
FULL = WindowCounts(20, 10, 15)
CLEARED = "counts were cleared by the annotation circuitbreaker.dev/reset"
SENTENCES = {
    "created": (CREATED, "no outcome has changed it yet"),
    "restored": (replace(CREATED, reason=Reason.RESTORED), "made again in Redis from this status"),
    "restored while held": (
        replace(FORCED, reason=Reason.RESTORED, note="x"),
        "made again in Redis from this status; held Open: x",
    ),
    "reset": (
        a_transition(State.CLOSED, 2, Reason.RESET),
        "closed by the annotation circuitbreaker.dev/reset",
    ),
    "reset while held": (replace(FORCED, reason=Reason.RESET, note=""), f"{CLEARED}; still held Open"),
    "mode": (a_transition(State.CLOSED, 2, Reason.MODE_CHANGED), "spec.mode changed to Enforce"),
    "forced": (FORCED, "held Open: maintenance"),
    "forced Closed": (replace(FORCED, state=State.CLOSED, note="it is the tests"), "held Closed: it is the tests"),
    "override over, was Open": (RELEASED, "the override is over; probes are permitted"),
    "override over, was Closed": (
        replace(RELEASED, previous=State.CLOSED, state=State.CLOSED),
        "the override is over; counts start at zero",
    ),
    "consecutive failures": (OPENED, "5 consecutive failures reached failureThreshold 5"),
    "fewer than the threshold of now": (replace(OPENED, consecutive_failures=4), "4 consecutive failures"),
    "failure rate": (
        replace(OPENED, reason=Reason.FAILURE_RATE, window=FULL),
        "50.0 % of 20 calls failed, which reached failureRatePercent 50",
    ),
    "a failure rate below that of now": (
        replace(OPENED, reason=Reason.FAILURE_RATE, window=WindowCounts(20, 9, 0)),
        "45.0 % of 20 calls failed",
    ),
    "a failure rate that nobody wrote down": (
        replace(OPENED, reason=Reason.FAILURE_RATE, window=WindowCounts()),
        "too many calls failed",
    ),
    "slow calls": (
        replace(OPENED, reason=Reason.SLOW_CALL_RATE, window=FULL),
        "75.0 % of 20 calls took longer than 1s500ms, which reached slowCallRatePercent 60",
    ),
    "recovery": (HALF_OPENED, "recoveryTimeout is over; probes are permitted"),
    "recovered": (
        a_transition(State.CLOSED, 2, Reason.PROBES_SUCCEEDED),
        "3 successful probes reached successThreshold 3",
    ),
    "a probe failed": (a_transition(State.OPEN, 2, Reason.PROBE_FAILED), "a probe failed or was slow"),
    "probes lost": (
        a_transition(State.OPEN, 2, Reason.PROBES_LOST),
        "probes were never answered within probeTimeout",
    ),
}


@pytest.mark.parametrize(("entry", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_why(entry: Transition, sentence: str) -> None:
    """One sentence for every reason, with the numbers of that moment and without a clock."""
    assert because(entry, RULES) == sentence


def test_every_reason_of_a_transition_has_a_sentence() -> None:
    """Those of messages alone have none."""
    without = {reason for reason in Reason if not because(a_transition(State.OPEN, 2, reason), RULES)}
    assert without == {Reason.POLICY_APPLIED, Reason.DELETED, Reason.WOULD_HAVE_OPENED}


def test_rules_that_were_taken_away_since() -> None:
    """A limit of zero was reached by nobody."""
    off = replace(RULES, failure_threshold=0, failure_rate_percent=1, slow_call_rate_percent=0, slow_call_duration_ms=0)
    assert because(OPENED, off) == "5 consecutive failures"
    slow = replace(OPENED, reason=Reason.SLOW_CALL_RATE, window=FULL)
    assert because(slow, off) == "75.0 % of 20 calls were slow"


def test_the_status_takes_the_numbers_from_the_history() -> None:
    """What the window holds by now is another matter."""
    entry = replace(OPENED, reason=Reason.FAILURE_RATE, window=FULL)
    opened = an_open_snapshot(
        policy=RULES, reason=Reason.FAILURE_RATE, history=(CREATED, entry), window=WindowCounts(1, 1, 0)
    )
    assert shown(opened)["message"] == "50.0 % of 20 calls failed, which reached failureRatePercent 50"
    assert shown(replace(opened, history=(), window=WindowCounts(10, 9, 0)))["message"].startswith("90.0 % of 10")


def test_a_policy_in_the_words_of_spec() -> None:
    """Everything that is in force, nothing that is off; and the same in one line."""
    policy = Policy(
        failure_threshold=0,
        recovery_timeout_ms=30_000,
        half_open_limit=3,
        success_threshold=3,
        probe_timeout_ms=5_000,
        window_calls=100,
        minimum_calls=20,
        failure_rate_percent=50,
        slow_call_duration_ms=750,
        slow_call_rate_percent=80,
        backoff_factor=2,
        backoff_max_ms=600_000,
        jitter_percent=10,
        min_reporters=2,
        mode=Mode.ENFORCE,
        override=Override("Closed", NOW, "tests"),
    )
    words = {
        "failureThreshold": 0,
        "recoveryTimeout": "30s",
        "halfOpenLimit": 3,
        "successThreshold": 3,
        "probeTimeout": "5s",
        "window": {"calls": 100},
        "minimumCalls": 20,
        "failureRatePercent": 50,
        "slowCallDuration": "750ms",
        "slowCallRatePercent": 80,
        "backoff": {"factor": 2, "max": "10m", "jitterPercent": 10},
        "quorum": {"minReporters": 2},
        "mode": "Enforce",
    }
    override = {"state": "Closed", "until": "2027-01-15T08:01:00.000Z", "reason": "tests"}
    assert policy_map(policy, forced=False) == words
    assert policy_map(policy, forced=True) == words | {"override": override}
    assert spelled({"window": {"calls": 100}, "mode": "Enforce"}) == "window.calls 100, mode Enforce"


@pytest.mark.parametrize(
    ("text", "expected"),
    {"upgrade": "upgrade", "a\nb\x00c": "a b c", "x" * 8: "x" * 8, "x" * 9: "x" * 7 + "…", "\ud800é": " é"}.items(),
)
def test_plain(text: str, expected: str) -> None:
    """One line, printable, bounded."""
    assert plain(text, 8) == expected
