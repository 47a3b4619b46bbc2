from collections.abc import Iterator

import pytest
import redis

from circuitbreaker_conformance import RedisStore
from tests.client.world import World, client_threads, until


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Every test closes what it has opened; then no thread of ours is there."""
    yield
    until(lambda: not client_threads(), "the client's threads to end", 5)


@pytest.fixture
def world(shared_redis) -> Iterator[World]:
    """On the Redis of the session, which is empty but for the library."""
    world = World(shared_redis)
    yield world
    world.close()


@pytest.fixture
def own_world(redis_server) -> Iterator[World]:
    """On a Redis of this test, to break."""
    world = World(redis_server)
    yield world
    world.close()


@pytest.fixture
def lua_store(shared_redis) -> Iterator[RedisStore]:
    """The library with a clock that the test sets."""
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as admin:
        store = RedisStore(admin)
        yield store
        store.close()
