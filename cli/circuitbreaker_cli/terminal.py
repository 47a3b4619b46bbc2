"""The terminal: colours where they are welcome, questions where somebody can answer.

Colours: not without a terminal, not with NO_COLOR (https://no-color.org), not with TERM=dumb. A question: only where
standard input and standard error are terminals both; elsewhere the command refuses and says which flag answers it.
"""

import os
import sys
import time
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.text import Text

from circuitbreaker_cli.errors import CommandError, Exit
from circuitbreaker_cli.marks import ASCII, FULL, Glyphs, has_all
from circuitbreaker_cli.words import safe

WIDEST: Final = 10_000  # nothing is cut: a program reads all of it, a terminal wraps what is too long


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """`| head` has seen enough, which is no failure; what is still to be written goes nowhere."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise SystemExit(Exit.FINE)


def now_ms() -> int:
    """This machine's clock; whatever decides is told it."""
    return time.time_ns() // 1_000_000


def console(*, stderr: bool = False, whole_lines: bool = True) -> Console:
    """`whole_lines`: nothing is cut; otherwise all is drawn to the size of the terminal."""
    stream = sys.stderr if stderr else sys.stdout
    at_terminal = stream.isatty()
    plain = not at_terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    # None of rich's readings of text: what is printed was written by others.
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": whole_lines}
    if whole_lines or not at_terminal:
        options |= {"width": WIDEST, "height": 25}  # both, or rich takes 80 for the width where TERM is dumb
    if plain:
        options |= {"no_color": True, "color_system": None, "force_terminal": at_terminal}
    return _Console(file=stream, **options)


def is_live() -> bool:
    """Whether standard output is a terminal on which what was written can be written over."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def glyphs(*, stderr: bool = False) -> Glyphs:
    """Marks and blocks are for terminals whose encoding has them; programs that read get words and ASCII."""
    stream = sys.stderr if stderr else sys.stdout
    characters = "".join([*FULL.marks.values(), *FULL.heights.values(), FULL.levels])
    return FULL if stream.isatty() and has_all(characters, stream.encoding) else ASCII


def show(*parts: RenderableType) -> None:
    """Prints to standard output."""
    out = console()
    for each in parts:
        out.print(each)


def say(*lines: str) -> None:
    """Prints to standard error: what is not the result."""
    err = console(stderr=True)
    for line in lines:
        err.print(Text(line))


def complain(error: CommandError) -> None:
    err = console(stderr=True)
    first, *rest = str(error).splitlines() or [""]
    err.print(Text.assemble(("error: ", "bold"), safe(first, 4_096)))
    for line in rest:
        err.print(Text(f"  {safe(line, 4_096)}"))


def confirm(question: str, *, yes: bool) -> None:
    """Returns when somebody says yes; raises CommandError otherwise."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError("there is no terminal to ask at; say --yes to do it without a question", Exit.DECLINED)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was changed", Exit.DECLINED)


def wait_until(holds: Any, seconds: float, pause_seconds: float = 0.3) -> bool:
    """Whether it came to hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_seconds)
    return True


def lines(texts: Iterable[str], indent: str = "") -> Text:
    return Text("\n".join(f"{indent}{each}" for each in texts))
