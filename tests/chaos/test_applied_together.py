"""Many breakers made at once: all are Ready before the Events of their creation are told, and none is lost or doubled.

What came first is read off the resource versions: Events and breakers are in one etcd.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from circuitbreaker_local.control_plane import ControlPlane
from tests.cluster.world import OperatorProcess, World

COUNT = 320
RATE = "15"  # at which most still wait to be shown when Events are put off, however slowly Redis is told of them
SOME = 20
NAMES = [f"breaker-{number}" for number in range(COUNT)]
OWNER = "together"


def make_all(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: world.create(name, failureThreshold=2, recoveryTimeout="1h"), NAMES))


@contextmanager
def operator(world: World, *, rate: str = RATE) -> Iterator[OperatorProcess]:
    with world.operator(NAMESPACES=world.namespace, OWNER=OWNER, STATUS_QPS=rate) as process:
        yield process


def mark(world: World) -> dict[str, str]:
    return dict(world.redis.hgetall(world.keys.deferred))


def shown(world: World) -> dict[str, int]:
    """Breakers that are Ready, with the version of their status."""
    return {
        each["metadata"]["name"]: int(each["metadata"]["resourceVersion"])
        for each in world.all()
        if any(it["type"] == "Ready" and it["status"] == "True" for it in each.get("status", {}).get("conditions", []))
    }


def events(world: World) -> list[Any]:
    return world.core.list_namespaced_event(world.namespace).items


def events_of(world: World, name: str) -> list[Any]:
    return [each for each in events(world) if each.involved_object.name == name]


def told(world: World) -> dict[str, int]:
    """Breakers whose creation is told, with the version of the Event; holds that it was told once."""
    found = [each for each in events(world) if each.reason == "PolicyApplied"]
    assert all(each.count == 1 and each.metadata.name.endswith(".r1") for each in found)
    assert max(Counter(each.involved_object.name for each in found).values(), default=1) == 1
    return {each.involved_object.name: int(each.metadata.resource_version) for each in found}


def put_off(world: World) -> set[str]:
    """Breakers that are Ready and whose creation is not told."""
    ready = shown(world)
    return ready.keys() - told(world).keys()


def until_some_are_put_off(world: World) -> None:
    world.until(lambda: len(put_off(world)) >= SOME, "some to be Ready before they are told", 60)


def assert_creation_first(world: World, opened: str) -> None:
    versions = {each.reason: int(each.metadata.resource_version) for each in events_of(world, opened)}
    assert versions.keys() == {"PolicyApplied", "CircuitOpened"}
    assert versions["PolicyApplied"] < versions["CircuitOpened"], "nothing is told before the creation"


def until_all_told(world: World) -> None:
    world.until(lambda: len(shown(world)) == COUNT, "all to be Ready", 60)
    world.until(lambda: len(told(world)) == COUNT, "all Events", 60)
    world.until(lambda: not mark(world), "the mark to go")


def test_they_are_ready_first_and_told_then(world: World) -> None:
    make_all(world)
    with operator(world):
        until_some_are_put_off(world)
        opened = min(put_off(world))
        world.fleet(opened).open()
        until_all_told(world)
        statuses, creations = shown(world), told(world)
        assert any(creations[name] > statuses[name] for name in NAMES), "no Event waited"
        world.until_state(opened, "Open")
        assert_creation_first(world, opened)
        for single in ("single", "another", "third"):
            world.create(single)
            world.until_ready(single)
            (event,) = events_of(world, single)
            version = int(world.get(single)["metadata"]["resourceVersion"])
            assert int(event.metadata.resource_version) < version, "of one alone the Event comes first"


def test_they_are_told_when_the_api_server_is_back(world: World, plane: ControlPlane) -> None:
    make_all(world)
    with operator(world) as process:
        until_some_are_put_off(world)
        plane.kill_api_server()
        retries = 'circuitbreaker_operator_workqueue_retries_total{queue="events"}'
        world.until(lambda: process.metric(retries), "it to try", 60)
        assert process.metric('circuitbreaker_operator_workqueue_depth{queue="events"}'), "they wait"
        assert mark(world)
        plane.start_api_server()
        until_all_told(world)
        assert process.metric('circuitbreaker_operator_workqueue_depth{queue="events"}') == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_who_comes_next_tells_what_was_put_off(world: World, end: signal.Signals) -> None:
    make_all(world)
    with operator(world) as process:
        until_some_are_put_off(world)
        os.kill(process.process.pid, end)
        world.until(lambda: not process.process.alive, "it to end")
    before, untold = told(world), put_off(world)
    assert untold, "of some only the mark tells that they are untold"
    opened = min(untold)
    world.fleet(opened).open()
    assert list(mark(world)) == [f"{OWNER} {world.namespace}"]
    with operator(world, rate="100") as process:
        process.wait_ready()
        until_all_told(world)
        assert told(world).items() >= before.items(), "what was told is not told again"
        world.until_state(opened, "Open")
        assert_creation_first(world, opened)
        assert "Events that another leader put off are told now" in process.log
