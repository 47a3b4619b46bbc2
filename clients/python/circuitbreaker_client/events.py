"""What a client tells its `on_event` hook, as frozen values.

The hook is called in the thread where the event arose, mostly the client's own. It must be quick and must not block;
what it raises is logged and goes no further. `breaker` is always `namespace/name`, times are seconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from circuitbreaker_contract.state import State


class Source(StrEnum):
    """Who decides for a breaker in this process."""

    SHARED = "shared"  # the state in Redis, for the whole fleet
    LOCAL = "local"  # this process alone: no answer of Redis yet, no such breaker in Redis, or CB_STATE_SYNC=false


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The state that this process acts on has changed."""

    breaker: str
    previous: State
    state: State
    source: Source


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was not permitted. One event for each refused call, also where a fallback answers it."""

    breaker: str
    retry_after_seconds: float | None


@dataclass(frozen=True, slots=True)
class Degraded:
    """Shared state is not to be had: a local breaker with the last known policy decides from now on."""

    breaker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Recovered:
    """Shared state decides again. `after_seconds`: how long the local breaker did."""

    breaker: str
    after_seconds: float


@dataclass(frozen=True, slots=True)
class OutcomesDropped:
    """The buffer was full: that many of its oldest outcomes will not be reported."""

    breaker: str
    count: int


Event = StateChanged | CallRefused | Degraded | Recovered | OutcomesDropped
EventHook = Callable[[Event], None]
