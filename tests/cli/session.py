"""A command that goes on, at a terminal of its own: what is typed there reaches it as from a keyboard, Ctrl-C too."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from tests.cli.shell import Shell

CTRL_C = "\x03"
_SECONDS = 30.0
# What a login shell is to a command: it leads the terminal's session, and is there after the command has ended, since
# a terminal whose leader ends is hung up. Says the command's pid and exit code; ends when we close the other pipe.
_LEADER = """
import fcntl, os, signal, subprocess, sys, termios
told, held = int(sys.argv[1]), int(sys.argv[2])
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, lambda *_: None)
command = subprocess.Popen(sys.argv[3:])
os.write(told, b"%d\\n" % command.pid)
code = command.wait()
os.write(told, b"%d\\n" % code)
os.read(held, 1)
"""


class Session:
    """`kubectl-breaker` in the foreground of a pseudo-terminal."""

    def __init__(self, shell: Shell, arguments: tuple[str, ...], columns: int, rows: int) -> None:
        self._inner, self._outer = pty.openpty()
        fcntl.ioctl(self._outer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = self.settings()
        self.seen = ""
        self._told, theirs = os.pipe()
        held, self._held = os.pipe()
        self._leader = subprocess.Popen(
            [sys.executable, "-c", _LEADER, str(theirs), str(held), *shell.command(*arguments)],
            env=shell.variables(),
            stdin=self._outer,
            stdout=self._outer,
            stderr=self._outer,
            pass_fds=[theirs, held],
            start_new_session=True,
        )
        os.close(theirs)
        os.close(held)
        self.process = psutil.Process(self._number())

    def settings(self) -> list[Any]:
        """Of the terminal: echo, lines, signals."""
        return termios.tcgetattr(self._outer)

    def until(self, pattern: str) -> str:
        """Waits until this regular expression is on the screen; forgets what stood before its end."""
        deadline = time.monotonic() + _SECONDS
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < deadline, (pattern, self.seen)
            self._read(0.5)
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def type(self, keys: str) -> None:
        os.write(self._inner, keys.encode())

    def kubectl(self) -> psutil.Process:
        """The kubectl that it runs now and that watches."""
        deadline = time.monotonic() + _SECONDS
        while not (found := kubectls(self.process.pid)):
            assert time.monotonic() < deadline, "no child"
            time.sleep(0.02)
        return found[0]

    def end(self) -> int:
        """The exit code; reads on meanwhile, so that nothing waits for room."""
        deadline = time.monotonic() + _SECONDS
        while not select.select([self._told], [], [], 0.0)[0]:
            assert time.monotonic() < deadline, self.seen
            self._read(0.1)
        code = self._number()
        while self._read(0.0):
            pass
        return code

    def close(self) -> None:
        for each in self.process.children(recursive=True) if self.process.is_running() else []:
            each.kill()
        if self.process.is_running():
            self.process.send_signal(signal.SIGKILL)
        os.close(self._held)
        self._leader.wait(10)
        for each in (self._inner, self._outer, self._told):
            os.close(each)

    def _number(self) -> int:
        text = b""
        while not text.endswith(b"\n"):
            some = os.read(self._told, 1)
            assert some, "the terminal's leader has ended"
            text += some
        return int(text)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._inner], [], [], seconds)[0]:
            return False
        self.seen += os.read(self._inner, 65_536).decode(errors="replace")
        return True


@contextmanager
def at_terminal(shell: Shell, *arguments: str, columns: int = 200, rows: int = 30) -> Iterator[Session]:
    session = Session(shell, arguments, columns, rows)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def piped(shell: Shell, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Without a terminal; its output can be read while it runs."""
    process = subprocess.Popen(
        shell.command(*arguments),
        env=shell.variables(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(stream: Any) -> str:
    """The next line, which has not been read ahead of."""
    assert select.select([stream], [], [], _SECONDS)[0], "no line came"
    return str(stream.readline())


def kubectls(pid: int) -> list[psutil.Process]:
    """Those that it runs and that watch."""
    return [each for each in psutil.Process(pid).children() if "--watch" in each.cmdline()]
