"""Every rule of the spec on real parts: what it does, and what a person sees of it in status, Events and metrics."""

import re
from datetime import UTC, datetime
from typing import Any

from circuitbreaker_contract.state import Decision, Outcome, State
from circuitbreaker_operator import times
from tests.cluster.world import API, PLURAL, OperatorProcess, World

RESET = "circuitbreaker.dev/reset"
HOLD = {"state": "Open", "reason": "maintenance"}


def messages(world: World, reason: str, name: str = "payments") -> list[str]:
    """What Events of that reason say."""
    found = world.core.list_namespaced_event(world.namespace, field_selector=f"involvedObject.name={name}").items
    return [each.message for each in found if each.reason == reason]


def until_event(world: World, reason: str, number: int = 1) -> str:
    """The message of the only one, or of one of so many."""
    world.until(lambda: len(messages(world, reason)) == number, f"{number} {reason}")
    return messages(world, reason)[0]


def until_status(world: World, expected: dict[str, Any]) -> dict[str, Any]:
    """Waits until the status has these at the top; the whole of it."""
    world.until(
        lambda: expected.items() <= {name: world.status("payments").get(name) for name in expected}.items(),
        f"the status to have {expected}",
    )
    return world.status("payments")


def columns(world: World, *more: str) -> dict[str, str]:
    """What `kubectl get` shows of it, by the name of the column."""
    printed = world.plane.kubectl("get", "breakers", "payments", "-n", world.namespace, *more)
    head, row = printed.splitlines()
    starts = [head.index(name) for name in head.split()]
    ends = [*starts[1:], max(len(head), len(row))]
    return {name: row[start:end].strip() for name, start, end in zip(head.split(), starts, ends, strict=True)}


def series(operator: OperatorProcess, world: World, name: str, **labels: str) -> float | None:
    """The value of the breaker's series with these labels, in whatever order they are written."""
    wanted = labels | {"namespace": world.namespace, "name": "payments"}
    for line in operator.get("/metrics")[1].splitlines():
        found = re.fullmatch(rf"circuitbreaker_{name}\{{(.*)\}} (\S+)", line)
        if found and dict(re.findall(r'(\w+)="([^"]*)"', found[1])) == wanted:
            return float(found[2])
    return None


def test_a_failure_rate_opens_it_and_the_columns_show(world: World) -> None:
    """A window of ten calls: half of them failed."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=0, failureRatePercent=50, window={"calls": 10}, minimumCalls=4)
        world.until_ready("payments")
        fleet.report(("F", 1))
        until_status(world, {"window": {"calls": 1, "failures": 1, "slow": 0}})
        assert columns(world)["RATE"] == "", "below minimumCalls it is unknown"
        assert series(operator, world, "failure_rate_percent") is None
        fleet.report(("S", 6), ("F", 3))
        status = until_status(world, {"window": {"calls": 10, "failures": 4, "slow": 0, "failureRatePercent": 40}})
        assert (status["state"], columns(world)["RATE"]) == ("Closed", "40")
        fleet.report(("S", 1), ("F", 2))
        wait = ("--for=jsonpath={.status.state}=Open", "--timeout=20s", "-n", world.namespace)
        world.plane.kubectl("wait", "breaker/payments", *wait)
        status = until_status(world, {"state": "Open", "reason": "FailureRate"})
        assert status["message"] == "50.0 % of 10 calls failed, which reached failureRatePercent 50"
        assert until_event(world, "CircuitOpened") == f"{status['message']}; calls are not permitted for 30s"
        shown = columns(world, "-o", "wide")
        assert (shown["STATE"], shown["REASON"], shown["RATE"], shown["RETRY-AT"]) == (
            "Open",
            "FailureRate",
            "50",
            status["openUntil"],
        )
        assert (shown["THRESHOLD"], shown["TRIPS"], shown["MODE"]) == ("0", "1", "Enforce")
        assert series(operator, world, "failure_rate_percent") == 50.0
        assert series(operator, world, "slow_call_rate_percent") is None
        moved = {"from_state": "Closed", "to_state": "Open", "reason": "FailureRate"}
        assert series(operator, world, "transitions_total", **moved) == 1.0
        assert '"recent": 50.0' in operator.get("/health")[1]


def test_slow_calls_open_it_and_a_slow_probe_opens_it_again(world: World) -> None:
    """Slow calls that succeed are none the less slow."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="500ms", slowCallDuration="2s", slowCallRatePercent=75, minimumCalls=4)
        world.until_ready("payments")
        fleet.report(("S", 1), ("L", 3))
        text = "75.0 % of 4 calls took longer than 2s, which reached slowCallRatePercent 75"
        assert until_event(world, "CircuitOpened") == f"{text}; calls are not permitted for 500ms"
        world.until(lambda: series(operator, world, "slow_call_rate_percent") == 75.0, "the metric")
        world.until_state("payments", "HalfOpen")
        fleet.acquire("slow")
        assert fleet.settle("slow", Outcome.SLOW_SUCCESS).state is State.OPEN
        world.until(lambda: len(messages(world, "CircuitOpened")) == 2, "the second Event")
        assert any(said.startswith("a probe failed or was slow") for said in messages(world, "CircuitOpened"))


def test_backoff_lengthens_the_second_opening(world: World) -> None:
    """The status has the end of each, the Event the length."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=1, recoveryTimeout="700ms", backoff={"factor": 3, "max": "2s"})
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "HalfOpen")
        fleet.acquire("bad")
        fleet.settle("bad", Outcome.FAILURE)
        status = until_status(world, {"state": "Open", "attempt": 2})
        assert times.to_ms(status["openUntil"]) - times.to_ms(status["since"]) == 2_000, "700 ms x 3, cut to max"
        lengths = {said.rpartition(" ")[2] for said in messages(world, "CircuitOpened")}
        assert lengths == {"700ms", "2s"}
        world.until_state("payments", "HalfOpen")
        at_ms = fleet.observe(history=1).history[-1].at_ms
        assert 0 <= at_ms - times.to_ms(status["openUntil"]) < 1_000, "the clock was on time"


def test_a_quorum_of_two(world: World) -> None:
    """One client alone does not open it, and the status says that it cannot; with a second one it opens."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=3, quorum={"minReporters": 2})
        world.until_ready("payments")
        assert world.condition("payments", "QuorumReachable") == ("Unknown", "NoReporters")
        assert fleet.report(("F", 9), client="a").state is State.CLOSED
        unreachable = ("False", "TooFewReporters")
        world.until(lambda: world.condition("payments", "QuorumReachable") == unreachable, "the condition to tell")
        assert fleet.report(("F", 1), client="b").state is State.OPEN
        world.until_state("payments", "Open")
        world.until(lambda: world.condition("payments", "QuorumReachable")[0] == "True", "the condition to tell")
        assert until_event(world, "CircuitOpened").startswith("10 consecutive failures reached failureThreshold 3")


def test_observe_tells_and_refuses_nothing(world: World) -> None:
    """The shadow opens, would have refused, probes and closes; the breaker itself stays Closed in one generation."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", mode="Observe", failureThreshold=3, recoveryTimeout="2s", successThreshold=2)
        world.until_ready("payments")
        assert world.status("payments")["shadow"]["wouldHaveOpened"] == 0
        fleet.report(("F", 3), ("S", 4))
        said = until_event(world, "WouldHaveOpened")
        assert said == "would have opened: 3 consecutive failures reached failureThreshold 3"
        world.until(lambda: world.status("payments")["shadow"]["notPermitted"] == 4, "the shadow to count")
        shadow = world.status("payments")["shadow"]
        assert (shadow["state"], shadow["attempt"], shadow["wouldHaveOpened"]) == ("Open", 1, 1)
        assert times.to_ms(shadow["openUntil"]) - times.to_ms(shadow["since"]) == 2_000
        assert fleet.acquire("any").decision is Decision.PERMITTED
        world.until(lambda: world.status("payments")["shadow"]["state"] == "HalfOpen", "the clock to half-open it")
        assert "openUntil" not in world.status("payments")["shadow"]
        fleet.report(("S", 2))
        world.until(lambda: world.status("payments")["shadow"]["state"] == "Closed", "it to close")
        fleet.report(("F", 3))
        until_event(world, "WouldHaveOpened", 2)
        world.until(lambda: series(operator, world, "shadow_opened_total") == 2.0, "the metric")
        assert series(operator, world, "shadow_not_permitted_total") == 4.0
        assert series(operator, world, "state", state="Open") == 0.0
        status = world.status("payments")
        assert (status["state"], status["stateGeneration"], status["trips"]) == ("Closed", 1, 0)

        world.patch("payments", {"metadata": {"annotations": {RESET: "one"}}})
        status = until_status(world, {"lastReset": "one", "reason": "Reset", "stateGeneration": 2})
        assert (status["shadow"]["state"], status["shadow"]["wouldHaveOpened"]) == ("Closed", 0)
        fleet.report(("F", 3))
        until_event(world, "WouldHaveOpened", 3)
        world.until_events("payments", ["PolicyApplied", "CircuitReset", *["WouldHaveOpened"] * 3])


def test_held_open_until_a_time(world: World) -> None:
    """Open at once, with who did it and why; it ends by itself, on time, in HalfOpen."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        until_ms = fleet.observe().now_ms + 4_000
        until = datetime.fromtimestamp(until_ms / 1000, UTC).isoformat(timespec="milliseconds")
        body = {"spec": {"override": HOLD | {"until": until}}}
        world.objects.patch_namespaced_custom_object(
            *API, world.namespace, PLURAL, "payments", body, field_manager="oncall"
        )
        status = until_status(world, {"state": "Open", "reason": "Forced", "forced": True})
        assert status["message"] == "held Open: maintenance"
        assert (status["openUntil"], status["attempt"]) == (times.to_text(until_ms), 0)
        assert status["policy"]["override"] == HOLD | {"until": times.to_text(until_ms)}
        ending = times.to_seconds_text(until_ms)
        assert until_event(world, "CircuitForced") == f"held Open until {ending}, set by oncall: maintenance"
        assert series(operator, world, "forced") == 1.0
        assert fleet.acquire("any").decision is Decision.NOT_PERMITTED
        assert operator.get("/health")[1].count('"degraded"') == 1

        status = until_status(world, {"state": "HalfOpen", "reason": "OverrideExpired"})
        assert 0 <= times.to_ms(status["since"]) - until_ms < 1_000, "the clock was on time"
        assert status.keys().isdisjoint({"forced", "openUntil"})
        assert "override" not in status["policy"]
        assert until_event(world, "OverrideExpired") == "the override is over; probes are permitted"
        ready = next(each for each in status["conditions"] if each["type"] == "Ready")
        assert ready["message"].endswith("spec.override has no effect, since its until is past")
        fleet.recover()
        world.until_events("payments", ["PolicyApplied", "CircuitForced", "OverrideExpired", "CircuitClosed"])
        assert fleet.observe().forced is None, "it ends once"


def test_held_open_until_somebody_ends_it(world: World) -> None:
    """No openUntil; it survives Redis emptied and a restart of the operator; taken away, probes begin."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="100ms", override=HOLD)
        status = until_status(world, {"state": "Open", "forced": True})
        assert "openUntil" not in status
        assert columns(world)["RETRY-AT"] == ""
        assert fleet.acquire("any").standing.retry_after_ms == -1
        before = fleet.observe()
        assert before.retry_after_ms == -1

        world.server.restart(empty=True)
        world.until(lambda: world.keys_of("payments") != set(), "the breaker to be back")
        after = fleet.observe()
        assert (after.state, after.forced, after.open_until_ms) == (State.OPEN, State.OPEN, None)
        assert after.order > before.order
        status = until_status(world, {"reason": "Restored", "forced": True})
        assert status["message"] == "made again in Redis from this status; held Open: maintenance"

        world.patch("payments", {"spec": {"override": {"reason": "still broken"}}})
        until_status(world, {"message": "made again in Redis from this status; held Open: still broken"})
    with world.operator() as operator:
        operator.wait_ready()
        assert fleet.observe().forced is State.OPEN
        world.patch("payments", {"metadata": {"annotations": {RESET: "one"}}})
        status = until_status(world, {"reason": "Reset", "state": "Open", "forced": True})
        assert status["message"].endswith("circuitbreaker.dev/reset; held Open: still broken")
        world.patch("payments", {"spec": {"override": None}})
        status = until_status(world, {"state": "HalfOpen", "reason": "OverrideExpired"})
        assert "forced" not in status
        fleet.recover()
        world.until_state("payments", "Closed")
        applied = ["PolicyApplied", "PolicyApplied"]  # made, and another reason
        world.until_events(
            "payments",
            [*applied, "CircuitForced", "CircuitRestored", "CircuitReset", "OverrideExpired", "CircuitClosed"],
        )


def test_held_closed_during_failures(world: World) -> None:
    """Failures are counted in the totals and nowhere else; taken away, counts start at zero."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=3, override={"state": "Closed", "reason": "load test"})
        until_status(world, {"state": "Closed", "reason": "Forced", "message": "held Closed: load test"})
        assert fleet.report(("F", 50)).state is State.CLOSED
        world.until(lambda: world.status("payments")["totals"]["failures"] == 50, "the totals")
        assert world.status("payments")["consecutiveFailures"] == 0
        world.patch("payments", {"spec": {"override": None}})
        until_status(world, {"state": "Closed", "reason": "OverrideExpired"})
        assert until_event(world, "OverrideExpired") == "the override is over; counts start at zero"
        assert fleet.report(("F", 2)).state is State.CLOSED
        assert fleet.report(("F", 1)).state is State.OPEN


def test_held_closed_until_a_time_ends_on_time(world: World) -> None:
    """Nothing but the clock asks for it: the state does not even change."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        until_ms = fleet.observe().now_ms + 2_000
        override = {"state": "Closed", "reason": "load test", "until": times.to_text(until_ms)}
        world.patch("payments", {"spec": {"override": override}})
        until_status(world, {"forced": True})
        status = until_status(world, {"forced": None, "reason": "OverrideExpired"})
        assert 0 <= times.to_ms(status["since"]) - until_ms < 1_000


def test_window_edits(world: World) -> None:
    """Another number of calls keeps what it can; another kind starts empty, and an Event says so."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=50, window={"calls": 20})
        world.until_ready("payments")
        fleet.report(("F", 12))
        world.patch("payments", {"spec": {"window": {"calls": 10}}})
        until_status(world, {"observedGeneration": 2})
        assert fleet.observe().window.calls == 10
        world.patch("payments", {"spec": {"window": {"calls": None, "duration": "30s"}}})
        status = until_status(world, {"observedGeneration": 3})
        assert status["policy"]["window"] == {"duration": "30s"}
        assert (fleet.observe().window.calls, fleet.observe().consecutive_failures) == (0, 12)
        assert until_event(world, "WindowReset") == (
            "the window starts empty: it was window.calls 10 and is window.duration 30s"
        )
        world.until_events("payments", [*["PolicyApplied"] * 3, "WindowReset"])


def test_mode_edits(world: World) -> None:
    """To Observe it closes; back in Enforce it counts from zero."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=3)
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "Open")
        world.patch("payments", {"spec": {"mode": "Observe"}})
        status = until_status(world, {"state": "Closed", "reason": "ModeChanged"})
        assert status["message"] == until_event(world, "ModeChanged") == "spec.mode changed to Observe"
        assert status["shadow"]["state"] == "Closed"
        assert columns(world, "-o", "wide")["MODE"] == "Observe"
        fleet.report(("F", 2))
        world.patch("payments", {"spec": {"mode": "Enforce"}})
        status = until_status(world, {"message": "spec.mode changed to Enforce"})
        assert "shadow" not in status
        assert fleet.report(("F", 2)).state is State.CLOSED
        assert fleet.report(("F", 1)).state is State.OPEN
        world.until_state("payments", "Open")


def test_one_edit_of_everything_shows_everything_in_order(world: World) -> None:
    """The rules first, then what they did to the window, then the override."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", window={"calls": 20})
        world.until_ready("payments")
        edit = {"failureThreshold": 9, "window": {"calls": None, "duration": "2m"}, "override": HOLD}
        world.patch("payments", {"spec": edit})
        until_status(world, {"state": "Open", "forced": True, "observedGeneration": 2})
        found = world.core.list_namespaced_event(world.namespace, field_selector="involvedObject.name=payments").items
        posted = sorted(found, key=lambda each: int(each.metadata.resource_version))
        assert [each.reason for each in posted] == ["PolicyApplied", "PolicyApplied", "WindowReset", "CircuitForced"]
        assert len({each.first_timestamp for each in posted[1:]}) == 1, "all of one moment"
        policy = world.status("payments")["policy"]
        assert (policy["failureThreshold"], policy["window"], policy["override"]) == (9, {"duration": "2m"}, HOLD)
