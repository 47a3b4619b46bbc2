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

from circuitbreaker_cli.errors import CommandError
from circuitbreaker_cli.words import Exit, safe

_WIDTH_WITHOUT_A_TERMINAL: Final = 10_000  # nothing is cut or wrapped for a program that reads


def now_ms() -> int:
    """This machine's clock; whatever decides is told it."""
    return time.time_ns() // 1_000_000


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    at_terminal = stream.isatty()
    plain = not at_terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    # None of rich's readings of text: what is printed was written by others.
    options: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
    if not at_terminal:
        options["width"] = _WIDTH_WITHOUT_A_TERMINAL
    if plain:
        options |= {"no_color": True, "color_system": None, "force_terminal": at_terminal}
    return Console(file=stream, **options)


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
