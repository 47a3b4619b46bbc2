"""Redis restarts, fails over, is paused, slow, refuses the login, has no library: callers never notice."""

import gc
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis.credentials import CredentialProvider

from circuitbreaker_client import (
    CallNotPermittedError,
    CircuitBreakers,
    Degraded,
    Policy,
    Recovered,
    Source,
    State,
    StoreUnavailableError,
    _link,
)
from circuitbreaker_client._wire import Connect, Wire
from circuitbreaker_contract.policy import Mode
from circuitbreaker_local import RedisServer
from circuitbreaker_local.redis_sentinel import RedisSentinel
from tests.client.world import POLICY, SHORT, World, fail, half_open, until, until_state
from tests.relay import Relay

TIMEOUT_SECONDS = 0.3
AT_ONCE_SECONDS = 0.2  # not enough to have waited for Redis
BRIEF = {"max_staleness_seconds": 0.5}


@pytest.fixture(autouse=True)
def _timeout(monkeypatch) -> None:
    monkeypatch.setattr(World, "redis_timeout_seconds", TIMEOUT_SECONDS)


def kinds(world) -> list[type]:
    return [type(each) for each in world.events if isinstance(each, Degraded | Recovered)]


def in_time(breaker, within_seconds: float = TIMEOUT_SECONDS + 0.5) -> None:
    """A call is answered without an error of Redis, and not later than the timeout and some slack."""
    began = time.perf_counter()
    assert breaker.call(lambda: 5) == 5
    assert time.perf_counter() - began < within_seconds


def test_redis_away_from_the_beginning(own_world) -> None:
    own_world.server.kill()
    payments = own_world.client()["payments"]
    in_time(payments)
    assert (payments.snapshot().source, payments.snapshot().degraded) == (Source.LOCAL, True)
    fail(payments, 5)  # the CB_* policy
    with pytest.raises(CallNotPermittedError):
        payments.call(int)
    own_world.server.start()
    own_world.load()
    own_world.breaker()
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
    assert payments.call(lambda: 6) == 6, "shared state wins"
    assert kinds(own_world) == [Degraded, Recovered]


@pytest.mark.parametrize("how", ["pause", "kill"])
def test_silence_in_closed(own_world, how) -> None:
    """Calls go on at once; after the staleness bound the local breaker has the last known policy; then it is back."""
    caller, breakers = own_world.breaker(), own_world.client(**BRIEF)
    payments = breakers["payments"]
    payments.call(int)
    breakers.flush()
    getattr(own_world.server, how)()
    in_time(payments, AT_ONCE_SECONDS)
    until(lambda: payments.snapshot().degraded, "the staleness bound")
    in_time(payments, AT_ONCE_SECONDS)
    assert payments.snapshot().policy == POLICY
    fail(payments, 3)
    assert payments.state is State.OPEN
    if how == "pause":
        own_world.server.resume()
    else:
        own_world.server.start()
        own_world.load()
        caller.define(POLICY)
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
    # The failures are young: where the generation is still the same one they count, and open it.
    until_state(payments, State.OPEN if how == "pause" else State.CLOSED)
    assert kinds(own_world)[-2:] == [Degraded, Recovered]
    until(lambda: breakers.statistics()["demo/payments"].buffered == 0, "the reports")
    totals, dropped = caller.observe().totals, breakers.statistics()["demo/payments"].dropped
    # A report that meets a Redis with neither library nor breaker is dropped, and counted as such.
    assert (totals.failures, totals.late + dropped >= 5) == ((3, False) if how == "pause" else (0, True))


def test_what_was_buffered_is_reported(redis_server_binary) -> None:
    """A short silence loses nothing: outcomes count in their generation. After a long one they add to totals."""
    with RedisServer(redis_server_binary, persistent=True) as server:
        world = World(server)
        caller, breakers = world.breaker(), world.client(max_staleness_seconds=1.0)
        payments = breakers["payments"]
        payments.call(int)
        breakers.flush()
        server.kill()
        for _ in range(7):
            payments.call(int)
        server.start()
        until(lambda: caller.observe().totals.successes == 8, "the reports of a short silence")
        server.kill()
        for _ in range(5):
            payments.call(int)
        until(lambda: payments.snapshot().degraded, "the staleness bound")
        until(lambda: aged(payments) == 5, "outcomes to grow old")
        server.start()
        until(lambda: caller.observe().totals.late == 5, "the reports of a long silence")
        assert breakers.statistics()["demo/payments"].dropped == 0
        world.close()


def aged(payments) -> int:
    core = payments._core
    with core.lock:
        core.recording.outbox.next(time.perf_counter())
        return sum(core.recording.outbox._aged.values()) + sum(
            batch.count for batch in [core.recording.outbox._sent] if batch and batch.order == (0, 0)
        )


def test_silence_in_half_open(own_world) -> None:
    """An acquire without an answer costs one call the timeout; then the local breaker gives probes."""
    caller = own_world.breaker(policy=SHORT)
    payments = own_world.client(max_staleness_seconds=100)["payments"]
    half_open(caller, payments)
    own_world.server.pause()
    in_time(payments)
    in_time(payments, AT_ONCE_SECONDS)
    assert payments.snapshot().degraded
    assert payments.state is State.CLOSED, "its probe has succeeded"
    own_world.server.resume()
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")


def test_silence_in_open_keeps_it_open(own_world) -> None:
    caller = own_world.breaker()
    payments = own_world.client(**BRIEF)["payments"]
    payments.call(int)
    caller.open()
    until_state(payments, State.OPEN)
    own_world.server.pause()
    until(lambda: payments.snapshot().degraded, "the staleness bound")
    with pytest.raises(CallNotPermittedError) as refused:
        payments.call(int)
    assert 50 < refused.value.retry_after_seconds <= 60
    own_world.server.resume()
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
    assert payments.state is State.OPEN


def test_redis_restarts_with_its_data(redis_server_binary) -> None:
    with RedisServer(redis_server_binary, persistent=True) as server:
        world = World(server)
        caller, breakers = world.breaker(), world.client()
        payments = breakers["payments"]
        payments.call(int)
        breakers.flush()
        server.restart(empty=False)
        fail(payments, 3)
        until_state(payments, State.OPEN)
        assert caller.observe().state is State.OPEN
        assert kinds(world) == [], "nobody noticed"
        world.close()


def test_redis_restarts_empty(own_world, caplog) -> None:
    """No library, no breaker: alone, with the last policy, until the operator has put them back."""
    caller = own_world.breaker()
    payments = own_world.client(**BRIEF)["payments"]
    payments.call(int)
    own_world.server.restart(empty=True)
    until(lambda: payments.snapshot().degraded, "the loss to be noticed")
    in_time(payments, AT_ONCE_SECONDS)
    own_world.load()
    caller.define(POLICY)
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
    assert sum("this process decides alone" in text for text in caplog.messages) == 1


def test_an_unknown_breaker(world, caplog) -> None:
    """One warning a name, the CB_* policy, asked again: never an exception."""
    payments = world.client(**BRIEF)["payments"]
    in_time(payments)
    fail(payments, 5)
    assert payments.state is State.OPEN
    world.breaker()
    until_state(payments, State.CLOSED)
    assert payments.snapshot().source is Source.SHARED
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        "demo/payments: no such breaker in Redis; this process decides alone until there is one"
    ]


def test_an_unknown_breaker_is_not_asked_for_all_the_time(own_world) -> None:
    """It is looked for as often as one that is there is read again."""
    payments = own_world.client()["payments"]
    in_time(payments)

    def looks() -> int:
        return own_world.admin.info("commandstats")["cmdstat_fcall_ro"]["calls"]

    until(lambda: payments.snapshot().degraded, "it to be known that there is none")
    before, since = looks(), time.monotonic()
    until(lambda: time.monotonic() > since + 4, "some rounds of half a second")
    assert looks() - before <= 4, "those of the start may come late"


def test_a_name_that_is_looked_up_for_long_keeps_no_snapshot_alive(own_world, monkeypatch) -> None:
    """The background thread stands in the lookup; failures are acted on by those who meet them."""
    own_world.breaker()
    found, looked_up, lookup = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        looked_up.set()
        found.wait(30)
        return lookup(*arguments, **options)

    with Relay(own_world.server.port) as relay:
        url = f"redis://localhost:{relay.port}/0"
        payments = own_world.client(redis_url=url, max_staleness_seconds=0.5)["payments"]
        in_time(payments)
        monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        until(looked_up.is_set, "the lookup")
        until(lambda: fail(payments, 1) or payments.snapshot().degraded, "the local breaker to take over")
        fail(payments, POLICY.failure_threshold)
        assert payments.state is State.OPEN
        assert not found.is_set()
    finally:
        found.set()


def test_a_deleted_breaker(world) -> None:
    caller, payments = world.breaker(), world.client()["payments"]
    payments.call(int)
    caller.open()
    until_state(payments, State.OPEN)
    caller.delete()
    until(lambda: payments.snapshot().degraded, "the deletion to be noticed")
    caller.define(POLICY)
    until_state(payments, State.CLOSED)


def test_no_library(shared_redis) -> None:
    world = World(shared_redis, with_library=False)
    payments = world.client()["payments"]
    in_time(payments)
    assert [each.reason for each in world.events if isinstance(each, Degraded)] == [
        "Redis has no function library: is the operator running?"
    ]
    world.close()


def test_a_wrong_password(redis_server_binary) -> None:
    with RedisServer(redis_server_binary, password="right") as server:
        world = World(server)
        world.breaker()
        payments = world.client(redis_url=f"redis://:wrong@127.0.0.1:{server.port}/0")["payments"]
        in_time(payments)
        degraded = next(each for each in world.events if isinstance(each, Degraded))
        assert "refuses the login" in degraded.reason
        assert "wrong" not in degraded.reason.replace("wrong password", "")
        world.close()


def test_a_password_from_a_file_may_change(redis_server_binary, tmp_path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    with RedisServer(redis_server_binary, password="right") as server:
        world = World(server)
        world.breaker()
        url = f"redis://:ignored@127.0.0.1:{server.port}/0"
        payments = world.client(redis_url=url, redis_password_file=file, **BRIEF)["payments"]
        in_time(payments)
        assert payments.snapshot().degraded
        file.write_text("right\n")
        until(lambda: payments.snapshot().source is Source.SHARED, "the login")
        world.close()


def test_whatever_a_credential_provider_raises_is_silence(own_world) -> None:
    """A token that cannot be had when the connection has to be made again."""

    class Token(CredentialProvider):
        is_there = True

        def get_credentials(self) -> tuple[str, str]:
            if not self.is_there:
                raise LookupError("no token")
            return "default", ""

    caller, token = own_world.breaker(), Token()
    pool = redis.ConnectionPool(port=own_world.server.port, credential_provider=token)
    breakers = own_world.client(connection_pool=pool, **BRIEF)
    payments = breakers["payments"]
    payments.call(int)
    breakers.flush()
    token.is_there = False
    own_world.admin.client_kill_filter(_type="normal", skipme=True)
    until(lambda: payments.snapshot().degraded, "the local breaker")
    fail(payments, POLICY.failure_threshold)
    assert payments.state is State.OPEN
    token.is_there = True
    until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
    # Older than the staleness bound by then, when the attempts were far apart: no failures, but not lost.
    until(lambda: delivered(caller.observe().totals) == (1, POLICY.failure_threshold), "the report")


def delivered(totals) -> tuple[int, int]:
    return totals.successes, totals.failures + totals.late


@pytest.mark.parametrize("how", ["kill", "pause", "refuse"])
def test_a_long_outage_keeps_nothing(own_world, monkeypatch, how) -> None:
    """Each attempt makes a connection with its buffers; an error that somebody keeps would keep them all."""
    made: list[weakref.ref[Wire]] = []

    class Counted(Wire):
        def __init__(self, connect: Connect, seconds: float) -> None:
            made.append(weakref.ref(self))
            super().__init__(connect, seconds)

    own_world.breaker()
    payments = own_world.client(**BRIEF)["payments"]
    payments.call(int)
    monkeypatch.setattr(_link, "Wire", Counted)
    if how == "refuse":
        own_world.admin.config_set("maxmemory", 1)
    else:
        getattr(own_world.server, how)()

    def tried() -> bool:
        in_time(payments)  # there is something to report, so it is tried
        return len(made) >= 6

    until(tried, "some attempts", 20)
    gc.collect()  # redis-py has cycles of its own where a connection is refused
    assert sum(each() is not None for each in made) <= 2, "the subscription's, and the one in use"


def test_slow_redis(own_world) -> None:
    """Slower than the timeout is as good as away; when it is quick again it counts again."""
    own_world.breaker()
    with Relay(own_world.server.port) as relay:
        payments = own_world.client(redis_url=relay.redis_url, **BRIEF)["payments"]
        payments.call(int)
        assert payments.snapshot().source is Source.SHARED
        relay.delay_seconds = 0.5
        in_time(payments, AT_ONCE_SECONDS)
        until(lambda: payments.snapshot().degraded, "the staleness bound")
        in_time(payments, AT_ONCE_SECONDS)
        relay.delay_seconds = 0.0
        until(lambda: payments.snapshot().source is Source.SHARED, "shared state")


def test_late_is_not_silent(own_world, caplog) -> None:
    """Later than a call waits, but in order: the connection stays, and with it the shared state."""
    caller = own_world.breaker()
    with Relay(own_world.server.port) as relay:
        payments = own_world.client(redis_url=relay.redis_url)["payments"]
        payments.call(int)
        until(lambda: own_world.admin.pubsub_numsub("circuit_breaker_updates")[0][1] == 1, "the subscription")
        relay.delay_seconds = 1.5 * TIMEOUT_SECONDS
        for _ in range(3):
            seen = caller.observe().totals.successes
            in_time(payments, AT_ONCE_SECONDS)
            until(lambda seen=seen: caller.observe().totals.successes > seen, "the report")
        caller.open()
        until_state(payments, State.OPEN)
        assert (relay.accepted, kinds(own_world), caplog.messages) == (2, [], [])


def test_who_waits_in_line_does_not_take_redis_for_silent(own_world) -> None:
    """HalfOpen, and more callers than answers in the time: those left over are refused, and probe nothing alone."""
    caller = own_world.breaker(policy=replace(SHORT, half_open_limit=20, success_threshold=20))
    with Relay(own_world.server.port) as relay:
        breakers = own_world.client(redis_url=relay.redis_url)
        payments = breakers["payments"]
        payments.call(int)
        caller.open()
        until_state(payments, State.OPEN)
        until(lambda: payments.snapshot().retry_after_seconds == 0, "the time to probe")
        relay.delay_seconds = TIMEOUT_SECONDS / 4
        asked, found = threading.Barrier(16), []

        def ask() -> None:
            asked.wait()
            with suppress(CallNotPermittedError):
                found.append(payments.permit())

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        relay.delay_seconds = 0.0
        assert 1 <= len(found) <= caller.observe().probes_live
        assert kinds(own_world) == []
        found.clear()


def test_a_grant_that_comes_late_goes_back(own_world) -> None:
    caller = own_world.breaker(policy=SHORT)
    with Relay(own_world.server.port) as relay:
        payments = own_world.client(redis_url=relay.redis_url)["payments"]
        payments.call(int)
        caller.open()
        caller.until_half_open()
        until_state(payments, State.HALF_OPEN)
        relay.delay_seconds = 1.5 * TIMEOUT_SECONDS
        in_time(payments)
        assert payments.snapshot().degraded, "the local breaker gave the probe"
        until(lambda: caller.observe().totals.ignored == 1, "the shared probe to go back")
        until(lambda: payments.snapshot().source is Source.SHARED, "shared state")
        found = caller.observe()
        assert (found.state, found.probes_live) == (State.HALF_OPEN, 0)


def test_a_process_that_was_stopped_finds_its_answers(own_world) -> None:
    """Between a question and its answer: longer than anything waits, but it is not Redis that was silent."""
    own_world.breaker()
    program = subprocess.Popen(
        [sys.executable, "-c", STOPPED, own_world.server.url], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    with program:
        assert program.stdout.readline() == "ready\n"
        own_world.server.pause()
        time.sleep(TIMEOUT_SECONDS)  # a report is under way: there is one every flush interval
        program.send_signal(signal.SIGSTOP)
        own_world.server.resume()
        time.sleep(2.0)  # what is tested is a length of time
        program.send_signal(signal.SIGCONT)
        said, _ = program.communicate("end\n", timeout=20)
        assert said == "[]\n", "neither a log line nor an event"


STOPPED = """
import logging, select, sys
logging.basicConfig(stream=sys.stdout)
from circuitbreaker_client import CircuitBreakers, Degraded, Recovered
events = []
breakers = CircuitBreakers(redis_url=sys.argv[1], namespace="demo", max_staleness_seconds=30, on_event=events.append)
payments = breakers["payments"]
payments.call(int)
breakers.flush()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    payments.call(int)
assert breakers.statistics()["demo/payments"].permitted
print([each for each in events if isinstance(each, (Degraded, Recovered))])
breakers.close()
"""


def test_many_callers_wait_once(own_world) -> None:
    """Redis silent, first use: each caller waits for the same question."""
    own_world.server.pause()
    payments = own_world.client()["payments"]
    began = time.perf_counter()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(payments.call, [lambda: 5] * 200)) == [5] * 200
    assert time.perf_counter() - began < 3 * TIMEOUT_SECONDS
    own_world.server.resume()


def test_strict(own_world) -> None:
    """Redis is asked about every call, and its silence is told."""
    caller = own_world.breaker()
    breakers = own_world.client(strict=True)
    payments = breakers["payments"]
    assert payments.call(lambda: 5) == 5
    own_world.reset_commands()
    for _ in range(10):
        payments.call(int)
    assert own_world.commands()["fcall"] >= 10
    with pytest.raises(StoreUnavailableError, match="demo/other: no breaker at"):
        breakers["other"].call(int)
    caller.open()
    for _ in range(3):
        with pytest.raises(CallNotPermittedError):
            payments.call(int)
    assert caller.observe().totals.not_permitted == 3
    own_world.server.pause()
    with pytest.raises(StoreUnavailableError):
        payments.call(int)
    own_world.server.resume()
    until(lambda: _is_open(payments), "Redis to be asked again")


def _is_open(payments) -> bool:
    try:
        payments.call(int)
    except CallNotPermittedError:
        return True
    except StoreUnavailableError:
        return False
    return False


def test_define_missing(shared_redis) -> None:
    """One compose file: the client brings library and breaker."""
    world = World(shared_redis, with_library=False)
    policy = Policy(2, 60_000, 1, 1, 1_000)
    first, second = (world.client(define_missing=True, policy=policy)["payments"] for _ in range(2))
    first.call(int)
    assert first.snapshot().source is Source.SHARED
    fail(first, 2)
    until_state(first, State.OPEN)
    with pytest.raises(CallNotPermittedError):
        second.call(int)
    seen = world.breaker(policy=None).observe()
    assert (seen.owner, seen.uid, seen.policy) == ("env", "env", policy)
    world.breaker()  # a resource of that name takes it over
    until(lambda: first.snapshot().policy == POLICY, "the resource's policy")
    world.close()


def test_without_shared_state() -> None:
    """CB_STATE_SYNC=false: the same breaker in this process; nothing is connected to."""
    with CircuitBreakers(redis_url="redis://127.0.0.1:1/0", state_sync=False, policy=SHORT) as breakers:
        payments = breakers["payments"]
        payments.call(int)
        fail(payments, 3)
        assert (payments.state, payments.snapshot().degraded) == (State.OPEN, False)
        with pytest.raises(CallNotPermittedError) as refused:
            payments.call(int)
        assert 0 < refused.value.retry_after_seconds <= 0.1
        until(lambda: payments.snapshot().retry_after_seconds == 0, "the end of the opening")
        with payments.permit() as permit:
            assert permit.is_probe
            with pytest.raises(CallNotPermittedError):
                payments.call(int)  # one probe at a time
        assert payments.state is State.CLOSED
        statistics = breakers.statistics()["default/payments"]
        assert (statistics.permitted, statistics.refused, statistics.reported) == (5, 2, 0)


def test_observe_mode_never_refuses(world) -> None:
    watching = Policy(2, 60_000, 1, 1, 1_000, mode=Mode.OBSERVE)
    caller, breakers = world.breaker(policy=watching), world.client()
    payments = breakers["payments"]
    fail(payments, 5)
    breakers.flush()
    assert payments.call(lambda: 5) == 5
    assert caller.observe().shadow.opened == 1


def test_a_fail_over(redis_server_binary) -> None:
    """By Sentinel, with a pool of the developer's: the client follows to the new primary."""
    with RedisSentinel(redis_server_binary) as group:
        sentinel = group.client()
        primary = sentinel.master_for(group.name)
        world = World(group.primary)
        world.breaker()
        assert world.admin.wait(1, 5_000) == 1
        breakers = world.client(connection_pool=primary.connection_pool, max_staleness_seconds=1)
        payments = breakers["payments"]
        payments.call(int)
        assert payments.snapshot().source is Source.SHARED
        group.fail_over()
        in_time(payments)
        until(lambda: payments.snapshot().source is Source.SHARED, "the new primary", 20)
        fail(payments, 3)
        until_state(payments, State.OPEN)
        breakers.close()
        world.close()
        primary.close()
