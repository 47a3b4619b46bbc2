"""A resource's life: created, edited, refused, deleted, made again."""

import re
from typing import Any

from circuitbreaker_contract.errors import UnknownBreakerError
from circuitbreaker_contract.state import State
from tests.cluster.world import World


def test_create_edit_delete_and_create_again(world: World) -> None:
    """Each step shows in status, in Redis and in Events; a breaker made again counts from zero."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        first = world.create("payments", recoveryTimeout="1m30s")
        world.until_ready("payments")
        status = world.status("payments")
        assert status["policy"] == {
            "failureThreshold": 5,
            "recoveryTimeout": "1m30s",
            "halfOpenLimit": 3,
            "successThreshold": 3,
            "probeTimeout": "30s",
            "window": {"duration": "1m"},
            "minimumCalls": 10,
            "quorum": {"minReporters": 1},
            "mode": "Enforce",
        }
        assert (status["state"], status["observedGeneration"]) == ("Closed", 1)
        assert world.condition("payments", "Healthy") == ("True", "Closed")
        assert fleet.observe().uid == first["metadata"]["uid"]
        assert world.shown("payments") == "Closed"

        fleet.report(("S", 10), ("F", 4))
        world.patch("payments", {"spec": {"failureThreshold": 2}})
        world.until(lambda: world.status("payments").get("observedGeneration") == 2, "generation 2 to be observed")
        edited = fleet.observe()
        assert (edited.policy.failure_threshold, edited.order.revision) == (2, 2)
        assert (edited.state, edited.consecutive_failures) == (State.CLOSED, 4), "an edit is not a transition"
        fleet.report(("F", 1))
        world.until_state("payments", "Open")
        world.until_events("payments", ["PolicyApplied", "PolicyApplied", "CircuitOpened"])

        world.delete("payments")
        world.until(lambda: not world.keys_of("payments"), "the keys to go")
        assert world.shown("payments") is None

        second = world.create("payments")
        world.until_ready("payments")
        again = fleet.observe()
        assert again.uid == second["metadata"]["uid"]
        assert again.order.incarnation > edited.order.incarnation
        assert (again.order.generation, again.state, again.totals.failures) == (1, State.CLOSED, 0)


def test_recreated_at_once_under_the_same_name(world: World) -> None:
    """No time between deletion and creation: the new resource's breaker is the one that stays."""
    with world.operator() as operator:
        operator.wait_ready()
        for _ in range(5):
            uid = world.create("payments")["metadata"]["uid"]
            world.until(lambda uid=uid: uid_of(world) == uid, "the breaker of the new resource")
            world.delete("payments")
        world.until(lambda: uid_of(world) is None, "the last one to go")


def uid_of(world: World) -> str | None:
    try:
        return world.fleet("payments").observe().uid
    except UnknownBreakerError:
        return None


SPECS: dict[str, dict[str, Any]] = {
    "rate": {"failureThreshold": 0, "failureRatePercent": 50},
    "window-of-calls": {"window": {"calls": 100}, "minimumCalls": 20},
    "window-of-time": {"window": {"duration": "2m"}},
    "slow-calls": {"slowCallDuration": "2s", "slowCallRatePercent": 50},
    "backoff": {"backoff": {"factor": 2, "max": "5m", "jitterPercent": 10}},
    "quorum": {"quorum": {"minReporters": 2}},
    "observe": {"mode": "Observe"},
    "override": {"override": {"state": "Open", "reason": "maintenance"}},
}


def test_everything_that_a_spec_can_ask_for_is_put_in_force(world: World) -> None:
    """Status and Redis hold each field, in the words of spec; taken out again, each is as before."""
    with world.operator() as operator:
        operator.wait_ready()
        for name, spec in SPECS.items():
            world.create(name, **spec)
        world.create("nothing")
        world.until_ready(*SPECS, "nothing")
        plain = world.fleet("nothing").observe().policy
        for name, spec in SPECS.items():
            shown = world.status(name)["policy"]
            assert {field: shown[field] for field in spec} == spec
            assert world.fleet(name).observe().policy != plain
            assert "PolicyApplied" in world.events(name)
            world.patch(name, {"spec": dict.fromkeys(spec)})
        for name in SPECS:
            world.until(lambda name=name: world.fleet(name).observe().policy == plain, f"{name} to be as nothing")
            world.until(lambda name=name: world.status(name)["observedGeneration"] == 2, f"the status of {name}")
            assert world.status(name)["policy"] == world.status("nothing")["policy"]
            assert "PolicyRejected" not in world.events(name)


def test_what_only_a_default_makes_wrong_is_said(world: World) -> None:
    """The API server accepts it; Ready is False and names the field and the way out, and the last policy stays."""
    wrong = {"backoff": {"factor": 2, "max": "20s"}}
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=2)
        world.until_ready("payments")
        before = world.fleet("payments").observe()
        world.patch("payments", {"spec": wrong})
        world.until(lambda: world.condition("payments") == ("False", "InvalidSpec"), "Ready to be False")
        status = world.status("payments")
        ready = next(each for each in status["conditions"] if each["type"] == "Ready")
        assert ready["message"].startswith("spec.backoff.max: must not be shorter than recoveryTimeout, which is 30s")
        assert ready["observedGeneration"] == 2
        after = world.fleet("payments").observe()
        assert (before.policy, before.order) == (after.policy, after.order)
        assert status["policy"]["failureThreshold"] == 2
        world.until_events("payments", ["PolicyApplied", "PolicyRejected"])
        world.patch("payments", {"spec": {"recoveryTimeout": "20s"}})
        world.until_ready("payments")

        world.create("new", **wrong)
        world.until(lambda: world.condition("new") == ("False", "InvalidSpec"), "Ready to be False")
        assert world.keys_of("new") == set(), "there is no last policy to keep, so there is no breaker"


def test_the_same_name_in_two_namespaces(world: World) -> None:
    """Two breakers that share nothing."""
    other = world.new_namespace()
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", failureThreshold=1)
        world.create("payments", namespace=other, failureThreshold=9)
        world.until_ready("payments")
        world.until_ready("payments", namespace=other)
        world.fleet("payments").open()
        world.until_state("payments", "Open")
        assert world.status("payments", other)["state"] == "Closed"
        assert world.fleet("payments", other).observe().totals.failures == 0


def test_two_hundred_at_once(world: World) -> None:
    """All become Ready, each with one PolicyApplied, and the operator is done with them."""
    with world.operator() as operator:
        operator.wait_ready()
        for number in range(200):
            world.create(f"b{number:03d}", failureThreshold=1 + number)
        world.until(lambda: sum(ready(each) for each in world.all()) == 200, "200 breakers to be Ready", seconds=60)
        for number in (0, 57, 199):
            assert world.fleet(f"b{number:03d}").observe().policy.failure_threshold == 1 + number
        shown = [name for name in world.redis.hkeys(world.keys.states) if name.startswith(f"{world.namespace}/")]
        assert len(shown) == 200
        series = re.findall(r"^circuitbreaker_consecutive_failures.*$", operator.get("/metrics")[1], re.MULTILINE)
        assert sum(f'namespace="{world.namespace}"' in each for each in series) == 200


def ready(resource: dict) -> bool:
    conditions = resource.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_reset_by_annotation(world: World) -> None:
    """A value that was there at first sight is recorded; each new value closes the breaker, once."""
    annotation = "circuitbreaker.dev/reset"
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", annotations={annotation: "monday"})
        world.until_ready("payments")
        assert (fleet.observe().last_reset, fleet.observe().order.generation) == ("monday", 1)
        fleet.open()
        world.until_state("payments", "Open")
        world.patch("payments", {"metadata": {"annotations": {annotation: "tuesday, at noon"}}})
        world.until_state("payments", "Closed")
        assert world.status("payments")["reason"] == "Reset"
        fleet.open()
        world.until_state("payments", "Open")
        world.patch("payments", {"metadata": {"labels": {"touched": "yes"}}})
        world.create("other")
        world.until_ready("other")
        assert fleet.observe().state is State.OPEN, "the same value does nothing more"
