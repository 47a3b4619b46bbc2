"""The operator's store by itself: another Redis in the same place is noticed though no call has failed."""

from collections.abc import AsyncIterator

import pytest

from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_operator.errors import StoreUnavailableError
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.settings import Settings, table
from circuitbreaker_operator.store import Store


@pytest.fixture
async def store(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    for variable, _, _ in table():
        monkeypatch.delenv(variable, raising=False)
    store = Store(Settings.load(redis_url=redis_server.url, redis_timeout_ms=500), Metrics())
    assert await store.probe()
    store.up.set()
    yield store
    await store.close()


async def test_another_redis_in_the_same_place(store: Store, redis_server: RedisServer) -> None:
    """Restarted between two looks, as behind the stable name of a service: whoever listens is told, once."""
    told: list[str] = []
    store.returned.append(lambda: told.append("again"))
    await store.look()
    assert told == []
    redis_server.restart(empty=True)
    await store.look()
    assert (told, store.up.is_set()) == (["again"], True)
    await store.look()
    assert told == ["again"]


async def test_an_idle_redis_that_went_away(store: Store, redis_server: RedisServer) -> None:
    """Nobody calls; the look notices, and the next calls fail at once."""
    redis_server.kill()
    with pytest.raises(StoreUnavailableError):
        await store.look()
    assert not store.up.is_set()


async def test_a_replica_is_no_redis_to_work_with(store: Store, redis_server: RedisServer) -> None:
    """Demoted behind our back: reads would go on, and every write would be refused."""
    await store._servers.send("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="is a replica"):
        await store.look()
    assert not store.up.is_set()
    await store._servers.send("REPLICAOF", "NO", "ONE")
    assert await store.probe()
