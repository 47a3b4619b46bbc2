"""Outages that are long enough for whoever tries again to have become slow."""

from circuitbreaker_contract.state import State
from circuitbreaker_local.control_plane import ControlPlane
from tests.chaos import checks
from tests.cluster.world import OperatorProcess, World

RETRIES = "circuitbreaker_operator_workqueue_retries_total"
FAILURES = 6  # the next of a breaker's tries would come 12 to 16 s after the last one
BREAKERS = 20
SOON_SECONDS = 5.0
A_MINUTE_SECONDS = 60.0


def test_statuses_after_a_long_outage_of_the_api_server(world: World, plane: ControlPlane) -> None:
    """Breakers moved meanwhile, and are quiet now: nothing but the end of the outage makes the operator write."""
    names = [f"b{number}" for number in range(BREAKERS)]
    with world.operator(SWEEP_INTERVAL="10m", STATUS_REFRESH="10m") as operator:
        for name in names:
            world.create(name, recoveryTimeout="1h")
        operator.wait_ready()
        world.until_ready(*names)
        plane.stop_api_server()
        for name in names:
            world.fleet(name).open()
        world.until(lambda: "check that it runs" in operator.log, "the log to say so", SOON_SECONDS)
        tries = FAILURES * BREAKERS
        world.until(lambda: _retries(operator) >= tries, f"{FAILURES} tries of each to write its status", 40)
        plane.start_api_server()
        world.until(lambda: not _different(world, names), "the statuses to say what Redis does", SOON_SECONDS)
        for name in names:
            assert world.events(name).count("CircuitOpened") == 1
        assert operator.ready


def test_a_minute_without_redis(world: World, plane: ControlPlane) -> None:
    """A breaker that waits for Redis says so, after a minute and not before; one that does not wait is not touched."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("quiet")
        world.create("edited")
        world.until_ready("quiet", "edited")
        version = world.get("quiet")["metadata"]["resourceVersion"]
        world.server.kill()
        world.patch("edited", {"spec": {"failureThreshold": 7}})
        world.until(lambda: not operator.ready, "readiness to tell")
        assert world.condition("edited")[1] != "StoreUnavailable"
        world.until(
            lambda: world.condition("edited") == ("Unknown", "StoreUnavailable"), "the condition", A_MINUTE_SECONDS + 15
        )
        world.create("made")
        world.until(lambda: world.condition("made") == ("Unknown", "StoreUnavailable"), "the one that is made", 15)
        assert world.get("quiet")["metadata"]["resourceVersion"] == version
        world.server.start()
        world.until_ready("quiet", "edited", "made")
        assert world.fleet("edited").observe().policy.failure_threshold == 7


def _retries(operator: OperatorProcess) -> float:
    return operator.metric(f'{RETRIES}{{queue="status"}}') or 0.0


def _different(world: World, names: list[str]) -> dict[str, object]:
    statuses = {item["metadata"]["name"]: item["status"] for item in world.all()}
    found = {name: checks.difference(statuses[name], world.fleet(name).observe(history=20)) for name in names}
    assert all(world.fleet(name).observe().state is State.OPEN for name in names)
    return {name: each for name, each in found.items() if each}
