"""The series of the breakers as text, for Prometheus' own format and for OpenMetrics alike.

What is counted of a breaker is counted in Redis, so a restart of the operator loses nothing: this only shows it.
Snapshots are renewed with each transition and each refresh; between two, a scrape shows the older numbers.

prometheus_client would make an object of each sample first and format its labels anew: 1.5 to 2.2 s of the processor
for ten thousand breakers. Nothing here needs escaping: namespaces and names have a form that allows no quotes, all
other labels are words of ours.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Reason, Snapshot, State
from circuitbreaker_operator.metrics import Book

_STATES: Final = tuple(State)
_NAMED: Final = "@"  # no name has one, and none a percent sign


class Family(NamedTuple):
    """A metric: its name without `_total`, kind, meaning, and its labels besides namespace and name.

    `values` are those that its one label has, each in a series of its own.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def series(self) -> str:
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def header(self, *, openmetrics: bool) -> str:
        name = self.name if openmetrics else self.series
        return f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n"

    def template(self) -> str:
        """A line for each series of one breaker, whose namespace and name stand where `_NAMED` does now."""
        more = [f',{self.labels[0]}="{value}"' for value in self.values] or [""]
        return "".join(f"{self.series}{{{_NAMED}{each}}} %s\n" for each in more)


_STATE_NAMES: Final = tuple(each.value for each in State)

STATE: Final = Family("circuitbreaker_state", "gauge", "1 for the state that it is in.", ("state",), _STATE_NAMES)
TRANSITIONS: Final = Family(
    "circuitbreaker_transitions", "counter", "Changes of state.", ("from_state", "to_state", "reason")
)
CALLS: Final = Family(
    "circuitbreaker_calls",
    "counter",
    "Calls by outcome: success, failure or ignored.",
    ("outcome",),
    ("success", "failure", "ignored"),
)
REFUSED: Final = Family("circuitbreaker_not_permitted", "counter", "Calls that were refused.")
LATE: Final = Family("circuitbreaker_late_results", "counter", "Outcomes of an earlier state, which changed nothing.")
STREAK: Final = Family("circuitbreaker_consecutive_failures", "gauge", "Failures in a row.")
SECONDS: Final = Family(
    "circuitbreaker_state_seconds", "counter", "Time spent in each state.", ("state",), _STATE_NAMES
)
UNTIL: Final = Family(
    "circuitbreaker_open_until_timestamp_seconds", "gauge", "When Open ends; absent when it is not Open."
)
PROBES: Final = Family(
    "circuitbreaker_probes",
    "counter",
    "Probes by how they ended: succeeded, failed, ignored or expired.",
    ("result",),
    ("succeeded", "failed", "ignored", "expired"),
)
REPORTERS: Final = Family("circuitbreaker_reporters", "gauge", "Client processes seen lately.")
FAILURE_RATE: Final = Family(
    "circuitbreaker_failure_rate_percent", "gauge", "Share of failed calls in the window; absent below minimumCalls."
)
SLOW_RATE: Final = Family(
    "circuitbreaker_slow_call_rate_percent",
    "gauge",
    "Share of slow calls in the window; absent below minimumCalls and when slow calls are not told apart.",
)
FORCED: Final = Family("circuitbreaker_forced", "gauge", "1 while an override holds the state.")
SHADOW_OPENED: Final = Family(
    "circuitbreaker_shadow_opened", "counter", "How often it would have opened, in mode Observe."
)
SHADOW_REFUSED: Final = Family(
    "circuitbreaker_shadow_not_permitted", "counter", "Calls that would have been refused, in mode Observe."
)
FAMILIES: Final = (
    STATE, TRANSITIONS, CALLS, REFUSED, LATE, STREAK, SECONDS, UNTIL, PROBES, REPORTERS, FAILURE_RATE, SLOW_RATE,
    FORCED, SHADOW_OPENED, SHADOW_REFUSED,
)  # fmt: skip

Spent = tuple[float, ...]  # seconds in each state, in the order of State


class BreakerPage:
    """One at a time may be written."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._shown: dict[BreakerKey, tuple[int, Spent]] = {}  # with the incarnation

    def write(self, *, openmetrics: bool) -> str:
        """The series of every breaker; "" when there is none."""
        pages = self._book.aged()
        if not pages:
            return ""  # of a standby, or of an operator without breakers
        lines: dict[Family, list[str]] = {family: [family.header(openmetrics=openmetrics)] for family in FAMILIES}
        parts = {family: (family.template(), lines[family]) for family in FAMILIES}
        shown: dict[BreakerKey, tuple[int, Spent]] = {}
        for key, seen, age_seconds in pages:
            spent = self._state_seconds(key, seen, age_seconds)
            shown[key] = seen.order.incarnation, spent
            named = f'namespace="{key.namespace}",name="{key.name}"'
            for family, values in _rows(seen, spent):
                template, written = parts[family]
                written.append(template.replace(_NAMED, named) % values)
            if changes := {**_openings(seen.policy), **seen.transition_totals}:
                lines[TRANSITIONS] += [
                    f'{TRANSITIONS.series}{{{named},from_state="{source.value}",to_state="{target.value}",'
                    f'reason="{reason.value}"}} {number}\n'
                    for (source, target, reason), number in changes.items()
                ]
        self._shown = shown
        return "".join(line for family in FAMILIES for line in lines[family])

    def _state_seconds(self, key: BreakerKey, seen: Snapshot, age_seconds: float) -> Spent:
        """Time in each state up to now: nobody looks at a breaker that nothing happens to, and its time goes on.

        A transition may be noticed late, so what was shown of a state before is never taken back.
        """
        found, state = seen.state_ms.get, seen.state
        spent = tuple([found(each, 0) / 1000 + (age_seconds if each is state else 0.0) for each in _STATES])
        incarnation, before = self._shown.get(key, (0, spent))
        return tuple(map(max, spent, before)) if incarnation == seen.order.incarnation else spent


def _openings(policy: Policy) -> dict[tuple[State, State, Reason], int]:
    """Those that it may come to, none of each: Prometheus sees no increase where a series begins with 1."""
    may = {
        Reason.CONSECUTIVE_FAILURES: policy.failure_threshold,
        Reason.FAILURE_RATE: policy.failure_rate_percent,
        Reason.SLOW_CALL_RATE: policy.slow_call_rate_percent,
    }
    return {(State.CLOSED, State.OPEN, reason): 0 for reason, bound in may.items() if bound}


def _rows(seen: Snapshot, spent: Spent) -> Iterable[tuple[Family, tuple[float, ...]]]:
    """The values of each series, family by family; transitions come beside them."""
    yield STATE, tuple([int(each is seen.state) for each in _STATES])
    yield SECONDS, spent
    totals, probes, minimum = seen.totals, seen.probes, seen.policy.minimum_calls
    yield CALLS, (totals.successes, totals.failures, totals.ignored)
    yield REFUSED, (totals.not_permitted,)
    yield LATE, (totals.late,)
    yield STREAK, (seen.consecutive_failures,)
    if seen.open_until_ms is not None:
        yield UNTIL, (seen.open_until_ms / 1000,)
    yield PROBES, (probes.succeeded, probes.failed, probes.ignored, probes.expired)
    yield REPORTERS, (seen.reporters,)
    if (rate := seen.window.failure_rate_percent(minimum)) is not None:
        yield FAILURE_RATE, (rate,)
    if seen.policy.counts_slow and (rate := seen.window.slow_call_rate_percent(minimum)) is not None:
        yield SLOW_RATE, (rate,)
    yield FORCED, (int(seen.forced is not None),)
    if seen.shadow is not None:
        yield SHADOW_OPENED, (seen.shadow.opened,)
        yield SHADOW_REFUSED, (seen.shadow.not_permitted,)
