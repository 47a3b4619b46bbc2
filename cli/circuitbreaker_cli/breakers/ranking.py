"""Which breakers need a look now: speeds out of counters, an order, a table. Pure.

Counters move in steps: those of a status when the operator writes it (at most every CB_STATUS_REFRESH while nothing
else happens), those of Redis whenever they are asked for. So a speed is that between two states of the counters and the
instants they are of, whenever they were seen here.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from circuitbreaker_cli.breakers.listing import retry_in
from circuitbreaker_cli.breakers.view import View, instant, part, whole
from circuitbreaker_cli.marks import ASCII, WORST_FIRST, Glyphs, sparkline, state_text
from circuitbreaker_cli.words import length
from circuitbreaker_contract.state import Snapshot, State
from circuitbreaker_operator import times

TREND: Final = 16  # looks
_LEAST_MS: Final = 500  # between two counts; less tells of nothing but chance
_SLACK_MS: Final = 5_000
_RANKS: Final = {state.value: rank for rank, state in enumerate(WORST_FIRST)}


class Sort(StrEnum):
    """What comes first: the most refusals a second, the highest failure rate, the longest time Open."""

    REFUSED = "refused"
    RATE = "rate"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Look:
    """One breaker as it was found. `counted_ms`: the instant that the counters are of; None where nothing tells."""

    view: View
    epoch: tuple[str, int]  # counters begin anew with it
    counted_ms: int | None
    calls: int
    refused: int
    rate_percent: float | None


@dataclass(slots=True)
class Row:
    """What is shown of a breaker; speeds are None until there are two states of the counters."""

    look: Look
    seen_ms: int  # by our clock, when these counters were seen first
    period_ms: int = 0  # between these counters and those before
    calls_per_second: float | None = None
    refused_per_second: float | None = None
    trend: deque[float | None] = field(default_factory=lambda: deque(maxlen=TREND))


def of_status(view: View) -> Look:
    """By its status. The time of its counters stands where `view` tells who wrote which field."""
    totals = part(view.status, "totals")
    return Look(
        view=view,
        epoch=(view.uid, view.number("incarnation")),
        counted_ms=_written_ms(view),
        calls=whole(totals, "successes") + whole(totals, "failures"),
        refused=whole(totals, "notPermitted"),
        rate_percent=view.rate("failureRatePercent"),
    )


def of_redis(view: View, snapshot: Snapshot) -> Look:
    """By Redis; the resource lends its name."""
    status: dict[str, Any] = {
        "state": snapshot.state.value,
        "since": times.to_text(snapshot.since_ms),
        "reason": snapshot.reason.value,
    }
    if snapshot.open_until_ms is not None:
        status["openUntil"] = times.to_text(snapshot.open_until_ms)
    totals = snapshot.totals
    return Look(
        view=View({"metadata": view.raw.get("metadata"), "status": status}),
        epoch=(snapshot.uid, snapshot.order.incarnation),
        counted_ms=snapshot.now_ms,
        calls=totals.successes + totals.failures,
        refused=totals.not_permitted,
        rate_percent=snapshot.window.failure_rate_percent(snapshot.policy.minimum_calls),
    )


class Board:
    """The breakers as of the last look."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def take(self, looks: Iterable[Look], now_ms: int) -> None:
        """A whole look at all of them; who is not in it is gone."""
        self._rows = {each.view.full_name: _row(self._rows.get(each.view.full_name), each, now_ms) for each in looks}

    def rows(self, sort: Sort, states: Sequence[State] = ()) -> list[Row]:
        """Those in one of the states (none: all), what needs a look first; equal ones by name."""
        found = [each for each in self._rows.values() if not states or each.look.view.state in states]
        return sorted(found, key=lambda each: (*_key(each, sort), each.look.view.full_name))

    def counts(self) -> Mapping[str, int]:
        """How many are in each state."""
        states = [each.look.view.state for each in self._rows.values()]
        return {state.value: states.count(state.value) for state in WORST_FIRST}


def table(rows: Sequence[Row], now_ms: int, *, namespaces: bool, glyphs: Glyphs = ASCII) -> Table:
    """A row each."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ["NAMESPACE"] if namespaces else []:
        made.add_column(name, no_wrap=True, overflow="ignore")
    for name in ("NAME", "STATE"):
        made.add_column(name, no_wrap=True, overflow="ignore")
    for name in ("REFUSED/S", "CALLS/S", "RATE"):
        made.add_column(name, no_wrap=True, overflow="ignore", justify="right")
    for name in ("TREND", "OPEN-FOR", "RETRY-IN", "REASON"):
        made.add_column(name, no_wrap=True, overflow="ignore")
    for each in rows:
        view, rate = each.look.view, each.look.rate_percent
        cells: list[str | Text] = [
            *([view.namespace] if namespaces else []),
            view.name,
            state_text(view.state, glyphs),
            _speed(each.refused_per_second),
            _speed(each.calls_per_second),
            "" if rate is None else f"{rate:.1f}",
            sparkline(each.trend, glyphs).rjust(TREND) if any(one is not None for one in each.trend) else "",
            length(_open_ms(view, now_ms)) if view.state == State.OPEN else "",
            retry_in(view, now_ms),
            view.reason,
        ]
        made.add_row(*(one if isinstance(one, Text) else Text(one) for one in cells))
    return made


def _row(before: Row | None, look: Look, now_ms: int) -> Row:
    if before is None or before.look.epoch != look.epoch:
        row = Row(look, now_ms)
    elif look.counted_ms is None or before.look.counted_ms is None:
        row = Row(look, now_ms, trend=before.trend)  # a speed of no known time is none
    elif (period_ms := look.counted_ms - before.look.counted_ms) >= _LEAST_MS:
        row = Row(look, now_ms, period_ms, trend=before.trend)
        row.calls_per_second = _per_second(look.calls - before.look.calls, period_ms)
        row.refused_per_second = _per_second(look.refused - before.look.refused, period_ms)
    else:
        row = before
        if before.period_ms and now_ms - before.seen_ms > 2 * before.period_ms + _SLACK_MS:
            # A status is not written while its counters stand still.
            row.calls_per_second = row.refused_per_second = 0.0
    row.trend.append(look.rate_percent)
    return row


def _per_second(count: int, period_ms: int) -> float:
    return max(0, count) * 1_000 / period_ms


def _written_ms(view: View) -> int | None:
    """When the status was written, by the API server's clock in whole seconds; None when nothing tells."""
    entries = part(view.raw, "metadata").get("managedFields")
    return max(
        (
            at_ms
            for each in (entries if isinstance(entries, list) else [])
            if isinstance(each, Mapping) and each.get("subresource") == "status"
            if (at_ms := instant(each, "time")) is not None
        ),
        default=None,
    )


def _key(row: Row, sort: Sort) -> tuple[float, ...]:
    view = row.look.view
    refused, rate = -(row.refused_per_second or 0.0), -1.0 * (row.look.rate_percent or 0.0)
    rank, since = _RANKS.get(view.state, len(_RANKS)), view.since_ms or 0
    match sort:
        case Sort.REFUSED:
            return refused, rank, rate
        case Sort.RATE:
            return rate, rank, refused
        case Sort.OPEN:
            return rank, since, refused


def _open_ms(view: View, now_ms: int) -> int:
    return max(0, now_ms - view.since_ms) if view.since_ms is not None else 0


def _speed(per_second: float | None) -> str:
    """Two digits of what is small, whole numbers of the rest; empty while it is not known."""
    if per_second is None:
        return ""
    return f"{per_second:.0f}" if per_second >= 10 or per_second == 0 else f"{per_second:.1f}"
