"""A Redis Cluster of three primaries on this machine."""

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
    """Started on entering: every slot is served, no replicas. Each node gives its own share of the slots."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
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
        self.nodes = [self._stack.enter_context(RedisServer(self._binary, arguments=_options(bus))) for bus in buses]
        bounds = [SLOTS * number // PRIMARIES for number in range(PRIMARIES + 1)]
        for number, node in enumerate(self.nodes):
            _tell(node, "CLUSTER ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            _tell(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            if number:
                _tell(node, "CLUSTER MEET", "127.0.0.1", self.nodes[0].port, buses[0])
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
