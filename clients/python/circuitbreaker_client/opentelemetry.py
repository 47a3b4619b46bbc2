"""Instruments of OpenTelemetry, fed by the client's events (extra `opentelemetry`).

    breakers = CircuitBreakers.from_env(on_event=OpenTelemetryEvents())

A refused call is also an event of the current span, so that a trace shows why nothing was called.
"""

from circuitbreaker_client._extras import missing
from circuitbreaker_client.events import CallRefused, Degraded, Event, OutcomesDropped, Recovered, StateChanged

try:
    from opentelemetry import metrics, trace
except ModuleNotFoundError as error:
    raise missing("opentelemetry", error) from None

__all__ = ["OpenTelemetryEvents"]


class OpenTelemetryEvents:
    """An event hook. `meter_provider`: by default the global one."""

    def __init__(self, meter_provider: metrics.MeterProvider | None = None) -> None:
        meter = metrics.get_meter("circuitbreaker_client", meter_provider=meter_provider)
        self._changes = meter.create_counter(
            "circuitbreaker.state.changes",
            unit="{change}",
            description="Changes of the state that this process acts on.",
        )
        self._refused = meter.create_counter(
            "circuitbreaker.calls.not_permitted", unit="{call}", description="Calls that were refused."
        )
        self._degraded = meter.create_counter(
            "circuitbreaker.degradations", unit="{degradation}", description="How often shared state went missing."
        )
        self._without = meter.create_histogram(
            "circuitbreaker.degraded.duration", unit="s", description="How long a local breaker decided instead."
        )
        self._dropped = meter.create_counter(
            "circuitbreaker.outcomes.dropped", unit="{outcome}", description="Outcomes that will never be reported."
        )

    def __call__(self, event: Event) -> None:
        """Never raises, never blocks."""
        breaker = {"circuitbreaker.name": event.breaker}
        match event:
            case StateChanged():
                states = {"circuitbreaker.from": event.previous.value, "circuitbreaker.to": event.state.value}
                self._changes.add(1, {**breaker, **states, "circuitbreaker.source": event.source.value})
            case CallRefused():
                self._refused.add(1, breaker)
                trace.get_current_span().add_event("circuitbreaker.not_permitted", breaker)
            case Degraded():
                self._degraded.add(1, breaker)
            case Recovered():
                self._without.record(event.after_seconds, breaker)
            case OutcomesDropped():
                self._dropped.add(event.count, breaker)
