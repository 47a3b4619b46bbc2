"""The checks of a cell can fail: each of them, by one thing that is not as it was."""

from dataclasses import replace

import pytest

from circuitbreaker_contract import protocol
from circuitbreaker_contract.memory import Memory
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.state import Outcome, Reason, Snapshot, State
from circuitbreaker_operator import times
from tests.chaos import checks

KEY = "cb:{demo/payments}"
POLICY = Policy(
    failure_threshold=5, recovery_timeout_ms=1_000, half_open_limit=2, success_threshold=2, probe_timeout_ms=2_000
)


class Story:
    """A breaker that opens, whose first probe fails, whose next ones are lost, and that closes in the end."""

    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000
        self.memory = Memory(lambda: self.now_ms)
        self.call(protocol.configure(KEY, owner="o", uid="u", generation=1, policy=POLICY))
        order = self.snapshot().order[:2]
        self.call(protocol.report(KEY, client="a", seq=1, order=order, batch=[("S", 3), ("F", 7)]))
        self.probe("first", Outcome.FAILURE)
        self.later()
        for lease in ("lost", "lost-too"):
            self.call(protocol.acquire(KEY, client="a", lease=lease))
        self.now_ms += 2_000
        self.call(protocol.tick(KEY))
        for lease in ("second", "third"):
            self.probe(lease, Outcome.SUCCESS)

    def call(self, call):
        return call.read(self.memory.execute(*call.command()))

    def snapshot(self) -> Snapshot:
        return self.call(protocol.observe(KEY, history=protocol.MAX_HISTORY))

    def later(self) -> None:
        self.now_ms += 1_000
        self.call(protocol.tick(KEY))

    def probe(self, lease: str, outcome: Outcome) -> None:
        self.later()
        self.call(protocol.acquire(KEY, client="a", lease=lease))
        order = self.snapshot().order[:2]
        self.call(protocol.settle(KEY, client="a", lease=lease, order=order, outcome=outcome))


@pytest.fixture
def snapshot() -> Snapshot:
    found = Story().snapshot()
    assert (found.state, found.order.generation) == (State.CLOSED, 8)
    return found


def with_entry(snapshot: Snapshot, number: int, **changed) -> Snapshot:
    history = [*snapshot.history]
    history[number] = replace(history[number], **changed)
    return replace(snapshot, history=tuple(history))


def test_a_true_history_passes(snapshot: Snapshot) -> None:
    checks.without_gaps(snapshot)
    checks.told_by_the_rules(snapshot)
    checks.counted_once(13, snapshot)  # ten of the batch, two of them late, and three probes


@pytest.mark.parametrize(
    "changed",
    [
        {"number": 1, "open_until_ms": 1_800_000_009_999},
        {"number": 1, "consecutive_failures": 4},
        {"number": 3, "attempt": 1},
        {"number": 2, "at_ms": 1_800_000_000_500},
        {"number": 7, "state": State.OPEN},
        {"number": 3, "reason": Reason.PROBES_LOST},
    ],
)
def test_a_history_that_the_rules_would_not_tell(snapshot: Snapshot, changed: dict) -> None:
    with pytest.raises(AssertionError):
        checks.told_by_the_rules(with_entry(snapshot, **changed))


def test_a_state_that_does_not_follow_from_its_history(snapshot: Snapshot) -> None:
    with pytest.raises(AssertionError):
        checks.told_by_the_rules(replace(snapshot, state=State.OPEN))
    with pytest.raises(AssertionError):
        checks.told_by_the_rules(replace(snapshot, transition_totals={}))


@pytest.mark.parametrize("gone", range(1, 8))
def test_a_gap(snapshot: Snapshot, gone: int) -> None:
    history = tuple(each for number, each in enumerate(snapshot.history) if number != gone)
    with pytest.raises(AssertionError):
        checks.without_gaps(replace(snapshot, history=history))


def test_an_outcome_more_or_less(snapshot: Snapshot) -> None:
    for wrong in (12, 14):
        with pytest.raises(AssertionError):
            checks.counted_once(wrong, snapshot)


def test_a_status_that_says_something_else(snapshot: Snapshot) -> None:
    status = {
        "state": "Closed",
        "incarnation": snapshot.order.incarnation,
        "stateGeneration": 8,
        "reason": "ProbesSucceeded",
        "transitions": [
            {
                "from": each.previous.value if each.previous else "",
                "to": each.state.value,
                "reason": each.reason.value,
                "stateGeneration": each.generation,
            }
            for each in snapshot.history[-5:]
        ],
    }
    assert checks.difference(status, snapshot) == {}
    for wrong in (
        {"state": "Open"},
        {"stateGeneration": 7},
        {"reason": "Reset"},
        {"attempt": 1},
        {"openUntil": times.to_text(1_800_000_000_000)},
        {"transitions": status["transitions"][:4]},
    ):
        assert checks.difference(status | wrong, snapshot) != {}


def test_a_message_that_comes_again_and_again() -> None:
    line = "2026-11-25T17:23:35.{}Z WARNING store Redis at redis://127.0.0.1:2{}: away; check that it runs\n"
    checks.said_once("".join(line.format(number, number) for number in range(checks.MOST_LINES)))
    with pytest.raises(AssertionError):
        checks.said_once("".join(line.format(number, number) for number in range(checks.MOST_LINES + 1)))
