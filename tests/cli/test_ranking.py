"""Speeds and order of `top`, without a cluster."""

from dataclasses import replace

import pytest

from circuitbreaker_cli.breakers import ranking
from circuitbreaker_cli.breakers.ranking import Board, Look, Sort
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.marks import sparkline
from circuitbreaker_contract.state import State, Totals, WindowCounts
from circuitbreaker_operator import times
from tests.unit.breakers import NOW, a_snapshot

SECOND = 1_000


def a_look(name: str = "pay", at_ms: int = NOW, **changed: object) -> Look:
    view = View({"metadata": {"namespace": "shop", "name": name}, "status": {"state": "Closed"}})
    return replace(Look(view, ("u", 1), at_ms, 0, 0, None), **changed)


def speeds(board: Board) -> tuple[float | None, float | None]:
    (row,) = board.rows(Sort.REFUSED)
    return row.refused_per_second, row.calls_per_second


def test_a_speed_is_of_the_time_between_two_states_of_the_counters() -> None:
    """A status is written once a minute; that it is looked at every two seconds makes no call."""
    board = Board()
    board.take([a_look(refused=100, calls=50)], NOW + 50 * SECOND)
    assert speeds(board) == (None, None)
    later = a_look(at_ms=NOW + 60 * SECOND, refused=700, calls=650)
    for seconds in (61, 63, 100, 180):
        board.take([later], NOW + seconds * SECOND)
        assert speeds(board) == (10.0, 10.0), seconds
    board.take([later], NOW + 190 * SECOND)  # nothing has been written since: nothing has been counted
    assert speeds(board) == (0.0, 0.0)


def test_counters_that_begin_anew_make_no_speed() -> None:
    board = Board()
    board.take([a_look(refused=100)], NOW)
    board.take([a_look(at_ms=NOW + SECOND, refused=5, epoch=("u", 2))], NOW + SECOND)
    assert speeds(board) == (None, None)
    board.take([a_look(at_ms=NOW + 2 * SECOND, refused=3, epoch=("u", 2))], NOW + 2 * SECOND)
    assert speeds(board) == (0.0, 0.0)  # never below zero, whoever wrote that
    board.take([], NOW + 3 * SECOND)
    assert board.rows(Sort.REFUSED) == []


def test_two_writes_of_one_second_are_no_period() -> None:
    board = Board()
    board.take([a_look(refused=0)], NOW)
    board.take([a_look(refused=900)], NOW + 10)
    assert speeds(board) == (None, None)
    board.take([a_look(at_ms=NOW + SECOND, refused=1_000)], NOW + SECOND)
    assert speeds(board) == (1_000.0, 0.0)


@pytest.mark.parametrize(("sort", "order"), [(Sort.REFUSED, "bcad"), (Sort.RATE, "cbad"), (Sort.OPEN, "abcd")], ids=str)
def test_what_needs_a_look_comes_first(sort: Sort, order: str) -> None:
    def view(name: str, state: str, since_ms: int) -> View:
        status = {"state": state, "since": times.to_text(since_ms)}
        return View({"metadata": {"namespace": "shop", "name": name}, "status": status})

    looks = [
        a_look(view=view("a", "Open", NOW - 9), refused=0),
        a_look(view=view("b", "Open", NOW - 5), refused=0, rate_percent=10.0),
        a_look(view=view("c", "HalfOpen", NOW - 99), refused=0, rate_percent=50.0),
        a_look(view=view("d", "", 0), refused=0),
    ]
    board = Board()
    board.take(looks, NOW)
    after = {"a": 1, "b": 9, "c": 5, "d": 0}
    board.take([replace(each, counted_ms=NOW + SECOND, refused=after[each.view.name]) for each in looks], NOW + SECOND)
    assert "".join(each.look.view.name for each in board.rows(sort)) == order
    assert [each.look.view.name for each in board.rows(sort, [State.HALF_OPEN])] == ["c"]
    assert board.counts() == {"Open": 2, "HalfOpen": 1, "Closed": 0}


def test_figures_of_redis_and_of_a_status() -> None:
    snapshot = a_snapshot(
        state=State.OPEN, totals=Totals(3, 4, 0, 0, 5, 0), window=WindowCounts(20, 10, 0), open_until_ms=NOW + 9
    )
    view = View({"metadata": {"namespace": "shop", "name": "pay"}, "status": {"state": "Closed"}})
    look = ranking.of_redis(view, snapshot)
    assert (look.view.state, look.view.name, look.counted_ms) == ("Open", "pay", NOW)
    assert (look.calls, look.refused, look.rate_percent, look.view.open_until_ms) == (7, 5, 50.0, NOW + 9)
    written = [
        {"subresource": "status", "time": "2030-01-01T00:00:00Z"},
        {"time": "2031-01-01T00:00:00Z"},
        {"subresource": "status", "time": "soon"},
        7,
    ]
    status = {"totals": {"successes": 1, "failures": 2, "notPermitted": 3}}
    look = ranking.of_status(View({"metadata": {"managedFields": written}, "status": status}))
    assert (look.calls, look.refused, look.counted_ms) == (3, 3, times.to_ms("2030-01-01T00:00:00Z"))
    assert ranking.of_status(View({"metadata": {"managedFields": "x"}})).counted_ms is None


def test_counters_of_an_unknown_time_make_no_speed() -> None:
    """They move once a minute; taken for counted now they would be a burst."""
    board = Board()
    for at_ms, calls in ((NOW, 1_000), (NOW + 2_000, 1_600), (NOW + 4_000, 1_600)):
        board.take([a_look(counted_ms=None, calls=calls)], at_ms)
        assert speeds(board) == (None, None)


def test_a_trend() -> None:
    assert sparkline([0.0, None, 50.0, 100.0, 1e9, -5.0]) == "_ =##_"
