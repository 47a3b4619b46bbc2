"""Keys that were lost or that somebody wrote to: a breaker goes on with what is right of it."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from circuitbreaker_contract import protocol
from circuitbreaker_contract.errors import OwnershipError, UnknownBreakerError
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Decision, Outcome, State
from tests.contract.callers import SHORT, Caller, load, send

RATE = Policy(
    failure_threshold=0,
    recovery_timeout_ms=60_000,
    half_open_limit=1,
    success_threshold=1,
    probe_timeout_ms=30_000,
    window_calls=100,
    minimum_calls=50,
    failure_rate_percent=50,
)


@pytest.fixture
def caller(shared_redis) -> Iterator[Caller]:
    client = redis.Redis.from_url(shared_redis.url, decode_responses=True)
    client.flushall()
    load(client)
    yield Caller(client)
    client.close()


LOST = {
    "evicted": lambda client, ring: client.delete(ring),
    "evicted, and begun anew": lambda client, ring: (client.delete(ring), client.setrange(ring, 40, "SS")),
    "cut": lambda client, ring: client.set(ring, client.get(ring)[:5]),
    "overwritten": lambda client, ring: client.set(ring, "x" * 100),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
@pytest.mark.parametrize("size", [1, 3, 30])
def test_a_window_that_is_lost_begins_empty(caller: Caller, lose, size: int) -> None:
    """It was nothing that a report could go on with: each was an error, and the breaker never opened again."""
    caller.define(RATE)
    for run in (("S", 60), ("F", 2), ("S", 60)):
        caller.report(run)
    lose(caller.client, f"{caller.key}:window")
    sent = 0
    while caller.observe().state is State.CLOSED and sent < 400:
        caller.report(("F", size))
        sent += size
        window = caller.observe().window
        assert 0 <= window.failures <= window.calls <= 100
    assert caller.observe().state is State.OPEN
    assert caller.observe().window.failures >= 50
    assert caller.observe().totals.failures + caller.observe().totals.late == 2 + sent


def test_an_edit_of_a_window_that_is_lost(caller: Caller) -> None:
    caller.define(RATE)
    for run in (("S", 60), ("F", 2), ("S", 60)):
        caller.report(run)
    caller.client.delete(f"{caller.key}:window")
    caller.define(replace(RATE, window_calls=200), generation=2)
    assert caller.observe().window.calls == 0
    caller.report(("F", 60))
    assert caller.observe().state is State.OPEN


@pytest.mark.parametrize("damage", ["x", "1e300", "", "9223372036854775807"])
def test_a_counter_that_is_damaged_begins_anew(caller: Caller, damage: str) -> None:
    """The state was written, but neither history nor message; each probe took a slot and came as an error."""
    caller.define(SHORT)
    first = caller.observe().order[:2]
    counters = ["t:Closed:Open:ConsecutiveFailures", "ms:Closed", "notPermitted", "late", "ignored"]
    counters += ["probesGranted", "probesSucceeded"]
    caller.client.hset(caller.key, mapping=dict.fromkeys(counters, damage))
    with caller.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe(caller.keys.updates)
        heard.get_message(timeout=1.0)
        caller.report(("I", 2), order=first)
        assert caller.report(("F", 3), order=first).state is State.OPEN
        caller.report(("F", 3), order=first)
        assert caller.acquire("early").decision is Decision.NOT_PERMITTED
        caller.until_half_open()
        assert caller.acquire("probe").decision is Decision.PROBE
        settled = protocol.settle(
            caller.key, client="a", lease="probe", order=caller.tick().order[:2], outcome=Outcome.SUCCESS
        )
        assert send(caller.client, settled).state is State.CLOSED
        told = []
        while (message := heard.get_message(timeout=0.2)) is not None:
            told.append(json.loads(message["data"])["state"])
    assert told == ["Open", "HalfOpen", "Closed"]
    seen = caller.observe(history=9)
    assert [each.state.value for each in seen.history] == ["Closed", *told]
    assert (seen.totals.ignored, seen.totals.late, seen.totals.not_permitted) == (2, 3, 1)
    assert (seen.probes.granted, seen.probes.succeeded, seen.probes_live) == (1, 1, 0)


def test_what_others_wrote_makes_no_large_reply(caller: Caller) -> None:
    """Who may write to one breaker's keys could end the operator of all: it reads what stands there."""
    caller.define(SHORT)
    caller.open()
    sound, long = caller.observe(history=256), "x" * 1_000_000
    wrong = {"lastReset": long, "overrideEnded": long, f"t:Closed:Open:{long}": 1}
    wrong |= {f"t:Closed:Open:Way{'x' * number}": 1 for number in range(500)}
    caller.client.hset(caller.key, mapping=wrong)
    for _ in range(20):
        caller.client.xadd(f"{caller.key}:history", {"note": long})
        caller.client.xadd(f"{caller.key}:history", dict.fromkeys(map(str, range(1_000)), "x"))
    reply = caller.client.execute_command(*protocol.observe(caller.key, history=256).command())
    assert len(repr(reply)) < 100_000
    caller.client.hdel(caller.key, *wrong)
    seen = caller.observe(history=256)
    assert seen.history_damaged == 40
    assert (seen.history, seen.last_reset, seen.order) == (sound.history, sound.last_reset, sound.order)


def test_a_foreign_owner_makes_no_large_error(caller: Caller) -> None:
    """Nor does a uid: both are named to whoever is refused."""
    caller.define(SHORT)
    caller.client.hset(caller.key, mapping={"owner": "x" * 1_000_000, "uid": "y" * 1_000_000})
    for call in (
        protocol.configure(caller.key, owner="o", uid="u", generation=2, policy=SHORT),
        protocol.delete(caller.key, owner="o", uid="u"),
        protocol.reset(caller.key, uid="u", token="t"),
    ):
        with pytest.raises(OwnershipError) as refused:
            send(caller.client, call)
        assert 8_192 < len(str(refused.value)) < 9_000


def test_a_policy_longer_than_any_is_none(caller: Caller) -> None:
    """The functions keep what they have read, in memory that no limit of Redis counts."""
    caller.define(SHORT)
    text = caller.client.hget(caller.key, "policy")
    caller.client.hset(caller.key, "policy", text + " " * (8_192 - len(text)))
    assert caller.observe().policy == SHORT
    caller.client.hset(caller.key, "policy", text + " " * (8_193 - len(text)))
    with pytest.raises(UnknownBreakerError):
        caller.observe()
    caller.define(SHORT)
    assert caller.observe().policy == SHORT
