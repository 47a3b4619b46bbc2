"""What keeps a process that was paused from working on after its lease is over.

A renewal is good until the renew deadline after the moment *before* it was sent, by a clock that runs on while the
process is stopped and the machine sleeps. That is looked at each time the event loop wakes, before any callback runs,
so also in the middle of a library's retry; and once more before each request, for what was ready already.
"""

import selectors
import sys
import time
from collections.abc import Callable

from circuitbreaker_operator.errors import LeaseLostError

OVER = "the lease was not renewed in time, and somebody else may have it"


def now() -> float:
    """Seconds. Linux' monotonic clock stands still while the machine sleeps, and the lease runs out meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def _raise() -> None:
    raise LeaseLostError(OVER)


class Fence:
    """Open until `until`; None: nothing to lose. Then `expired` is called, which does not return."""

    def __init__(self, expired: Callable[[], None] = _raise, clock: Callable[[], float] = now) -> None:
        self._expired = expired
        self._clock = clock
        self.until: float | None = None

    def check(self) -> None:
        if self.until is not None and self._clock() >= self.until:
            self._expired()


class FencedSelector(selectors.DefaultSelector):
    """For an event loop: nothing runs in it once the fence is closed."""

    def __init__(self, fence: Fence) -> None:
        super().__init__()
        self._fence = fence

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout)
        self._fence.check()
        return ready
