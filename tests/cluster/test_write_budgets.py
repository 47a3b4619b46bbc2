"""How often the API server is written to, scenario by scenario, by its own count.

Kopf writes nothing as long as no handler of ours patches: no finalizer, no annotation, no progress. An upgrade that
changes this shows here.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.cluster.world import World
from tests.cluster.writes import Writes, counted

COUNT = 40
ROUNDS = 2  # of the sweep, which is every second or two here


@pytest.fixture
def wrote(world: World) -> Callable[[Writes], Writes]:
    """What was written since."""
    return lambda before: counted(world.plane.kubectl("get", "--raw", "/metrics")).since(before)


NOTHING = Writes(0, 0, 0)


def own(world: World) -> dict[str, str]:
    """An operator that sees nothing of what other tests have left."""
    return {"NAMESPACES": world.namespace, "OWNER": world.namespace}


def quiet(world: World, operator) -> None:
    """Whole comparisons go by, and nothing is left in a queue."""
    name = "circuitbreaker_operator_sweeps_total"
    seen = operator.metric(name) or 0
    world.until(lambda: (operator.metric(name) or 0) >= seen + ROUNDS, "two sweeps")
    world.until(
        lambda: (
            not any(
                operator.metric(f'circuitbreaker_operator_workqueue_depth{{queue="{queue}"}}')
                for queue in ("reconcile", "status")
            )
        ),
        "the queues",
    )


def test_each_thing_is_written_once(world: World, wrote) -> None:
    names = [f"breaker-{number}" for number in range(COUNT)]
    with world.operator(**own(world), STATUS_REFRESH="0", SWEEP_INTERVAL="1s") as operator:
        operator.wait_ready()
        before = wrote(NOTHING)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: world.create(name, failureThreshold=2, recoveryTimeout="1h"), names))
        world.until_ready(*names)
        quiet(world, operator)
        assert wrote(before) == Writes(COUNT, COUNT, COUNT), "a status and an Event each; the creates are ours"
        own_writes = 'circuitbreaker_operator_watch_events_total{result="own"}'
        assert (operator.metric(own_writes) or 0) <= COUNT
        thresholds = count(3)

        def is_known() -> bool:
            """On a busy machine the watch may tell of a status before the API server has answered."""
            if not operator.metric(own_writes):
                world.patch(names[0], {"spec": {"failureThreshold": next(thresholds)}})
                world.until_ready(names[0])
                world.patch(names[0], {"spec": {"failureThreshold": 2}})
                world.until_ready(names[0])
            return bool(operator.metric(own_writes))

        world.until(is_known, "the watch to tell of a status in the form that we know, unheard by Kopf")
        quiet(world, operator)

        before = wrote(NOTHING)
        quiet(world, operator)
        assert wrote(before) == NOTHING, "nothing happens"

        fleets = [world.fleet(name) for name in names]
        for fleet in fleets:
            fleet.report(("S", 3), ("F", 1), ("S", 1))
        quiet(world, operator)
        assert wrote(before) == NOTHING, "counters alone, with CB_STATUS_REFRESH=0"

        for fleet in fleets:
            fleet.open()
        for name in names:
            world.until_state(name, "Open")
        quiet(world, operator)
        assert wrote(before) == Writes(COUNT, COUNT, 0), "an opening"

        before = wrote(NOTHING)
        for name in names:
            world.patch(name, {"metadata": {"labels": {"team": "shop"}}})
        quiet(world, operator)
        assert wrote(before) == Writes(0, 0, COUNT), "a label is of no interest; the patches are ours"
        for each in world.all():
            assert "finalizers" not in each["metadata"]
            assert not each["metadata"].get("annotations")

    before = wrote(NOTHING)
    with world.operator(**own(world), STATUS_REFRESH="0", SWEEP_INTERVAL="1s") as operator:
        quiet(world, operator.wait_ready())
        assert wrote(before) == NOTHING, "a restart"

        for name in names:
            world.delete(name)
        world.until(lambda: not world.redis.keys("cb:{*"), "the breakers to go")
        quiet(world, operator)
        assert wrote(before) == Writes(0, 0, COUNT), "the deletions are ours"


def test_what_follows_closely_is_one_status_and_each_its_event(world: World, wrote) -> None:
    """Opened, recovered, opened ..., quicker than statuses are written."""
    cycles = 5
    with world.operator(**own(world), STATUS_REFRESH="0", STATUS_QPS="1") as operator:
        operator.wait_ready()
        world.create("pay", failureThreshold=1, recoveryTimeout="100ms", successThreshold=1)
        world.create("other", failureThreshold=1)
        world.until_ready("pay", "other")
        quiet(world, operator)
        before, fleet = wrote(NOTHING), world.fleet("pay")
        began = time.monotonic()
        for _ in range(cycles):
            fleet.open()
            world.until(lambda: fleet.observe().state == "HalfOpen", "the end of the opening")
            fleet.recover()
        world.until(lambda: world.status("pay")["stateGeneration"] == 1 + 3 * cycles, "the status")
        took = time.monotonic() - began
        quiet(world, operator)
        found = wrote(before)
        assert (found.events, found.others) == (3 * cycles, 0)
        assert 1 <= found.statuses <= 3 + took, "one a second, two at once at first"


def test_counters_are_refreshed_no_more_often_than_asked(world: World, wrote) -> None:
    with world.operator(**own(world), STATUS_REFRESH="3s") as operator:
        operator.wait_ready()
        world.create("pay", failureThreshold=100)
        world.until_ready("pay")
        before, began, fleet = wrote(NOTHING), time.monotonic(), world.fleet("pay")
        while world.status("pay")["totals"]["successes"] < 30:
            fleet.report(("S", 1))
            assert time.monotonic() - began < 30
        found = wrote(before)
        assert found.events == found.others == 0
        assert 1 <= found.statuses <= 2 + (time.monotonic() - began) / 2, "the interval, less a second of earliness"
