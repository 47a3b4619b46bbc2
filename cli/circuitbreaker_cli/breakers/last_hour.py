"""The last hour of a breaker as a strip: a cell a minute, the higher the fewer calls passed, as on the page. Pure."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from rich.text import Text

from circuitbreaker_cli.breakers.transitions import Entry
from circuitbreaker_cli.marks import ASCII, STYLES, Glyphs
from circuitbreaker_cli.words import length
from circuitbreaker_contract.state import State

HOUR_MS: Final = 3_600_000
_CELL_MS: Final = 60_000
_HEIGHT: Final = {State.CLOSED: 1, State.HALF_OPEN: 2, State.OPEN: 3}
Span = tuple[State, int, int]  # the state, from, to


def spans(entries: Sequence[Entry], state: str, since_ms: int | None, now_ms: int) -> list[Span]:
    """What is known of the hour, oldest first. Before the oldest entry nothing is: there may have been others."""
    moves = [(each.after, each.at_ms) for each in entries]
    if since_ms is not None and (not moves or since_ms > moves[-1][1]):
        moves.append((state, since_ms))
    ends = [*(at for _, at in moves[1:]), now_ms]
    start = now_ms - HOUR_MS
    names = {each.value: each for each in State}
    told = [
        (names[word], max(start, at), min(now_ms, end))
        for (word, at), end in zip(moves, ends, strict=False)
        if word in names
    ]
    return [each for each in told if each[2] >= max(start, each[1])]


def strip(known: Sequence[Span], now_ms: int, glyphs: Glyphs = ASCII) -> Text:
    """Of all that fell into a minute the worst is shown, so that an opening of a second can be seen."""
    begins = range(now_ms - HOUR_MS, now_ms, _CELL_MS)
    cells = [max(_within(known, each, each + _CELL_MS), key=_HEIGHT.__getitem__, default=None) for each in begins]
    text = Text()
    for worst, run in groupby(cells):
        text.append((glyphs.heights[worst] if worst else " ") * len(list(run)), STYLES[worst] if worst else None)
    return text


def in_words(known: Sequence[Span], now_ms: int) -> str:
    """What the strip shows, as the page has it, and how far back that is known."""
    opened = [(begin, end) for state, begin, end in known if state is State.OPEN]
    times = "once" if len(opened) == 1 else f"{len(opened)} times"
    text = f"Open {times}, {length(sum(end - begin for begin, end in opened))} in all" if opened else "not Open"
    begins_ms = min((begin for _, begin, _ in known), default=now_ms)
    return text if begins_ms <= now_ms - HOUR_MS else f"{text}; known for the last {length(now_ms - begins_ms)}"


def _within(known: Sequence[Span], begin: int, end: int) -> Iterator[State]:
    return (state for state, from_ms, to_ms in known if from_ms < end and to_ms >= begin)
