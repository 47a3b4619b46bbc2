"""The operator and Sentinel: it follows the primary, and puts back what replication lost."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from circuitbreaker_contract.state import State
from circuitbreaker_local.control_plane import ControlPlane
from circuitbreaker_local.redis_sentinel import RedisSentinel
from tests.cluster.world import World


@pytest.fixture(scope="module")
def group(redis_server_binary: Path) -> Iterator[RedisSentinel]:
    with RedisSentinel(redis_server_binary) as running:
        yield running


@pytest.fixture
def world(control_plane: ControlPlane, breaker_crd: str, group: RedisSentinel, tmp_path: Path) -> Iterator[World]:
    """A namespace; its clients ask the sentinels where Redis is, as the operator does."""
    if not group.replica.alive:
        group.bring_back()
    world = World(control_plane, group.primary, tmp_path)
    sentinel = group.client()
    with world.through(sentinel.master_for(group.name, decode_responses=True, socket_timeout=1.0)):
        yield world
    for each in sentinel.sentinels:
        each.close()
    world.close()


def test_a_fail_over_in_the_middle(world: World, group: RedisSentinel) -> None:
    """SIGKILL of the primary, while the replica lacks an opening that the status has told of already."""
    addresses = ",".join(f"{host}:{port}" for host, port in group.addresses)
    settings = {"REDIS_URL": "redis:///0", "REDIS_SENTINEL": addresses, "REDIS_SENTINEL_MASTER": group.name}
    with world.operator(**settings, SWEEP_INTERVAL="1h") as operator:
        operator.wait_ready()
        world.whole_life("before")
        for name in ("kept", "lost", "quiet"):
            world.create(name, recoveryTimeout="1h", successThreshold=1)
        world.until_ready("kept", "lost", "quiet")
        kept, lost, quiet = map(world.fleet, ("kept", "lost", "quiet"))
        kept.open()
        world.until_state("kept", "Open")
        assert world.redis.wait(1, 5_000) == 1
        orders = kept.observe().order, quiet.observe().order
        group.replica.pause()
        world.redis.client_kill_filter(_type="replica")
        lost.open()
        world.until_state("lost", "Open")
        seen = lost.observe()

        group.fail_over()
        world.until(lambda: not _fails(lost.observe), "the new primary to answer", 10)
        world.until(lambda: lost.observe().state is State.OPEN, "what was lost to be put back", 10)
        again = lost.observe()
        assert again.order > seen.order
        assert (again.reason, again.open_until_ms) == ("Restored", seen.open_until_ms)
        world.until(lambda: "CircuitRestored" in world.events("lost"), "the Event")
        assert (kept.observe().order, quiet.observe().order) == orders
        world.until(lambda: operator.ready, "the operator to be ready")
        world.whole_life("after")
        assert world.shown("lost") == world.shown("kept") == "Open"
        assert "CircuitRestored" not in world.events("kept") + world.events("quiet")


def _fails(call: Callable[[], object]) -> bool:
    try:
        call()
    except redis.RedisError:
        return True
    return False


def test_mistakes_are_said_with_the_remedy(world: World, group: RedisSentinel) -> None:
    """A name that the sentinels do not know; sentinels that do not answer."""
    host, port = group.addresses[0]
    with world.operator(
        REDIS_URL="", REDIS_SENTINEL=f"{host}:1,{host}:{port}", REDIS_SENTINEL_MASTER="mymaster"
    ) as operator:
        cause = "no sentinel tells of a primary: No such master with that name"
        world.until(lambda: cause in operator.log, "the cause")
        assert f"mymaster of the sentinels {host}:1, {host}:{port}" in operator.log
