"""Words and values of the contract: states, outcomes, decisions, the order of a breaker and what a snapshot holds.

All values are frozen. Times are integer milliseconds of Redis' clock since the Unix epoch; lengths end in `_ms`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import NamedTuple

from circuitbreaker_contract.policy import Policy


class State(StrEnum):
    """What a caller has to know. Spelled this one way in resource, Redis, label and log."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


class Projection(IntEnum):
    """What the functions do about the shared names: `project` of a breaker."""

    NOTHING = 0
    SHARED = 1  # keep the hash of states, publish on the shared channel
    MESSAGES = 2  # publish on the shared channel and on the namespace's own; the hash is the operator's work


class Outcome(StrEnum):
    """How a permitted call ended; the letter is what goes over the wire."""

    SUCCESS = "S"
    FAILURE = "F"
    SLOW_SUCCESS = "L"
    SLOW_FAILURE = "M"
    IGNORED = "I"


NOT_PERMITTED_RUN = "N"  # in a batch only: calls that the client refused by itself


class Decision(StrEnum):
    """The answer to `cb_acquire`. A Probe is a permit of HalfOpen and carries a lease."""

    PERMITTED = "Permitted"
    PROBE = "Probe"
    NOT_PERMITTED = "NotPermitted"


class Reason(StrEnum):
    """Why a breaker changed; one word, used in history, messages, status, Events and metric labels."""

    CREATED = "Created"
    RESTORED = "Restored"
    POLICY_APPLIED = "PolicyApplied"
    DELETED = "Deleted"
    RESET = "Reset"
    MODE_CHANGED = "ModeChanged"
    FORCED = "Forced"
    OVERRIDE_EXPIRED = "OverrideExpired"
    CONSECUTIVE_FAILURES = "ConsecutiveFailures"
    FAILURE_RATE = "FailureRate"
    SLOW_CALL_RATE = "SlowCallRate"
    RECOVERY_TIMEOUT_ELAPSED = "RecoveryTimeoutElapsed"
    PROBES_SUCCEEDED = "ProbesSucceeded"
    PROBE_FAILED = "ProbeFailed"
    PROBES_LOST = "ProbesLost"
    UNKNOWN = "Unknown"  # of a newer edition than this program
    WOULD_HAVE_OPENED = "WouldHaveOpened"  # in messages only: the shadow of mode Observe has opened


class Configured(StrEnum):
    """What `cb_configure` did."""

    CREATED = "Created"  # there was none
    RESTORED = "Restored"  # there was none, and a state to resume from was given
    REPLACED = "Replaced"  # there was one of another uid
    UPDATED = "Updated"  # another policy is in force now
    UNCHANGED = "Unchanged"  # the same policy
    STALE = "Stale"  # an older generation of the resource: nothing was done


class Order(NamedTuple):
    """The order of a breaker's snapshots: a client never replaces one by a lower one.

    `incarnation` is Redis' time in ms when the hash was made, `generation` counts transitions and resets, `revision`
    counts policies. The first two ride in every permit and batch.
    """

    incarnation: int
    generation: int
    revision: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What each writing function replies with first.

    `retry_after_ms`: 0 when a call may be tried now, -1 when it is Open until a person ends the override.
    """

    state: State
    order: Order
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class Permit:
    """The answer to an acquire. `lease_ms` is what is left of a probe's lease, 0 for other decisions."""

    decision: Decision
    standing: Standing
    lease_ms: int


@dataclass(frozen=True, slots=True)
class Tick:
    """The answer to a tick. `due_in_ms`: when to come back, None when only a caller can cause the next change.

    `activity` rises with every outcome and refusal counted, so that a reader sees whether counters have moved.
    """

    standing: Standing
    due_in_ms: int | None
    activity: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Calls since the incarnation began. Slow calls are counted in successes or failures too."""

    successes: int = 0
    failures: int = 0
    slow: int = 0
    ignored: int = 0
    not_permitted: int = 0
    late: int = 0

    @property
    def activity(self) -> int:
        return self.successes + self.failures + self.ignored + self.not_permitted + self.late


@dataclass(frozen=True, slots=True)
class ProbeTotals:
    """Probes since the incarnation began: how many leases were given, and how each ended."""

    granted: int = 0
    succeeded: int = 0
    failed: int = 0
    ignored: int = 0
    expired: int = 0


@dataclass(frozen=True, slots=True)
class WindowCounts:
    """What is in the sliding window."""

    calls: int = 0
    failures: int = 0
    slow: int = 0

    def failure_rate_percent(self, minimum_calls: int) -> float | None:
        """Share of failed calls in percent, 0.0 to 100.0; None below `minimum_calls`."""
        return self._share(self.failures, minimum_calls)

    def slow_call_rate_percent(self, minimum_calls: int) -> float | None:
        """Share of slow calls in percent, 0.0 to 100.0; None below `minimum_calls`."""
        return self._share(self.slow, minimum_calls)

    def _share(self, part: int, minimum_calls: int) -> float | None:
        return 100.0 * part / self.calls if self.calls >= max(1, minimum_calls) else None


@dataclass(frozen=True, slots=True)
class Shadow:
    """What mode Observe would have done. `opened`: how often it would have opened since Observe began.

    `reason` is empty until it first moves; `not_permitted` counts outcomes of calls that it would have refused.
    """

    state: State = State.CLOSED
    since_ms: int = 0
    reason: str = ""
    open_until_ms: int | None = None
    attempt: int = 0
    forced: State | None = None
    probe_successes: int = 0
    opened: int = 0
    not_permitted: int = 0


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of a breaker's history. `previous` is None for the first one of an incarnation.

    `window` is what the window held then; `note` the reason that a person gave for an override.
    """

    previous: State | None
    state: State
    at_ms: int
    reason: Reason
    incarnation: int
    generation: int
    attempt: int
    consecutive_failures: int
    open_until_ms: int | None
    window: WindowCounts = field(default_factory=WindowCounts)
    forced: State | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is to know about a breaker at `now_ms`, as `cb_observe` replies it.

    `due`: a transition is due that nobody has asked for yet (`cb_tick` performs it). `reporters`: client processes that
    reported within the last minute. `state_ms`: time spent in each state in this incarnation. `forced`: the state that
    an override holds it in. `shadow` is there in mode Observe. `history` is the newest part of it, oldest first, as
    much as was asked for, less `history_damaged` entries that cannot be read. `open_until_ms` is None in Closed and
    HalfOpen, and in an Open that only a person ends.
    """

    owner: str
    uid: str
    resource_generation: int
    policy: Policy
    projection: Projection
    projection_failed: bool
    order: Order
    state: State
    since_ms: int
    reason: Reason
    open_until_ms: int | None
    retry_after_ms: int
    due: bool
    now_ms: int
    attempt: int
    consecutive_failures: int
    window: WindowCounts
    forced: State | None
    probe_successes: int
    probes_lost: int
    probes_live: int
    reporters: int
    last_reset: str
    totals: Totals
    probes: ProbeTotals
    state_ms: Mapping[State, int]
    shadow: Shadow | None
    transition_totals: Mapping[tuple[State, State, Reason], int] = field(default_factory=dict)
    history: tuple[Transition, ...] = ()
    history_damaged: int = 0


@dataclass(frozen=True, slots=True)
class Resume:
    """What `cb_configure` may start from when the hash is absent: a state that a status of this uid once showed.

    Without `order` only `last_reset` is taken: the reset token that counts as done already.
    """

    last_reset: str = ""
    order: tuple[int, int] | None = None  # incarnation, generation
    state: State = State.CLOSED
    since_ms: int = 0
    open_until_ms: int | None = None
    attempt: int = 0
    forced: State | None = None
