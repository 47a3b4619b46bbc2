"""What ends a command: Ctrl-C, `kill`, and the end of its terminal all deserve the same order."""

import signal
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGHUP)


def listen() -> None:
    """SIGTERM and SIGHUP raise KeyboardInterrupt, once; below `nohup` a SIGHUP stays ignored."""
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in NUMBERS:  # shell, kernel and uv may all pass one on: the second must not cut the clearing away short
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
