"""What goes away comes back, and nothing is lost or told twice."""

import time

import redis

from circuitbreaker_contract.state import Outcome, State
from tests.cluster.world import World

OPENED = ["PolicyApplied", "CircuitOpened"]
RECOVERED = [*OPENED, "CircuitHalfOpen", "CircuitClosed"]


def test_operator_restarted_while_open(world: World) -> None:
    """It recovers on time, no Event comes twice and none is missed."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="8s", successThreshold=1)  # longer than a start
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "Open")
        open_until_ms = fleet.observe().open_until_ms
    with world.operator() as operator:
        operator.wait_ready()
        assert world.status("payments")["state"] == "Open"
        world.until_state("payments", "HalfOpen")
        late_ms = fleet.observe(history=1).history[-1].at_ms - open_until_ms
        assert 0 <= late_ms < 1_000
        fleet.recover()
        world.until_state("payments", "Closed")
        world.until_events("payments", RECOVERED)
        assert fleet.observe().transition_totals == {
            (State.CLOSED, State.OPEN, "ConsecutiveFailures"): 1,
            (State.OPEN, State.HALF_OPEN, "RecoveryTimeoutElapsed"): 1,
            (State.HALF_OPEN, State.CLOSED, "ProbesSucceeded"): 1,
        }


def test_operator_down_while_it_opens_and_recovers(world: World) -> None:
    """Clients need no operator; status and Events catch up when it is back."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="200ms", successThreshold=2)
        world.until_ready("payments")
        before = world.status("payments")
    fleet.open()
    world.until(lambda: fleet.observe().due, "the opening to be over")
    fleet.recover()
    assert fleet.observe().state is State.CLOSED
    assert before == world.status("payments"), "nobody was there to tell"
    with world.operator() as operator:
        operator.wait_ready()
        world.until(lambda: world.status("payments")["stateGeneration"] == 4, "the status to catch up")
        status = world.status("payments")
        assert (status["state"], status["reason"]) == ("Closed", "ProbesSucceeded")
        assert [each["to"] for each in status["transitions"]] == ["Closed", "Open", "HalfOpen", "Closed"]
        world.until_events("payments", RECOVERED)


def test_a_restart_writes_nothing(world: World) -> None:
    """What has not changed is neither patched nor told again."""
    with world.operator() as operator:
        operator.wait_ready()
        for name in ("a", "b", "c"):
            world.create(name)
        world.until_ready("a", "b", "c")
    versions = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in world.all()}
    with world.operator() as operator:
        operator.wait_ready()
        world.create("later")  # seen after those that were there
        world.until_ready("later")
        assert versions == {name: world.get(name)["metadata"]["resourceVersion"] for name in versions}
        assert operator.metric('circuitbreaker_operator_status_patches_total{result="written"}') == 1


def test_redis_restarted_empty(world: World) -> None:
    """Every breaker is back in the state that its status said, in a higher incarnation; an Event says so."""
    names = ("closed", "opened", "half")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("closed")
        world.create("opened", recoveryTimeout="1h")
        world.create("half", recoveryTimeout="100ms", probeTimeout="1h")
        world.until_ready(*names)
        world.fleet("opened").open()
        world.fleet("half").open()
        world.until_state("opened", "Open")
        world.until_state("half", "HalfOpen")
        before = {name: world.fleet(name).observe() for name in names}

        world.server.restart(empty=True)
        for name in names:
            world.until(lambda name=name: world.keys_of(name) != set(), f"{name} to be back")
        for name in names:
            after = world.fleet(name).observe(history=1)
            assert after.state is before[name].state
            assert after.order > before[name].order
            assert after.order.generation == before[name].order.generation + 1
            assert after.open_until_ms == before[name].open_until_ms
            assert (after.attempt, after.reason) == (before[name].attempt, "Restored")
            assert after.totals.failures == 0
            world.until(lambda name=name: "CircuitRestored" in world.events(name), f"an Event on {name}")
        assert operator.ready


def test_functions_flushed(world: World) -> None:
    """The library is loaded again, and the breakers go on."""
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.redis.function_flush()
        world.until(lambda: bool(world.redis.function_list()), "the library to be back")
        world.fleet("payments").open()
        world.until_state("payments", "Open")


def test_api_server_restarted(world: World) -> None:
    """While it is away breakers open and half-open; when it is back status and Events catch up, and the watch lives."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1s", successThreshold=1)
        world.until_ready("payments")
        world.plane.stop_api_server()
        try:
            fleet.open()
            world.until(lambda: fleet.observe().state is State.HALF_OPEN, "the clock to half-open it meanwhile")
            fleet.recover()
        finally:
            world.plane.start_api_server()
        world.until(lambda: world.status("payments")["stateGeneration"] == 4, "the status to catch up")
        world.until_events("payments", RECOVERED)
        world.create("later")
        world.until_ready("later")
        world.delete("payments")
        world.until(lambda: not world.keys_of("payments"), "the deletion to be seen")


def test_starts_before_redis_and_the_api_server_are_up(world: World) -> None:
    """It says what it waits for, is alive and not ready, and goes on when they come."""
    world.create("payments")
    world.server.kill()
    world.plane.stop_api_server()
    try:
        with world.operator() as operator:
            world.until(lambda: operator.get("/healthz")[0] == 200, "liveness")
            status, body = operator.get("/readyz")
            assert status == 503
            assert "redis" in body
            world.until(lambda: "API server" in operator.log, "it says that it waits for the API server")
            world.plane.start_api_server()
            world.until(lambda: "Redis at redis://127.0.0.1" in operator.log, "it says that it waits for Redis")
            assert operator.process.alive
            world.server.restart(empty=True)
            operator.wait_ready()
            world.until_ready("payments")
    finally:
        if not world.plane.api_server.process.alive:
            world.plane.start_api_server()


def test_stops_within_five_seconds(world: World) -> None:
    """Also while Redis hangs; the exit status is 0."""
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        began = time.monotonic()
        operator.process.stop(10)
        assert operator.process.returncode == 0, operator.process.tail(60)
        assert time.monotonic() - began < 5
    with world.operator() as operator:
        operator.wait_ready()
        world.server.pause()
        try:
            began = time.monotonic()
            operator.process.stop(10)
            assert operator.process.returncode == 0, operator.process.tail(60)
            assert time.monotonic() - began < 5
        finally:
            world.server.resume()


def test_a_paused_redis_is_survived(world: World) -> None:
    """SIGSTOP: connections stay, nothing answers. Readiness tells, and work goes on after."""
    with world.operator(REDIS_TIMEOUT="500ms") as operator:
        operator.wait_ready()
        world.create("payments")
        world.until_ready("payments")
        world.server.pause()
        try:
            world.create("later")
            world.until(lambda: not operator.ready, "readiness to tell")
            assert operator.get("/healthz")[0] == 200
        finally:
            world.server.resume()
        world.until_ready("later")
        world.until(lambda: operator.ready, "readiness to come back")
        world.fleet("payments").open()
        world.until_state("payments", "Open")


def test_lost_probes_open_it_again(world: World) -> None:
    """Clients that die with a lease do not hold it HalfOpen for ever: the clock notices."""
    fleet = world.fleet("payments")
    with world.operator() as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="100ms", halfOpenLimit=1, probeTimeout="300ms")
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "HalfOpen")
        fleet.acquire("lost")
        world.until(lambda: "ProbesLost" in [t.reason for t in fleet.observe(history=9).history], "it to open again")
        world.until(lambda: world.events("payments").count("CircuitOpened") == 2, "the second Event")
        assert fleet.observe().probes.expired == 1
        assert fleet.settle("lost", Outcome.SUCCESS).state is not State.CLOSED


def test_redis_goes_back_in_time(world: World) -> None:
    """A breaker that is older than its status begins again as the status says, above every order that clients know."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s") as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="1h")
        world.until_ready("payments")
        older = world.redis.connection_pool.connection_kwargs | {"decode_responses": False}
        with redis.Redis(**{name: older[name] for name in ("host", "port", "db")}) as raw:
            dump = raw.dump(fleet.key)
            fleet.open()
            world.until_state("payments", "Open")
            lost = fleet.observe()
            raw.restore(fleet.key, 0, dump, replace=True)
        assert fleet.observe().state is State.CLOSED
        world.until(lambda: fleet.observe().state is State.OPEN, "the breaker to be Open again")
        again = fleet.observe()
        assert again.order > lost.order
        assert (again.reason, again.open_until_ms) == ("Restored", lost.open_until_ms)
        world.until(lambda: "CircuitRestored" in world.events("payments"), "the Event")
        # An Event goes before the status that it belongs to.
        world.until(lambda: world.status("payments")["incarnation"] == again.order.incarnation, "the status")


def test_a_probe_under_way_costs_next_to_nothing(world: World) -> None:
    """A lease that lasts is looked at when it may be over, not all the time."""
    fleet = world.fleet("payments")
    with world.operator(STATUS_REFRESH="1s", NAMESPACES=world.namespace) as operator:
        operator.wait_ready()
        world.create("payments", recoveryTimeout="100ms", probeTimeout="1h")
        world.until_ready("payments")
        fleet.open()
        world.until_state("payments", "HalfOpen")
        fleet.acquire("slow")
        time.sleep(2.5)  # two refreshes have seen the lease
        before = world.redis.info("commandstats")
        time.sleep(2.0)
        after = world.redis.info("commandstats")
        calls = sum(
            after.get(name, {"calls": 0})["calls"] - before.get(name, {"calls": 0})["calls"]
            for name in ("cmdstat_fcall", "cmdstat_fcall_ro")
        )
        assert calls <= 20, "a tick and a look for each refresh, and little more"
        assert fleet.observe().probes_live == 1
