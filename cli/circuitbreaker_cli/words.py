"""The vocabulary: states and how they look, what an exit code means, how times and lengths are written. Pure.

Sentences about why a breaker is in its state are the operator's own (circuitbreaker_operator.wording), as in status and
Events. Marks and colours are those of docs/vocabulary.md, which a test holds to it: blue against orange, which every
kind of colour blindness keeps apart, in shades that are dark enough for a white ground and light enough for a black
one; Open is bold besides, and the word is always there, so no colour says anything alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from rich.text import Text

from circuitbreaker_contract.durations import format_duration
from circuitbreaker_contract.state import State
from circuitbreaker_operator import times
from circuitbreaker_operator.wording import plain

STYLES: Final = {State.CLOSED: "#2a8fd0", State.HALF_OPEN: "#b87f00", State.OPEN: "bold #d55e00"}
MARKS: Final = {State.CLOSED: "●", State.HALF_OPEN: "◐", State.OPEN: "○"}
WORST_FIRST: Final = (State.OPEN, State.HALF_OPEN, State.CLOSED)
LONGEST: Final = 1_024  # characters of any one text that others wrote
UNKNOWN: Final = "Unknown"  # no status yet


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What can be shown beside words: a mark for each state, the height of each in a strip, the levels of a rate."""

    marks: Mapping[State, str]
    heights: Mapping[State, str]  # the higher, the fewer calls pass
    levels: str  # from nothing to all


FULL: Final = Glyphs(MARKS, {State.CLOSED: "▂", State.HALF_OPEN: "▅", State.OPEN: "█"}, "▁▂▃▄▅▆▇█")
ASCII: Final = Glyphs({}, {State.CLOSED: "_", State.HALF_OPEN: "-", State.OPEN: "#"}, "_.:-=+*#")


def has_all(characters: str, encoding: str) -> bool:
    """Whether an encoding of a terminal has every one of them; one that nobody knows has none."""
    try:
        characters.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class Exit(IntEnum):
    """What the process ends with; docs/cli.md has the same table, and a test holds both equal."""

    FINE = 0
    FAILURE = 1  # the API server or Redis refused, or could not be reached; `doctor` found a problem
    USAGE = 2  # the command line, or a file that it names, cannot be understood
    DECLINED = 3  # nobody said yes, or there was no terminal to ask at
    NO_EFFECT = 4  # nothing was written, since it would have no effect now
    NOT_YET = 5  # it was written, and was not in force in time
    UNEXPECTED = 6  # `simulate`: it came otherwise than --expect says
    INTERRUPTED = 130  # Ctrl-C, as shells have it: 128 and the number of the signal
    TERMINATED = 143  # SIGTERM


def safe(value: object, longest: int = LONGEST) -> str:
    """Text of others in one line that no terminal takes for a command: nothing but what can be printed."""
    return plain(str(value), longest)


def state_text(state: str, glyphs: Glyphs = ASCII) -> Text:
    """A state in its colour, with its mark where there are marks."""
    known = next((each for each in State if each.value == state), None)
    if known is None:
        return Text(safe(state, 32) or UNKNOWN, style="dim")
    return Text(f"{glyphs.marks.get(known, '')} {known.value}".strip(), style=STYLES[known])


def sparkline(rates: Iterable[float | None], glyphs: Glyphs = ASCII) -> str:
    """Rates in percent, one character each; a space where there is none."""
    top = len(glyphs.levels) - 1
    return "".join(" " if rate is None else glyphs.levels[min(top, max(0, round(rate / 100 * top)))] for rate in rates)


def length(ms: int) -> str:
    """A length as people say it, `1m30s`: whole seconds from one second on, days from two days on."""
    if ms >= 172_800_000:
        return f"{ms // 86_400_000}d"
    return format_duration(ms if ms < 1_000 else ms // 1_000 * 1_000)


def moment(ms: int, now_ms: int) -> str:
    """An instant with how far it is: `in 12s, at 2026-01-01T00:00:00.000Z`, or `5s ago, at ...`."""
    ahead = ms - now_ms
    how_far = f"in {length(ahead)}" if ahead > 0 else f"{length(-ahead)} ago"
    return f"{how_far}, at {times.to_text(ms)}"


def percent(rate: float | None) -> str:
    """A rate with one decimal, `50.0 %`; empty where it is unknown."""
    return "" if rate is None else f"{rate:.1f} %"
