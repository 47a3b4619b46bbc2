"""What is new in a breaker since it was last seen: the transitions of its status that were not there before. Pure.

A status tells of the last five, so what happened while nobody watched, or faster than statuses are written, is told all
the same; what is past that is counted. An object that is seen once more, or late, has nothing new.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from circuitbreaker_cli.breakers import transitions
from circuitbreaker_cli.breakers.transitions import GONE, NEW, Entry
from circuitbreaker_cli.breakers.view import View
from circuitbreaker_cli.marks import ASCII, Glyphs, state_text
from circuitbreaker_cli.words import UNKNOWN
from circuitbreaker_contract.state import State
from circuitbreaker_operator import times

DELETED: Final = "Deleted"
_STATE_WIDTH: Final = 10  # a mark and the longest word
_REASON_WIDTH: Final = 22  # the longest one
_WIDEST_NAME: Final = 48


@dataclass(frozen=True, slots=True)
class Change:
    """A transition of a breaker, or with `initial` only the state it is in; `missed`: how many were before, unseen."""

    namespace: str
    name: str
    entry: Entry
    missed: int = 0
    initial: bool = False

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Seen:
    view: View
    order: tuple[int, int]


class Ledger:
    """What was seen last of each breaker, by uid: one that is made again under the same name is another one."""

    def __init__(self, views: Iterable[View]) -> None:
        self._seen = {each.uid: _Seen(_light(each), _order(each)) for each in views}
        self._gone: set[str] = set()

    def listed(self, views: Sequence[View], now_ms: int) -> list[Change]:
        """After a gap: what is new in those that there are, and which are there no more."""
        there = {each.uid for each in views}
        lost = [seen.view for uid, seen in self._seen.items() if uid not in there]
        found = [change for each in lost for change in self.gone(each, now_ms)]
        return found + [change for each in views for change in self.seen(each)]

    def seen(self, view: View) -> list[Change]:
        """Oldest first."""
        before = self._seen.get(view.uid)
        order, last = _order(view), before.order if before else (0, 0)
        self._gone.discard(view.uid)
        if before is not None and order <= last:
            return []
        self._seen[view.uid] = _Seen(_light(view), order)
        if not view.state:
            return []
        # Generations go on in a new incarnation, unless Redis was emptied of a breaker whose status was lost too.
        after = last[1] if order[1] > last[1] else order[1] - 1
        entries = [each for each in transitions.of_status(view)[0] if after < each.generation <= order[1]]
        if not entries or entries[-1].generation != order[1]:
            entries.append(_as_it_stands(view, before.view.state if before else ""))
        missed = entries[0].generation - after - 1 if before and entries[0].before else 0
        return [
            Change(view.namespace, view.name, each, max(0, missed) if number == 0 else 0)
            for number, each in enumerate(entries)
        ]

    def gone(self, view: View, now_ms: int) -> list[Change]:
        """Deleted, or without the labels that were asked for; told once."""
        if view.uid in self._gone:
            return []
        self._gone.add(view.uid)
        entry = Entry(now_ms, view.state, "", DELETED, view.number("stateGeneration"), "")
        return [Change(view.namespace, view.name, entry)]


def initial(view: View, now_ms: int) -> Change:
    """The state that it is in when the watch begins."""
    since_ms = view.since_ms if view.since_ms is not None else now_ms
    manager = view.override_manager if view.forced else ""
    by = transitions.trigger(view.reason, manager)
    entry = Entry(since_ms, "", view.state, view.reason, view.number("stateGeneration"), by, view.text("message"))
    return Change(view.namespace, view.name, entry, initial=True)


def name_width(views: Iterable[View], *, namespaces: bool) -> int:
    """Of the column of names."""
    return min(_WIDEST_NAME, max((len(each.full_name if namespaces else each.name) for each in views), default=0))


def line(change: Change, *, namespaces: bool, width: int, glyphs: Glyphs = ASCII) -> Text:
    """One line: when, which, from, to, why, by whom, and the sentence of the status where it is about this one."""
    entry = change.entry
    before = Text(NEW, "dim") if not entry.before else state_text(entry.before, glyphs)
    after = Text(GONE, "dim") if entry.reason == DELETED else state_text(entry.after or UNKNOWN, glyphs)
    text = Text.assemble(
        times.to_text(entry.at_ms),
        "  ",
        (change.full_name if namespaces else change.name).ljust(width),
        "  ",
        *_padded(Text() if change.initial else before),
        " is " if change.initial else " -> ",
        *_padded(after),
        "  ",
        entry.reason.ljust(_REASON_WIDTH),
    )
    if entry.by:
        text.append(f"  by {entry.by}")
    if entry.message:
        text.append(f"  {entry.message}")
    text.rstrip()
    return text


def told(change: Change) -> dict[str, Any]:
    """For programs: one object a line."""
    words = {"namespace": change.namespace, "name": change.name} | transitions.told(change.entry)
    if change.initial:
        words["initial"] = True
    if change.missed:
        words["missed"] = change.missed
    return words


def summary(views: Sequence[View], glyphs: Glyphs = ASCII) -> str:
    """How many there are: `3 breakers: 1 Open, 0 HalfOpen, 2 Closed`."""
    counts = ", ".join(
        f"{sum(each.state == state for each in views)} {state_text(state, glyphs).plain}"
        for state in (State.OPEN, State.HALF_OPEN, State.CLOSED)
    )
    return f"{len(views)} {'breaker' if len(views) == 1 else 'breakers'}: {counts}"


def _order(view: View) -> tuple[int, int]:
    return view.number("incarnation"), view.number("stateGeneration")


def _light(view: View) -> View:
    """What is remembered: of ten thousand, not who wrote which field."""
    status = {name: view.status.get(name) for name in ("state", "stateGeneration", "incarnation")}
    metadata = {"namespace": view.namespace, "name": view.name, "uid": view.uid}
    return View({"metadata": metadata, "status": status})


def _as_it_stands(view: View, before: str) -> Entry:
    """The last transition as far as the status tells of it beside its list."""
    told_ms = view.since_ms or 0
    by = transitions.trigger(view.reason, view.override_manager if view.forced else "")
    return Entry(told_ms, before, view.state, view.reason, view.number("stateGeneration"), by, view.text("message"))


def _padded(text: Text) -> tuple[Text, str]:
    return text, " " * max(0, _STATE_WIDTH - text.cell_len)
