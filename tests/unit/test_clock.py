"""Deadlines: which breaker is due, and when to come back to one."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.breakers import (
    INCARNATION,
    NOW,
    POLICY,
    a_forced_snapshot,
    a_snapshot,
    an_observing_snapshot,
    an_open_snapshot,
)

from circuitbreaker_contract.keys import BreakerKey
from circuitbreaker_contract.policy import Mode, Override
from circuitbreaker_contract.state import Order, Shadow, Standing, State, Tick
from circuitbreaker_operator.clock import Clock, Deadlines, due_in_seconds, next_in_seconds
from circuitbreaker_operator.metrics import Metrics
from circuitbreaker_operator.settings import Settings

A, B, C = (BreakerKey("shop", name) for name in "abc")


def test_deadlines_come_in_their_order() -> None:
    """Only those that are due, at most so many, each once."""
    deadlines = Deadlines()
    for key, at in ((A, 3.0), (B, 1.0), (C, 2.0)):
        deadlines.set(key, at)
    assert deadlines.next_at() == 1.0
    assert deadlines.pop(2.5, limit=1) == [(B, 1.0)]
    assert deadlines.pop(2.5, limit=9) == [(C, 2.0)]
    assert deadlines.pop(2.5, limit=9) == []
    assert (deadlines.next_at(), len(deadlines)) == (3.0, 1)


def test_the_last_deadline_set_counts() -> None:
    """Earlier or later, and forgotten is forgotten."""
    deadlines = Deadlines()
    deadlines.set(A, 5.0)
    deadlines.set(A, 1.0)
    deadlines.set(B, 1.0)
    deadlines.set(B, 5.0)
    deadlines.set(C, 1.0)
    deadlines.forget(C)
    assert deadlines.pop(2.0, limit=9) == [(A, 1.0)]
    assert deadlines.pop(9.0, limit=9) == [(B, 5.0)]
    assert deadlines.next_at() is None


def test_deadlines_that_are_set_over_and_over_stay_small() -> None:
    """Left-over entries are thrown out before they pile up."""
    deadlines = Deadlines()
    for number in range(10_000):
        deadlines.set(A, float(number))
    assert len(deadlines._heap) < 100
    assert deadlines.pop(20_000.0, limit=9) == [(A, 9_999.0)]


SNAPSHOTS = {
    "closed": (a_snapshot(), None),
    "open": (an_open_snapshot(now_ms=INCARNATION + 30_500), 1.5),
    "open and over": (an_open_snapshot(now_ms=NOW), 0.0),
    "open, and Redis says that it is due": (an_open_snapshot(now_ms=INCARNATION, due=True), 0.0),
    "half-open with a probe under way": (a_snapshot(state=State.HALF_OPEN, probes_live=1), 0.0),
    "half-open: a probe may have been given without a word": (a_snapshot(state=State.HALF_OPEN), 30.0),
    "held Open until then": (a_forced_snapshot(Override("Open", NOW + 2_500, "x")), 2.5),
    "held Closed until then": (a_forced_snapshot(Override("Closed", NOW + 2_500, "x")), 2.5),
    "held Closed, and its time is over": (a_forced_snapshot(Override("Closed", NOW, "x"), due=True), 0.0),
    "held Open without an end": (a_forced_snapshot(Override("Open", 0, "x")), None),
    "held Closed without an end": (a_forced_snapshot(Override("Closed", 0, "x")), None),
    "an override that is over": (a_snapshot(policy=replace(POLICY, override=Override("Open", NOW - 1, "x"))), None),
    "observing": (an_observing_snapshot(Shadow()), None),
    "its shadow is Open": (an_observing_snapshot(Shadow(State.OPEN, open_until_ms=NOW + 700)), 0.7),
    "its shadow is due": (an_observing_snapshot(Shadow(State.OPEN, open_until_ms=NOW - 1), due=True), 0.0),
    "its shadow is HalfOpen": (an_observing_snapshot(Shadow(State.HALF_OPEN)), None),
    "held Closed while its shadow is Open": (
        an_observing_snapshot(
            Shadow(State.OPEN, open_until_ms=NOW + 700),
            policy=replace(POLICY, mode=Mode.OBSERVE, override=Override("Closed", NOW + 300, "x")),
            forced=State.CLOSED,
        ),
        0.3,
    ),
}


@pytest.mark.parametrize(("snapshot", "seconds"), SNAPSHOTS.values(), ids=SNAPSHOTS)
def test_due_in_seconds(snapshot: Any, seconds: float | None) -> None:
    """From what Redis measured, never from two clocks compared."""
    assert due_in_seconds(snapshot) == seconds


TICKS = {
    "closed": (State.CLOSED, None, None),
    "closed, and an override ends or a shadow is due": (State.CLOSED, 700, 0.701),
    "held Open without an end": (State.OPEN, None, None),
    "open": (State.OPEN, 1_500, 1.501),
    "not quite due": (State.OPEN, 0, 0.001),
    "half-open, a lease expires": (State.HALF_OPEN, 2_000, 2.001),
    "half-open, a lease expires much later": (State.HALF_OPEN, 3_600_000, 10.0),
    "half-open: a probe may have been given without a word": (State.HALF_OPEN, None, 3.0),
}


@pytest.mark.parametrize(("state", "due_in_ms", "seconds"), TICKS.values(), ids=TICKS)
def test_next_in_seconds(state: State, due_in_ms: int | None, seconds: float | None) -> None:
    """A millisecond late rather than a millisecond early."""
    assert next_in_seconds(Tick(Standing(state, Order(1, 1, 1), 0), due_in_ms, 0), lease_seconds=2.5) == seconds


class Slow:
    """A store in which each pipeline waits for its own sign."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.up.set()
        self.asked: asyncio.Queue[asyncio.Event] = asyncio.Queue()
        self.ticked: list[int] = []  # how many breakers each pipeline had

    async def batch(self, calls: list[Any]) -> list[Tick]:
        sign = asyncio.Event()
        self.ticked.append(len(calls))
        self.asked.put_nowait(sign)
        await sign.wait()
        return [Tick(Standing(State.CLOSED, Order(1, 1, 1), 0), None, 0) for _ in calls]


async def test_others_wait_for_ticks_on_their_way_and_not_for_those_that_come_meanwhile() -> None:
    """In a storm some tick is always on its way, and statuses would never be written."""
    store: Any = Slow()
    clock = Clock(store, Settings().keys, Metrics(), ticked=lambda *_: None, lost=lambda _: None)
    running = asyncio.create_task(clock.run())
    await asyncio.wait_for(clock.first(), 1)
    clock.expect(A, 0.0)
    one = await store.asked.get()
    waiting = asyncio.create_task(clock.first())
    clock.expect(B, 0.0)
    other = await store.asked.get()
    assert not waiting.done()
    one.set()
    await asyncio.wait_for(waiting, 1)
    other.set()
    running.cancel()


async def test_what_comes_due_while_ticks_are_on_their_way_goes_together() -> None:
    """Each by itself would take all connections to a Redis far away, which then looked like one that is gone."""
    store: Any = Slow()
    clock = Clock(store, Settings().keys, Metrics(), ticked=lambda *_: None, lost=lambda _: None)
    running = asyncio.create_task(clock.run())
    signs = []
    for number in range(50):
        clock.expect(BreakerKey("shop", f"b{number}"), 0.0)
        for _ in range(5):
            await asyncio.sleep(0)
        while not store.asked.empty():
            signs.append(store.asked.get_nowait())
    assert len(signs) == 4
    signs[0].set()
    (await asyncio.wait_for(store.asked.get(), 1)).set()
    await asyncio.sleep(0)
    assert (store.asked.qsize(), store.ticked[-1]) == (0, 46)
    running.cancel()
