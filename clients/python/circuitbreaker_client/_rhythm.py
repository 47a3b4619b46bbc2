"""When the background thread looks at which breakers. Pure: it is told the time, in seconds of any monotonic clock.

A breaker that is used is looked at each flush interval, and dozes when nobody has called it for a second: the next
call rouses it. What dozes is looked at in rounds, much more seldom: a process with a thousand breakers pays for those
in use.
"""

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from circuitbreaker_client._core import Core

DOZE_AFTER_SECONDS: Final = 1.0
ROUND_SECONDS: Final = 0.5  # the outcome of a call that began before its breaker dozed is reported that late at most


class Rhythm:
    """`rouse` may be called by any thread; the rest belongs to the background thread."""

    def __init__(self, flush_interval_seconds: float, max_staleness_seconds: float) -> None:
        self._flush_seconds = flush_interval_seconds
        self._round_seconds = min(ROUND_SECONDS, max_staleness_seconds / 10)
        self._awake: set[Core] = set()
        self._next_look = inf
        self._next_round = 0.0

    def rouse(self, core: "Core", now: float) -> bool:
        """Has it looked at from now on; whether the thread sleeps too long for that."""
        if core in self._awake:
            return False
        self._awake.add(core)
        if now + self._flush_seconds >= self._next_look:
            return False
        self._next_look = now + self._flush_seconds
        return True

    def seconds_to_sleep(self, now: float) -> float:
        return max(0.0, min(self._next_look, self._next_round) - now)

    def is_round(self, now: float) -> bool:
        """Whether all of them are to be looked at now."""
        if now < self._next_round:
            return False
        self._next_round = now + self._round_seconds
        return True

    def due(self, now: float) -> Iterable["Core"]:
        """Those in use, if it is time for them."""
        if now < self._next_look:
            return ()
        self._next_look = inf  # before the look at who is awake: whoever is roused from here on sets it anew
        if self._awake:
            self._next_look = now + self._flush_seconds
        return [*self._awake]

    def quieten(self, cores: Iterable["Core"], now: float) -> None:
        """Has those of them doze that nobody has used lately."""
        for core in cores:
            if now - core.used_at > DOZE_AFTER_SECONDS and core in self._awake:
                self._awake.discard(core)  # first: a call that comes now rouses it again
                core.doze()
