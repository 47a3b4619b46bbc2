"""Breakers whose resource is refused (InvalidSpec), and that have no place in Redis any more, or should have none."""

import json
from typing import Any

from tests.cluster.world import World

REJECTED = {"backoff": {"factor": 2, "max": "20s"}, "recoveryTimeout": None}  # shorter than the default of 30 s


def test_one_that_redis_lost_is_shown_as_open_no_more(world: World) -> None:
    """Metrics and /health told of it until the operator was started again, and everything was compared all the time."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        world.fleet("payments").open()
        world.until_state("payments", "Open")
        world.patch("payments", {"spec": REJECTED})
        world.until(lambda: world.condition("payments") == ("False", "InvalidSpec"), "the condition to say so")
        labels = f'{{namespace="{world.namespace}",name="payments",state="Open"}}'
        assert operator.metric(f"circuitbreaker_state{labels}") == 1.0
        world.redis.flushall()
        world.until(lambda: operator.metric(f"circuitbreaker_state{labels}") is None, "its series to go")
        assert "payments" not in json.dumps(health(operator)["open_circuits"])
        assert world.status("payments")["state"] == "Open", "what it comes back as"
        world.patch("payments", {"spec": {"recoveryTimeout": "10s"}})
        world.until_ready("payments")
        assert world.fleet("payments").observe().state.value == "Open"
        world.until(lambda: operator.metric(f"circuitbreaker_state{labels}") == 1.0, "its series to come back")


def test_one_of_an_earlier_resource_of_that_name_goes(world: World) -> None:
    """Clients went on with its policy and its state, while the status said that no policy is in force."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "Open")
    world.delete("payments")
    world.create("payments", backoff=REJECTED["backoff"])
    with world.operator() as operator:
        operator.wait_ready()
        world.until(lambda: world.condition("payments") == ("False", "InvalidSpec"), "the condition to say so")
        world.until(lambda: not world.redis.exists(fleet.key), "the earlier one to go")
        assert "state" not in world.status("payments")
        world.patch("payments", {"spec": {"recoveryTimeout": "10s"}})
        world.until_ready("payments")
        assert fleet.observe().state.value == "Closed"


def health(operator: Any) -> Any:
    return json.loads(operator.get("/health")[1])
