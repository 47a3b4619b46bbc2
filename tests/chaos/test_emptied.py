"""Redis emptied, in each way that happens: every breaker is back as its status last said, soon, and Events say so."""

import logging
import time
from collections.abc import Callable

import pytest
from redis.exceptions import RedisError

from circuitbreaker_contract.errors import CircuitBreakerError
from circuitbreaker_contract.state import Snapshot
from tests.chaos.matrix import FULL
from tests.cluster.world import World

logger = logging.getLogger(__name__)

SOON_SECONDS = 10.0
KINDS = {
    "closed": {},
    "opened": {"recoveryTimeout": "1h"},
    "half": {"recoveryTimeout": "100ms", "probeTimeout": "1h"},
    "forced": {"override": {"state": "Open", "reason": "maintenance"}},
}
OF_EACH = 10


def flushed(world: World) -> None:
    """Keys only: connections, subscriptions and functions stay, and nobody is told."""
    world.redis.flushall()


def flushed_with_functions(world: World) -> None:
    world.redis.flushall()
    world.redis.function_flush()


def restarted(world: World) -> None:
    world.server.restart(empty=True)


@pytest.mark.parametrize("emptied", [flushed, *([flushed_with_functions, restarted] if FULL else [])])
def test_every_breaker_is_back(world: World, emptied: Callable[[World], None]) -> None:
    """With the operator's own intervals, and without a client that would notice."""
    names = {f"{kind}-{number}": spec for kind, spec in KINDS.items() for number in range(OF_EACH)}
    with world.operator(SWEEP_INTERVAL="") as operator:
        operator.wait_ready()
        for name, spec in names.items():
            world.create(name, **spec)
        world.until_ready(*names)
        for name in names:
            if name.startswith(("opened", "half")):
                world.fleet(name).open()
        for name in names:
            wanted = {"closed": "Closed", "opened": "Open", "half": "HalfOpen", "forced": "Open"}
            world.until_state(name, wanted[name.partition("-")[0]])
        before = {name: world.fleet(name).observe() for name in names}
        began = time.monotonic()
        emptied(world)
        world.until(lambda: set(names) == {*_back(world, names)}, "every breaker to be back", SOON_SECONDS)
        logger.info("every breaker is back after %.1f s", time.monotonic() - began)
        for name, after in _back(world, names).items():
            was = before[name]
            assert (after.state, after.forced, after.attempt) == (was.state, was.forced, was.attempt)
            assert after.open_until_ms == was.open_until_ms
            assert after.order.incarnation > was.order.incarnation
            assert after.order.generation == was.order.generation + 1
            assert after.totals.activity == 0
        for name in names:
            world.until(lambda name=name: world.events(name).count("CircuitRestored") == 1, f"an Event on {name}")
        assert operator.get("/healthz")[0] == 200


def _back(world: World, names: dict[str, dict]) -> dict[str, Snapshot]:
    return {name: found for name in names if (found := _found(world, name)) is not None}


def _found(world: World, name: str) -> Snapshot | None:
    try:
        return world.fleet(name).observe(history=1)
    except (CircuitBreakerError, RedisError):  # no such breaker yet, or no library
        return None
