"""A damaged incarnation (the infinities arrive as -2^63) made the naming of an Event go on for ever, and the operator
with it."""

from dataclasses import replace

from circuitbreaker_contract.state import Order
from circuitbreaker_operator import events
from tests.unit.breakers import a_snapshot


def test_a_number_below_zero_has_an_end() -> None:
    assert events.base36(-(2**63)) == "0"
    assert events.base36(35) == "z"


def test_a_transition_past_the_breaker_is_not_told() -> None:
    """It would have been posted again with each status, since no status reaches it."""
    snapshot = a_snapshot()
    assert events.unhandled(snapshot, {}) == [*snapshot.history]
    assert events.unhandled(replace(snapshot, order=Order(1, 1, 1)), {}) == []
