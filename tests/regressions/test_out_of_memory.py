"""While Redis had no memory left a client dropped its reports, one warning each, and its breaker never opened."""

import logging

import pytest

from circuitbreaker_client import CircuitBreakers, Policy, Source, State
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.client.world import World, fail

POLICY = Policy(
    failure_threshold=3, recovery_timeout_ms=60_000, half_open_limit=1, success_threshold=1, probe_timeout_ms=30_000
)


def test_a_client_decides_alone_meanwhile(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """And what it has to report waits for the memory."""
    world = World(redis_server)
    caller = world.breaker(policy=POLICY)
    with CircuitBreakers(redis_url=redis_server.url, namespace="demo", max_staleness_seconds=0.5) as breakers:
        payments = breakers["payments"]
        payments.call(int)
        breakers.flush()
        world.admin.config_set("maxmemory", "1b")
        payments.call(int)
        wait_until(lambda: payments.snapshot().degraded, timeout_seconds=10, what="it to decide alone")
        fail(payments, 3)
        assert payments.state is State.OPEN
        assert breakers.statistics()["demo/payments"].dropped == 0
        warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert ["OOM" in each.getMessage() for each in warnings] == [True]
        world.admin.config_set("maxmemory", "0")
        wait_until(lambda: payments.snapshot().source is Source.SHARED, timeout_seconds=10, what="shared state")
        wait_until(lambda: caller.observe().totals.activity == 5, timeout_seconds=10, what="the reports")
    world.close()
