"""A Redis Cluster of three primaries on this machine."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import redis

from circuitbreaker_local.errors import LocalError
from circuitbreaker_local.processes import ADDRESS_IN_USE, free_port
from circuitbreaker_local.redis_server import RedisServer
from circuitbreaker_local.waiting import wait_until

PRIMARIES = 3
SLOTS = 16_384
ATTEMPTS = 3
READY_SECONDS = 20.0


class RedisCluster:
    """Started on entering: every slot is served, no replicas. Each node gives its own share of the slots.

    With `tls`, options like `["--tls-cert-file", ...]`, nodes speak TLS to each other and on `tls_ports`.
    """

    def __init__(self, binary: Path, *, tls: Sequence[str] = ()) -> None:
        self._binary = binary
        self._tls = tls
        self.tls_ports: list[int] = []
        self._stack = ExitStack()
        self.nodes: list[RedisServer] = []

    def client(self, **options: Any) -> "redis.RedisCluster":
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port, **options)

    def start(self) -> Self:
        """Back when each node knows that all slots are served. Raises LocalError."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._start()
            except LocalError as error:
                # A RedisServer looks for another port by itself, but the bus port of a node is ours to choose.
                self.stop()
                if ADDRESS_IN_USE not in str(error) or attempt == ATTEMPTS:
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def stop(self) -> None:
        self._stack.close()
        self.nodes = []

    def _start(self) -> None:
        buses = [free_port() for _ in range(PRIMARIES)]
        self.tls_ports = [free_port() for _ in range(PRIMARIES if self._tls else 0)]
        options = [_options(bus) for bus in buses]
        for each, port in zip(options, self.tls_ports, strict=False):
            each += ["--tls-port", str(port), "--tls-cluster", "yes", *self._tls]
        self.nodes = [self._stack.enter_context(RedisServer(self._binary, arguments=each)) for each in options]
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, node in enumerate(self.nodes):
            _tell(node, "CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            _tell(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                _tell(node, "CLUSTER MEET", "127.0.0.1", (self.tls_ports or [self.nodes[0].port])[0], buses[0])
        wait_until(
            lambda: all(map(_serves_all, self.nodes)),
            timeout_seconds=READY_SECONDS,
            what="every node to know that all slots are served",
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _options(bus: int) -> list[str]:
    options = {"cluster-enabled": "yes", "cluster-port": str(bus), "cluster-node-timeout": "2000"}
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _tell(node: RedisServer, command: str, *arguments: str | int) -> Any:
    with redis.Redis.from_url(node.url, socket_timeout=5.0) as client:
        return client.execute_command(command, *arguments)


def _serves_all(node: RedisServer) -> bool:
    said = _tell(node, "CLUSTER INFO")
    return bool(said["cluster_state"] == "ok" and said["cluster_size"] == str(PRIMARIES))
