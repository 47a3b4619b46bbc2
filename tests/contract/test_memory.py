"""How much of Redis a breaker can take, and what it leaves. The bounds are those of docs/redis.md.

Measured by MEMORY USAGE, summed over a breaker's keys; names and ids are as long as they may be.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.policy import Override, Policy
from circuitbreaker_contract.state import Outcome, State
from circuitbreaker_local.redis_server import RedisServer
from tests.contract.callers import Caller, send
from tests.contract.layout import stored

CLOCK = "local function clock_ms() return tonumber(redis.call('GET', 'test:now_ms')) end"
START_MS = 1_800_000_000_000
LONG = "n" * 63
DOCUMENT = Path(__file__).parents[2] / "docs" / "redis.md"
# Nothing opens it by chance; leases are many and long.
WIDEST = {
    "failure_threshold": 1_000_000,
    "recovery_timeout_ms": 100,
    "half_open_limit": 1_000,
    "success_threshold": 1_000,
    "probe_timeout_ms": 3_600_000,
}
COUNT_WINDOW = Policy(**WIDEST, window_calls=10_000, failure_rate_percent=100)
TIME_WINDOW = Policy(**WIDEST, window_ms=3_600_000, failure_rate_percent=100, minimum_calls=10_000)


class Measured(Caller):
    """A breaker with the longest names, on a clock of our own."""

    def __init__(self, client: "redis.Redis[str]") -> None:
        super().__init__(client, LONG, namespace=LONG)
        self.now_ms, self.resource_generation = START_MS, 0
        self.advance(0)

    def advance(self, length_ms: int) -> None:
        self.now_ms += length_ms
        self.client.set("test:now_ms", self.now_ms)

    def apply(self, policy: Policy) -> None:
        self.resource_generation += 1
        self.define(policy, generation=self.resource_generation)

    def bytes(self) -> dict[str, int]:
        """Part -> bytes; the hash's part is called "breaker"."""
        found = {key: self.client.memory_usage(key, samples=0) for key in self.keys.of_breaker(self.breaker)}
        return {(key.rpartition("}")[2][1:] or "breaker"): size for key, size in found.items() if size}

    def reporters(self) -> set[str]:
        found = stored(self.client, self.key)
        assert found is not None
        return set(found.reporters)

    def report_from(self, clients: Iterator[str]) -> None:
        order, pipeline = self.observe().order[:2], self.client.pipeline(transaction=False)
        for client in clients:
            call = protocol.report(self.key, client=client, seq=1, order=order, batch=[("F", 1)])
            pipeline.execute_command(*call.command())
        pipeline.execute()

    def probe(self, kind: str, count: int, outcome: Outcome | None = None) -> None:
        """So many leases, settled with `outcome` or left."""
        order, pipeline = self.observe().order[:2], self.client.pipeline(transaction=False)
        for number in range(count):
            lease = f"{kind}{number:063d}"
            pipeline.execute_command(*protocol.acquire(self.key, client="a", lease=lease).command())
            if outcome:
                call = protocol.settle(self.key, client="a", lease=lease, order=order, outcome=outcome)
                pipeline.execute_command(*call.command())
        pipeline.execute()


@pytest.fixture
def measured(shared_redis: RedisServer) -> Iterator[Measured]:
    with redis.Redis.from_url(shared_redis.url, decode_responses=True) as client:
        client.function_load(library.joined({"clock": CLOCK}), replace=True)
        yield Measured(client)


def bound(what: str) -> int:
    """Bytes that docs/redis.md promises for it."""
    found = re.search(rf"^\| {re.escape(what)} \| ([\d,]+) kB \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"docs/redis.md says nothing of {what!r}"
    return int(found[1].replace(",", "")) * 1_000


def clients(count: int, length: int = 64) -> Iterator[str]:
    return (f"{number:0{length}d}" for number in range(count))


def fill_count_window(breaker: Measured) -> None:
    """10,000 outcomes, all of them told apart."""
    for _ in range(40):
        breaker.report(*[("S", 1), ("M", 1)] * 125)
    assert breaker.observe().window.calls == 10_000


def fill_time_window(breaker: Measured) -> None:
    """Twenty buckets with counts of six digits and more."""
    for _ in range(25):
        breaker.advance(180_000)
        breaker.report(("S", 999_999), ("M", 999_998), ("S", 1))
    assert breaker.client.hlen(f"{breaker.key}:window") == 19
    assert breaker.observe().window.calls == 20 * 1_999_998 - 999_999 + 999_999


def transitions(breaker: Measured, count: int) -> None:
    """Openings and recoveries."""
    policy = breaker.observe().policy
    breaker.apply(Policy(**{**WIDEST, "failure_threshold": 1, "success_threshold": 1}))
    for number in range(count // 3 + 1):
        breaker.report(("F", 1))
        breaker.advance(101)
        breaker.acquire(f"t{number}")
        breaker.settle(f"t{number}")
    breaker.apply(policy)


def test_a_new_breaker(measured: Measured) -> None:
    measured.apply(TIME_WINDOW)
    assert sum(measured.bytes().values()) <= bound("a breaker that was just made")


def test_a_full_count_window(measured: Measured) -> None:
    """A byte a call."""
    measured.apply(COUNT_WINDOW)
    fill_count_window(measured)
    assert 10_000 <= sum(measured.bytes().values()) <= bound("the same with a full window of 10,000 calls")
    full = measured.bytes()
    fill_count_window(measured)
    assert measured.bytes() == full, "more calls take no more"


def test_a_full_time_window(measured: Measured) -> None:
    """Twenty buckets, however many calls."""
    measured.apply(TIME_WINDOW)
    fill_time_window(measured)
    assert sum(measured.bytes().values()) <= bound("the same with a full window of 1 h")
    full = measured.bytes()
    fill_time_window(measured)
    assert sum(measured.bytes().values()) <= sum(full.values()) * 1.1


def test_reporters_and_history(measured: Measured) -> None:
    """A large fleet that has seen a lot: 1,000 processes with ids as UUIDs, 256 transitions."""
    measured.apply(COUNT_WINDOW)
    fill_count_window(measured)
    transitions(measured, 300)
    fill_count_window(measured)
    measured.report_from(clients(999, 36))
    assert len(measured.reporters()) == 1_000
    assert measured.client.xlen(f"{measured.key}:history") == 256
    assert sum(measured.bytes().values()) <= bound("and 1,000 reporters, 256 transitions")


def test_the_most_that_a_breaker_can_take(measured: Measured) -> None:
    """Also 3,000 leases of the longest names, and a history of overrides with the longest reasons."""
    measured.apply(COUNT_WINDOW)
    fill_count_window(measured)
    letters = measured.bytes()["window"]
    measured.apply(Policy(**{**WIDEST, "failure_threshold": 1}))
    measured.report(("F", 1))
    measured.advance(101)
    assert measured.tick().state is State.HALF_OPEN
    measured.probe("s", 1_001, Outcome.IGNORED)
    measured.probe("e", 999)
    measured.advance(3_600_001)
    measured.tick()
    measured.probe("l", 1_000)
    assert measured.client.zcard(f"{measured.key}:probes") == 2_999
    for _ in range(128):
        for state in ("Closed", "Open"):
            policy = Policy(**WIDEST, override=Override(state, 0, "x" * 1_024), window_calls=10_000)
            measured.apply(policy)
    assert measured.client.xlen(f"{measured.key}:history") == 256
    measured.report_from(clients(1_000))
    assert len(measured.reporters()) == 1_000
    assert sum(measured.bytes().values()) + letters <= bound("the most that a breaker can take")


def test_reporters_are_capped_and_age_out(measured: Measured) -> None:
    """Those unseen for longest make room, a tenth at once; so do those unseen for ten minutes, whom no rule needs."""
    measured.apply(TIME_WINDOW)
    everybody = list(clients(1_000))
    measured.report_from(iter(everybody))
    assert measured.reporters() == set(everybody)
    measured.advance(1)
    measured.report_from(iter(["fresh"]))
    assert measured.reporters() == {*everybody[100:], "fresh"}, "all were seen in one moment: the first by name go"
    assert measured.observe().reporters == 901
    measured.advance(60_000)
    assert measured.observe().reporters == 0
    measured.report(("S", 1), client="fresh", seq=2)  # ends the streak, for which each of them was still needed
    measured.advance(3_539_999)
    measured.report(("S", 1), client="later")
    assert measured.reporters() == {*everybody[100:], "fresh", "later"}, "the window of an hour counts their failures"
    measured.advance(600_000)
    measured.report(("S", 1), client="last")
    assert measured.reporters() == {"later", "last"}


def test_a_fleet_of_more_clients_than_are_kept_does_not_look_at_all_of_them_each_time(measured: Measured) -> None:
    """Of 1,500 clients that take turns a third is not known when it reports; one in a hundred of these pays."""
    measured.apply(TIME_WINDOW)
    measured.report_from(clients(1_500))
    measured.client.config_resetstat()
    measured.report_from(f"again-{client}" for client in clients(1_000, 32))
    assert measured.client.info("commandstats")["cmdstat_hgetall"]["calls"] <= 1_000 / 100 + 1


def test_what_is_not_used_expires(measured: Measured) -> None:
    """All but the breaker itself and its history, which stay until it is deleted."""
    measured.apply(Policy(**{**WIDEST, "failure_threshold": 3}, window_ms=600_000, failure_rate_percent=100))
    measured.report(("S", 1), ("F", 2))
    measured.advance(60_000)
    measured.report(("S", 1))
    left = {part: measured.client.pttl(f"{measured.key}:{part}") for part in ("window", "history")}
    assert 3_600_000 < left["window"] <= 600_000 + 3_600_000
    assert left["history"] == measured.client.pttl(measured.key) == -1
    measured.report(("F", 3))
    measured.advance(101)
    measured.acquire("l")
    assert 3_600_000 < measured.client.pttl(f"{measured.key}:probes") <= 2 * 3_600_000


def test_a_deleted_breaker_leaves_nothing(measured: Measured) -> None:
    """Nor does one whose every key was in use."""
    measured.apply(Policy(**{**WIDEST, "failure_threshold": 1}, window_calls=10, failure_rate_percent=100))
    measured.report(("S", 1))
    measured.report(("F", 1))
    measured.advance(101)
    measured.acquire("l")
    assert set(measured.bytes()) == {"breaker", "window", "probes", "history"}
    assert send(measured.client, protocol.delete(measured.key, owner="o", uid="u"))
    assert measured.client.keys("*") == ["test:now_ms"], "the shared hash had this one field"
