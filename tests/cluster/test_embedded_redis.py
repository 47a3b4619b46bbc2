"""The Redis of tests and demo: it starts, breaks and comes back as told."""

import signal
import stat
import time
from pathlib import Path

import pytest
import redis

from circuitbreaker_local import LocalError, RedisServer
from circuitbreaker_local.waiting import wait_until


def client(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=0.3, retry=None)


def test_it_serves_and_keeps_nothing(redis_server: RedisServer) -> None:
    """It is empty, new enough for functions, listens on 127.0.0.1 alone, and writes no file."""
    with client(redis_server) as connection:
        assert connection.dbsize() == 0
        assert connection.function_list() == []
        assert connection.config_get("save", "appendonly", "bind") == {
            "save": "",
            "appendonly": "no",
            "bind": "127.0.0.1",
        }
        connection.set("key", "value")
    assert list((redis_server.folder / "data").iterdir()) == []
    assert stat.S_IMODE(redis_server.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("empty", [True, False])
def test_restart_on_the_same_port(redis_server_binary: Path, empty: bool) -> None:
    """A restart keeps the port, and of the data what it is told to."""
    with RedisServer(redis_server_binary, persistent=True) as server:
        port, pid = server.port, server.pid
        with client(server) as connection:
            connection.set("key", "value")
        server.restart(empty=empty)
        assert server.port == port
        assert server.pid != pid
        with client(server) as connection:
            assert connection.get("key") == (None if empty else b"value")


def test_pause_and_resume(redis_server: RedisServer) -> None:
    """A paused server accepts and does not answer; afterwards it goes on with what it had."""
    with client(redis_server) as connection:
        connection.set("key", "value")
        redis_server.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            connection.get("key")
        redis_server.resume()
        assert connection.get("key") == b"value"


def test_kill_and_start(redis_server: RedisServer) -> None:
    """After `kill` connections are refused; `start` brings an empty server back on the same port."""
    port = redis_server.port
    redis_server.kill()
    with client(redis_server) as connection:
        with pytest.raises(redis.exceptions.ConnectionError):
            connection.ping()
        redis_server.start()
        assert redis_server.port == port
        assert connection.ping()


def test_password_and_arguments(redis_server_binary: Path) -> None:
    """A password is asked for; further arguments reach the server."""
    arguments = ["--maxmemory", "10mb"]
    with RedisServer(redis_server_binary, password="s3cret and more", arguments=arguments) as server:
        with (
            redis.Redis("127.0.0.1", server.port, retry=None) as stranger,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            stranger.ping()
        with redis.Redis("127.0.0.1", server.port, password=server.password) as connection:
            assert connection.config_get("maxmemory") == {"maxmemory": "10485760"}


def test_a_wrong_argument_shows_the_log(redis_server_binary: Path) -> None:
    """A server that does not start says why, at once, and leaves nothing behind."""
    server = RedisServer(redis_server_binary, arguments=["--no-such-option", "1"])
    began = time.monotonic()
    with pytest.raises(LocalError, match="no-such-option"):
        server.start()
    assert time.monotonic() - began < 5
    with pytest.raises(LocalError, match="was not started"):
        _ = server.folder


def test_a_taken_port_is_not_mistaken_for_ours(redis_server: RedisServer, redis_server_binary: Path) -> None:
    """A second server on the same port fails, although a Redis answers there."""
    with pytest.raises(LocalError, match="in use"):
        RedisServer(redis_server_binary, port=redis_server.port).start()
    assert redis_server.alive


def test_stop_ends_it_and_removes_its_folder(redis_server_binary: Path) -> None:
    """After `stop` neither process nor folder is left, paused or not."""
    server = RedisServer(redis_server_binary).start()
    folder, process = server.folder, server._process
    server.pause()
    server.stop()
    server.stop()
    assert process is not None
    assert process.returncode == -signal.SIGKILL
    assert not folder.exists()


@pytest.mark.parametrize("again", [1, 2])
def test_the_shared_server_is_empty_for_each_test(shared_redis: RedisServer, again: int) -> None:
    """What one test wrote, keys or functions, the next does not see."""
    with client(shared_redis) as connection:
        assert connection.dbsize() == 0
        assert connection.function_list() == []
        connection.set("key", again)
        connection.function_load("#!lua name=left\nredis.register_function('left', function() return 1 end)")


def test_a_dead_server_is_seen(redis_server: RedisServer) -> None:
    """`alive` follows the process."""
    assert redis_server.alive
    redis_server.kill()
    wait_until(lambda: not redis_server.alive, timeout_seconds=1, what="the end of a killed server")
