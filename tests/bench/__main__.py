"""`make bench`: the operator's figures on this machine, from one run. Prints; asserts nothing about time."""

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import kubernetes

from circuitbreaker_contract.state import State
from circuitbreaker_local.binaries import control_plane_binaries
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_server import RedisServer, find_redis_server
from tests.bench import contract
from tests.cluster.world import API, PLURAL, World

CRD = Path(__file__).parents[2] / "crds" / "circuitbreakers.yaml"
TRANSITIONS = 100
BREAKERS = 1_000


def percentiles(name: str, seconds: Sequence[float]) -> None:
    """p50, p99 and the worst, in ms."""
    ranked = sorted(seconds)
    p99 = ranked[min(len(ranked) - 1, round(0.99 * len(ranked)))]
    row = f"p50 {statistics.median(ranked) * 1000:8.1f} ms   p99 {p99 * 1000:8.1f} ms   max {ranked[-1] * 1000:8.1f} ms"
    print(f"{name:<58} {row}   n={len(ranked)}", flush=True)


@contextmanager
def watched(world: World) -> Iterator[dict[tuple[str, str], float]]:
    """When each (name, state) of the namespace first came over a watch; monotonic seconds. (name, "Ready") too."""
    seen: dict[tuple[str, str], float] = {}
    stop = threading.Event()

    def follow() -> None:
        watch = kubernetes.watch.Watch()
        while not stop.is_set():
            for event in watch.stream(
                world.objects.list_namespaced_custom_object, *API, world.namespace, PLURAL, timeout_seconds=2
            ):
                now, status = time.monotonic(), event["object"].get("status", {})
                name = event["object"]["metadata"]["name"]
                seen.setdefault((name, status.get("state", "")), now)
                conditions = status.get("conditions", [])
                if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                    seen.setdefault((name, "Ready"), now)

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield seen
    finally:
        stop.set()
        follower.join()


def create(world: World, names: Sequence[str], **spec: object) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: world.create(name, **spec), names))


def reflect(world: World) -> None:
    """Transitions at a steady pace, each on a breaker of its own; a watch says when the status shows it."""
    names = [f"reflect-{number}" for number in range(TRANSITIONS)]
    create(world, names, failureThreshold=1, recoveryTimeout="1h")
    world.until_ready(*names)
    opened: dict[str, float] = {}
    with watched(world) as seen:
        world.until(lambda: all((name, "Closed") in seen for name in names), "the watch to begin")
        for name in names:
            world.fleet(name).open()
            opened[name] = time.monotonic()
            time.sleep(0.05)  # the pace: 20 a second
        world.until(lambda: all((name, "Open") in seen for name in names), "every status to say Open")
    percentiles(
        "transition in Redis -> status at a watcher, 20/s", [seen[name, "Open"] - opened[name] for name in names]
    )


def clock(world: World, count: int) -> None:
    """Openings that all end within the same moment; Redis' own times say how late each became HalfOpen."""
    names = [f"clock-{count}-{number}" for number in range(count)]
    create(world, names, failureThreshold=1, recoveryTimeout="5s")
    world.until_ready(*names)
    fleets = [world.fleet(name) for name in names]
    for fleet in fleets:
        fleet.open()
    until = [fleet.observe().open_until_ms or 0 for fleet in fleets]
    world.until(lambda: fleets[-1].observe().state is State.HALF_OPEN, "the last one to be HalfOpen")
    world.until(lambda: all(fleet.observe().state is State.HALF_OPEN for fleet in fleets), "all of them", 30)
    late = [(fleet.observe(history=1).history[-1].at_ms - at) / 1000 for fleet, at in zip(fleets, until, strict=True)]
    world.until(lambda: all(each["status"]["state"] != "Open" for each in world.all()), "the statuses to settle", 60)
    span_ms = max(until) - min(until)
    percentiles(f"recovery clock, {count} due within {span_ms} ms: late by", late)


def apply(world: World) -> None:
    """From the first create to the last Ready at a watcher."""
    names = [f"apply-{number}" for number in range(BREAKERS)]
    with watched(world) as seen:
        began = time.monotonic()
        create(world, names)
        created = time.monotonic()
        world.until(lambda: all((name, "Ready") in seen for name in names), "all to be Ready", 120)
        last = max(seen[name, "Ready"] for name in names)
    print(
        f"{f'{BREAKERS:,} breakers: first create -> last Ready':<58} {last - began:.1f} s   "
        f"(creating them took {created - began:.1f} s; statuses are limited to CB_STATUS_QPS)",
        flush=True,
    )


def main() -> None:
    """All figures, with the machine's load before and after."""
    server, binaries = find_redis_server(), control_plane_binaries()
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    print(f"{os.cpu_count()} cores, load before {load}; control plane, Redis, operator and this program share them")
    with RedisServer(server) as redis:
        contract.bench(redis)
    with ControlPlane(binaries) as plane, RedisServer(server) as redis, tempfile.TemporaryDirectory() as folder:
        plane.apply(CRD)
        world = World(plane, redis, Path(folder))
        try:
            with world.operator() as operator:
                operator.wait_ready()
                reflect(world)
                clock(world, 100)
                clock(world, 1_000)
                apply(world)
            with world.operator(STATUS_QPS="1000") as operator:
                operator.wait_ready()
                world.namespace = world.new_namespace()
                print("with CB_STATUS_QPS=1000:")
                apply(world)
        finally:
            world.close()
    print(f"load after {', '.join(f'{each:.2f}' for each in os.getloadavg())}")


if __name__ == "__main__":
    main()
