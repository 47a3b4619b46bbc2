"""What a client knows of a breaker, to be read without a round trip."""

from collections.abc import Mapping
from dataclasses import dataclass

from circuitbreaker_client.events import Source
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Order, Outcome, State


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """What this process acts on, at the moment of reading.

    `retry_after_seconds`: until a call may be tried, 0.0 in Closed; None: a person holds it open. `age_seconds`: since
    Redis was asked for what `SHARED` shows; None for `LOCAL`, and before the first answer. `order` is the last one that
    Redis told, None when it never did. `degraded`: shared state is wanted, and not to be had.
    """

    breaker: str
    state: State
    source: Source
    degraded: bool
    policy: Policy
    order: Order | None
    retry_after_seconds: float | None
    age_seconds: float | None


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """Counters of this process for one breaker, since it began (or was forked); they only rise but for the last four.

    `outcomes` has each letter of Outcome; they are counted when the buffer is emptied, so up to a flush interval late.
    `permitted` is their sum: calls that have ended. `refused` counts local refusals and those of Redis. `reported` is
    how many outcomes Redis has acknowledged, `dropped` how many will never be sent. `buffered`: waiting to be sent.
    `snapshot_age_seconds`: see BreakerSnapshot.age_seconds.
    """

    permitted: int
    refused: int
    outcomes: Mapping[Outcome, int]
    reported: int
    dropped: int
    buffered: int
    state: State
    degraded: bool
    snapshot_age_seconds: float | None
