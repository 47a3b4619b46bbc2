"""Which Events follow from a snapshot, and that saying them twice is saying them once."""

import random
import re
from dataclasses import replace
from typing import Any

import pytest
from tests.told import generations
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
    UID,
    a_forced_snapshot,
    a_resource,
    a_snapshot,
    a_transition,
    an_observing_snapshot,
    an_open_snapshot,
)

from circuitbreaker_contract.policy import Mode, Override
from circuitbreaker_contract.state import Order, Reason, Shadow, State
from circuitbreaker_operator import events
from circuitbreaker_operator.plan import Plan, Rejected
from circuitbreaker_operator.wording import policy_map

IN_FORCE = Plan(policy=POLICY)
WORDS = policy_map(POLICY, forced=False)
APPLIED = {"policy": WORDS}
STEM = f"pay.{UID[:8]}.{events.base36(INCARNATION)}"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def told(
    snapshot: Any, previous: dict[str, Any], decided: Plan = IN_FORCE, generation: int = 1
) -> list[tuple[str, str, str]]:
    resource = a_resource(generation=generation)
    found = due(resource, snapshot, decided, owner=OWNER, previous=previous, now_ms=NOW)
    assert all(_NAME.fullmatch(event.name) and len(event.name) <= 253 for event in found)
    return [(event.kind, event.reason, event.name) for event in found]


def due(*arguments: Any, **named: Any) -> list[events.Event]:
    """All that is posted, of every step."""
    return [event for step in events.steps(*arguments, **named) for event in step.events]


def after(generation: int, incarnation: int = INCARNATION) -> dict[str, Any]:
    return APPLIED | {"incarnation": incarnation, "stateGeneration": generation}


HOLD = Override("Open", 0, "maintenance")
MODE_CHANGED = a_transition(State.CLOSED, 2, Reason.MODE_CHANGED)
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
        after(1) | {"policy": WORDS | {"failureThreshold": 9}},
        [("Normal", "PolicyApplied", f"{STEM}.r4")],
    ),
    "a person held it Open": (
        a_forced_snapshot(HOLD),
        after(1),
        [("Warning", "CircuitForced", f"{STEM}.2")],
    ),
    "a person held it Closed": (
        a_forced_snapshot(Override("Closed", 0, "tests")),
        after(1),
        [("Normal", "CircuitForced", f"{STEM}.2")],
    ),
    "the override ended": (
        a_snapshot(history=(CREATED, FORCED, RELEASED)),
        after(2) | {"policy": WORDS | {"override": {"state": "Open", "reason": "maintenance"}}},
        [("Normal", "OverrideExpired", f"{STEM}.3")],
    ),
    "another reason of the same override": (
        a_forced_snapshot(Override("Open", 0, "still broken")),
        after(2) | {"policy": WORDS | {"override": {"state": "Open", "reason": "maintenance"}}},
        [("Normal", "PolicyApplied", f"{STEM}.r2")],
    ),
    "an override that was over when it was set": (
        a_snapshot(policy=replace(POLICY, override=Override("Open", NOW - 1, "late"))),
        after(1),
        [],
    ),
    "an override and a rule in one edit: the rule first, then what it did": (
        a_forced_snapshot(HOLD),
        after(1) | {"policy": WORDS | {"failureThreshold": 9, "window": {"calls": 9}}},
        [
            ("Normal", "PolicyApplied", f"{STEM}.r2"),
            ("Normal", "WindowReset", f"{STEM}.r2.window"),
            ("Warning", "CircuitForced", f"{STEM}.2"),
        ],
    ),
    "it opened, and then a person edited a rule and held it": (
        a_forced_snapshot(HOLD, history=(CREATED, OPENED, replace(FORCED, previous=State.OPEN, generation=3))),
        after(1) | {"policy": WORDS | {"failureThreshold": 9}},
        [
            ("Warning", "CircuitOpened", f"{STEM}.2"),
            ("Normal", "PolicyApplied", f"{STEM}.r2"),
            ("Warning", "CircuitForced", f"{STEM}.3"),
        ],
    ),
    "an override that was there from the beginning": (
        a_forced_snapshot(HOLD),
        {},
        [("Normal", "PolicyApplied", f"{STEM}.r2"), ("Warning", "CircuitForced", f"{STEM}.2")],
    ),
    "the mode changed": (
        an_observing_snapshot(Shadow(), history=(MODE_CHANGED,)),
        after(1),
        [("Normal", "PolicyApplied", f"{STEM}.r1"), ("Normal", "ModeChanged", f"{STEM}.2")],
    ),
    "the window has another length": (
        a_snapshot(),
        after(1) | {"policy": WORDS | {"window": {"duration": "30s"}}},
        [("Normal", "PolicyApplied", f"{STEM}.r1"), ("Normal", "WindowReset", f"{STEM}.r1.window")],
    ),
    "a restored breaker has an empty window anyway": (
        a_snapshot(history=(replace(CREATED, reason=Reason.RESTORED, generation=3),)),
        after(2, INCARNATION - 5) | {"policy": WORDS | {"window": {"calls": 9}}},
        [("Normal", "CircuitRestored", f"{STEM}.3"), ("Normal", "PolicyApplied", f"{STEM}.r1")],
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
    found = due(a_resource(), a_snapshot(history=history), IN_FORCE, owner=OWNER, previous=after(89), now_ms=NOW)
    assert len(found) == events.LIMIT + 1
    assert found[0].message.startswith("15 earlier transitions")


def test_a_rejected_spec_is_said_once_a_generation() -> None:
    """The status remembers what was said."""
    refused = Plan(rejected=Rejected("InvalidSpec", "spec.x: is wrong"))
    name = f"pay.{UID[:8]}.g2.invalidspec"
    assert told(a_snapshot(), after(1), refused, 2) == [("Warning", "PolicyRejected", name)]
    ready = {"type": "Ready", "status": "False", "reason": "InvalidSpec", "observedGeneration": 2}
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
    (event,) = due(a_resource(), an_open_snapshot(), IN_FORCE, owner=OWNER, previous=after(1), now_ms=NOW)
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


WINDOW_EDITS = {
    "nothing was known": ({}, {"calls": 10}, False),
    "the same": ({"calls": 10}, {"calls": 10}, False),
    "more calls": ({"calls": 10}, {"calls": 20}, False),
    "fewer calls": ({"calls": 20}, {"calls": 10}, False),
    "another length": ({"duration": "1m"}, {"duration": "2m"}, True),
    "calls in place of time": ({"duration": "1m"}, {"calls": 10}, True),
    "time in place of calls": ({"calls": 10}, {"duration": "1m"}, True),
}


@pytest.mark.parametrize(("before", "after_it", "expected"), WINDOW_EDITS.values(), ids=WINDOW_EDITS)
def test_which_edits_empty_the_window(before: dict[str, Any], after_it: dict[str, Any], expected: bool) -> None:
    """As the functions have it."""
    assert events.empties_window({"window": before}, {"window": after_it}) is expected


def messages(snapshot: Any, previous: dict[str, Any], **resource: Any) -> dict[str, str]:
    found = due(a_resource(**resource), snapshot, IN_FORCE, owner=OWNER, previous=previous, now_ms=NOW)
    return {event.reason: event.message for event in found}


FORCED_BY = {
    "nobody knows who": (HOLD, [], "held Open: maintenance"),
    "who and until when": (
        Override("Open", NOW, "maintenance"),
        [("kubectl-patch", "2027-01-15T08:00:00Z", "f:override")],
        "held Open until 2027-01-15T08:01:00Z, set by kubectl-patch: maintenance",
    ),
    "the last one of several": (
        HOLD,
        [
            ("kubectl-edit", "2027-01-15T09:00:00Z", "f:override"),
            ("argocd", "2027-01-15T08:00:00Z", "f:override"),
            ("helm", "2027-01-15T10:00:00Z", "f:window"),
        ],
        "held Open, set by kubectl-edit: maintenance",
    ),
    "a name that is none": (
        HOLD,
        [("a\nb" + "x" * 500, "2027-01-15T08:00:00Z", "f:override")],
        f"held Open, set by a b{'x' * 124}…: maintenance",
    ),
}


@pytest.mark.parametrize(("override", "managers", "message"), FORCED_BY.values(), ids=FORCED_BY)
def test_who_forced_it(override: Override, managers: list[tuple[str, str, str]], message: str) -> None:
    """From managedFields, whose last writer of spec.override counts."""
    fields = [
        {"manager": name, "operation": "Update", "time": time, "fieldsV1": {"f:spec": {field: {"f:state": {}}}}}
        for name, time, field in managers
    ]
    spec = {"override": {"state": "Open", "reason": "maintenance"}}
    said = messages(a_forced_snapshot(override), after(1), spec=spec, managedFields=fields)
    assert said["CircuitForced"] == message


def test_a_resource_without_override_keeps_no_manager() -> None:
    """Ten thousand resources are kept; only what an Event needs is worth it."""
    fields = [{"manager": "kubectl", "fieldsV1": {"f:spec": {"f:override": {}}}}, {"manager": "x"}, {"fieldsV1": None}]
    assert a_resource(managedFields=fields).override_manager == ""
    override = {"override": {"state": "Open", "reason": "x"}}
    assert a_resource(spec=override, managedFields=fields).override_manager == "kubectl"
    assert a_resource(spec=override).override_manager == ""


def test_an_override_that_has_been_replaced_is_not_told_with_the_new_ones_words() -> None:
    """Two overrides while nobody looked: who set the first is not known any more."""
    history = (
        replace(FORCED, note="first"),
        replace(RELEASED, generation=3),
        replace(FORCED, generation=4, note="second"),
    )
    snapshot = a_forced_snapshot(Override("Open", NOW, "second"), history=history)
    found = due(
        a_resource(
            spec={"override": {"state": "Open", "reason": "second"}},
            managedFields=[{"manager": "me", "fieldsV1": {"f:spec": {"f:override": {}}}}],
        ),
        snapshot,
        IN_FORCE,
        owner=OWNER,
        previous=after(1),
        now_ms=NOW,
    )
    assert [event.message for event in found] == [
        "held Open: first",
        "the override is over; probes are permitted",
        "held Open until 2027-01-15T08:01:00Z, set by me: second",
    ]


def test_modes_that_changed_while_nobody_looked() -> None:
    """Only the last change led to the mode of now."""
    history = (MODE_CHANGED, replace(MODE_CHANGED, generation=3))
    found = due(a_resource(), a_snapshot(history=history), IN_FORCE, owner=OWNER, previous=after(1), now_ms=NOW)
    assert [event.message for event in found] == ["spec.mode changed", "spec.mode changed to Enforce"]


WATCHED = Shadow(State.OPEN, NOW - 5, "ConsecutiveFailures", NOW + 5, attempt=1, opened=3)
OBSERVING = {"policy": policy_map(replace(POLICY, mode=Mode.OBSERVE), forced=False)}
FIVE = "5 consecutive failures reached failureThreshold 5"
SHADOWS = {
    "once": (WATCHED, {"wouldHaveOpened": 2}, (), f"would have opened: {FIVE}"),
    "for the first time": (replace(WATCHED, opened=1), {}, (), f"would have opened: {FIVE}"),
    "several times": (WATCHED, {"wouldHaveOpened": 0}, (), f"would have opened 3 times, the last time because {FIVE}"),
    "and would have gone on": (
        replace(WATCHED, state=State.HALF_OPEN, reason="RecoveryTimeoutElapsed"),
        {"wouldHaveOpened": 2},
        (),
        "would have opened",
    ),
    "not again": (WATCHED, {"wouldHaveOpened": 3}, (), None),
    "after a reset the count begins anew": (
        replace(WATCHED, opened=1),
        {"wouldHaveOpened": 3},
        (a_transition(State.CLOSED, 2, Reason.RESET),),
        f"would have opened: {FIVE}",
    ),
    "a status that somebody else wrote": (
        replace(WATCHED, opened=1),
        {"wouldHaveOpened": "many"},
        (),
        f"would have opened: {FIVE}",
    ),
}


@pytest.mark.parametrize(("shadow", "was", "history", "message"), SHADOWS.values(), ids=SHADOWS)
def test_would_have_opened(shadow: Shadow, was: dict[str, Any], history: Any, message: str | None) -> None:
    """One Event for all that happened since the last status."""
    snapshot = an_observing_snapshot(shadow, consecutive_failures=5, history=history or (CREATED,))
    said = messages(snapshot, after(1) | OBSERVING | {"shadow": was})
    assert said.get("WouldHaveOpened") == message
    name = ("Normal", "WouldHaveOpened", f"{STEM}.{snapshot.order.generation}.w{shadow.opened}")
    assert (name in told(snapshot, after(1) | OBSERVING | {"shadow": was})) is (message is not None)


def test_an_edit_is_told_as_of_the_moment_of_what_it_did() -> None:
    """So that a list by time has it in front."""
    edited = after(1) | {"policy": WORDS | {"failureThreshold": 9}}
    found = due(a_resource(), a_forced_snapshot(HOLD), IN_FORCE, owner=OWNER, previous=edited, now_ms=NOW)
    assert {event.at_ms for event in found} == {FORCED.at_ms}
    assert [event.reason for event in found] == ["PolicyApplied", "CircuitForced"]


def a_history(newest: int, oldest: int = 1) -> tuple[Any, ...]:
    """Generations `oldest` to `newest`, as long as Redis keeps it."""
    made = (a_transition(State.OPEN, each, Reason.PROBE_FAILED) for each in range(max(2, oldest), newest + 1))
    return ((CREATED,) if oldest == 1 else ()) + tuple(made)


def catching_up(generation: int, **more: int) -> dict[str, int]:
    return {"incarnation": INCARNATION, "stateGeneration": generation} | more


PAGES = {
    "a page needs no record": (a_history(9), after(1), [(8, None)]),
    "one more does": (a_history(10), after(1), [(8, catching_up(9)), (1, None)]),
    "up to the limit all are told": (
        a_history(33),
        after(1),
        [(8, catching_up(9)), (8, catching_up(17)), (8, catching_up(25)), (8, None)],
    ),
    "what is skipped is recorded before it is said": (
        a_history(50),
        after(1),
        [(8, catching_up(26, skipped=17)), (9, catching_up(34)), (8, catching_up(42)), (8, None)],
    ),
    "a successor says what was recorded, and begins there": (
        a_history(36),
        after(1) | {"catchUp": catching_up(34, skipped=17)},
        [(3, None)],
    ),
    "past the history nothing is told before it is recorded": (
        a_history(103, oldest=100),
        after(1),
        [(0, catching_up(99, skipped=98)), (5, None)],
    ),
    "a record that the state has overtaken": (
        a_history(3),
        after(2) | {"catchUp": catching_up(2, skipped=9)},
        [(1, None)],
    ),
    "a record that is none": (a_history(3), after(2) | {"catchUp": "later"}, [(1, None)]),
}


@pytest.mark.parametrize(("history", "previous", "expected"), PAGES.values(), ids=PAGES)
def test_pages(history: Any, previous: dict[str, Any], expected: list[tuple[int, dict[str, int] | None]]) -> None:
    """How many Events before which record."""
    steps = events.steps(
        a_resource(), a_snapshot(history=history), IN_FORCE, owner=OWNER, previous=previous, now_ms=NOW
    )
    assert [(len(step.events), step.catch_up) for step in steps] == expected


def test_the_shadow_is_told_from_what_the_status_shows_not_from_how_far_the_events_are() -> None:
    """A reset before the record still made the count begin anew."""
    history = (a_transition(State.CLOSED, 2, Reason.RESET), a_transition(State.CLOSED, 3, Reason.RESET))
    snapshot = an_observing_snapshot(replace(WATCHED, opened=1), consecutive_failures=5, history=history)
    previous = after(1) | OBSERVING | {"shadow": {"wouldHaveOpened": 3}, "catchUp": catching_up(2)}
    assert messages(snapshot, previous)["WouldHaveOpened"] == f"would have opened: {FIVE}"


class Told:
    """The API server: a status, and Events by name. A leader dies at any request."""

    def __init__(self, dice: random.Random) -> None:
        self.status: dict[str, Any] = {}
        self.messages: dict[str, str] = {}
        self.generation = 1
        self._dice = dice

    def lead(self, lifetime: float) -> bool:
        """One leader, who lives for about so many requests. True: it came to the end of its story."""
        oldest = max(1, self.generation - 255)
        snapshot = a_snapshot(order=Order(INCARNATION, self.generation, 1), history=a_history(self.generation, oldest))
        for step in events.steps(a_resource(), snapshot, IN_FORCE, owner=OWNER, previous=self.status, now_ms=NOW):
            for event in step.events:
                if self._dies(lifetime):
                    return False
                self.messages.setdefault(event.name, event.message)
            if self._dies(lifetime):
                return False
            self.status = after(self.generation) if step.catch_up is None else self.status | {"catchUp": step.catch_up}
        return True

    def _dies(self, lifetime: float) -> bool:
        return self._dice.random() < 1 / lifetime


@pytest.mark.parametrize("seed", range(25))
def test_leaders_that_die_at_any_moment(seed: int) -> None:
    """Each transition has its one Event or is counted by one, whoever dies when, while more of them come."""
    dice = random.Random(seed)
    told = Told(dice)
    lifetime = dice.choice([2.0, 5.0, 20.0, 100.0])
    for _ in range(60):
        told.lead(lifetime)
        told.generation += dice.choice([0, 1, 3, 12, 40])
        if told.generation - events.handled(told.status)[1] > 200:
            assert told.lead(1e9)  # past the history nobody can know
    assert told.lead(1e9)
    assert generations(told.messages) == list(range(2, told.generation + 1))


SHOWN = after(1) | {"reason": "Created", "observedGeneration": 1, "since": "2027-01-15T08:00:00.000Z"}


def test_only_the_creation_alone_may_be_told_later() -> None:
    """What the first status of an untouched breaker says as well, and nothing else."""

    def later(snapshot: Any, previous: dict[str, Any], decided: Plan = IN_FORCE, generation: int = 1) -> Any:
        resource = a_resource(generation=generation)
        steps = events.steps(resource, snapshot, decided, owner=OWNER, previous=previous, now_ms=NOW)
        return events.of_creation(resource, snapshot, previous, steps)

    event = later(a_snapshot(), {})
    assert event is not None
    assert (event.reason, event.name) == ("PolicyApplied", f"{STEM}.r1")
    assert later(a_snapshot(), {"conditions": [], "observedGeneration": 1}) == event, "it had waited for Redis"
    edited = a_snapshot(order=Order(INCARNATION, 1, 2), resource_generation=2)
    rejected = Plan(rejected=Rejected("StoreConflict", "another owner's"))
    assert later(edited, {}, generation=2) is None, "edited before it was shown"
    assert later(edited, after(1) | {"policy": {"mode": "Observe"}}, generation=2) is None, "an edit"
    assert later(an_open_snapshot(), {}) is None, "it opened meanwhile"
    assert later(a_forced_snapshot(HOLD), {}) is None, "it was made with an override"
    assert later(replace(a_snapshot(), owner="other"), {}, rejected) is None, "a refusal is no creation"
    assert later(a_snapshot(), after(1)) is None, "nothing to tell"


def test_who_comes_next_tells_the_same_creation() -> None:
    resource = a_resource(status=SHOWN)
    first = due(a_resource(), a_snapshot(), IN_FORCE, owner=OWNER, previous={}, now_ms=NOW)
    again = events.of_shown_creation(resource, since=INCARNATION)
    assert again is not None
    assert [(again.name, again.kind, again.reason)] == [(each.name, each.kind, each.reason) for each in first]
    assert again.at_ms == INCARNATION
    assert sorted(again.message.split(", ")) == sorted(first[0].message.split(", "))


@pytest.mark.parametrize(
    "other",
    [
        {"incarnation": INCARNATION - 1},  # made before Events were put off
        {"reason": "ConsecutiveFailures", "stateGeneration": 2},
        {"reason": "Restored"},
        {"observedGeneration": 2},
        {"policy": "none"},
        {"policy": None},
        {"since": "yesterday"},
        {"since": "9999-12-31T23:59:59Z"},
        {"since": None},
        {"incarnation": "first"},
    ],
    ids=str,
)
def test_of_what_shows_more_than_its_creation_nothing_is_told_again(other: dict[str, Any]) -> None:
    assert events.of_shown_creation(a_resource(status=SHOWN | other), since=INCARNATION) is None
