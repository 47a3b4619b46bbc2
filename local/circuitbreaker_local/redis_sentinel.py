"""A primary, a replica and three sentinels on this machine, to fail over for real."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis
from redis.sentinel import Sentinel

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.folders import TemporaryFolder
from circuitbreaker_local.processes import Process, free_port
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until

SENTINELS = 3
QUORUM = 2
DOWN_AFTER_MS = 1_000
# Half of how long a group that elected nobody, or has just failed over, waits before it tries again.
FAILOVER_TIMEOUT_MS = 1_000
READY_SECONDS = 20.0


class RedisSentinel:
    """Started on entering; `primary` and `replica` are what they are now, also after a fail-over."""

    def __init__(self, binary: Path, *, name: str = "circuitbreakers") -> None:
        self.name = name
        self._binary = binary
        self._stack = ExitStack()
        self._folder: Path | None = None
        self._sentinels: list[Process] = []
        self.addresses: list[tuple[str, int]] = []
        self.primary = RedisServer(binary)
        self.replica = RedisServer(binary)

    def client(self, **options: Any) -> Sentinel:
        """What a service has: it knows the sentinels and the name, and no server."""
        return Sentinel(self.addresses, sentinel_kwargs={"socket_timeout": 1.0}, socket_timeout=1.0, **options)  # type: ignore[no-untyped-call]

    def start(self) -> Self:
        """Back when each sentinel knows the others and the replica. Raises LocalError."""
        try:
            self._folder = self._stack.enter_context(TemporaryFolder()).path
            self.primary = self._stack.enter_context(RedisServer(self._binary))
            of_primary = ["--replicaof", "127.0.0.1", str(self.primary.port)]
            self.replica = self._stack.enter_context(RedisServer(self._binary, arguments=of_primary))
            for number in range(SENTINELS):
                self._start_sentinel(number)
            self._until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def fail_over(self, *, within_seconds: float = 30.0) -> float:
        """Kill the primary and wait until the replica is one; seconds that it took. The dead server stays dead."""
        began = time.monotonic()
        self.primary.kill()
        promoted = self.replica.port
        self.replica.resume()  # in case that a test had paused it
        wait_until(
            lambda: self._port_of_primary() == promoted and _replication(self.replica).get("role") == "master",
            timeout_seconds=within_seconds,
            what="the replica to be promoted",
        )
        self.primary, self.replica = self.replica, self.primary
        return time.monotonic() - began

    def bring_back(self) -> None:
        """Start the dead server anew, empty, as the replica of the new primary; back when the sentinels count on it."""
        self.replica.start()
        with redis.Redis.from_url(self.replica.url) as client:
            # Sentinels would say so too, some ten seconds later.
            client.execute_command("REPLICAOF", "127.0.0.1", self.primary.port)
        self._until_ready()

    def stop(self) -> None:
        for process in self._sentinels:
            process.kill()
        self._sentinels.clear()
        self.addresses.clear()
        self._stack.close()

    def _until_ready(self) -> None:
        wait_until(
            lambda: _replication(self.replica).get("master_link_status") == "up",
            timeout_seconds=READY_SECONDS,
            what="the replica to have what the primary has",
        )
        wait_until(
            lambda: all(map(self._is_content, self.addresses)),
            timeout_seconds=READY_SECONDS,
            what="the sentinels to know each other and the replica",
        )

    def _start_sentinel(self, number: int) -> None:
        assert self._folder is not None
        port, folder = free_port(), self._folder / str(number)
        folder.mkdir()
        configuration = folder / "sentinel.conf"  # a sentinel keeps its state in its configuration
        lines = (
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {folder}",
            f"sentinel monitor {self.name} 127.0.0.1 {self.primary.port} {QUORUM}",
            f"sentinel down-after-milliseconds {self.name} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {self.name} {FAILOVER_TIMEOUT_MS}",
        )
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        process = Process([self._binary, configuration, "--sentinel"], log=folder / "log")
        self._sentinels.append(process)
        self.addresses.append(("127.0.0.1", port))
        wait_until(
            lambda: not process.alive or self._ask(("127.0.0.1", port), "MASTER", self.name) is not None,
            timeout_seconds=READY_SECONDS,
            what="a sentinel to answer",
        )
        if not process.alive:
            raise LocalError(f"a sentinel ended at once:\n{process.tail()}")

    def _ask(self, address: tuple[str, int], *command: str) -> Any:
        """The reply as Redis sends it, in the shape of RESP2; None when there is none."""
        try:
            with redis.Redis(host=address[0], port=address[1], socket_timeout=1.0, protocol=2) as sentinel:
                sentinel.response_callbacks.clear()
                return sentinel.execute_command("SENTINEL", *command)
        except redis.RedisError:
            return None

    def _is_content(self, address: tuple[str, int]) -> bool:
        """Whether a sentinel knows the other two, and a replica that it could promote."""
        primary = _named(self._ask(address, "MASTER", self.name))
        replicas = [_named(each) for each in self._ask(address, "REPLICAS", self.name) or []]
        return (
            primary.get("flags") == "master"
            and primary.get("num-other-sentinels") == str(SENTINELS - 1)
            and [(each["port"], each["flags"]) for each in replicas] == [(str(self.replica.port), "slave")]
        )

    def _port_of_primary(self) -> int:
        """What all sentinels agree on; 0 while they do not."""
        ports = {_named(self._ask(address, "MASTER", self.name)).get("port", "0") for address in self.addresses}
        return int(ports.pop()) if len(ports) == 1 else 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _named(reply: Any) -> Mapping[str, str]:
    words = [each.decode() for each in reply or ()]
    return dict(zip(words[::2], words[1::2], strict=True))


def _replication(server: RedisServer) -> Mapping[str, Any]:
    try:
        with redis.Redis.from_url(server.url, socket_timeout=1.0) as client:
            return client.info("replication")  # type: ignore[no-any-return]
    except redis.RedisError:
        return {}
