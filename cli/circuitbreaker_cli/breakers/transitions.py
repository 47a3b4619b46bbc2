"""Transitions of a breaker as they are told: of Redis' history, or the last ones of its status. Pure.

Redis keeps 256 with their numbers and a person's reason; a status has the last five with reasons alone, and the
sentence of the newest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from circuitbreaker_cli.breakers.view import View, instant
from circuitbreaker_cli.marks import ASCII, Glyphs, state_text
from circuitbreaker_cli.words import length, safe
from circuitbreaker_contract.state import Reason, Snapshot, State, Transition
from circuitbreaker_operator import times
from circuitbreaker_operator.wording import LONGEST_REASON, because

NEW: Final = "(new)"  # the state before the first one
GONE: Final = "(deleted)"
_STATES: Final = tuple(state.value for state in State)
_OVERRIDE: Final = "override"
_TRIGGERS: Final = {
    Reason.CREATED: "operator",
    Reason.RESTORED: "operator",
    Reason.RESET: "reset",
    Reason.MODE_CHANGED: "spec.mode",
    Reason.FORCED: _OVERRIDE,
    Reason.OVERRIDE_EXPIRED: _OVERRIDE,
    Reason.CONSECUTIVE_FAILURES: "calls",
    Reason.FAILURE_RATE: "calls",
    Reason.SLOW_CALL_RATE: "calls",
    Reason.RECOVERY_TIMEOUT_ELAPSED: "time",
    Reason.PROBES_SUCCEEDED: "probes",
    Reason.PROBE_FAILED: "probes",
    Reason.PROBES_LOST: "probes",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One transition; texts are safe to print. `of_redis` is what only Redis' history has."""

    at_ms: int
    before: str  # "" for the first one
    after: str  # "" for a deletion
    reason: str
    generation: int
    by: str
    message: str = ""
    of_redis: Transition | None = None


def trigger(reason: str, manager: str = "") -> str:
    """Who or what caused it, in a word: of an override the field manager that set it, where that is known."""
    by = next((word for each, word in _TRIGGERS.items() if each.value == reason), "")
    return manager if manager and reason == Reason.FORCED else by


def of_snapshot(snapshot: Snapshot) -> list[Entry]:
    """Oldest first."""
    return [
        Entry(
            at_ms=each.at_ms,
            before=each.previous.value if each.previous else "",
            after=each.state.value,
            reason=each.reason.value,
            generation=each.generation,
            by=trigger(each.reason),
            message=safe(because(each, snapshot.policy), 4 * LONGEST_REASON),
            of_redis=each,
        )
        for each in snapshot.history
    ]


def named(entries: Iterable[Entry], view: View, managers: Mapping[tuple[int, int], str]) -> list[Entry]:
    """With who set an override: of the one in force the resource tells, of others `managers`, by `order`."""
    found = dict(managers)
    if view.forced and view.override_manager:
        found[view.number("incarnation"), view.number("stateGeneration")] = view.override_manager
    return [replace(each, by=trigger(each.reason, found.get(order(each, view), ""))) for each in entries]


def order(entry: Entry, view: View) -> tuple[int, int]:
    """(incarnation, generation); a status tells only of the incarnation it is in."""
    incarnation = entry.of_redis.incarnation if entry.of_redis else view.number("incarnation")
    return incarnation, entry.generation


def of_status(view: View) -> tuple[list[Entry], int]:
    """The last ones, oldest first, and how many more cannot be read."""
    told = view.status.get("transitions")
    entries = [each for raw in (told if isinstance(told, list) else []) if (each := _of_status(view, raw))]
    return entries, (len(told) if isinstance(told, list) else 0) - len(entries)


def _of_status(view: View, raw: Any) -> Entry | None:
    if not isinstance(raw, Mapping):
        return None
    at_ms, generation, before, after = instant(raw, "at"), raw.get("stateGeneration"), raw.get("from"), raw.get("to")
    if at_ms is None or type(generation) is not int or before not in ("", *_STATES) or after not in _STATES:
        return None
    reason = safe(raw.get("reason", ""), 64)
    newest = generation == view.number("stateGeneration")
    manager = view.override_manager if newest and view.forced else ""
    message = view.text("message") if newest else ""
    return Entry(at_ms, str(before), str(after), reason, generation, trigger(reason, manager), message)


def table(entries: Sequence[Entry], now_ms: int, *, wide: bool, glyphs: Glyphs = ASCII) -> Table:
    """A row each, the newest last, as `helm history` and `kubectl logs` have it."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    more = ["LASTED", "ATTEMPT", "FAILURES", "WINDOW"] if wide else []
    for name in ["WHEN", "AGO", "FROM", "TO", "REASON", "BY", "GENERATION", *more, "MESSAGE"]:
        made.add_column(name, no_wrap=True, overflow="ignore")
    for each, until_ms in zip(entries, [*(later.at_ms for later in entries[1:]), now_ms], strict=False):
        lasted = length(max(0, until_ms - each.at_ms))
        made.add_row(
            times.to_text(each.at_ms),
            length(max(0, now_ms - each.at_ms)),
            state_text(each.before, glyphs) if each.before else Text(NEW, "dim"),
            state_text(each.after, glyphs),
            Text(each.reason),
            Text(each.by),
            str(each.generation),
            *([lasted, *_numbers(each.of_redis)] if wide else []),
            Text(each.message),
        )
    return made


def _numbers(transition: Transition | None) -> Iterable[str]:
    if transition is None:
        return "", "", ""
    window = transition.window
    counts = f"{window.calls} calls, {window.failures} failed, {window.slow} slow"
    return str(transition.attempt), str(transition.consecutive_failures), counts


def told(entry: Entry) -> dict[str, Any]:
    """For programs; what only Redis has is left out where it is not known."""
    words: dict[str, Any] = {
        "at": times.to_text(entry.at_ms),
        "from": entry.before,
        "to": entry.after,
        "reason": entry.reason,
        "by": entry.by,
        "message": entry.message,
        "stateGeneration": entry.generation,
    }
    if entry.of_redis is None:
        return words
    window, until_ms = entry.of_redis.window, entry.of_redis.open_until_ms
    return words | {
        "incarnation": entry.of_redis.incarnation,
        "attempt": entry.of_redis.attempt,
        "consecutiveFailures": entry.of_redis.consecutive_failures,
        "openUntil": None if until_ms is None else times.to_text(until_ms),
        "window": {"calls": window.calls, "failures": window.failures, "slow": window.slow},
        "note": safe(entry.of_redis.note, LONGEST_REASON),
    }
