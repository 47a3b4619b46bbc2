"""What history, watch and the last hour tell, without a cluster: entries that lie, gaps, repeats, times."""

from dataclasses import replace
from typing import Any

import pytest

from circuitbreaker_cli.breakers import changes, last_hour, transitions
from circuitbreaker_cli.breakers.changes import Ledger
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.marks import ASCII, FULL
from circuitbreaker_contract.state import Reason, State
from circuitbreaker_operator import times
from tests.unit.breakers import CREATED, FORCED, INCARNATION, OPENED, a_snapshot

NOW = INCARNATION + 3_600_000
MINUTE = 60_000
STORY = [
    (1, "", "Closed", "Created", 50 * MINUTE),
    (2, "Closed", "Open", "FailureRate", 40 * MINUTE),
    (3, "Open", "HalfOpen", "RecoveryTimeoutElapsed", 39 * MINUTE),
    (4, "HalfOpen", "Closed", "ProbesSucceeded", 30 * MINUTE),
    (5, "Closed", "Open", "Forced", 2_000),
    (6, "Open", "HalfOpen", "OverrideExpired", 1_000),
    (7, "HalfOpen", "Closed", "ProbesSucceeded", 500),
]


def a_view(generation: int, *, uid: str = "u-1", incarnation: int = 1, kept: int = 5, **status: Any) -> View:
    """As the operator writes it at this generation of STORY, which it shows the last `kept` of."""
    told = [
        {"from": before, "to": after, "at": times.to_text(NOW - ago), "reason": reason, "stateGeneration": number}
        for number, before, after, reason, ago in STORY[max(0, generation - kept) : generation]
    ]
    shown = {"state": told[-1]["to"], "reason": told[-1]["reason"], "since": told[-1]["at"]} if told else {}
    order = {"incarnation": incarnation, "stateGeneration": generation} if told else {}
    metadata = {"namespace": "shop", "name": "pay", "uid": uid}
    return View({"metadata": metadata, "status": {**shown, **order, "transitions": told, "message": "so", **status}})


def told(found: list[changes.Change]) -> list[tuple[int, str, int]]:
    return [(each.entry.generation, each.entry.after, each.missed) for each in found]


def test_only_what_is_new_is_told_once_and_in_order() -> None:
    ledger = Ledger([a_view(1)])
    assert told(ledger.seen(a_view(1))) == []
    assert told(ledger.seen(a_view(4))) == [(2, "Open", 0), (3, "HalfOpen", 0), (4, "Closed", 0)]
    assert told(ledger.seen(a_view(4))) == []
    assert told(ledger.seen(a_view(2))) == []  # an answer that was late
    assert told(ledger.seen(a_view(5))) == [(5, "Open", 0)]


def test_what_a_status_tells_no_more_is_counted() -> None:
    assert told(Ledger([a_view(1)]).seen(a_view(7, kept=2))) == [(6, "HalfOpen", 4), (7, "Closed", 0)]
    assert told(Ledger([a_view(1)]).seen(a_view(7, transitions=[]))) == [(7, "Closed", 5)]


def test_a_breaker_made_during_the_watch_is_new_from_the_beginning() -> None:
    ledger = Ledger([])
    assert ledger.seen(a_view(0)) == []  # no operator has seen it yet
    assert told(ledger.seen(a_view(1))) == [(1, "Closed", 0)]
    other = ledger.seen(a_view(1, uid="u-2"))  # deleted and made again under its name
    assert told(other) == [(1, "Closed", 0)]


def test_a_deletion_is_told_once_also_when_only_a_list_shows_it() -> None:
    ledger = Ledger([a_view(4), a_view(4, uid="u-2")])
    assert [each.entry.reason for each in ledger.gone(a_view(4), NOW)] == ["Deleted"]
    assert told(ledger.listed([], NOW)) == [(4, "", 0)]
    assert ledger.listed([], NOW) == []
    assert ledger.seen(a_view(4)) == []  # its labels were those again: nothing has happened to it


def test_generations_that_begin_anew_are_not_taken_for_old_ones() -> None:
    """Redis lost it, and the status that could have restored it was gone too."""
    assert told(Ledger([a_view(4)]).seen(a_view(1, incarnation=2))) == [(1, "Closed", 0)]


def test_a_line_and_an_object_of_it() -> None:
    (change,) = Ledger([a_view(4)]).seen(a_view(5))
    text = changes.line(change, namespaces=True, width=10, glyphs=FULL).plain
    at = times.to_text(NOW - 2_000)
    assert text == f"{at}  shop/pay    ● Closed   -> ○ Open      Forced                  by override  so"
    assert changes.line(change, namespaces=False, width=4).plain.startswith(f"{at}  pay   Closed     -> Open ")
    assert changes.told(change) == {
        "namespace": "shop",
        "name": "pay",
        "at": at,
        "from": "Closed",
        "to": "Open",
        "reason": "Forced",
        "by": "override",
        "message": "so",
        "stateGeneration": 5,
    }
    assert changes.told(changes.initial(a_view(4), NOW))["initial"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        "text",
        {},
        {"from": "Ajar"},
        {"to": "Ajar"},
        {"to": ["Open"]},
        {"at": "yesterday"},
        {"stateGeneration": True},
        {"stateGeneration": "5"},
    ],
)
def test_damaged_entries_of_a_status_are_left_out_and_counted(wrong: Any) -> None:
    good = {"from": "", "to": "Open", "at": "2026-01-01T00:00:00Z", "reason": "x", "stateGeneration": 1}
    bad = {**good, **wrong} if wrong and isinstance(wrong, dict) else wrong
    entries, damaged = transitions.of_status(View({"status": {"transitions": [bad, good]}}))
    assert ([each.generation for each in entries], damaged) == ([1], 1)
    assert transitions.of_status(View({"status": {"transitions": wrong}})) == ([], len(wrong) if wrong == "" else 0)


def test_who_did_it() -> None:
    """A person is named where Events or managedFields name one; else what set it off is."""
    snapshot = a_snapshot(history=(CREATED, replace(OPENED), FORCED))
    entries = transitions.of_snapshot(snapshot)
    assert [each.by for each in entries] == ["operator", "calls", "override"]
    named = transitions.named(entries, View({}), {(INCARNATION, 2): "kubectl-breaker"})
    assert [each.by for each in named] == ["operator", "calls", "kubectl-breaker"]
    said = [reason for reason in Reason if not transitions.trigger(reason)]
    assert said == [Reason.POLICY_APPLIED, Reason.DELETED, Reason.UNKNOWN, Reason.WOULD_HAVE_OPENED]


def test_the_last_hour_shows_the_worst_of_each_minute() -> None:
    """An opening of a second can be seen; what was before the oldest entry is not made up."""
    view = a_view(7, kept=7)
    entries, _ = transitions.of_status(view)
    known = last_hour.spans(entries, view.state, view.since_ms, NOW)
    assert last_hour.strip(known, NOW).plain == " " * 10 + "_" * 10 + "##" + "-" * 9 + "_" * 28 + "#"
    assert last_hour.strip(known, NOW, FULL).plain[-2:] == "▂█"
    assert last_hour.in_words(known, NOW) == "Open 2 times, 1m1s in all; known for the last 50m"
    assert last_hour.in_words(last_hour.spans([], "Closed", 0, NOW), NOW) == "not Open"
    assert last_hour.spans([], "", None, NOW) == []


def test_times_that_lie_draw_nothing_wrong() -> None:
    entries = [
        replace(each, at_ms=at)
        for each, at in zip(transitions.of_status(a_view(4))[0], [NOW + 9, NOW + 5, 0, 3], strict=True)
    ]
    known = last_hour.spans(entries, "Closed", NOW + 99, NOW)
    assert len(last_hour.strip(known, NOW)) == 60
    assert all(NOW - last_hour.HOUR_MS <= begin <= end <= NOW for _, begin, end in known)


def test_heights_rise_as_on_the_page() -> None:
    for glyphs in (ASCII, FULL):
        assert set(glyphs.heights) == set(State)
        assert len(set(glyphs.heights.values())) == 3
        assert len(glyphs.levels) == 8
    assert "".join([*ASCII.heights.values(), ASCII.levels]).isascii()
    low, half, full = (FULL.heights[each] for each in (State.CLOSED, State.HALF_OPEN, State.OPEN))
    assert low < half < full  # in the order of their code points
