"""Plays the contract's scenarios on a client: what a scenario's caller does, a client does by its own means.

`acquire` asks the client for a permit, `report` ends calls that were permitted under that generation, `settle` ends a
probe; what comes back is what the client knows afterwards. Everything else (configure, tick, reset, delete, observe) is
not a client's work and goes to Redis directly; the client then hears of it as it always does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import circuitbreaker_client
from circuitbreaker_client import CallNotPermittedError
from circuitbreaker_client._core import Core
from circuitbreaker_client.outcomes import IGNORED, failed
from circuitbreaker_conformance import RedisStore, Scenario
from circuitbreaker_conformance.playing import BASE_MS, BREAKER, KEY
from circuitbreaker_contract.arguments import check_batch
from circuitbreaker_contract.keys import Keys
from tests.client.world import until

CLOCKED = (
    "_acquiring",
    "_breakers",
    "_core",
    "_engine",
    "_knowledge",
    "_protect",
    "_recording",
    "_talk",
)  # modules that read a clock
REPORTS, SETTLES = {"acquire", "report", "settle"}, {"settle"}


class NotPlayableError(Exception):
    """A client never does that; the text says why."""


def why_not(scenario: Scenario) -> str:
    """Why a client cannot play the scenario; empty when it can."""
    leases: set[str] = set()
    slow_ms = scenario.policy.get("slowCallDurationMs")
    for step in scenario.steps:
        if not REPORTS & step.keys():
            continue
        if "error" in step:
            return "a client sends no call that is refused: it checks names, and goes on alone without a breaker"
        if "times" in step or "seq" in step:
            return "numbers and repetitions are the client's own; test_freshness and test_outages lose replies instead"
        if "key" in step:
            return "the key is the client's own"
        if "acquire" in step:
            if step["acquire"] in leases:
                return "a client never asks under the same lease again"
            leases.add(step["acquire"])
        if "report" in step and not slow_ms and set("LM") & set(step["report"]):
            return "without slowCallDurationMs no call is slow to a client"
    return ""


class Client(Protocol):
    """A client for threads or for asyncio, one for each client id of a scenario."""

    core: Core

    def acquire(self) -> Any: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class ClientStore:
    """A Store: Redis with a settable clock, and clients before it. `make` makes a client of that id."""

    def __init__(self, redis: RedisStore, make: Any) -> None:
        self._redis = redis
        self._make = make
        self._clients: dict[str, Client] = {}
        self._grants: dict[tuple[str, str], Any] = {}
        self._now_ms = BASE_MS
        self.monotonic = 1_000.0  # seconds: what the clients' clock shows

    def execute(self, *command: str | int) -> Any:
        function, args = command[1], command[4:]
        match function:
            case "cb_acquire":
                return self._acquire(*map(str, args))
            case "cb_report":
                return self._report(str(args[0]), (int(args[2]), int(args[3])), str(args[4]))
            case "cb_settle":
                return self._settle(str(args[0]), str(args[1]), (int(args[2]), int(args[3])), str(args[4]))
        return self._redis.execute(*command)

    def set_clock(self, now_ms: int) -> None:
        """A monotonic clock goes forward even where Redis' own jumps back."""
        self.monotonic += max(0, now_ms - self._now_ms) / 1000
        self._now_ms = now_ms
        self._redis.set_clock(now_ms)

    def states(self, keys: Keys) -> Mapping[str, str]:
        return self._redis.states(keys)

    def messages(self) -> list[dict[str, Any]]:
        return self._redis.messages()

    def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _client(self, name: str) -> Client:
        """That client, up to date."""
        if name not in self._clients:
            client = self._clients[name] = self._make(name)
            client.core.activate()
            client.core.engine._talk._client = client.core.engine.client = name
        client = self._clients[name]
        client.core.engine.look(client.core)
        self._flushed(client)
        return client

    def _flushed(self, client: Client) -> None:
        """With more than fits into one flush (a million outcomes), after several."""
        until(lambda: client.flush() or client.core.statistics().buffered == 0, "the reports")

    def _acquire(self, name: str, lease: str) -> list[Any]:
        client = self._client(name)
        core = client.core
        core.engine.next_lease = lambda: lease
        try:
            grant = client.acquire()
        except CallNotPermittedError as refused:
            client.flush()  # a refusal of its own is reported
            after = refused.retry_after_seconds
            return [*self._standing(core)[:4], -1 if after is None else round(after * 1000), "NotPermitted", 0]
        granted = [*self._standing(core)[:4], 0]  # retryAfterMs: the call may be tried now
        if not grant.is_probe:
            return [*granted, "Permitted", 0]
        self._grants[name, lease] = grant
        lease_ms = core.policy.probe_timeout_ms  # a client does not keep it: it settles whenever the call ends
        return [*granted, "Probe", lease_ms]

    def _report(self, name: str, order: tuple[int, int], batch: str) -> list[Any]:
        client = self._client(name)
        core = client.core
        buffer = next(
            (each for each in core.recording.buffers() if each.order == order and each.local_order is None), None
        )
        if buffer is None:
            raise NotPlayableError(f"{name} never knew the generation of that batch")
        slow = (core.policy.slow_call_duration_ms + 1) / 1000
        for letter, count in check_batch(batch):
            for _ in range(count):
                if letter == "N":
                    core.recording.refusals.append(None)
                else:
                    buffer.append({"S": 0.0, "F": failed(0.0), "L": slow, "M": failed(slow), "I": IGNORED}[letter])
        self._flushed(client)
        return self._standing(core)

    def _settle(self, name: str, lease: str, order: tuple[int, int], letter: str) -> list[Any]:
        client = self._client(name)
        grant = self._grants.get((name, lease))
        if grant is None or grant.order != order:
            raise NotPlayableError(f"{name} was not granted {lease} under that generation")
        slow_ms = client.core.policy.slow_call_duration_ms
        if letter in "LM" and not slow_ms:
            raise NotPlayableError("without slowCallDurationMs no call is slow to a client")
        slow = (slow_ms + 1) / 1000
        grant.finish({"S": 0.0, "F": failed(0.0), "L": slow, "M": failed(slow), "I": IGNORED}[letter])
        self._flushed(client)
        return self._standing(client.core)

    def _standing(self, core: Core) -> list[Any]:
        """What the client believes, as a reply."""
        snapshot = core.snapshot()
        assert snapshot.order is not None
        assert not snapshot.degraded
        after = snapshot.retry_after_seconds
        return [snapshot.state.value, *snapshot.order, -1 if after is None else round(after * 1000)]


@contextmanager
def clocked(store: ClientStore, monkeypatch: Any) -> Iterator[None]:
    """The clients' clock is the scenario's."""
    with monkeypatch.context() as patched:
        for module in CLOCKED:
            patched.setattr(getattr(circuitbreaker_client, module), "perf_counter", lambda: store.monotonic)
        try:
            yield
        finally:
            store.close()


assert Keys().breaker(BREAKER) == KEY
