"""The operator's own instruments, and what it knows of the breakers. Their series are written by exposition.py."""

import time
from collections import Counter as Counting
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from operator import attrgetter, lt
from typing import Final, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    disable_created_metrics,
)
from prometheus_client import ProcessCollector as Process
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from circuitbreaker_contract import library
from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import ProbeTotals, Snapshot, State, Totals

_OF_TOTALS: Final = attrgetter(*(each.name for each in fields(Totals)))
_OF_PROBES: Final = attrgetter(*(each.name for each in fields(ProbeTotals)))
_PREFIX = "circuitbreaker_operator_"
OUTCOMES = ("success", "failure", "ignored", "not_permitted", "late")
_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """client-go's metrics of one work queue."""

    depth: Gauge
    adds: Counter
    retries: Counter
    queue_seconds: Histogram
    work_seconds: Histogram

    def depth_of(self, length: Callable[[], int]) -> None:
        self.depth.set_function(length)


class Metrics:
    """Every instrument of one operator, in a registry of its own."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        Process(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        prefix = _PREFIX

        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(prefix + name, text, tuple(labels), registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
            return Histogram(prefix + name, text, tuple(labels), buckets=buckets, registry=registry)

        self._queue_depth = Gauge(f"{prefix}workqueue_depth", "Keys that wait.", ("queue",), registry=registry)
        self._queue_adds = counter("workqueue_adds", "Keys added.", ("queue",))
        self._queue_retries = counter("workqueue_retries", "Keys that failed and come back.", ("queue",))
        self._queue_seconds = histogram("workqueue_queue_duration_seconds", "How long keys wait.", _LAG, ("queue",))
        self._work_seconds = histogram("workqueue_work_duration_seconds", "How long keys take.", _FAST, ("queue",))

        self.reconcile_seconds = histogram("reconcile_seconds", "How long a reconcile takes.", _FAST)
        self.reconcile_errors = counter("reconcile_errors", "Reconciles that failed.")
        self.status_patches = counter(
            "status_patches",
            "Writes of status, by result: written, conflict (tried again), refused or unavailable.",
            ("result",),
        )
        self.events = counter("events", "Events posted, by reason and result.", ("reason", "result"))
        self.reflect_lag = histogram(
            "reflect_lag_seconds", "From a transition in Redis to its status in the API server.", _LAG
        )
        self.timer_lag = histogram("timer_lag_seconds", "How late the clock asks for what is due.", _FAST)
        self.redis_seconds = histogram("redis_command_seconds", "Answers of Redis, by function.", _FAST, ("command",))
        self.messages = counter(
            "messages", "Messages on the shared channel: used, unknown (of nobody here) or malformed.", ("result",)
        )
        self.sweeps = counter("sweeps", "Whole comparisons of Redis and the API server that were completed.")
        self.swept = counter(
            "swept",
            "What a sweep put right: missed_change, missed_deletion, orphan, stale_state or wrong_state.",
            ("kind",),
        )
        self.watch_events = counter(
            "watch_events", "Changes that the watch brought: delivered, or own (dropped as already known).", ("result",)
        )
        self.watch_restarts = counter("watch_restarts", "Restarts of the watch, by cause.", ("cause",))
        self._leader = Gauge(f"{prefix}leader", "1 for the replica that does the work.", registry=registry)
        self.tasks = Gauge(
            f"{prefix}tasks", "Tasks of asyncio, by whose event loop it is.", ("loop",), registry=registry
        )
        # Of a leader only: a standby asks neither, and a 0 of it would look like an outage.
        self.resources = Gauge(f"{prefix}resources", "Resources known.", registry=None)
        self.redis_up = Gauge(f"{prefix}redis_up", "1 while Redis answers.", registry=None)
        self.redis_memory = Gauge(
            f"{prefix}redis_memory_used_ratio",
            "Memory of the fullest primary, of its maxmemory: at 1 it refuses reports. 0 without a maxmemory.",
            registry=None,
        )
        build = Gauge(
            f"{prefix}build_info",
            "Always 1; the labels say what runs.",
            ("version", "library_version", "library_digest"),
            registry=registry,
        )
        build.labels(version("circuitbreakers"), str(library.VERSION), library.digest()).set(1)

    def lead(self) -> None:
        """From now on we do the work; there is no way back in this process."""
        self._leader.set(1)
        self.registry.register(self.resources)
        self.registry.register(self.redis_up)
        self.registry.register(self.redis_memory)

    def queue(self, name: str) -> QueueMetrics:
        return QueueMetrics(
            self._queue_depth.labels(name),
            self._queue_adds.labels(name),
            self._queue_retries.labels(name),
            self._queue_seconds.labels(name),
            self._work_seconds.labels(name),
        )


class _Entry(NamedTuple):
    snapshot: Snapshot
    at: float
    counted: Snapshot  # the same, with the most of each counter that was seen of this incarnation


def _at_least(seen: Snapshot, before: Snapshot) -> Snapshot:
    """With no counter below what it was: a snapshot may come late, and Redis may have lost some in a fail-over.

    Prometheus would take less for a new beginning, and count all of it once more.
    """
    totals, probes = _OF_TOTALS(seen.totals), _OF_PROBES(seen.probes)
    totals_before, probes_before = _OF_TOTALS(before.totals), _OF_PROBES(before.probes)
    transitions, known = seen.transition_totals, before.transition_totals
    if not (
        any(map(lt, totals, totals_before))
        or any(map(lt, probes, probes_before))
        or any(transitions.get(each, 0) < number for each, number in known.items())
    ):
        return seen
    return replace(
        seen,
        totals=Totals(*map(max, totals, totals_before)),
        probes=ProbeTotals(*map(max, probes, probes_before)),
        transition_totals={**transitions, **{each: max(transitions.get(each, 0), known[each]) for each in known}},
    )


def _counts(seen: Snapshot) -> list[int]:
    """Calls by outcome, then transitions by the state they lead to."""
    totals, into = seen.totals, Counting[State]()
    for (_, target, _), number in seen.transition_totals.items():
        into[target] += number
    calls = totals.successes, totals.failures, totals.ignored, totals.not_permitted, totals.late
    return [*calls, *(into[state] for state in State)]


class Book:
    """The last snapshot of each breaker that is ours, without its history. Read by scrapes in another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: dict[BreakerKey, _Entry] = {}
        self.fleet = [0] * (len(OUTCOMES) + len(State))  # calls and transitions of all that were ever put
        self.told: Callable[[BreakerKey, Snapshot | None], None] = lambda _key, _snapshot: None  # of each change

    def put(self, key: BreakerKey, snapshot: Snapshot) -> None:
        entry = self._entries.get(key)
        kept = replace(snapshot, history=())
        if entry is None or entry.snapshot.order.incarnation != snapshot.order.incarnation:
            counted, before = kept, [0] * len(self.fleet)
        else:
            counted, before = _at_least(kept, entry.counted), _counts(entry.counted)
        self.fleet = [total + new - old for total, new, old in zip(self.fleet, _counts(counted), before, strict=True)]
        self._entries[key] = _Entry(kept, self._clock(), counted)
        self.told(key, snapshot)

    def get(self, key: BreakerKey) -> Snapshot | None:
        entry = self._entries.get(key)
        return entry.snapshot if entry is not None else None

    def age_seconds(self, key: BreakerKey) -> float:
        """How old the snapshot is; 0.0 when there is none."""
        entry = self._entries.get(key)
        return self._clock() - entry.at if entry is not None else 0.0

    def drop(self, key: BreakerKey) -> None:
        self._entries.pop(key, None)
        self.told(key, None)

    def all(self) -> list[tuple[BreakerKey, Snapshot]]:
        return [(key, snapshot) for key, snapshot, _ in self.aged()]

    def aged(self) -> list[tuple[BreakerKey, Snapshot, float]]:
        """Every breaker as it is counted, with how many seconds old its snapshot is."""
        # A copy is one step of the interpreter; a list of the items is not, since it makes a tuple of each.
        entries = list(self._entries.copy().items())
        now = self._clock()
        return [(key, entry.counted, now - entry.at) for key, entry in entries]


class FleetCollector(Collector):
    """All breakers together, however many there are: what remains without the series of each.

    The counters begin with what Redis has counted of each breaker when it is first put; what was deleted stays counted.
    """

    def __init__(self, book: Book) -> None:
        self._book = book

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is collected at registration

    def collect(self) -> Iterator[Metric]:
        states = Counting(seen.state for _, seen in self._book.all())
        gauge = GaugeMetricFamily(f"{_PREFIX}breakers", "Breakers by state.", labels=("state",))
        for state in State:
            gauge.add_metric((state.value,), states[state])
        fleet = self._book.fleet
        calls = CounterMetricFamily(
            f"{_PREFIX}calls",
            "Calls of all breakers, by outcome: success, failure, ignored, not_permitted or late.",
            labels=("outcome",),
        )
        for outcome, number in zip(OUTCOMES, fleet, strict=False):
            calls.add_metric((outcome,), number)
        transitions = CounterMetricFamily(f"{_PREFIX}transitions", "Transitions of all breakers.", labels=("to_state",))
        for state, number in zip(State, fleet[len(OUTCOMES) :], strict=True):
            transitions.add_metric((state.value,), number)
        yield from (gauge, calls, transitions)


class Stopwatch:
    """Measures from its making; `seconds` is what has passed since."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began
