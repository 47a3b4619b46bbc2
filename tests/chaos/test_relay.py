"""The relay does what the cells that need it take for granted."""

import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.relay import Relay

LATE_SECONDS = 0.2


def connect(relay: Relay) -> redis.Redis:
    """One connection, which is given up when nothing comes for a moment, and not made anew."""
    client = redis.Redis(
        port=relay.port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0), single_connection_client=True
    )
    client.ping()
    return client


def test_slow(shared_redis: RedisServer) -> None:
    """Each answer is that late, whatever its size, and all of it comes."""
    with Relay(shared_redis.port) as relay, connect(relay) as client:
        relay.delay_seconds = LATE_SECONDS
        client.set("much", b"x" * 5_000_000)
        began = time.monotonic()
        assert client.strlen("much") == 5_000_000
        assert time.monotonic() - began >= LATE_SECONDS
        relay.delay_seconds = 0.0
        assert client.get("much") == b"x" * 5_000_000


def test_half_open(shared_redis: RedisServer) -> None:
    """What was open stays dead, without an end of the connection; what connects later passes."""
    with Relay(shared_redis.port) as relay, connect(relay) as early:
        relay.swallow()
        with pytest.raises(redis.TimeoutError):
            early.ping()
        with pytest.raises(redis.TimeoutError):
            connect(relay)
        relay.heal()
        with connect(relay) as later:
            assert later.ping()


def test_half_open_goes_on_after_the_end(shared_redis: RedisServer) -> None:
    with Relay(shared_redis.port) as relay, connect(relay) as early:
        relay.swallow()
        relay.heal()
        with pytest.raises(redis.TimeoutError):
            early.ping()


def test_refused(shared_redis: RedisServer) -> None:
    """What was open ends, what connects ends at once; later connections pass."""
    with Relay(shared_redis.port) as relay, connect(relay) as early:
        relay.refuse()
        with pytest.raises(redis.ConnectionError):
            early.ping()
        with pytest.raises(redis.ConnectionError):
            connect(relay)
        relay.heal()
        with connect(relay) as later:
            assert later.ping()


def test_an_end_is_passed_on(redis_server: RedisServer) -> None:
    with Relay(redis_server.port) as relay, connect(relay) as client:
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()


def test_held(shared_redis: RedisServer) -> None:
    """Nobody is told, and nothing is lost: what was said meanwhile arrives in order."""
    with Relay(shared_redis.port) as relay, connect(relay) as early, redis.Redis(port=shared_redis.port) as direct:
        relay.hold()
        direct.set("held", "0")
        with pytest.raises(redis.TimeoutError):
            early.set("held", "1")
        assert direct.get("held") == b"0"
        relay.release()
        assert connect(relay).ping()
        wait_until(lambda: direct.get("held") == b"1", timeout_seconds=5, what="what was held back")


def test_asked(shared_redis: RedisServer) -> None:
    """What is said is heard before it arrives, and an error of who hears it ends that connection alone."""
    heard = b""

    def asked(data: bytes) -> None:
        nonlocal heard
        heard += data
        if b"no-further" in data:
            raise ConnectionError

    with Relay(shared_redis.port, asked=asked) as relay, connect(relay) as early, connect(relay) as other:
        early.set("asked", "1")
        with pytest.raises(redis.ConnectionError):
            early.set("asked", "no-further")
        assert other.get("asked") == b"1"
        assert b"no-further" in heard
        assert relay.accepted == 2


def test_lost_subscriptions(shared_redis: RedisServer) -> None:
    """The subscriber hears nothing more, not even an answer to its PING; the others do not notice."""
    with Relay(shared_redis.port) as relay, connect(relay) as other, connect(relay) as client, client.pubsub() as heard:
        heard.subscribe("updates")
        assert heard.get_message(timeout=5) is not None
        relay.loses_subscriptions = True
        assert other.publish("updates", "lost") == 1
        assert other.ping()
        assert heard.get_message(timeout=0.2) is None
