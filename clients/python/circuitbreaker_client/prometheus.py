"""Metrics of this process' breakers for Prometheus (extra `prometheus`), read when they are scraped.

    app.add_route("/metrics/circuit_breaker", MetricsApp(breakers))              # FastAPI, Starlette, any ASGI
    DispatcherMiddleware(app.wsgi_app, {"/metrics/circuit_breaker": MetricsWsgiApp(breakers)})     # Flask, any WSGI
    prometheus_client.REGISTRY.register(CircuitBreakerCollector(breakers))       # beside what you export already

What they count is this process: several workers behind one port each have their own. The operator exports the fleet's.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final

from circuitbreaker_client._breakers import BreakersBase
from circuitbreaker_client._extras import missing
from circuitbreaker_client.snapshots import BreakerStatistics
from circuitbreaker_contract.state import Outcome, State

try:
    from prometheus_client import CollectorRegistry, make_asgi_app, make_wsgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise missing("prometheus", error) from None

__all__ = ["CircuitBreakerCollector", "MetricsApp", "MetricsWsgiApp"]

_LABELS: Final = ("namespace", "name")
_OUTCOMES: Final = {
    Outcome.SUCCESS: "success",
    Outcome.SLOW_SUCCESS: "slow_success",
    Outcome.FAILURE: "failure",
    Outcome.SLOW_FAILURE: "slow_failure",
    Outcome.IGNORED: "ignored",
}
_COUNTERS: Final[tuple[tuple[str, str, Callable[[BreakerStatistics], int]], ...]] = (
    ("permitted", "Calls that were permitted and have ended.", lambda each: each.permitted),
    ("not_permitted", "Calls that were refused.", lambda each: each.refused),
    ("reported", "Outcomes and refusals that Redis has acknowledged.", lambda each: each.reported),
    ("dropped", "Outcomes and refusals that will never be reported.", lambda each: each.dropped),
)
_GAUGES: Final[tuple[tuple[str, str, Callable[[BreakerStatistics], float | None]], ...]] = (
    ("buffered", "Outcomes and refusals that wait to be reported.", lambda each: each.buffered),
    ("degraded", "1 while shared state is not to be had, and a local breaker decides.", lambda each: each.degraded),
    (
        "snapshot_age_seconds",
        "Age of the shared state that this process acts on; absent when there is none.",
        lambda each: each.snapshot_age_seconds,
    ),
)


class CircuitBreakerCollector(Collector):
    """Everything of `breakers.statistics()`, under `circuitbreaker_client_`."""

    def __init__(self, breakers: BreakersBase[Any]) -> None:
        self._breakers = breakers

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not look at the breakers."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """A sample of each breaker in use, taken at one moment."""
        found = [(name.split("/", 1), each) for name, each in self._breakers.statistics().items()]
        state = GaugeMetricFamily(
            "circuitbreaker_client_state",
            "1 for the state that this process acts on.",
            labels=(*_LABELS, "state"),
        )
        calls = CounterMetricFamily(
            "circuitbreaker_client_calls",
            "Calls that have ended, by outcome: success, slow_success, failure, slow_failure or ignored.",
            labels=(*_LABELS, "outcome"),
        )
        for labels, each in found:
            for possible in State:
                state.add_metric((*labels, possible.value), each.state is possible)
            for letter, word in _OUTCOMES.items():
                calls.add_metric((*labels, word), each.outcomes.get(letter, 0))
        yield state
        yield calls
        for name, text, count in _COUNTERS:
            counter = CounterMetricFamily(f"circuitbreaker_client_{name}", text, labels=_LABELS)
            for labels, each in found:
                counter.add_metric(labels, count(each))
            yield counter
        for name, text, level in _GAUGES:
            gauge = GaugeMetricFamily(f"circuitbreaker_client_{name}", text, labels=_LABELS)
            for labels, each in found:
                value = level(each)
                if value is not None:
                    gauge.add_metric(labels, value)
            yield gauge


def _registry(breakers: BreakersBase[Any]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(CircuitBreakerCollector(breakers))
    return registry


class MetricsApp:
    """An ASGI app that answers with the breakers' metrics, whatever the path.

    An object, not a function: Starlette takes a function for a handler of its own kind, and an object for an ASGI app.
    """

    def __init__(self, breakers: BreakersBase[Any]) -> None:
        self._app = make_asgi_app(_registry(breakers))

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """One scrape."""
        await self._app(scope, receive, send)


class MetricsWsgiApp:
    """The same as a WSGI app."""

    def __init__(self, breakers: BreakersBase[Any]) -> None:
        self._app = make_wsgi_app(_registry(breakers))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """One scrape."""
        # An app that is mounted sees only what is left of the path; /favicon.ico would get an empty answer.
        answer: Iterable[bytes] = self._app({**environ, "PATH_INFO": "/"}, start_response)
        return answer
