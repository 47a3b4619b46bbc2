"""What the person at the terminal sees: numbered steps, sentences, commands and what they print."""

import os
import sys
import time
from pathlib import Path
from typing import TextIO

BOLD, DIM, RESET = "\033[1m", "\033[2m", "\033[0m"


class Screen:
    """Plain text, with a little weight on a terminal (not when NO_COLOR is set)."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.colour = self.stream.isatty() and "NO_COLOR" not in os.environ
        self.began = time.monotonic()

    def step(self, number: int, title: str) -> None:
        self._print(f"\n{self._weight(BOLD, f'{number}. {title}')}")

    def say(self, text: str) -> None:
        self._print(f"   {text}".rstrip())

    def command(self, line: str) -> None:
        self._print(f"   {self._weight(DIM, '$')} {self._weight(BOLD, line)}")

    def output(self, text: str) -> None:
        for line in text.rstrip("\n").splitlines():
            self._print(f"   {line}".rstrip())

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self.began

    def _weight(self, code: str, text: str) -> str:
        return f"{code}{text}{RESET}" if self.colour else text

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class Follower:
    """Reads the whole lines that a growing log has gained."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.lines = path, 0, list[str]()

    def new_lines(self) -> list[str]:
        with self.path.open("rb") as log:
            log.seek(self.offset)
            data = log.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        gained = whole.decode(errors="replace").splitlines()
        self.lines += gained
        return gained
