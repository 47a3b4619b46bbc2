"""A fail-over by Sentinel: what a replica has is kept, what it has not is lost, and how that is put right."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.state import Configured, Decision, Outcome, ProbeTotals, Resume, State, Totals
from circuitbreaker_local.redis_sentinel import RedisSentinel
from circuitbreaker_local.waiting import wait_until
from tests.contract.callers import KEYS, SHORT, Caller, load, send


@pytest.fixture(scope="module")
def group(redis_server_binary: Path) -> Iterator[RedisSentinel]:
    with RedisSentinel(redis_server_binary) as running:
        yield running


@pytest.fixture
def client(group: RedisSentinel) -> Iterator[Any]:
    """A service's client: it asks the sentinels who is the primary. The group is whole again for each test."""
    if not group.replica.alive:
        group.bring_back()
    sentinel = group.client()
    connected = sentinel.master_for(group.name, decode_responses=True, socket_timeout=1.0)
    connected.flushall()
    load(connected)
    yield connected
    connected.close()
    for each in sentinel.sentinels:
        each.close()


def wait_until_it_answers(caller: Caller) -> None:
    """As a client does: the call that fails is made again."""

    def answers() -> bool:
        with suppress(redis.RedisError):
            caller.observe()
            return True
        return False

    wait_until(answers, timeout_seconds=10, what="the new primary to answer to the client of before")


def test_what_the_replica_has_is_kept(group: RedisSentinel, client: Any) -> None:
    """A transition that WAIT has seen on the replica survives the death of the primary; so do leases and functions."""
    probing = Caller(client, "probing")
    probing.define(SHORT)
    probing.open()
    probing.until_half_open()
    assert probing.acquire("l1").decision is Decision.PROBE
    caller = Caller(client)
    caller.define()
    caller.report(("S", 5))
    assert caller.open().state is State.OPEN
    assert client.wait(1, 2_000) == 1
    before = caller.observe(history=9)
    with redis.Redis.from_url(group.replica.url, decode_responses=True) as replica:
        assert send(replica, protocol.version()).digest == library.digest(), "functions are replicated"
        assert Caller(replica).observe(history=9).history == before.history, "and FCALL_RO runs there"
    group.fail_over()
    wait_until_it_answers(caller)
    after = caller.observe(history=9)
    for name in ("state", "order", "totals", "history", "open_until_ms", "attempt", "reporters", "transition_totals"):
        assert getattr(before, name) == getattr(after, name), name
    assert client.hget(KEYS.states, "demo/payments") == "Open"
    assert caller.acquire("l1").decision is Decision.NOT_PERMITTED
    assert caller.report(("S", 5), seq=1, order=(before.order[0], 1)).state is State.OPEN
    assert caller.observe().totals == Totals(5, 3, not_permitted=1), "what was counted counts once"

    # A probe that was under way is settled on the new primary, once.
    assert probing.observe().probes_live == 1
    for _ in range(2):
        assert probing.settle("l1", Outcome.SUCCESS).state is State.CLOSED
    assert probing.observe().probes == ProbeTotals(granted=1, succeeded=1)


def test_what_the_replica_has_not_is_lost(group: RedisSentinel, client: Any) -> None:
    """Acknowledged by the primary alone: gone with it. The breaker is where the replica had it, lower in the order."""
    caller = Caller(client)
    caller.define(SHORT)
    assert client.wait(1, 2_000) == 1
    first = caller.observe().order
    group.replica.pause()
    client.client_kill_filter(_type="replica")  # what was sent already would still be read
    caller.open()
    caller.until_half_open()
    caller.acquire("l1")
    assert caller.settle("l1").state is State.CLOSED
    seen = caller.observe()
    assert client.wait(1, 100) == 0, "this is how a caller can know"
    assert (first.incarnation, 4) == seen.order[:2]

    group.fail_over()
    wait_until_it_answers(caller)
    back = caller.observe(history=9)
    assert (first, State.CLOSED) == (back.order, back.state)
    assert (back.totals.successes, back.totals.failures) == (0, 0)

    # One who asks gets a permit of the order that holds now, and its outcome counts.
    permit = caller.acquire("l2")
    assert (Decision.PERMITTED, first) == (permit.decision, permit.standing.order)
    assert caller.report(("F", 1), seq=9, order=permit.standing.order[:2]).order == first
    assert caller.observe().consecutive_failures == 1
    # One who goes on under the order that was lost is late, and never opens the breaker ...
    for seq in (10, 11, 12):
        caller.report(("F", 5), seq=seq, order=seen.order[:2])
    assert (caller.observe().totals.late, caller.observe().state) == (15, State.CLOSED)
    # ... until somebody configures it with what was last seen of it: then it begins again above every order known.
    resume = Resume("", seen.order[:2], seen.state, seen.since_ms, seen.open_until_ms, seen.attempt)
    assert caller.define(SHORT, resume=resume) is Configured.RESTORED
    assert caller.observe().order > seen.order
    assert caller.open().state is State.OPEN
