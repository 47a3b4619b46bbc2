"""The operator's store by itself: which Redis it takes, and that another one in the same place is noticed."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import UnknownBreakerError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Projection, Snapshot
from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from circuitbreaker_operator.errors import StoreUnavailableError
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.settings import Settings
from circuitbreaker_operator.store import BATCH, Store

POLICY = Policy(
    failure_threshold=5, recovery_timeout_ms=1_000, half_open_limit=1, success_threshold=1, probe_timeout_ms=1_000
)


@pytest.fixture
async def store(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setenv("CB_REDIS_TIMEOUT", "500ms")
    store = Store(Settings.load(redis_url=redis_server.url), Metrics())
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


async def test_calls_of_one_turn_go_together(store: Store, redis_server: RedisServer) -> None:
    """One pipeline a function; each caller has its own answer or error, and one that goes away takes nobody along."""
    keys = Keys()
    known, unknown = (keys.breaker(BreakerKey("shop", name)) for name in ("known", "unknown"))
    await store.call(
        protocol.configure(known, owner="o", uid="u", generation=1, policy=POLICY, project=Projection.NOTHING)
    )
    calls = [known, unknown, known, unknown]
    tasks = [asyncio.create_task(store.call(protocol.observe(root))) for root in calls]
    await asyncio.sleep(0)
    tasks[2].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in answers] == [
        Snapshot,
        UnknownBreakerError,
        asyncio.CancelledError,
        UnknownBreakerError,
    ]
    assert pipelines(store, "cb_observe") == 1
    await asyncio.gather(*(store.call(protocol.observe(known)) for _ in range(BATCH + 1)))
    assert pipelines(store, "cb_observe") == 3
    redis_server.kill()
    late = [store.call(protocol.observe(known)), store.call(protocol.version())]
    assert [type(each) for each in await asyncio.gather(*late, return_exceptions=True)] == [StoreUnavailableError] * 2


def pipelines(store: Store, function: str) -> int:
    """How many were sent."""
    name = "circuitbreaker_operator_redis_command_seconds_count"
    return int(store._metrics.registry.get_sample_value(name, {"command": function}) or 0)


async def test_a_replica_is_no_redis_to_work_with(store: Store, redis_server: RedisServer) -> None:
    """Demoted behind our back: reads would go on, and every write would be refused."""
    await store._servers.send("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailableError, match="is a replica"):
        await store.look()
    assert not store.up.is_set()
    await store._servers.send("REPLICAOF", "NO", "ONE")
    assert await store.probe()


def sentinel(binary: Path, folder: Path, primary: RedisServer, epoch: int) -> tuple[Process, int]:
    """One that has seen so many fail-overs, and knows no other."""
    folder.mkdir()
    port = free_port()
    lines = (f"port {port}", f"dir {folder}", f"sentinel monitor group 127.0.0.1 {primary.port} 2")
    lines = (*lines, f"sentinel config-epoch group {epoch}", f"sentinel current-epoch {epoch}")
    (folder / "sentinel.conf").write_text("\n".join(lines), encoding="utf-8")
    return Process([binary, folder / "sentinel.conf", "--sentinel"], log=folder / "log"), port


@pytest.mark.parametrize("first", ["the one that is cut off", "the one that knows"])
async def test_a_sentinel_that_is_cut_off(first: str, redis_server_binary: Path, tmp_path: Path) -> None:
    """It still names the primary of before, which still answers; the other saw the fail-over, and is believed."""
    with ExitStack() as stack:
        before, after = (stack.enter_context(RedisServer(redis_server_binary)) for _ in range(2))
        told = [("old", before, 3), ("new", after, 4)]
        ports = []
        for name, primary, epoch in told if first == "the one that is cut off" else told[::-1]:
            process, port = sentinel(redis_server_binary, tmp_path / name, primary, epoch)
            stack.enter_context(process)
            wait_until(lambda port=port: _listens(port), timeout_seconds=10, what="a sentinel")
            ports.append(port)
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        store = Store(Settings.load(redis_sentinel=addresses, redis_sentinel_master="group"), Metrics())
        found = await store.probe(), {each.port for each in store.primaries}
        await store.close()
        assert found == (True, {after.port})


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_how_full_the_memory_of_redis_is(redis_server: RedisServer) -> None:
    """Of the most that it may take; without such a limit it is never full."""
    metrics = Metrics()
    store = Store(Settings.load(redis_url=redis_server.url), metrics)
    with redis.Redis.from_url(redis_server.url) as direct:
        ratios = []
        for most in (0, "100mb", "1gb"):
            direct.config_set("maxmemory", most)
            assert await store.probe()
            used = direct.info("memory")["used_memory"]
            (sample,) = metrics.redis_memory.collect()[0].samples
            ratios.append((sample.value, used))
    (without, _), (some, used), (little, _) = ratios
    assert without == 0.0
    assert some == pytest.approx(used / (100 * 2**20), rel=0.2)
    assert 0.0 < little < some
    await store.close()
