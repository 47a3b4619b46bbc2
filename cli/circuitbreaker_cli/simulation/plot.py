"""A run of a simulation as a picture in characters: a column a slot, what became of calls, the state beneath. Pure.

Our own, since a stack of four kinds is forty lines, and a plotting library knows neither our colours nor a terminal
without Unicode. Every kind has a character of its own besides its colour, as in the bar of `describe`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from circuitbreaker_cli.marks import MARKS, STYLES, has_all
from circuitbreaker_cli.simulation.runs import Run, Tally
from circuitbreaker_cli.words import length
from circuitbreaker_contract.state import State

HEIGHT: Final = 10
_EVERY: Final = 10  # slots between two words of the axis
_REFUSED: Final = "dim"


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a terminal can show. Marks of states are those of docs/vocabulary.md where it can."""

    failed: str
    slow: str
    succeeded: str
    refused: str
    side: str
    corner: str
    line: str
    marks: dict[State, str]


UNICODE: Final = Glyphs(*("█", "▓", "▒", "·", "│", "└", "─"), MARKS)
ASCII: Final = Glyphs(*("#", "~", "=", ".", "|", "+", "-"), {State.CLOSED: "c", State.HALF_OPEN: "h", State.OPEN: "O"})


def glyphs_for(encoding: str) -> Glyphs:
    """The best that an encoding of a terminal has."""
    characters = (*(getattr(UNICODE, each) for each in UNICODE.__slots__[:-1]), *UNICODE.marks.values())
    return UNICODE if has_all("".join(characters), encoding) else ASCII


def plot(run: Run, glyphs: Glyphs, height: int = HEIGHT) -> Text:
    """The picture with its axes and its key."""
    highest = max((slot.calls for slot in run.slots), default=0)
    columns = [list(_column(slot, max(1, highest), height, glyphs)) for slot in run.slots]
    margin = max(len(str(highest)), len("state"))
    text = Text(f"calls in {length(run.slot_ms)}\n")
    for row in reversed(range(height)):
        text.append(f"{highest if row == height - 1 else '':>{margin}} {glyphs.side}")
        for column in columns:
            text.append(*(column[row] if row < len(column) else (" ", "")))
        text.append("\n")
    text.append(f"{0:>{margin}} {glyphs.corner}{glyphs.line * len(columns)}\n{'state':>{margin}}  ")
    for state in run.states:
        text.append(glyphs.marks[state], STYLES[state])
    text.append("\n" + " " * (margin + 2) + _axis(run).rstrip() + "\n")
    text.append(" " * (margin + 2)).append(_key(glyphs))
    return text


def _column(slot: Tally, highest: int, height: int, glyphs: Glyphs) -> Iterator[tuple[str, str]]:
    """Its cells from the ground up, each with its style."""
    kinds = (
        (slot.failures, glyphs.failed, STYLES[State.OPEN]),
        (slot.slow, glyphs.slow, STYLES[State.HALF_OPEN]),
        (slot.successes + slot.ignored, glyphs.succeeded, STYLES[State.CLOSED]),
        (slot.refused, glyphs.refused, _REFUSED),
    )
    cells = [0 if not count else max(1, round(height * count / highest)) for count, _, _ in kinds]
    while sum(cells) > height:  # rounded up too often: the largest has most to give
        cells[cells.index(max(cells))] -= 1
    for number, (_, glyph, style) in zip(cells, kinds, strict=True):
        yield from [(glyph, style)] * number


def _axis(run: Run) -> str:
    """How long after the beginning, under every tenth slot."""
    words = (length(run.slot_ms * slot) for slot in range(0, len(run.slots), _EVERY))
    return "".join(f"{word[: _EVERY - 1]:<{_EVERY}}" for word in words)


def _key(glyphs: Glyphs) -> Text:
    text = Text()
    for glyph, style, word in (
        (glyphs.failed, STYLES[State.OPEN], "failed"),
        (glyphs.slow, STYLES[State.HALF_OPEN], "slow"),
        (glyphs.succeeded, STYLES[State.CLOSED], "other"),
        (glyphs.refused, _REFUSED, "refused"),
        *((glyphs.marks[state], STYLES[state], state.value) for state in State),
    ):
        text.append(glyph, style).append(f" {word}  ")
    text.rstrip()
    return text
