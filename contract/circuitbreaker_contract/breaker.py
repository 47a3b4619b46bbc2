"""All that is stored of a breaker, as one frozen value, and what its changes say to the shared names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import (
    Order,
    ProbeTotals,
    Projection,
    Reason,
    Resume,
    Shadow,
    State,
    Totals,
    Transition,
)
from circuitbreaker_contract.window import Window, empty


class Ended(NamedTuple):
    """A lease that holds no slot: when it expired, or (settled) when its outcome came."""

    settled: bool
    at_ms: int


class Reporter(NamedTuple):
    """A client process: its last batch seen, when it was last here, when and in which streak it last saw a failure."""

    seq: int = 0
    seen_ms: int = 0
    bad_ms: int = 0  # 0: never
    streak_id: int = 0


class Note(NamedTuple):
    """What the shared names are told: a change, or (previous == state) a new policy. `state` None: deleted."""

    previous: State | None
    state: State | None
    reason: Reason
    at_ms: int
    incarnation: int
    generation: int
    retry_after_ms: int


class Forced(NamedTuple):
    """An override in force. `until_ms` 0: until it is taken away; `length_ms`: how far ahead that was when set."""

    state: State
    until_ms: int
    length_ms: int


@dataclass(frozen=True, slots=True)
class Definition:
    """Who wants which policy: the arguments of `cb_configure`."""

    owner: str
    uid: str
    generation: int
    policy: Policy
    projection: Projection = Projection.SHARED
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker. `streak_id` tells one streak of failures from the next; `shadow_length_ms` belongs to `shadow`."""

    owner: str
    uid: str
    resource_generation: int
    policy: Policy
    projection: Projection
    incarnation: int
    since_ms: int
    counted_at_ms: int
    window: Window
    generation: int = 1
    revision: int = 1
    state: State = State.CLOSED
    reason: Reason = Reason.CREATED
    open_until_ms: int = 0
    open_length_ms: int = 0
    attempt: int = 0
    streak: int = 0
    streak_id: int = 0
    probe_successes: int = 0
    probes_lost: int = 0
    probe_length_ms: int = 0
    last_reset: str = ""
    forced: Forced | None = None
    override_ended: str = ""
    shadow: Shadow = field(default_factory=Shadow)
    shadow_length_ms: int = 0
    totals: Totals = field(default_factory=Totals)
    probes: ProbeTotals = field(default_factory=ProbeTotals)
    state_ms: Mapping[State, int] = field(default_factory=lambda: MappingProxyType({}))
    transition_totals: Mapping[tuple[State, State, Reason], int] = field(default_factory=lambda: MappingProxyType({}))
    live: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))  # lease -> expiry
    ended: Mapping[str, Ended] = field(default_factory=lambda: MappingProxyType({}))
    reporters: Mapping[str, Reporter] = field(default_factory=lambda: MappingProxyType({}))
    history: tuple[Transition, ...] = ()
    notes: tuple[Note, ...] = ()  # of the last step only

    @property
    def order(self) -> Order:
        return Order(self.incarnation, self.generation, self.revision)


def empty_window(policy: Policy) -> Window:
    return empty(policy.window_calls, policy.window_ms)
