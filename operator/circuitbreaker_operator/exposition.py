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
from circuitbreaker_contract.state import Snapshot, State
from circuitbreaker_operator.metrics import Book


class Family(NamedTuple):
    """A metric: its name without `_total`, kind, meaning, and its labels besides namespace and name."""

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()

    def header(self, *, openmetrics: bool) -> str:
        name = self.name if openmetrics or self.kind == "gauge" else f"{self.name}_total"
        return f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n"


STATE: Final = Family("circuitbreaker_state", "gauge", "1 for the state that it is in.", ("state",))
TRANSITIONS: Final = Family(
    "circuitbreaker_transitions", "counter", "Changes of state.", ("from_state", "to_state", "reason")
)
CALLS: Final = Family("circuitbreaker_calls", "counter", "Calls by outcome.", ("outcome",))
REFUSED: Final = Family("circuitbreaker_not_permitted", "counter", "Calls that were refused.")
LATE: Final = Family("circuitbreaker_late_results", "counter", "Outcomes of an earlier state, which changed nothing.")
STREAK: Final = Family("circuitbreaker_consecutive_failures", "gauge", "Failures in a row.")
SECONDS: Final = Family("circuitbreaker_state_seconds", "counter", "Time spent in each state.", ("state",))
UNTIL: Final = Family(
    "circuitbreaker_open_until_timestamp_seconds", "gauge", "When Open ends; absent when it is not Open."
)
PROBES: Final = Family("circuitbreaker_probes", "counter", "Probes by how they ended.", ("result",))
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

Row = tuple[Family, str, float]  # with labels that follow namespace and name, each with a comma before it
_STATES: Final = tuple((state, f',state="{state.value}"') for state in State)


class BreakerPage:
    """One at a time may be written."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._shown: dict[tuple[BreakerKey, int], dict[State, float]] = {}

    def write(self, *, openmetrics: bool) -> str:
        """The series of every breaker; "" when there is none."""
        pages = self._book.aged()
        if not pages:
            return ""  # of a standby, or of an operator without breakers
        lines: dict[Family, list[str]] = {family: [family.header(openmetrics=openmetrics)] for family in FAMILIES}
        names = {family: f"{family.name}_total" if family.kind == "counter" else family.name for family in FAMILIES}
        shown: dict[tuple[BreakerKey, int], dict[State, float]] = {}
        for key, seen, age_seconds in pages:
            shown[key, seen.order.incarnation] = spent = self._state_seconds(key, seen, age_seconds)
            labels = f'namespace="{key.namespace}",name="{key.name}"'
            for family, more, value in _rows(seen, spent):
                lines[family].append(f"{names[family]}{{{labels}{more}}} {value}\n")
        self._shown = shown
        return "".join(line for family in FAMILIES for line in lines[family])

    def _state_seconds(self, key: BreakerKey, seen: Snapshot, age_seconds: float) -> dict[State, float]:
        """Time in each state up to now: nobody looks at a breaker that nothing happens to, and its time goes on.

        A transition may be noticed late, so what was shown of a state before is never taken back.
        """
        before = self._shown.get((key, seen.order.incarnation), {})
        spent = {each: seen.state_ms.get(each, 0) / 1000 + age_seconds * (each is seen.state) for each in State}
        return {each: max(seconds, before.get(each, 0.0)) for each, seconds in spent.items()}


def _rows(seen: Snapshot, spent: dict[State, float]) -> Iterable[Row]:
    for each, label in _STATES:
        yield STATE, label, int(each is seen.state)
        yield SECONDS, label, spent[each]
    for (source, target, reason), number in seen.transition_totals.items():
        more = f',from_state="{source.value}",to_state="{target.value}",reason="{reason.value}"'
        yield TRANSITIONS, more, number
    totals, probes, minimum = seen.totals, seen.probes, seen.policy.minimum_calls
    yield CALLS, ',outcome="success"', totals.successes
    yield CALLS, ',outcome="failure"', totals.failures
    yield CALLS, ',outcome="ignored"', totals.ignored
    yield REFUSED, "", totals.not_permitted
    yield LATE, "", totals.late
    yield STREAK, "", seen.consecutive_failures
    if seen.open_until_ms is not None:
        yield UNTIL, "", seen.open_until_ms / 1000
    yield PROBES, ',result="succeeded"', probes.succeeded
    yield PROBES, ',result="failed"', probes.failed
    yield PROBES, ',result="ignored"', probes.ignored
    yield PROBES, ',result="expired"', probes.expired
    yield REPORTERS, "", seen.reporters
    if (rate := seen.window.failure_rate_percent(minimum)) is not None:
        yield FAILURE_RATE, "", rate
    if seen.policy.counts_slow and (rate := seen.window.slow_call_rate_percent(minimum)) is not None:
        yield SLOW_RATE, "", rate
    yield FORCED, "", int(seen.forced is not None)
    if seen.shadow is not None:
        yield SHADOW_OPENED, "", seen.shadow.opened
        yield SHADOW_REFUSED, "", seen.shadow.not_permitted
