"""The series of breakers: between two looks at them, in both formats, and those of all of them together."""

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from tests.unit.breakers import POLICY, a_snapshot, an_open_snapshot

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import ProbeTotals, Reason, State, Totals
from circuitbreaker_operator.exposition import FAMILIES, BreakerPage
from circuitbreaker_operator.metrics import Book, FleetCollector

KEY = BreakerKey("shop", "pay")


def samples(page: BreakerPage) -> dict[tuple[str, ...], float]:
    """(name, values of labels less namespace and name) -> value, as Prometheus reads them."""
    return {
        (each.name, *(value for name, value in each.labels.items() if name not in {"namespace", "name"})): each.value
        for family in read_text(page.write(openmetrics=False))
        for each in family.samples
    }


def seconds_in(page: BreakerPage, state: State) -> float | None:
    return samples(page).get(("circuitbreaker_state_seconds_total", state.value))


def test_time_in_a_state_goes_on_while_nothing_happens() -> None:
    """Nobody looks at a breaker that nothing happens to; a scrape adds what has passed, and never takes it back."""
    now = [100.0]
    book = Book(clock=lambda: now[0])
    page = BreakerPage(book)
    book.put(KEY, a_snapshot(state_ms={State.CLOSED: 1_500}))
    assert seconds_in(page, State.CLOSED) == 1.5
    now[0] = 160.0
    assert (seconds_in(page, State.CLOSED), seconds_in(page, State.OPEN)) == (61.5, 0.0)
    # It had opened 10 s before anybody noticed: Closed is not taken back, and Open starts where Redis says.
    book.put(KEY, a_snapshot(state=State.OPEN, state_ms={State.CLOSED: 51_500, State.OPEN: 10_000}))
    assert (seconds_in(page, State.CLOSED), seconds_in(page, State.OPEN)) == (61.5, 10.0)
    now[0] = 165.0
    assert (seconds_in(page, State.CLOSED), seconds_in(page, State.OPEN)) == (61.5, 15.0)


def test_another_incarnation_counts_from_zero() -> None:
    """A breaker made anew is a new counter, which Prometheus takes for a reset."""
    book = Book(clock=lambda: 0.0)
    page = BreakerPage(book)
    first = a_snapshot(state_ms={State.CLOSED: 90_000})
    book.put(KEY, first)
    assert seconds_in(page, State.CLOSED) == 90.0
    order = first.order._replace(incarnation=first.order.incarnation + 1)
    book.put(KEY, a_snapshot(order=order, state_ms={State.CLOSED: 2_000}))
    assert seconds_in(page, State.CLOSED) == 2.0


def test_both_formats_say_the_same() -> None:
    """As the library itself reads them: names, kinds, labels and values."""
    book = Book(clock=lambda: 0.0)
    book.put(KEY, an_open_snapshot())
    book.put(BreakerKey("shop", "search"), a_snapshot())
    page = BreakerPage(book)
    text, opened = page.write(openmetrics=False), page.write(openmetrics=True)
    families = list(read_text(text))
    assert families == list(read_openmetrics(opened + "# EOF\n"))
    assert {each.name for each in families} == {each.name for each in FAMILIES}
    state = next(each for each in families if each.name == "circuitbreaker_state")
    assert state.samples[0].labels == {"namespace": "shop", "name": "pay", "state": "Closed"}
    assert [each.value for each in state.samples] == [0.0, 1.0, 0.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_all_breakers_together(accept) -> None:
    """They never go back: not with a deletion, not with a snapshot that comes late."""
    book, registry = Book(), CollectorRegistry()
    registry.register(FleetCollector(book))
    value = registry.get_sample_value

    def calls() -> list[float | None]:
        outcomes = "success", "failure", "ignored", "not_permitted", "late"
        return [value("circuitbreaker_operator_calls_total", {"outcome": each}) for each in outcomes]

    def breakers() -> list[float | None]:
        return [value("circuitbreaker_operator_breakers", {"state": each.value}) for each in State]

    assert (calls(), breakers()) == ([0, 0, 0, 0, 0], [0, 0, 0])
    book.put(KEY, a_snapshot(totals=Totals(successes=3, failures=1, ignored=2, not_permitted=4, late=5)))
    other = BreakerKey("shop", "search")
    book.put(other, an_open_snapshot(totals=Totals(failures=6)))
    assert (calls(), breakers()) == ([3, 7, 2, 4, 5], [1, 1, 0])
    assert value("circuitbreaker_operator_transitions_total", {"to_state": "Open"}) == 1
    book.put(KEY, a_snapshot(totals=Totals(successes=10, failures=1, ignored=2, not_permitted=4, late=5)))
    for successes in (9, 10):
        book.put(KEY, a_snapshot(totals=Totals(successes=successes, failures=1, ignored=2, not_permitted=4, late=5)))
    book.drop(other)
    assert (calls(), breakers()) == ([10, 7, 2, 4, 5], [1, 0, 0])
    encode, _ = choose_encoder(accept)
    assert b'circuitbreaker_operator_breakers{state="Open"} 0.0' in encode(registry)


def test_counters_of_a_breaker_never_go_back() -> None:
    """Redis may lose some in a fail-over: Prometheus would take the rest for new. What it is now is shown as it is."""
    book = Book(clock=lambda: 0.0)
    page = BreakerPage(book)
    opened = (State.CLOSED, State.OPEN, Reason.CONSECUTIVE_FAILURES)
    before = a_snapshot(
        totals=Totals(successes=1_000, failures=7), probes=ProbeTotals(9, 5), transition_totals={opened: 40}
    )
    less = a_snapshot(
        totals=Totals(successes=990, failures=8), probes=ProbeTotals(8, 4), transition_totals={}, consecutive_failures=2
    )
    book.put(KEY, before)
    book.put(KEY, less)
    seen = samples(page)
    assert (seen["circuitbreaker_calls_total", "success"], seen["circuitbreaker_calls_total", "failure"]) == (1_000, 8)
    assert seen["circuitbreaker_probes_total", "succeeded"] == 5
    assert seen["circuitbreaker_transitions_total", "Closed", "Open", "ConsecutiveFailures"] == 40
    assert seen[("circuitbreaker_consecutive_failures",)] == 2
    assert book.get(KEY) == replace(less, history=())
    book.put(KEY, a_snapshot(totals=Totals(successes=1_001), transition_totals={opened: 41}))
    seen = samples(page)
    assert seen["circuitbreaker_calls_total", "success"] == 1_001
    assert seen["circuitbreaker_transitions_total", "Closed", "Open", "ConsecutiveFailures"] == 41


def test_openings_are_counted_from_none() -> None:
    """Those that the policy may come to."""
    book = Book(clock=lambda: 0.0)
    page = BreakerPage(book)
    rates = replace(
        POLICY, failure_rate_percent=50, slow_call_duration_ms=100, slow_call_rate_percent=50, minimum_calls=10
    )
    for policy, reasons in (
        (POLICY, {"ConsecutiveFailures"}),
        (rates, {"ConsecutiveFailures", "FailureRate", "SlowCallRate"}),
        (replace(rates, failure_threshold=0, slow_call_rate_percent=0, slow_call_duration_ms=0), {"FailureRate"}),
    ):
        book.put(KEY, a_snapshot(policy=policy, transition_totals={}))
        found = {name: value for name, value in samples(page).items() if name[0] == "circuitbreaker_transitions_total"}
        assert found == {("circuitbreaker_transitions_total", "Closed", "Open", reason): 0 for reason in reasons}
