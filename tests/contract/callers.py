"""Sends calls of the contract to a Redis as it comes: any client of redis-py, the shipped library, Redis' own clock."""

from collections import Counter
from typing import Any, TypeVar

import redis

from circuitbreaker_contract import library, protocol
from circuitbreaker_contract.errors import ContractError
from circuitbreaker_contract.keys import BreakerKey, Keys
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.protocol import Call
from circuitbreaker_contract.state import Configured, Outcome, Permit, Projection, Resume, Snapshot, Standing, State
from circuitbreaker_local.waiting import wait_until

T = TypeVar("T")

KEYS = Keys()
POLICY = Policy(
    failure_threshold=3, recovery_timeout_ms=60_000, half_open_limit=2, success_threshold=1, probe_timeout_ms=30_000
)
SHORT = Policy(
    failure_threshold=3, recovery_timeout_ms=100, half_open_limit=2, success_threshold=1, probe_timeout_ms=30_000
)


def load(client: Any, text: str | None = None) -> None:
    client.function_load(text or library.source(), replace=True)


def send(client: Any, call: Call[T]) -> T:
    """The answer to a call; raises ContractError for a refusal of the library, else what redis-py raises."""
    try:
        return call.read(client.execute_command(*call.command()))
    except redis.ResponseError as error:
        raise ContractError.from_reply(str(error)) or error from error


class Caller:
    """One client process of one breaker, and its operator."""

    def __init__(self, client: Any, name: str = "payments", *, namespace: str = "demo", keys: Keys = KEYS) -> None:
        self.client, self.keys = client, keys
        self.breaker = BreakerKey(namespace, name)
        self.key = keys.breaker(self.breaker)
        self.seqs = Counter[str]()

    def define(
        self,
        policy: Policy = POLICY,
        *,
        generation: int = 1,
        project: Projection = Projection.SHARED,
        resume: Resume | None = None,
    ) -> Configured:
        call = protocol.configure(
            self.key, owner="o", uid="u", generation=generation, policy=policy, project=project, resume=resume
        )
        return send(self.client, call).result

    def observe(self, history: int = 0) -> Snapshot:
        return send(self.client, protocol.observe(self.key, history=history))

    def report(
        self, *runs: tuple[str, int], client: str = "a", order: tuple[int, int] | None = None, seq: int = 0
    ) -> Standing:
        self.seqs[client] = seq or self.seqs[client] + 1
        order = order or self.observe().order[:2]
        return send(
            self.client, protocol.report(self.key, client=client, seq=self.seqs[client], order=order, batch=runs)
        )

    def open(self) -> Standing:
        return self.report(("F", POLICY.failure_threshold))

    def acquire(self, lease: str) -> Permit:
        return send(self.client, protocol.acquire(self.key, client="a", lease=lease))

    def settle(self, lease: str, outcome: Outcome = Outcome.SUCCESS) -> Standing:
        order = self.observe().order[:2]
        return send(self.client, protocol.settle(self.key, client="a", lease=lease, order=order, outcome=outcome))

    def delete(self) -> bool:
        return send(self.client, protocol.delete(self.key, owner="o", uid="u"))

    def tick(self) -> Standing:
        return send(self.client, protocol.tick(self.key)).standing

    def until_half_open(self) -> None:
        """Waits for the end of a short opening, as the operator would."""
        wait_until(lambda: self.tick().state is State.HALF_OPEN, timeout_seconds=5, what="HalfOpen")
