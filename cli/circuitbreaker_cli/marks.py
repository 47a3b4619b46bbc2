"""How states look: marks, colours, heights of a strip. Pure.

Marks and colours are those of docs/vocabulary.md, which a test holds to it: blue against orange, which every kind of
colour blindness keeps apart, in shades that are dark enough for a white ground and light enough for a black one; Open
is bold besides, and the word is always there, so no colour says anything alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from circuitbreaker_cli.words import UNKNOWN, safe
from circuitbreaker_contract.state import State

STYLES: Final = {State.CLOSED: "#2a8fd0", State.HALF_OPEN: "#b87f00", State.OPEN: "bold #d55e00"}
MARKS: Final = {State.CLOSED: "●", State.HALF_OPEN: "◐", State.OPEN: "○"}
WORST_FIRST: Final = (State.OPEN, State.HALF_OPEN, State.CLOSED)


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
