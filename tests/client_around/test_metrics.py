"""The client's figures in Prometheus' format, by ASGI and WSGI, and as instruments of OpenTelemetry."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from circuitbreaker_client import (
    CallNotPermittedError,
    CallRefused,
    CircuitBreakers,
    Degraded,
    OutcomesDropped,
    Recovered,
    Source,
    State,
    StateChanged,
)
from circuitbreaker_client.opentelemetry import OpenTelemetryEvents
from circuitbreaker_client.prometheus import CircuitBreakerCollector, MetricsApp, MetricsWsgiApp
from tests.client_around.waiting import until

PATH = "/metrics/circuit_breaker"
LABELS = {"namespace": "default", "name": "payments"}


class BackendError(Exception):
    pass


def fail() -> None:
    raise BackendError


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels besides the breaker's) -> value."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = frozenset(pair for pair in sample.labels.items() if pair not in LABELS.items())
            found[sample.name.removeprefix("circuitbreaker_client_"), labels] = sample.value
    return found


def opened(breakers: CircuitBreakers) -> None:
    """Three good calls, five bad ones, one refused, all of it acknowledged."""
    payments = breakers["payments"]
    for _ in range(3):
        payments.call(str)
    for _ in range(5):
        with suppress(BackendError):
            payments.call(fail)
    breakers.flush()
    until(lambda: payments.state is State.OPEN, "it to open")
    with pytest.raises(CallNotPermittedError):
        payments.call(str)
    breakers.flush()
    until(lambda: breakers.statistics()["default/payments"].reported == 9, "all to be acknowledged")


def expected() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    outcomes = {"success": 3, "slow_success": 0, "failure": 5, "slow_failure": 0, "ignored": 0}
    states = {"Closed": 0, "Open": 1, "HalfOpen": 0}
    plain = {
        "permitted_total": 8,
        "not_permitted_total": 1,
        "reported_total": 9,
        "dropped_total": 0,
        "buffered": 0,
        "degraded": 0,
    }
    return {
        **{("calls_total", frozenset({("outcome", word)})): count for word, count in outcomes.items()},
        **{("state", frozenset({("state", word)})): on for word, on in states.items()},
        **{(name, frozenset()): value for name, value in plain.items()},
    }


def check(text: str) -> None:
    found = samples(text)
    age = found.pop(("snapshot_age_seconds", frozenset()))
    assert 0 <= age < 10
    assert found == expected()


@contextmanager
def serving(app: MetricsWsgiApp) -> Iterator[str]:
    class Quiet(WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_wsgi(breakers) -> None:
    """Over real HTTP: all figures of a breaker that has opened."""
    opened(breakers)
    with serving(MetricsWsgiApp(breakers)) as url, httpx.Client(trust_env=False) as client:
        answer = client.get(f"{url}{PATH}")
    assert answer.headers["content-type"].startswith("text/plain")
    check(answer.text)


@pytest.mark.parametrize("kind", ["route", "mount"])
def test_asgi(breakers, kind: str) -> None:
    """As a route (the exact path) and mounted, in Starlette; FastAPI takes the same."""
    opened(breakers)
    app = MetricsApp(breakers)
    starlette = Starlette(routes=[Route(PATH, app) if kind == "route" else Mount(PATH, app)])

    async def scrape() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(starlette), base_url="http://app") as client:
            return await client.get(PATH, follow_redirects=kind == "mount")

    answer = asyncio.run(scrape())
    assert answer.status_code == 200
    check(answer.text)


def test_registering_looks_at_nothing(breakers) -> None:
    """A collector beside others: registered before there is a breaker, and empty until there is."""
    registry = CollectorRegistry()
    registry.register(CircuitBreakerCollector(breakers))
    assert [sample for family in registry.collect() for sample in family.samples] == []
    breakers["payments"].call(str)
    breakers.flush()
    assert registry.get_sample_value("circuitbreaker_client_permitted_total", LABELS) == 1


def test_without_redis_there_is_no_age() -> None:
    """A local breaker has no shared state that could be old, and is not degraded: it is what was asked for."""
    with CircuitBreakers(state_sync=False, namespace="default") as breakers:
        breakers["payments"].call(str)
        registry = CollectorRegistry()
        registry.register(CircuitBreakerCollector(breakers))
        assert registry.get_sample_value("circuitbreaker_client_snapshot_age_seconds", LABELS) is None
        assert registry.get_sample_value("circuitbreaker_client_degraded", LABELS) == 0


def points(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Instrument -> (attributes, value or sum) of each series."""
    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found[metric.name] = [
                    (dict(point.attributes), getattr(point, "value", None) or getattr(point, "sum", None))
                    for point in metric.data.data_points
                ]
    return found


def test_opentelemetry_counts_what_happens(options) -> None:
    """From a real breaker that opens; a refusal shows in the caller's span."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    tracer = TracerProvider().get_tracer("test")
    with CircuitBreakers(**options, on_event=OpenTelemetryEvents(provider)) as breakers:
        with tracer.start_as_current_span("request") as span:
            opened(breakers)
        name = {"circuitbreaker.name": "default/payments"}
        changed = {"circuitbreaker.from": "Closed", "circuitbreaker.to": "Open", "circuitbreaker.source": "shared"}
        found = points(reader)
        assert found["circuitbreaker.state.changes"] == [({**name, **changed}, 1)]
        assert found["circuitbreaker.calls.not_permitted"] == [(name, 1)]
        assert [event.name for event in span.events] == ["circuitbreaker.not_permitted"]
    provider.shutdown()


def test_opentelemetry_knows_every_event() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    hook = OpenTelemetryEvents(provider)
    for event in (
        StateChanged("a/b", State.OPEN, State.HALF_OPEN, Source.LOCAL),
        CallRefused("a/b", None),
        Degraded("a/b", "no answer"),
        Recovered("a/b", 2.5),
        OutcomesDropped("a/b", 7),
    ):
        hook(event)
    found = {name: series[0][1] for name, series in points(reader).items()}
    assert found == {
        "circuitbreaker.state.changes": 1,
        "circuitbreaker.calls.not_permitted": 1,
        "circuitbreaker.degradations": 1,
        "circuitbreaker.degraded.duration": 2.5,
        "circuitbreaker.outcomes.dropped": 7,
    }
    provider.shutdown()
