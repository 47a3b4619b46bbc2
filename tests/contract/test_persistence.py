"""What a breaker loses when functions are flushed, when Redis is emptied, and when it is killed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract.errors import UnknownBreakerError
from circuitbreaker_contract.state import Configured, Decision, Resume, Snapshot, State
from circuitbreaker_local.redis_server import RedisServer
from tests.contract.callers import SHORT, Caller, load

Start = Callable[..., tuple[RedisServer, Caller]]


@pytest.fixture
def start(redis_server_binary: Path) -> Iterator[Start]:
    servers: list[RedisServer] = []
    clients: list[redis.Redis] = []

    def starter(**options: Any) -> tuple[RedisServer, Caller]:
        servers.append(RedisServer(redis_server_binary, **options).start())
        clients.append(redis.Redis.from_url(servers[-1].url, decode_responses=True))
        load(clients[-1])
        return servers[-1], Caller(clients[-1])

    yield starter
    for client in clients:
        client.close()
    for server in servers:
        server.stop()


def without_time(snapshot: Snapshot) -> dict[str, Any]:
    """What does not move by itself."""
    fields = {name: getattr(snapshot, name) for name in Snapshot.__slots__}
    for moving in ("now_ms", "retry_after_ms", "state_ms", "due"):
        del fields[moving]
    return fields


def test_function_flush_loses_nothing(start: Start) -> None:
    """Calls fail and write nothing; the library loaded again goes on where the breaker stood."""
    _, caller = start()
    caller.define()
    caller.report(("S", 7))
    caller.open()
    before = without_time(caller.observe(history=9))
    caller.client.function_flush()
    for call in (caller.observe, lambda: caller.acquire("l"), caller.tick):
        with pytest.raises(redis.ResponseError, match="Function not found"):
            call()
    load(caller.client)
    assert before == without_time(caller.observe(history=9))
    assert caller.acquire("l").decision is Decision.NOT_PERMITTED


def test_flushall_leaves_functions_and_no_breaker(start: Start) -> None:
    """Callers hear CBUNKNOWN; defined again from a status it is in that state, in a higher incarnation."""
    _, caller = start()
    caller.define()
    caller.open()
    seen = caller.observe()
    caller.client.flushall()
    for call in (caller.observe, lambda: caller.acquire("l"), caller.tick):
        with pytest.raises(UnknownBreakerError):
            call()
    assert caller.client.dbsize() == 0
    resume = Resume("", seen.order[:2], seen.state, seen.since_ms, seen.open_until_ms, seen.attempt)
    assert caller.define(resume=resume) is Configured.RESTORED
    now = caller.observe()
    assert (State.OPEN, seen.open_until_ms, seen.attempt) == (now.state, now.open_until_ms, now.attempt)
    assert now.order.incarnation > seen.order.incarnation
    assert now.order.generation == seen.order.generation + 1


def test_killed_with_an_append_only_file_it_keeps_all(start: Start) -> None:
    """Functions, state, window, leases, reporters and history: what was acknowledged is there after SIGKILL."""
    server, caller = start(persistent=True)
    caller.define(SHORT)
    caller.report(("S", 7))
    opened = caller.open()
    assert (opened.state, opened.retry_after_ms) == (State.OPEN, 100)
    server.restart(empty=False)
    assert caller.observe().order == opened.order
    caller.until_half_open()
    assert caller.acquire("l1").decision is Decision.PROBE
    before = without_time(caller.observe(history=9))
    server.restart(empty=False)
    assert before == without_time(caller.observe(history=9))
    again = caller.acquire("l1")
    assert again.decision is Decision.PROBE
    assert 0 < again.lease_ms < SHORT.probe_timeout_ms, "the lease of before, not a new one"
    assert caller.report(("S", 5), seq=2).order == before["order"]
    assert caller.observe().totals == before["totals"], "a batch that was counted before the kill counts once"
    assert caller.settle("l1").state is State.CLOSED


def test_killed_with_snapshots_it_goes_back_to_the_last(start: Start) -> None:
    """What came after the last snapshot is gone: an opening too."""
    server, caller = start()
    caller.define()
    caller.report(("S", 7))
    caller.client.save()
    saved = without_time(caller.observe(history=9))
    caller.open()
    server.restart(empty=False)
    assert saved == without_time(caller.observe(history=9))
    assert caller.acquire("l").decision is Decision.PERMITTED


def test_killed_without_persistence_it_is_empty(start: Start) -> None:
    """The library goes too; loaded and defined anew a breaker begins Closed, in a higher incarnation."""
    server, caller = start()
    caller.define()
    caller.open()
    old = caller.observe().order
    server.restart(empty=False)
    with pytest.raises(redis.ResponseError, match="Function not found"):
        caller.observe()
    load(caller.client)
    with pytest.raises(UnknownBreakerError):
        caller.observe()
    assert caller.define() is Configured.CREATED
    assert caller.observe().order.incarnation > old.incarnation


def test_a_full_redis_still_opens_and_closes(start: Start) -> None:
    """Without memory, reports fail as a whole; acquire, settle and tick go on (allow-oom)."""
    _, caller = start()
    caller.define(SHORT)
    opened = caller.open()
    caller.client.config_set("maxmemory", "1mb")
    before = caller.observe().totals
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        caller.report(("F", 1), order=opened.order[:2])
    assert caller.observe().totals == before
    caller.until_half_open()
    assert caller.acquire("l").decision is Decision.PROBE
    assert caller.settle("l").state is State.CLOSED
