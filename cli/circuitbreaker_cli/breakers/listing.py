"""Many breakers: which, in which order, and their rows. Pure."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from circuitbreaker_cli.breakers.view import View, part, whole
from circuitbreaker_cli.marks import ASCII, WORST_FIRST, Glyphs, state_text
from circuitbreaker_cli.words import UNKNOWN, length, safe
from circuitbreaker_contract.state import State


class Sort(StrEnum):
    """What a list is sorted by. All but names: what needs a look comes first."""

    NAME = "name"
    STATE = "state"
    SINCE = "since"
    FAILURES = "failures"
    RATE = "rate"
    REFUSED = "refused"
    TRIPS = "trips"


_RANKS: Final = {state.value: rank for rank, state in enumerate(WORST_FIRST)}
_KEYS: Final[dict[Sort, Callable[[View], Any]]] = {
    Sort.NAME: lambda _: 0,
    Sort.STATE: lambda view: _RANKS.get(view.state, len(_RANKS)),
    Sort.SINCE: lambda view: -(view.since_ms or 0),
    Sort.FAILURES: lambda view: -view.number("consecutiveFailures"),
    Sort.RATE: lambda view: -(view.rate("failureRatePercent") or 0.0),
    Sort.REFUSED: lambda view: -whole(part(view.status, "totals"), "notPermitted"),
    Sort.TRIPS: lambda view: -view.number("trips"),
}


def chosen(views: Iterable[View], states: Sequence[State], sort: Sort) -> list[View]:
    """Those in one of the states (none: all), sorted; equal ones by name."""
    found = [each for each in views if not states or each.state in states]
    return sorted(found, key=lambda each: (_KEYS[sort](each), each.namespace, each.name))


def table(views: Sequence[View], now_ms: int, *, namespaces: bool, wide: bool, glyphs: Glyphs = ASCII) -> Table:
    """The columns of `kubectl get`, with RETRY-AT as a length: RETRY-IN."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    names = [*(["NAMESPACE"] if namespaces else []), "NAME", "STATE", "REASON", "FAILURES", "RATE", "RETRY-IN", "READY"]
    for name in [*names, "SINCE", *(["REFUSED", "TRIPS", "THRESHOLD", "MODE", "AGE"] if wide else [])]:
        made.add_column(name, no_wrap=True, overflow="ignore")
    for each in views:
        made.add_row(*_row(each, now_ms, namespaces=namespaces, wide=wide, glyphs=glyphs))
    return made


def _row(view: View, now_ms: int, *, namespaces: bool, wide: bool, glyphs: Glyphs) -> list[Text]:
    rate = view.rate("failureRatePercent")
    cells: list[str | Text] = [
        *([view.namespace] if namespaces else []),
        view.name,
        state_text(view.state, glyphs),
        view.reason,
        str(view.number("consecutiveFailures")) if view.state else "",
        "" if rate is None else f"{rate:.1f}",
        retry_in(view, now_ms),
        view.condition("Ready")[0] or UNKNOWN,
        _ago(view.since_ms, now_ms),
    ]
    if wide:
        cells += [
            str(whole(part(view.status, "totals"), "notPermitted")),
            str(view.number("trips")),
            str(whole(view.policy, "failureThreshold")) if view.policy else "",
            safe(view.policy.get("mode", "")),
            _ago(view.created_ms, now_ms),
        ]
    return [each if isinstance(each, Text) else Text(each) for each in cells]


def retry_in(view: View, now_ms: int) -> str:
    """When Open ends, as a length; `due` past it, empty while there is no such time."""
    if view.open_until_ms is None or view.state != State.OPEN:
        return ""
    return length(view.open_until_ms - now_ms) if view.open_until_ms > now_ms else "due"


def _ago(ms: int | None, now_ms: int) -> str:
    return "" if ms is None else length(max(0, now_ms - ms))
