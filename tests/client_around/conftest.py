from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis

from circuitbreaker_client import AsyncCircuitBreakers, CircuitBreakers, Policy
from circuitbreaker_client.settings import DEFAULT_POLICY
from tests.client_around.backends import Backend, backend


@pytest.fixture
def server() -> Iterator[Backend]:
    with backend() as running:
        yield running


@pytest.fixture
def options(shared_redis) -> dict[str, Any]:
    """Of a client that defines what it needs: 5 failures in a row, 30 s."""
    return {"redis_url": shared_redis.url, "namespace": "default", "define_missing": True, "redis_timeout_seconds": 2.0}


@pytest.fixture
def policy() -> Policy:
    return DEFAULT_POLICY


@pytest.fixture
def breakers(options) -> Iterator[CircuitBreakers]:
    with CircuitBreakers(**options) as made:
        yield made


@pytest.fixture
async def async_breakers(options) -> AsyncIterator[AsyncCircuitBreakers]:
    async with AsyncCircuitBreakers(**options) as made:
        yield made


@pytest.fixture
def shared_state(shared_redis) -> Iterator[Callable[[str], str | None]]:
    """What Redis says of a breaker, `namespace/name`."""
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as client:
        yield lambda name: client.hget("circuit_breaker_states", name)
