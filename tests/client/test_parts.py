"""The parts by themselves: marks and runs, the outbox, the estimate of what trips, the subscription."""

import threading
from itertools import count
from math import inf
from time import perf_counter
from typing import Never

import pytest

from circuitbreaker_client import CircuitBreakers, StoreUnavailableError, _hearing
from circuitbreaker_client._estimate import TripEstimate
from circuitbreaker_client._grants import Ask, Grant
from circuitbreaker_client._hearing import Hearing
from circuitbreaker_client._outbox import MAX_RUNS_KEPT, Batch, Outbox
from circuitbreaker_client._replies import Replies
from circuitbreaker_client._rhythm import Rhythm
from circuitbreaker_client._wire import reach
from circuitbreaker_client.outcomes import IGNORED, failed, is_failure, outcome_of, runs_of
from circuitbreaker_client.settings import Settings
from circuitbreaker_contract.policy import Policy
from circuitbreaker_contract.protocol import MAX_RUN, MAX_RUNS
from circuitbreaker_contract.state import Decision, Order, Outcome, Permit, Standing, State
from circuitbreaker_local import RedisServer

ORDER = (5, 1)


@pytest.mark.parametrize(
    ("mark", "slow_seconds", "outcome"),
    [
        (0.0, inf, Outcome.SUCCESS),
        (0.2, 0.2, Outcome.SUCCESS),
        (0.21, 0.2, Outcome.SLOW_SUCCESS),
        (failed(0.0), inf, Outcome.FAILURE),
        (failed(0.1), 0.2, Outcome.FAILURE),
        (failed(0.3), 0.2, Outcome.SLOW_FAILURE),
        (failed(10_000_000.0), inf, Outcome.FAILURE),
        (IGNORED, 0.2, Outcome.IGNORED),
    ],
)
def test_marks(mark: float, slow_seconds: float, outcome: Outcome) -> None:
    assert outcome_of(mark, slow_seconds) is outcome
    assert is_failure(mark) == (outcome in {Outcome.FAILURE, Outcome.SLOW_FAILURE})
    assert runs_of([mark], slow_seconds) == [(outcome.value, 1)]


def test_runs_keep_their_order() -> None:
    marks = [0.0, 0.0, failed(0), IGNORED, IGNORED, 0.3, 0.0]
    assert runs_of(marks, 0.2) == [("S", 2), ("F", 1), ("I", 2), ("L", 1), ("S", 1)]
    assert runs_of([0.1] * 1_000, 0.2) == [("S", 1_000)]


def outbox() -> Outbox:
    return Outbox(10.0, count(1).__next__)


class Breaker:
    """What a rhythm sees of one."""

    def __init__(self) -> None:
        self.used_at = 0.0
        self.dozed = 0

    def doze(self) -> None:
        self.dozed += 1


def test_the_rhythm_looks_often_at_what_is_used_and_seldom_at_the_rest() -> None:
    rhythm = Rhythm(0.05, 10.0)
    used, other = Breaker(), Breaker()
    assert (rhythm.is_round(0.0), rhythm.is_round(0.4)) == (True, False)
    assert rhythm.seconds_to_sleep(0.0) == 0.5, "nothing but the next round"
    assert rhythm.due(0.4) == ()
    assert rhythm.rouse(used, 0.1), "the thread sleeps too long"
    assert rhythm.seconds_to_sleep(0.1) == pytest.approx(0.05)
    assert not rhythm.rouse(used, 0.11)
    assert not rhythm.rouse(other, 0.12), "it wakes in time for this one"
    assert set(rhythm.due(0.16)) == {used, other}
    assert rhythm.seconds_to_sleep(0.16) == pytest.approx(0.05)
    used.used_at = 1.0
    rhythm.quieten([used, other], 1.2)
    assert (used.dozed, other.dozed) == (0, 1)
    assert rhythm.due(1.2) == [used]
    rhythm.quieten([used], 2.1)
    assert (used.dozed, other.dozed) == (1, 1)
    assert rhythm.due(2.2) == []
    assert rhythm.is_round(2.2)
    assert rhythm.seconds_to_sleep(2.2) == 0.5, "all doze"
    assert rhythm.rouse(other, 2.3)


def test_a_batch_stays_the_same_until_it_is_acknowledged() -> None:
    box = outbox()
    assert not box
    assert box.next(0) is None
    box.add(ORDER, [("S", 2)], 0.0)
    batch = box.next(0.1)
    box.add(ORDER, [("F", 1)], 0.2)
    assert box.next(5.0) is batch
    assert (batch.seq, batch.order, batch.runs, box.buffered) == (1, ORDER, [("S", 2)], 3)
    assert box.acknowledged(5.0) == 2
    assert box.repeatable(5.0) == Batch((0, 0), 5.0, [("I", 1)], seq=1)
    assert box.repeatable(400.0) is None
    second = box.next(5.0)
    assert (second.seq, second.runs) == (2, [("F", 1)])
    assert box.acknowledged(5.0) == 1
    assert not box


def test_outcomes_of_one_generation_that_come_together_are_one_batch() -> None:
    box = outbox()
    box.add(ORDER, [("S", 2)], 0.0)
    box.add(ORDER, [("S", 3), ("F", 1)], 0.1)
    box.add((5, 2), [("S", 1)], 0.2)
    assert box.next(0.2).runs == [("S", 5), ("F", 1)]
    box.acknowledged(0.2)
    assert (box.next(0.2).order, box.next(0.2).runs) == ((5, 2), [("S", 1)])


def test_what_is_too_old_decides_nothing_and_takes_no_room() -> None:
    box = outbox()
    for at in range(10_000):
        box.add(ORDER, [("S", 1), ("F", 1)], float(at))
    assert box.dropped == 0
    assert len(box._waiting) <= 12
    old = box.next(10_000.0)
    assert old.order == ORDER, "the youngest first: they may still decide"
    seen = []
    while (batch := box.next(10_000.0)) is not None:
        seen.append((batch.order, sum(number for _, number in batch.runs)))
        box.acknowledged(10_000.0)
    assert seen[-1][0] == (0, 0)
    assert sum(number for _, number in seen) == 20_000


def test_one_in_flight_that_grows_old_goes_under_generation_0() -> None:
    box = outbox()
    box.add(ORDER, [("F", 1)], 0.0)
    first = box.next(1.0)
    again = box.next(11.0)
    assert (again.seq, again.order, again.runs) == (first.seq, (0, 0), [("F", 1)])


def test_it_is_bounded_and_counts_what_it_drops() -> None:
    box = outbox()
    for number in range(MAX_RUNS_KEPT + 500):
        box.add(ORDER, [("SF"[number % 2], 1)], number / 10_000)
    assert box.dropped == 500
    assert box.buffered == MAX_RUNS_KEPT


def test_batches_fit_the_contract() -> None:
    box = outbox()
    box.add(ORDER, [("SF"[number % 2], 1) for number in range(600)], 0.0)
    box.add(ORDER, [("S", 3 * MAX_RUN + 5)], 0.1)
    total = 0
    while (batch := box.next(0.2)) is not None:
        assert len(batch.runs) <= MAX_RUNS
        assert all(1 <= number <= MAX_RUN for _, number in batch.runs)
        total += box.acknowledged(0.2)
    assert total == 600 + 3 * MAX_RUN + 5


STREAK = Policy(3, 1_000, 1, 1, 1_000)
RATE = Policy(0, 1_000, 1, 1, 1_000, window_ms=10_000, failure_rate_percent=50, minimum_calls=4)
FAILED = failed(0.0)


def test_the_failure_that_completes_a_streak() -> None:
    estimate = TripEstimate(STREAK, 0.0)
    assert [estimate.trips([0.0, *[FAILED] * number]) for number in (1, 2, 3, 4)] == [False, False, True, False]
    estimate.taken([("S", 1), ("F", 2)], 1.0)
    assert estimate.trips([FAILED])
    assert not estimate.trips([0.0, FAILED])
    assert estimate.trips([IGNORED, FAILED])


def test_the_failure_that_reaches_a_rate() -> None:
    estimate = TripEstimate(RATE, 0.0)
    assert not estimate.trips([0.0, 0.0, FAILED])
    assert estimate.trips([0.0, 0.0, FAILED, FAILED]), "minimumCalls and half of them"
    estimate.taken([("S", 2), ("F", 2)], 1.0)
    estimate.taken([("S", 2)], 2.0)
    assert not estimate.trips([FAILED])
    assert estimate.trips([FAILED, FAILED])
    estimate.taken([("F", 2)], 3.0)
    assert not estimate.trips([FAILED]), "it was told already"
    estimate.taken([], 40.0)
    assert not estimate.trips([FAILED]), "a window later nothing is left"


SAID = (
    b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$4\r\n\r\nx\r\r\n+PONG\r\n:-5\r\n-NOPERM no\r\n$-1\r\n*0\r\n*1\r\n*1\r\n:7\r\n"
)
MEANT = [[b"message", b"ch", b"\r\nx\r"], b"PONG", -5, "NOPERM no", None, [], [[7]]]


@pytest.mark.parametrize("size", range(1, len(SAID) + 1))
def test_replies_may_come_in_any_pieces(size: int) -> None:
    replies = Replies()
    assert [each for at in range(0, len(SAID), size) for each in replies.feed(SAID[at : at + size])] == MEANT


@pytest.mark.parametrize(
    "text", [b"HTTP/1.1 400 Bad Request\r\n", b"$x\r\n", b"*1\r\n" * 5_000, b"$" + b"1" * 5_000 + b"\r\n"]
)
def test_what_is_no_reply(text: bytes) -> None:
    with pytest.raises(StoreUnavailableError):
        Replies().feed(text)


def test_a_probe_that_comes_when_another_caller_has_given_up_goes_back() -> None:
    """Two callers wait for one question. Whose it is comes second, and is decided by what the first one did."""
    with CircuitBreakers(state_sync=False) as breakers:
        core = breakers["payments"]._core
        ask = Ask(core, "lease")
        core.activate()
        assert core.local is not None, "the first one has degraded it"
        grant, _ = core.step(ask, perf_counter(), is_own=True, is_late=True)
        assert isinstance(grant, Grant)
        standing = Standing(State.HALF_OPEN, Order(*ORDER, 1), 0)
        core.saw_permit(ask, Permit(Decision.PROBE, standing, 30_000), perf_counter())
        assert core.settling == [("lease", ORDER, Outcome.IGNORED)]


def test_a_subscription_that_takes_long_to_fail_rests_for_longer() -> None:
    """The thread that connects has all else to do."""
    tries = []

    def connect(*_: object) -> Never:
        tries.append(perf_counter())
        threading.Event().wait(0.1)
        raise ConnectionError

    hearing = Hearing(Settings(), connect)
    hearing.keep({"shop"}, perf_counter())
    ended = perf_counter()
    hearing.keep({"shop"}, ended + 0.7)
    assert len(tries) == 1
    hearing.keep({"shop"}, ended + 9 * (ended - tries[0]) + 0.1)
    assert len(tries) == 2


def test_a_subscription_rests_for_half_a_minute_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long an attempt took; names may be looked up for a minute."""
    tries = []

    def connect(*_: object) -> Never:
        tries.append(None)
        raise ConnectionError

    monkeypatch.setattr(_hearing, "perf_counter", iter([0.0, 60.0, 90.0, 90.0]).__next__)
    hearing = Hearing(Settings(), connect)
    for now, tried in ((0.0, 1), (89.9, 1), (90.0, 2)):
        hearing.keep({"shop"}, now)
        assert len(tries) == tried


def test_a_subscription_that_was_made_and_lost_is_made_again_at_once(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took long, and it did not fail."""
    settings = Settings(redis_url=shared_redis.url)
    monkeypatch.setattr(_hearing, "perf_counter", iter([0.0, 1.0, 1.2, 1.2]).__next__)
    hearing = Hearing(settings, reach(settings, None)(None))
    hearing.keep({"shop"}, 0.0)
    assert hearing.listener is not None
    hearing.close()
    hearing.keep({"shop"}, 1.2)
    assert hearing.listener is not None
    hearing.close()
