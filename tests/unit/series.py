"""Every series that an operator shows, with its labels; what rules, dashboards and pages may speak of."""

from prometheus_client.parser import text_string_to_metric_families
from tests.unit.breakers import a_snapshot

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.state import Reason, State
from circuitbreaker_operator.exposition import BreakerPage
from circuitbreaker_operator.metrics import Book, FleetCollector, Metrics


def shown_series() -> dict[str, set[str]]:
    """Name -> names of its labels; none known where a series has no sample yet."""
    metrics, book = Metrics(), Book()
    book.put(
        BreakerKey("shop", "pay"),
        a_snapshot(transition_totals={(State.CLOSED, State.OPEN, Reason.CONSECUTIVE_FAILURES): 1}),
    )
    metrics.lead()
    metrics.queue("keys")
    metrics.registry.register(FleetCollector(book))
    shown: dict[str, set[str]] = {}
    breakers = text_string_to_metric_families(BreakerPage(book).write(openmetrics=False))
    for family in (*metrics.registry.collect(), *breakers):
        # Without labels yet a family shows no sample: its name says what its samples will be called.
        for suffix in ("", "_total", "_bucket", "_count", "_sum"):
            shown.setdefault(family.name + suffix, set())
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    return shown
