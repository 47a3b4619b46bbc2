"""A Redis with the library, breakers in it, and clients that are closed at the end of the test."""

import threading
from contextlib import ExitStack, suppress
from typing import Any

import redis

from circuitbreaker_client import AsyncCircuitBreakers, CircuitBreakers, Event, Policy, State
from circuitbreaker_contract import library
from circuitbreaker_local import RedisServer
from circuitbreaker_local.waiting import wait_until
from tests.contract.callers import Caller

POLICY = Policy(
    failure_threshold=3, recovery_timeout_ms=60_000, half_open_limit=2, success_threshold=1, probe_timeout_ms=30_000
)
SHORT = Policy(
    failure_threshold=3, recovery_timeout_ms=100, half_open_limit=1, success_threshold=1, probe_timeout_ms=30_000
)
THREAD = "circuitbreaker-client"


class World:
    """`url` is where it is; `admin` is what an operator or another client does."""

    # Ours is 0.1 s; a machine that is busy with other tests may be slower than that where nothing is amiss.
    redis_timeout_seconds = 2.0

    def __init__(self, server: RedisServer, *, with_library: bool = True) -> None:
        self.server = server
        self.admin: Any = redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=5)
        self.events: list[Event] = []
        self._stack = ExitStack()
        self._stack.callback(self.admin.close)
        if with_library:
            self.load()

    def load(self) -> None:
        self.admin.function_load(library.source(), replace=True)

    def breaker(self, name: str = "payments", *, namespace: str = "demo", policy: Policy | None = POLICY) -> Caller:
        """What others do with that breaker; `policy`: it is defined first."""
        caller = Caller(self.admin, name, namespace=namespace)
        if policy is not None:
            caller.define(policy)
        return caller

    def client(self, **options: Any) -> CircuitBreakers:
        breakers = CircuitBreakers(**self._options(options))
        self._stack.callback(breakers.close)
        return breakers

    def async_client(self, **options: Any) -> AsyncCircuitBreakers:
        """The test closes it."""
        return AsyncCircuitBreakers(**self._options(options))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "redis_url": self.server.url,
            "redis_timeout_seconds": self.redis_timeout_seconds,
            "namespace": "demo",
            "on_event": self.events.append,
            **given,
        }

    def commands(self) -> dict[str, int]:
        """Redis' count of each command since the last `reset_commands`; those inside of functions are in it too."""
        return {name.removeprefix("cmdstat_"): each["calls"] for name, each in self.admin.info("commandstats").items()}

    def reset_commands(self) -> None:
        self.admin.config_resetstat()

    def login(self, rules: str) -> str:
        """The URL of a new user with these ACL rules."""
        self.admin.acl_log_reset()
        self.admin.execute_command("ACL", "SETUSER", "app", *rules.split())
        self._stack.callback(self.admin.execute_command, "ACL", "DELUSER", "app")
        return f"redis://app:secret@127.0.0.1:{self.server.port}/0"

    def close(self) -> None:
        """May be repeated."""
        self._stack.close()


def until(condition: Any, what: str = "it", seconds: float = 10.0) -> None:
    wait_until(condition, timeout_seconds=seconds, what=what)


def until_state(breaker: Any, state: State) -> None:
    until(lambda: breaker.state is state, f"{breaker.name} to be {state}, it is {breaker.snapshot()}")


def half_open(caller: Caller, breaker: Any) -> None:
    """Opens it for the fleet, and waits until its client has heard that probes are permitted."""
    breaker.call(int)
    caller.open()
    caller.until_half_open()
    until_state(breaker, State.HALF_OPEN)


def client_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def fail(breaker: Any, times: int = 1) -> None:
    """That many failed calls."""
    for _ in range(times):
        with suppress(OSError):
            breaker.call(_broken)


def _broken() -> None:
    raise OSError("broken")
