"""Metrics: the operator's own instruments, and the series of the breakers from their last snapshots.

What is counted of a breaker is counted in Redis, so a restart of the operator loses nothing: the collector only shows
it. Snapshots are renewed with each transition and each refresh; between two, a scrape shows the older numbers.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version

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
from circuitbreaker_contract.state import Snapshot, State

_LABELS = ("namespace", "name")
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
        prefix = "circuitbreaker_operator_"

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
        self.status_patches = counter("status_patches", "Writes of status, by result.", ("result",))
        self.events = counter("events", "Events posted, by reason and result.", ("reason", "result"))
        self.reflect_lag = histogram(
            "reflect_lag_seconds", "From a transition in Redis to its status in the API server.", _LAG
        )
        self.timer_lag = histogram("timer_lag_seconds", "How late the clock asks for what is due.", _FAST)
        self.redis_seconds = histogram("redis_command_seconds", "Answers of Redis, by function.", _FAST, ("command",))
        self.messages = counter("messages", "Messages on the shared channel, by what came of them.", ("result",))
        self.sweeps = counter("sweeps", "Whole comparisons of Redis and the API server that were completed.")
        self.swept = counter("swept", "What a sweep put right, by kind.", ("kind",))
        self.watch_restarts = counter("watch_restarts", "Restarts of the watch, by cause.", ("cause",))
        self._leader = Gauge(f"{prefix}leader", "1 for the replica that does the work.", registry=registry)
        # Of a leader only: a standby asks neither, and a 0 of it would look like an outage.
        self.resources = Gauge(f"{prefix}resources", "Resources known.", registry=None)
        self.redis_up = Gauge(f"{prefix}redis_up", "1 while Redis answers.", registry=None)
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

    def queue(self, name: str) -> QueueMetrics:
        return QueueMetrics(
            self._queue_depth.labels(name),
            self._queue_adds.labels(name),
            self._queue_retries.labels(name),
            self._queue_seconds.labels(name),
            self._work_seconds.labels(name),
        )


class Book:
    """The last snapshot of each breaker that is ours, without its history. Read by scrapes in another thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._snapshots: dict[BreakerKey, tuple[Snapshot, float]] = {}

    def put(self, key: BreakerKey, snapshot: Snapshot) -> None:
        self._snapshots[key] = replace(snapshot, history=()), self._clock()

    def get(self, key: BreakerKey) -> Snapshot | None:
        entry = self._snapshots.get(key)
        return entry[0] if entry is not None else None

    def age_seconds(self, key: BreakerKey) -> float:
        """How old the snapshot is; 0.0 when there is none."""
        entry = self._snapshots.get(key)
        return self._clock() - entry[1] if entry is not None else 0.0

    def drop(self, key: BreakerKey) -> None:
        self._snapshots.pop(key, None)

    def all(self) -> list[tuple[BreakerKey, Snapshot]]:
        return [(key, snapshot) for key, snapshot, _ in self.aged()]

    def aged(self) -> list[tuple[BreakerKey, Snapshot, float]]:
        """Every breaker with how many seconds old its snapshot is."""
        entries = list(self._snapshots.items())  # one step of the interpreter: safe from another thread
        now = self._clock()
        return [(key, snapshot, now - at) for key, (snapshot, at) in entries]


class BreakerCollector(Collector):
    """The series of the breakers, out of the book."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._shown: dict[tuple[BreakerKey, int], dict[State, float]] = {}

    def _state_seconds(self, key: BreakerKey, seen: Snapshot, age_seconds: float) -> dict[State, float]:
        """Time in each state up to now: nobody looks at a breaker that nothing happens to, and its time goes on.

        A transition may be noticed late, so what was shown of a state before is never taken back.
        """
        before = self._shown.get((key, seen.order.incarnation), {})
        spent = {each: seen.state_ms.get(each, 0) / 1000 + age_seconds * (each is seen.state) for each in State}
        return {each: max(seconds, before.get(each, 0.0)) for each, seconds in spent.items()}

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is collected at registration

    def collect(self) -> Iterator[Metric]:
        pages = self._book.aged()
        state = GaugeMetricFamily("circuitbreaker_state", "1 for the state that it is in.", labels=(*_LABELS, "state"))
        transitions = CounterMetricFamily(
            "circuitbreaker_transitions", "Changes of state.", labels=(*_LABELS, "from_state", "to_state", "reason")
        )
        calls = CounterMetricFamily("circuitbreaker_calls", "Calls by outcome.", labels=(*_LABELS, "outcome"))
        refused = CounterMetricFamily("circuitbreaker_not_permitted", "Calls that were refused.", labels=_LABELS)
        late = CounterMetricFamily(
            "circuitbreaker_late_results", "Outcomes of an earlier state, which changed nothing.", labels=_LABELS
        )
        streak = GaugeMetricFamily("circuitbreaker_consecutive_failures", "Failures in a row.", labels=_LABELS)
        seconds = CounterMetricFamily(
            "circuitbreaker_state_seconds", "Time spent in each state.", labels=(*_LABELS, "state")
        )
        until = GaugeMetricFamily(
            "circuitbreaker_open_until_timestamp_seconds", "When Open ends; absent when it is not Open.", labels=_LABELS
        )
        probes = CounterMetricFamily("circuitbreaker_probes", "Probes by how they ended.", labels=(*_LABELS, "result"))
        reporters = GaugeMetricFamily("circuitbreaker_reporters", "Client processes seen lately.", labels=_LABELS)
        failure_rate = GaugeMetricFamily(
            "circuitbreaker_failure_rate_percent",
            "Share of failed calls in the window; absent below minimumCalls.",
            labels=_LABELS,
        )
        slow_rate = GaugeMetricFamily(
            "circuitbreaker_slow_call_rate_percent",
            "Share of slow calls in the window; absent below minimumCalls and when slow calls are not told apart.",
            labels=_LABELS,
        )
        forced = GaugeMetricFamily("circuitbreaker_forced", "1 while an override holds the state.", labels=_LABELS)
        shadow_opened = CounterMetricFamily(
            "circuitbreaker_shadow_opened", "How often it would have opened, in mode Observe.", labels=_LABELS
        )
        shadow_refused = CounterMetricFamily(
            "circuitbreaker_shadow_not_permitted",
            "Calls that would have been refused, in mode Observe.",
            labels=_LABELS,
        )
        shown: dict[tuple[BreakerKey, int], dict[State, float]] = {}
        for key, seen, age_seconds in pages:
            labels = (key.namespace, key.name)
            shown[key, seen.order.incarnation] = spent = self._state_seconds(key, seen, age_seconds)
            for each in State:
                state.add_metric((*labels, each.value), float(each is seen.state))
                seconds.add_metric((*labels, each.value), spent[each])
            for (source, target, reason), number in seen.transition_totals.items():
                transitions.add_metric((*labels, source.value, target.value, reason.value), number)
            calls.add_metric((*labels, "success"), seen.totals.successes)
            calls.add_metric((*labels, "failure"), seen.totals.failures)
            calls.add_metric((*labels, "ignored"), seen.totals.ignored)
            refused.add_metric(labels, seen.totals.not_permitted)
            late.add_metric(labels, seen.totals.late)
            streak.add_metric(labels, seen.consecutive_failures)
            if seen.open_until_ms is not None:
                until.add_metric(labels, seen.open_until_ms / 1000)
            for result in ("succeeded", "failed", "ignored", "expired"):
                probes.add_metric((*labels, result), getattr(seen.probes, result))
            reporters.add_metric(labels, seen.reporters)
            minimum = seen.policy.minimum_calls
            if (rate := seen.window.failure_rate_percent(minimum)) is not None:
                failure_rate.add_metric(labels, rate)
            if seen.policy.counts_slow and (rate := seen.window.slow_call_rate_percent(minimum)) is not None:
                slow_rate.add_metric(labels, rate)
            forced.add_metric(labels, float(seen.forced is not None))
            if seen.shadow is not None:
                shadow_opened.add_metric(labels, seen.shadow.opened)
                shadow_refused.add_metric(labels, seen.shadow.not_permitted)
        self._shown = shown
        yield from (state, transitions, calls, refused, late, streak, seconds, until, probes, reporters)
        yield from (failure_rate, slow_rate, forced, shadow_opened, shadow_refused)


class Stopwatch:
    """Measures from its making; `seconds` is what has passed since."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began
