"""The same library on Valkey, where there is one: CB_VALKEY_SERVER, else valkey-server on the PATH."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from circuitbreaker_contract.access import User, rule
from circuitbreaker_contract.state import Decision, State
from circuitbreaker_local.redis_binary import unfit
from circuitbreaker_local.redis_server import RedisServer, find_redis_server
from tests.contract.callers import SHORT, Caller, load

VALKEY = os.environ.get("CB_VALKEY_SERVER") or shutil.which("valkey-server")
pytestmark = pytest.mark.skipif(
    not VALKEY, reason="no valkey-server: install one, or set CB_VALKEY_SERVER to its path, to run these"
)


@pytest.fixture
def valkey() -> Iterator[RedisServer]:
    with RedisServer(Path(VALKEY or ""), persistent=True) as server:
        yield server


@pytest.fixture
def client(valkey: RedisServer) -> Iterator["redis.Redis[str]"]:
    with redis.Redis.from_url(valkey.url, decode_responses=True) as connected:
        load(connected)
        yield connected


def test_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for a Redis may be given a Valkey."""
    assert unfit(Path(VALKEY or "")) == ""
    monkeypatch.setenv("CB_REDIS_SERVER", VALKEY or "")
    assert find_redis_server() == Path(VALKEY or "").absolute()


def test_a_breaker_lives_and_survives_a_restart(valkey: RedisServer, client: "redis.Redis[str]") -> None:
    caller = Caller(client)
    caller.define(SHORT)
    assert caller.open().state is State.OPEN
    valkey.restart(empty=False)
    assert caller.observe().totals.failures == 3
    caller.until_half_open()
    assert caller.acquire("l1").decision is Decision.PROBE
    assert caller.settle("l1").state is State.CLOSED
    assert [entry.generation for entry in caller.observe(history=9).history] == [1, 2, 3, 4]
    assert client.hgetall(caller.keys.states) == {"demo/payments": "Closed"}


def test_access_rules_are_understood(valkey: RedisServer, client: "redis.Redis[str]") -> None:
    """An application may use its own breakers and no others."""
    client.execute_command("ACL", "SETUSER", *rule(User.APP, namespace="shop", secret=">pw").split(" ", 1)[1].split())
    Caller(client, namespace="shop").define(SHORT)
    Caller(client, namespace="bank").define(SHORT)
    with redis.Redis(port=valkey.port, username="app-shop", password="pw", decode_responses=True) as app:
        assert Caller(app, namespace="shop").open().state is State.OPEN
        with pytest.raises(redis.exceptions.NoPermissionError):
            Caller(app, namespace="bank").observe()
