"""The series of breakers between two looks at them."""

from prometheus_client import CollectorRegistry
from tests.unit.breakers import a_snapshot

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import State
from circuitbreaker_operator.metrics import Book, BreakerCollector

KEY = BreakerKey("shop", "pay")


def seconds_in(registry: CollectorRegistry, state: State) -> float | None:
    labels = {"namespace": KEY.namespace, "name": KEY.name, "state": state.value}
    return registry.get_sample_value("circuitbreaker_state_seconds_total", labels)


def test_time_in_a_state_goes_on_while_nothing_happens() -> None:
    """Nobody looks at a breaker that nothing happens to; a scrape adds what has passed, and never takes it back."""
    now = [100.0]
    book, registry = Book(clock=lambda: now[0]), CollectorRegistry()
    registry.register(BreakerCollector(book))
    book.put(KEY, a_snapshot(state_ms={State.CLOSED: 1_500}))
    assert seconds_in(registry, State.CLOSED) == 1.5
    now[0] = 160.0
    assert (seconds_in(registry, State.CLOSED), seconds_in(registry, State.OPEN)) == (61.5, 0.0)
    # It had opened 10 s before anybody noticed: Closed is not taken back, and Open starts where Redis says.
    book.put(KEY, a_snapshot(state=State.OPEN, state_ms={State.CLOSED: 51_500, State.OPEN: 10_000}))
    assert (seconds_in(registry, State.CLOSED), seconds_in(registry, State.OPEN)) == (61.5, 10.0)
    now[0] = 165.0
    assert (seconds_in(registry, State.CLOSED), seconds_in(registry, State.OPEN)) == (61.5, 15.0)


def test_another_incarnation_counts_from_zero() -> None:
    """A breaker made anew is a new counter, which Prometheus takes for a reset."""
    book, registry = Book(clock=lambda: 0.0), CollectorRegistry()
    registry.register(BreakerCollector(book))
    first = a_snapshot(state_ms={State.CLOSED: 90_000})
    book.put(KEY, first)
    assert seconds_in(registry, State.CLOSED) == 90.0
    order = first.order._replace(incarnation=first.order.incarnation + 1)
    book.put(KEY, a_snapshot(order=order, state_ms={State.CLOSED: 2_000}))
    assert seconds_in(registry, State.CLOSED) == 2.0
