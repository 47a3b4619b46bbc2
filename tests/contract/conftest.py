from collections.abc import Iterator

import pytest
import redis

from tests.contract.stores import LuaStore, Store, TwinStore


@pytest.fixture
def lua_store(shared_redis) -> Iterator[LuaStore]:
    """Redis with the library and a clock that the test sets."""
    client = redis.Redis.from_url(shared_redis.url, decode_responses=True)
    store = LuaStore(client)
    yield store
    store.close()
    client.close()


@pytest.fixture(params=["twin", "lua"])
def store(request: pytest.FixtureRequest) -> Store:
    return TwinStore() if request.param == "twin" else request.getfixturevalue("lua_store")
