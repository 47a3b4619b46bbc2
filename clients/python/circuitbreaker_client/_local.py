"""A breaker of this process alone, by the rules of the contract: where Redis is silent, or is not wanted.

Not thread-safe and without a clock: its owner has a lock and hands in the time, in ms since the Unix epoch.
"""

from dataclasses import replace
from itertools import count

from circuitbreaker_contract import rules
from circuitbreaker_contract.breaker import Definition
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Outcome, Permit, Projection, Resume, State

CLIENT = "local"


class LocalBreaker:
    """Begins in the state that was last known, or (`resume` None) Closed with nothing counted."""

    def __init__(self, policy: Policy, now_ms: int, resume: Resume | None = None) -> None:
        # One process is no quorum of several: it would never open.
        alone = replace(policy, min_reporters=1)
        wanted = Definition(rules.ENV, rules.ENV, 0, alone, Projection.NOTHING, resume)
        self._breaker, _ = rules.configured(None, now_ms, wanted)
        self._numbers = count(1)

    @property
    def state(self) -> State:
        return self._breaker.state

    @property
    def order(self) -> tuple[int, int]:
        return self._breaker.order[:2]

    def retry_after_ms(self, now_ms: int) -> int:
        """0: now; -1: until a person ends the override."""
        return rules.retry_after_ms(self._breaker, now_ms, CLIENT)

    def acquire(self, now_ms: int, lease: str) -> Permit:
        self._breaker, permit = rules.acquired(self._breaker, now_ms, client=CLIENT, lease=lease)
        return permit

    def count(self, now_ms: int, order: tuple[int, int], runs: list[tuple[str, int]]) -> None:
        self._breaker = rules.reported(
            self._breaker, now_ms, client=CLIENT, seq=next(self._numbers), order=order, runs=tuple(runs)
        )

    def settle(self, now_ms: int, lease: str, order: tuple[int, int], outcome: Outcome) -> None:
        self._breaker = rules.settled(self._breaker, now_ms, client=CLIENT, lease=lease, order=order, outcome=outcome)
