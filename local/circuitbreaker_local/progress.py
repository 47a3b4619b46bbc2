"""What a person reads while something takes long.

On a terminal the line of a running step is rewritten in place every second. Anywhere else (a CI log, a pipe) a step
prints when it begins, then every half minute, so that a log says it is alive without drowning in it.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

TERMINAL_SECONDS = 1.0
LOG_SECONDS = 30.0


def duration(seconds: float) -> str:
    """Seconds as `8s` or `1m20s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


class Step:
    """A running step: whoever waits for its end calls `tick` as often as they like."""

    def __init__(self, text: str, stream: TextIO) -> None:
        self._text = text
        self._stream = stream
        self._terminal = stream.isatty()
        self._began = self._shown = time.monotonic()
        self._write(" ...")

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._shown >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._write(f" ... {duration(now - self._began)}")

    def say(self, line: str) -> None:
        """A line of its own."""
        self._stream.write(f"\n{line}\n" if self._terminal else f"{line}\n")
        self._stream.flush()

    def end(self, word: str) -> None:
        self._write(f" ... {word} after {duration(time.monotonic() - self._began)}")
        if self._terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _write(self, rest: str) -> None:
        # A line wider than the terminal would wrap, and each rewriting begin a new one.
        room = max(shutil.get_terminal_size().columns - 1 - len(rest), 0) if self._terminal else None
        line = self._text[:room] + rest
        # "erase to the end of the line" comes last: a shorter line must not leave the tail of a longer one
        self._stream.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
        self._stream.flush()


class Report:
    """Where progress goes: standard error unless told otherwise, read anew each time, so pytest may replace it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    @property
    def stream(self) -> TextIO:
        return self._stream or sys.stderr

    def say(self, line: str) -> None:
        print(line, file=self.stream, flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        step = Step(text, self.stream)
        try:
            yield step
        except KeyboardInterrupt:
            step.end("interrupted")
            raise
        except BaseException:
            step.end("failed")
            raise
        step.end("done")
